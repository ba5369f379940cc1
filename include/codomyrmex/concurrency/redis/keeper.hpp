// SPDX-License-Identifier: MIT
//
// The one background thread of a client. It renews the leases that are due, all in one write; finds
// out what was lost and tells; listens for grants; repeats releases that were not answered; and
// reads replies that nobody waits for. It sleeps until the next of these is due; a client that
// holds nothing and waits for nothing costs nothing.
//
// The thread and all that it works on live in a state of their own, for a hook may drop the last
// reference to the client: the keeper is then destroyed on its own thread, which cannot wait for
// itself.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/fork_mark.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/wake_file.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/release_batches.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/server_clock.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>
#include <codomyrmex/concurrency/redis/subscriber.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <poll.h>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What the keeper's thread and the client share.
/// Threads: safe, but for run(), which is the thread, and what is marked as its.
class KeeperState : public std::enable_shared_from_this<KeeperState> {
  public:
    KeeperState(const Endpoint& to, const ClientOptions& with, ProcessName self,
                std::shared_ptr<Events> tell)
        : endpoint{to},
          options{with},
          name{std::move(self)},
          events{std::move(tell)},
          pipeline{endpoint, options, [this](std::chrono::nanoseconds within) { attend(within); }} {
    }

    const Endpoint endpoint;
    const ClientOptions options;
    const ProcessName name;
    const std::shared_ptr<Events> events;
    const std::shared_ptr<const detail::ForkMark> mark = std::make_shared<detail::ForkMark>();
    ServerClock clock;
    LocalQueues queues;
    ReleaseBatches batches;
    Pipeline pipeline;

    // --- Leases.

    /// Why a lease is lost of which the server says so.
    static constexpr const char* not_ours = "the server no longer has it under this token";

    /// Renews `tenure`, granted at `since`, until unwatch().
    void watch(std::shared_ptr<Tenure> tenure, BootTime since) {
        const BootTime due = tenure->renewal_due(since);
        add({std::move(tenure), Duty::renew, {}, false}, due);
    }

    /// No renewal of `tenure` begins after this; one under way can no longer do harm.
    void unwatch(const Tenure& tenure) noexcept {
        const std::lock_guard guard{mutex_};
        schedule_.remove(tenure);
        if (!tenure.waiter().empty()) mailbox_.forget(tenure.token());
    }

    /// Gives `tenure` back without waiting for the answer. `hold`: of whom a loss is told that the
    /// answer shows, or null.
    void release(const std::shared_ptr<Tenure>& tenure, std::shared_ptr<Hold> hold) {
        unwatch(*tenure);
        const bool plain = tenure->identity().kind == PrimitiveKind::lock && !tenure->doubtful() &&
                           tenure->waiter().empty();
        if (!plain || !batches.collect({tenure, hold})) release_now({tenure, std::move(hold)});
    }

    /// Gives several locks back, as release() does each, in as few requests as will do.
    void release_all(std::vector<GivenUp> all) noexcept {
        while (!all.empty()) {
            const std::size_t rest = all.size() - std::min(all.size(), most_together);
            const auto from = all.begin() + static_cast<std::ptrdiff_t>(rest);
            try {
                release_together({from, all.end()});
            } catch (const std::exception&) {
                // Out of memory: nobody renews them any more, so they run out.
            }
            all.erase(from, all.end());
        }
    }

    /// Ends an acquire whose lock was not obtained here, or not in time.
    void give_up(const std::shared_ptr<Tenure>& tenure) noexcept {
        try {
            if (tenure->doubtful()) {
                unwatch(*tenure);
                cancel_later(tenure);
            } else {
                release(tenure, nullptr);
            }
        } catch (const std::exception&) {
            // Out of memory: it ends with its time to live, and a waiter when it is not heard.
        }
    }

    /// The same for an acquire that may be executed later: it is repeated, though the answer be
    /// that there was nothing to release, until it hits or the key would be gone by itself.
    void cancel_later(std::shared_ptr<Tenure> tenure) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now) + options.response_timeout;
        add({std::move(tenure), Duty::release, gone, true}, now);
    }
    void release_later(std::shared_ptr<Tenure> tenure) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now);
        add({std::move(tenure), Duty::release, gone, false}, now);
    }

    /// Tells that `tenure` is lost, and gives who waits here for it another chance.
    void lose(const std::shared_ptr<Tenure>& tenure, const char* reason) {
        tenure->close();
        const std::shared_ptr<Hold> user = tenure->user();
        if (!user) unwatch(*tenure);
        queues.lost(tenure);
        if (user && user->lose()) events->lost({user->name(), user->fence(), reason});
    }

    /// Looks at the line `key` at `when`: what it retains is then given back.
    void look_at(std::string key, BootTime when) {
        const std::lock_guard guard{mutex_};
        timers_.emplace(when, std::move(key));
        start();
        wake_if_later(when);
    }

    // --- Waiting for grants.

    /// Whether grants are heard here; subscribes first if that was not done yet.
    /// Returns: false if it cannot be done, or not by `deadline`.
    [[nodiscard]] bool listen(Deadline deadline) {
        std::unique_lock guard{mutex_};
        if (subscriber_state_ == Subscriber::State::open) return true;
        if (subscriber_state_ == Subscriber::State::forbidden) return false;
        const std::uint64_t attempts = subscriptions_;
        ++listeners_;
        start();
        wake();
        const Deadline limit = std::min(deadline, Deadline::after(options.connect_timeout));
        listened_.wait_until(guard, limit.time(), [&] { return subscriptions_ != attempts; });
        --listeners_;
        return subscriber_state_ == Subscriber::State::open;
    }
    [[nodiscard]] bool listens() const {
        const std::lock_guard guard{mutex_};
        return subscriber_state_ == Subscriber::State::open;
    }

    void wait_for_grant(const std::string& token, GrantWaiter& waiter) {
        const std::lock_guard guard{mutex_};
        mailbox_.wait(token, waiter);
        // Silence is looked into as long as somebody waits.
        if (!std::exchange(looks_, true)) wake();
    }
    void settle(const std::string& token) {
        const std::lock_guard guard{mutex_};
        mailbox_.settle(token);
    }

    /// A grant that was delivered since the last call.
    [[nodiscard]] std::optional<DeliveredGrant> take_grant(GrantWaiter& waiter) {
        const std::lock_guard guard{mutex_};
        waiter.state.set(GrantWaiter::waiting);
        return std::exchange(waiter.grant, std::nullopt);
    }

    // --- Scripts.

    /// The first call on a connection brings the body along. Should the server forget it later, it
    /// says so, and the call is repeated with it.
    [[nodiscard]] Call how_to_call(const Script& script) noexcept {
        const std::uint64_t connection = pipeline.connections();
        std::atomic<std::uint64_t>& loaded = loaded_[static_cast<std::size_t>(script.id)];
        // Before the first connection: this call makes it.
        const bool known = loaded.exchange(std::max<std::uint64_t>(connection, 1)) == connection &&
                           connection != 0;
        return known ? Call::digest : Call::body;
    }

    /// The server said that it does not know it.
    void forget(const Script& script) noexcept {
        loaded_[static_cast<std::size_t>(script.id)].store(0);
    }

    [[nodiscard]] RequestNumber next_number() noexcept {
        return RequestNumber{numbers_.fetch_add(1, std::memory_order_relaxed)};
    }

    // --- Counts.

    [[nodiscard]] std::size_t watched() const {
        const std::lock_guard guard{mutex_};
        return schedule_.count(Duty::renew);
    }
    [[nodiscard]] std::size_t releasing() const {
        const std::lock_guard guard{mutex_};
        return schedule_.count(Duty::release) + releasing_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t renewals() const noexcept { return renewals_.load(); }
    [[nodiscard]] std::uint64_t connections() const noexcept { return connections_.load(); }

    // --- The thread.

    /// Ends it, after it has waited for the releases under way, 120 ms at most; on the thread
    /// itself, does not wait for it.
    void stop() {
        {
            const std::lock_guard guard{mutex_};
            stopping_ = true;
            wake();
        }
        if (!thread_.joinable()) return pipeline.drain(Deadline::after(last_words));
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

    /// In the child of a fork: closes the parent's files there. Nothing else may be called.
    void close_in_child() const noexcept {
        pipeline.close_in_child();
        if (const int file = subscriber_.descriptor(); file >= 0) ::close(file);
        wake_file_.close_in_child();
    }

  private:
    static constexpr std::chrono::milliseconds last_words{120};
    // A script that takes long holds up everybody.
    static constexpr std::size_t most_together = 200;

    // To tasks that went in one request: one, or several locks' renewals.
    struct Answer {
        std::vector<Task> tasks{};
        RequestNumber number{0};
        Exchange exchange{};
    };

    static constexpr const char* ran_out = "it ran out before a renewal was confirmed";
    static constexpr const char* taken_away = "it was revoked: somebody released it by force";

    void run() {
        std::unique_lock guard{mutex_};
        while (!stopping_) {
            const BootTime now = detail::BootClock::now();
            if (!work(guard, now)) sleep(guard);
        }
        const std::vector<Task> last = schedule_.take_releases();
        guard.unlock();
        try {
            const Deadline limit = Deadline::after(last_words);
            give_up_all();
            for (const Task& task : last)
                send({task}, Call::body);
            pipeline.drain(limit);
            // What was answered with an error.
            guard.lock();
            const std::vector<Task> again = schedule_.take_releases();
            guard.unlock();
            for (const Task& task : again)
                send({task}, Call::body);
            pipeline.drain(limit);
        } catch (const std::exception&) {
            // Nobody is left to tell; the leases run out.
        }
        subscriber_.close("");
    }

    // Does what is due. Returns: false if nothing was.
    bool work(std::unique_lock<std::mutex>& guard, BootTime now) {
        std::vector<Answer> answers = std::exchange(answers_, {});
        const std::vector<LostLease> losses = std::exchange(losses_, {});
        Schedule::Due due = schedule_.take_due(now);
        std::vector<std::string> lines;
        while (!timers_.empty() && timers_.begin()->first <= now) {
            lines.push_back(std::move(timers_.begin()->second));
            timers_.erase(timers_.begin());
        }
        const bool pump = pump_at_.expired();
        const bool subscribe = wants_subscription() && subscribe_at_.expired();
        const bool unheard = std::exchange(unheard_, false);
        if (answers.empty() && losses.empty() && due.empty() && lines.empty() && !pump &&
            !subscribe && !unheard) {
            return false;
        }
        if (pump) pump_at_ = Deadline::never();
        guard.unlock();
        try {
            bool again = false;
            std::array<bool, script_count> reloaded{};
            for (Answer& answer : answers)
                again = settle(answer, reloaded) || again;
            for (const LostLease& loss : losses)
                events->lost(loss);
            for (const Task& task : due.lost)
                lose(task.tenure, ran_out);
            // Nobody can tell us any more that a lock is wanted.
            if (unheard) give_up_all();
            const bool sends = !due.work.empty();
            for (std::vector<Task>& tasks : in_requests(std::move(due.work), together_))
                send(std::move(tasks));
            for (const std::string& key : lines)
                time_out(key, now);
            if (pump || again || sends) attend_pipeline();
            if (subscribe) this->subscribe();
        } catch (const std::exception& error) {
            // Out of memory, most likely. Nothing is forgotten: all of it becomes due again.
            events->error(LockErrc::backend_unavailable, error.what());
        }
        // Destroying these may destroy the last handle, so not under the mutex.
        answers.clear();
        due = {};
        guard.lock();
        return true;
    }

    void sleep(std::unique_lock<std::mutex>& guard) {
        // A bound far away, for conversions of the standard library may overflow.
        const BootTime now = detail::BootClock::now();
        BootTime until = std::min(schedule_.next_due(), now + std::chrono::hours{24});
        if (!timers_.empty()) until = std::min(until, timers_.begin()->first);
        // What this thread was woken for may be over already, and the next of its kind is due
        // later: to sleep no longer than that saves being woken for each of many brief leases.
        if (expected_ > now) until = std::min(until, expected_);
        Deadline limit = std::min(Deadline::after(until - now), pump_at_);
        if (wants_subscription()) limit = std::min(limit, subscribe_at_);
        const bool open = subscriber_.state() == Subscriber::State::open;
        const bool heeded = mailbox_.waiting() != 0 || !timers_.empty();
        // Who waits again soon finds the thread still on the watch, and need not wake it.
        looks_ = open && (heeded || (looks_ && !subscriber_.silent()));
        if (looks_) {
            const Deadline look =
                heeded ? subscriber_.look_after(options.response_timeout) : subscriber_.silent_at();
            if (subscriber_.state() != Subscriber::State::open) return unsubscribed();
            limit = std::min(limit, look);
        }
        asleep_until_ = until;
        asleep_ = true;
        guard.unlock();
        std::array<pollfd, 3> files{{{wake_file_.descriptor(), POLLIN, 0},
                                     {open ? subscriber_.descriptor() : -1, POLLIN, 0},
                                     {owed_ != 0 ? pipeline.awaited_file() : -1, POLLIN, 0}}};
        // Another thread may read them, or close the file.
        if (owed_ != 0) limit = std::min(limit, Deadline::after(look_again));
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit.remaining()).count();
        ::poll(files.data(), files.size(),
               static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000)));
        if (files[0].revents != 0) wake_file_.drain();
        try {
            if (files[1].revents != 0) receive();
            if (files[2].revents != 0) attend_pipeline();
        } catch (const std::exception& error) {
            events->error(LockErrc::backend_unavailable, error.what());
        }
        guard.lock();
        asleep_ = false;
        if (open && subscriber_.state() != Subscriber::State::open) unsubscribed();
    }

    // Requires for these: the mutex is held.

    void add(Task task, BootTime due) {
        const std::lock_guard guard{mutex_};
        start();
        schedule_.add(std::move(task), due);
        wake_if_later(due);
    }

    void start() {
        if (thread_.joinable() || stopping_) return;
        const detail::SignalsBlocked blocked;
        thread_ = std::thread{[state = shared_from_this()] { state->run(); }};
    }

    void wake() noexcept {
        if (std::exchange(asleep_, false)) wake_file_.signal();
    }
    void wake_if_later(BootTime due) noexcept {
        if (due >= asleep_until_) return;
        expected_ = due;
        wake();
    }

    [[nodiscard]] bool wants_subscription() const noexcept {
        return subscriber_state_ == Subscriber::State::closed &&
               (listeners_ != 0 || mailbox_.waiting() != 0 || !timers_.empty());
    }

    void unsubscribed() {
        subscriber_state_ = subscriber_.state();
        subscribe_at_ = Deadline::after(subscribe_pause_.next());
        unheard_ = true;
    }

    // Without it for all below.

    // The pipeline wants to be looked after.
    void attend(std::chrono::nanoseconds within) {
        const std::lock_guard guard{mutex_};
        const Deadline when = Deadline::after(within);
        if (when < pump_at_) pump_at_ = when;
        try {
            start();
        } catch (const std::exception&) {
            // Then the next thread that drives reads the replies.
            return;
        }
        wake();
    }

    void attend_pipeline() {
        const auto again =
            pipeline.pump(Deadline::after(options.connect_timeout), [this] { return tick(false); });
        if (!again) return;
        const std::lock_guard guard{mutex_};
        pump_at_ = std::min(pump_at_, Deadline::after(*again));
    }

    // While something connects, leases go on running out. Returns: false to stop connecting, to
    // tell of them; and where `others_first`, when any are due, for these shall not be lost behind
    // a connection that they do not need.
    [[nodiscard]] bool tick(bool others_first) {
        const std::lock_guard guard{mutex_};
        const BootTime now = detail::BootClock::now();
        if (stopping_ || schedule_.has_lost(now)) return false;
        return !others_first || schedule_.next_due() > now;
    }

    [[nodiscard]] static const Script& script_of(const std::vector<Task>& tasks) noexcept {
        if (tasks.size() > 1) return renew_all_script;
        const Scripts scripts = scripts_of(tasks.front().tenure->identity().kind);
        return tasks.front().duty == Duty::renew ? scripts.renew : scripts.release;
    }

    void send(std::vector<Task> tasks) {
        const Call call = how_to_call(script_of(tasks));
        send(std::move(tasks), call);
    }

    void send(std::vector<Task> tasks, Call call) {
        const BootTime now = detail::BootClock::now();
        const RequestNumber number = next_number();
        const Tenure& first = *tasks.front().tenure;
        std::string bytes;
        Deadline deadline = Deadline::never();
        if (tasks.front().duty == Duty::renew) {
            // A renewal that comes after the end would only keep others waiting.
            BootTime end = first.deadline();
            for (const Task& task : tasks) {
                // But for one that was given back meanwhile.
                const BootTime its = task.tenure->deadline();
                if (end <= now || (its > now && its < end)) end = its;
            }
            bytes = tasks.size() == 1
                        ? renew_command(call, first, clock.at(end), number)
                        : renew_all_command(call, tenures_of(tasks), clock.at(end), number);
            deadline = Deadline::after(end - now);
        } else {
            bytes = release_command(call, first, name.prefix, number);
            deadline = Deadline::after(options.response_timeout);
        }
        owed_.fetch_add(1);
        pipeline.send(
            std::move(bytes), deadline, false,
            [this, tasks = std::move(tasks), number](Exchange& exchange) mutable {
                owed_.fetch_sub(1);
                try {
                    const std::lock_guard guard{mutex_};
                    answers_.push_back({std::move(tasks), number, std::move(exchange)});
                    wake();
                } catch (const std::exception&) {
                    // Out of memory: the tasks become due again, as without an answer.
                }
            },
            true);
    }

    // An answer to send(). `reloaded`: which scripts were sent again with their bodies.
    // Returns: whether something was sent again.
    bool settle(Answer& answer, std::array<bool, script_count>& reloaded) {
        std::vector<Task>& tasks = answer.tasks;
        Exchange& exchange = answer.exchange;
        if (exchange.outcome != Exchange::Outcome::answered) {
            again_later(tasks, exchange.error);
            return false;
        }
        if (exchange.reply.is_error()) {
            const ServerErrorKind kind = classify(exchange.reply.text).kind;
            if (kind == ServerErrorKind::load_script) {
                // The first of those that say so brings the body along, and the rest come behind
                // it.
                bool& sent = reloaded[static_cast<std::size_t>(script_of(tasks).id)];
                send(std::move(tasks), std::exchange(sent, true) ? Call::digest : Call::body);
                return true;
            }
            if (kind == ServerErrorKind::rediscover) pipeline.disconnect(exchange.connection);
            const bool passes = kind == ServerErrorKind::retry ||
                                kind == ServerErrorKind::rediscover ||
                                kind == ServerErrorKind::unknown_outcome;
            if (!passes && tasks.size() > 1) {
                // The server takes them one by one only, as where their keys may lie apart.
                together_ = 1;
                for (const Task& task : tasks)
                    send({task});
                return true;
            }
            again_later(tasks, exchange.reply.text);
            return false;
        }
        // A reply of another request: which belongs to which is anybody's guess from here on.
        if (!answer.number.take_from(exchange.reply) || !settle(tasks, exchange)) {
            pipeline.disconnect(exchange.connection);
            again_later(tasks, "the server answered with " + exchange.reply.describe());
        }
        return false;
    }

    // Returns: false for an answer that is none.
    bool settle(const std::vector<Task>& tasks, const Exchange& exchange) {
        if (tasks.front().duty == Duty::release) {
            settle_release(tasks.front(), exchange);
            return true;
        }
        std::vector<RenewAnswer> answers;
        if (tasks.size() > 1) {
            answers = read_renew_all(exchange.reply, tasks.size());
        } else if (const auto answer = read_renew(exchange.reply)) {
            answers.push_back(*answer);
        }
        if (answers.empty()) return false;
        clock.learn(answers.front().time, exchange.sent);
        for (std::size_t i = 0; i < tasks.size(); ++i)
            settle_renewal(tasks[i], answers[i].outcome, exchange.sent);
        return true;
    }

    void settle_renewal(const Task& task, RenewAnswer::Outcome outcome, BootTime sent) {
        using Outcome = RenewAnswer::Outcome;
        const BootTime now = detail::BootClock::now();
        const char* reason = not_ours;
        {
            const std::lock_guard guard{mutex_};
            if (!schedule_.contains(*task.tenure, task.duty)) return;
            if (outcome == Outcome::late) {
                // By a wrong idea of the server's clock, which is right now.
                schedule_.postpone(*task.tenure, now);
                return;
            }
            if (outcome != Outcome::lost) {
                reason = ran_out;
                if (task.tenure->renewed(sent, now)) {
                    renewals_.fetch_add(1);
                    schedule_.move(*task.tenure, task.tenure->renewal_due(sent));
                    reason = nullptr;
                }
            }
            if (reason != nullptr) schedule_.remove(*task.tenure);
        }
        if (reason != nullptr) return lose(task.tenure, reason);
        if (outcome == Outcome::wanted) give_up_retained(task.tenure->identity().lock_key);
    }

    void settle_release(const Task& task, const Exchange& exchange) {
        const std::optional<ReleaseAnswer> answer = read_release(exchange.reply);
        const std::lock_guard guard{mutex_};
        if (!schedule_.contains(*task.tenure, task.duty)) return;
        const bool ours = answer && answer->ours;
        const bool more = answer && answer->more;
        const BootTime now = detail::BootClock::now();
        if (more || !answer) {
            schedule_.postpone(*task.tenure, more ? now : now + std::chrono::seconds{1});
        } else if (ours || !task.to_the_end) {
            schedule_.remove(*task.tenure);
        } else {
            schedule_.postpone(*task.tenure, now + std::chrono::seconds{1});
        }
    }

    void again_later(const std::vector<Task>& tasks, const std::string& why) {
        bool tell = false;
        {
            const std::lock_guard guard{mutex_};
            const BootTime now = detail::BootClock::now();
            const BootTime no_sooner = now + std::chrono::milliseconds{100};
            for (const Task& task : tasks) {
                const BootTime due = task.tenure->retry_due(now);
                schedule_.postpone(*task.tenure,
                                   task.duty == Duty::renew ? due : std::max(due, no_sooner));
            }
            // Told once, not for each lease.
            tell = !stopping_ && now >= quiet_until_;
            if (tell) quiet_until_ = now + std::chrono::milliseconds{100};
        }
        if (!tell) return;
        const bool refused = classify(why).kind == ServerErrorKind::refused && !why.empty() &&
                             why.front() >= 'A' && why.front() <= 'Z';
        events->error(refused ? LockErrc::backend_refused : LockErrc::backend_unavailable,
                      endpoint.to_string() + ": " + why + "; will be tried again");
    }

    void release_now(GivenUp what) {
        // Sent again before any later request, until it is answered or the key is gone by itself.
        const BootTime now = detail::BootClock::now();
        const Tenure& tenure = *what.tenure;
        const Deadline gone = Deadline::after(tenure.key_gone_by(now) - now);
        const Script& script = scripts_of(tenure.identity().kind).release;
        const RequestNumber number = next_number();
        std::string bytes = release_command(how_to_call(script), tenure, name.prefix, number);
        send_release(
            std::move(bytes), gone, 1, [this, number, what = std::move(what)](Exchange& exchange) {
                released(what, release_answer(number, exchange, read_release), exchange.repeated);
            });
    }

    // Sends a request that gives so many back.
    void send_release(std::string bytes, Deadline gone, std::size_t count,
                      std::function<void(Exchange&)> then) {
        // Before it is sent, for the answer may be there at once.
        releasing_.fetch_add(count, std::memory_order_relaxed);
        try {
            pipeline.send(std::move(bytes), gone, true, std::move(then));
        } catch (...) {
            releasing_.fetch_sub(count, std::memory_order_relaxed);
            throw;
        }
    }

    void release_together(std::vector<GivenUp> some) {
        if (some.size() == 1) return release_now(std::move(some.front()));
        const BootTime now = detail::BootClock::now();
        BootTime gone = now;
        std::vector<std::shared_ptr<Tenure>> tenures;
        for (const GivenUp& each : some) {
            tenures.push_back(each.tenure);
            gone = std::max(gone, each.tenure->key_gone_by(now));
        }
        const RequestNumber number = next_number();
        std::string bytes =
            release_all_command(how_to_call(release_all_script), tenures, name.prefix, number);
        const std::size_t count = some.size();
        send_release(std::move(bytes), Deadline::after(gone - now), count,
                     [this, number, some = std::move(some)](Exchange& exchange) {
                         all_released(some, number, exchange);
                     });
    }

    // An answer to release_together(), on whatever thread.
    void all_released(const std::vector<GivenUp>& some, RequestNumber number,
                      Exchange& exchange) noexcept {
        if (exchange.reply.is_error()) forget(release_all_script);
        std::vector<ReleaseAnswer> answers;
        try {
            answers = release_answer(number, exchange, [&](const Reply& reply) {
                return read_release_all(reply, some.size());
            });
        } catch (const std::exception&) {
            // Out of memory: they are given back once more, one by one.
        }
        for (std::size_t i = 0; i < some.size(); ++i) {
            released(some[i], answers.empty() ? std::nullopt : std::optional{answers[i]},
                     exchange.repeated);
        }
    }

    // What `read` makes of the answer to a release, on whatever thread; or of none, what it makes
    // of another's.
    template <class Read>
    [[nodiscard]] auto release_answer(RequestNumber number, Exchange& exchange, Read read)
        -> decltype(read(exchange.reply)) {
        if (exchange.outcome != Exchange::Outcome::answered || exchange.reply.is_error()) return {};
        if (number.take_from(exchange.reply)) return read(exchange.reply);
        // Of another request: which reply belongs to which is anybody's guess from here on.
        pipeline.disconnect(exchange.connection);
        return {};
    }

    // `what` was given back, with this answer or with none, on whatever thread. `repeated`: an
    // earlier copy of the request may have been executed.
    void released(const GivenUp& what, const std::optional<ReleaseAnswer>& answer,
                  bool repeated) noexcept {
        const auto& [tenure, hold] = what;
        releasing_.fetch_sub(1, std::memory_order_relaxed);
        if (!answer || answer->more || tenure->doubtful()) return later(tenure, tenure->doubtful());
        // After a repetition it cannot be told from a release that was executed before.
        if (!answer->ours && !repeated && hold) {
            tell_later({hold->name(), hold->fence(), not_ours});
        }
    }

    // This thread may drive the pipeline, and a hook may use it.
    void tell_later(LostLease loss) noexcept {
        try {
            const std::lock_guard guard{mutex_};
            losses_.push_back(std::move(loss));
            wake();
        } catch (const std::exception&) {
            // Out of memory: it is not told.
        }
    }

    void later(const std::shared_ptr<Tenure>& tenure, bool to_the_end) noexcept {
        try {
            to_the_end ? cancel_later(tenure) : release_later(tenure);
        } catch (const std::exception&) {
            // Out of memory: the lease runs out.
        }
    }

    // --- The subscription.

    void subscribe() {
        const bool open =
            subscriber_.open(endpoint, options, name.channel, [this] { return tick(true); });
        if (subscriber_.state() == Subscriber::State::forbidden) {
            events->error(LockErrc::backend_refused,
                          endpoint.to_string() + ": " + subscriber_.error() +
                              "; waiting goes on by asking again and again");
        }
        const std::lock_guard guard{mutex_};
        ++subscriptions_;
        subscriber_state_ = subscriber_.state();
        if (open) {
            connections_.fetch_add(1);
            subscribe_pause_ = Backoff{};
            // Grants may have been missed.
            mailbox_.wake_all();
        } else {
            subscribe_at_ = Deadline::after(subscribe_pause_.next());
        }
        listened_.notify_all();
    }

    void receive() {
        const BootTime now = detail::BootClock::now();
        std::vector<std::string> wanted;
        std::vector<std::shared_ptr<Tenure>> unwanted;
        std::vector<std::shared_ptr<Tenure>> revoked;
        subscriber_.receive([&](std::string_view text) {
            const std::optional<Message> message = read_message(text);
            if (!message) return;
            if (message->verb == "wanted") {
                wanted.emplace_back(message->key);
                return;
            }
            const std::lock_guard guard{mutex_};
            if (message->verb == "revoked") {
                auto tenure = schedule_.find(message->token);
                if (!tenure || tenure->identity().lock_key != message->key) return;
                schedule_.remove(*tenure);
                revoked.push_back(std::move(tenure));
                return;
            }
            if (mailbox_.deliver(*message, now)) return;
            // Its waiter gave up; should that not have been heard, this is.
            unwanted.push_back(
                std::make_shared<Tenure>(std::make_shared<LockIdentity>(identity_of_key(
                                             name.prefix, std::string{message->key})),
                                         std::string{message->token}, mark));
        });
        for (const std::string& key : wanted)
            give_up_retained(key);
        for (const auto& tenure : unwanted)
            release(tenure, nullptr);
        for (const auto& tenure : revoked)
            lose(tenure, taken_away);
    }

    void give_up_all() {
        const Pipeline::Cork together{pipeline};
        queues.give_up_all(
            [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
    }

    void give_up_retained(const std::string& key) {
        const auto again = queues.wanted(
            key, detail::BootClock::now(),
            [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
        if (again) look_at(key, *again);
    }

    void time_out(const std::string& key, BootTime now) {
        const auto again = queues.time_out(
            key, now, [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
        if (again) look_at(key, *again);
    }

    static constexpr std::chrono::milliseconds look_again{5};

    std::array<std::atomic<std::uint64_t>, script_count> loaded_{};
    std::atomic<std::uint64_t> numbers_{1};
    std::atomic<std::uint64_t> renewals_{0};
    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::uint64_t> releasing_{0};
    std::atomic<std::size_t> owed_{0};  // answers to the keeper's own requests
    detail::WakeFile wake_file_;

    mutable std::mutex mutex_;  // guards the next
    bool stopping_ = false;
    std::thread thread_;
    Schedule schedule_;
    std::multimap<BootTime, std::string> timers_;
    std::vector<Answer> answers_;
    std::vector<LostLease> losses_;
    Mailbox mailbox_;
    std::size_t listeners_ = 0;  // threads that wait for the subscription
    bool looks_ = false;         // the thread looks into the subscription's silence
    Subscriber::State subscriber_state_ = Subscriber::State::closed;
    bool unheard_ = false;             // it was lost
    std::uint64_t subscriptions_ = 0;  // tried
    std::condition_variable listened_;
    Deadline subscribe_at_ = Deadline::after(std::chrono::nanoseconds::zero());
    Deadline pump_at_ = Deadline::never();
    bool asleep_ = false;
    BootTime asleep_until_ = BootTime::max();
    BootTime expected_{};  // when that is due for which the thread was woken last
    BootTime quiet_until_{};

    // Of the thread alone.
    std::size_t together_ = most_together;  // how many are renewed in one request
    Subscriber subscriber_;
    Backoff subscribe_pause_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
