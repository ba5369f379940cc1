// SPDX-License-Identifier: MIT
//
// Keeps leases alive. One background thread a client: it renews what is due, all in one write,
// finds out what was lost and tells, and repeats releases that were not answered. It sleeps until
// the next due time and does nothing in between; a client that holds nothing costs nothing.
//
// The thread and its data live in a state of their own, for a hook may drop the last reference to
// the client: the keeper is then destroyed on its own thread, which cannot wait for itself.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class Keeper {
  public:
    /// Starts no thread yet. The arguments are copied or shared.
    Keeper(const Endpoint& endpoint, const ClientOptions& options, std::shared_ptr<Events> events)
        : state_{std::make_shared<State>(endpoint, options, std::move(events))} {}
    Keeper(const Keeper&) = delete;
    Keeper& operator=(const Keeper&) = delete;

    /// Ends the thread, after one more try of the releases that are pending: 60 ms at most.
    ~Keeper() {
        state_->stop();
        if (!thread_.joinable()) return;
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

    /// Renews `hold`, which was granted to a request sent at `sent`, until unwatch().
    /// Throws: std::system_error if the thread cannot be started.
    void watch(std::shared_ptr<Hold> hold, BootTime sent) {
        const BootTime due = hold->renewal_due(sent);
        add({std::move(hold), Duty::renew, {}, false}, due);
    }

    /// No renewal of `hold` begins after this; one under way can no longer do harm.
    void unwatch(const Hold& hold) noexcept {
        const std::lock_guard guard{state_->mutex};
        state_->schedule.remove(hold);
    }

    /// Sends the release of `hold` until it is answered or its key is gone by itself.
    void release_later(std::shared_ptr<Hold> hold) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = hold->key_gone_by(now);
        add({std::move(hold), Duty::release, gone, false}, now);
    }

    /// The same for an acquire without an answer: it may be executed after a release that found
    /// nothing, so the release is repeated until it hits or the key would be gone by itself.
    void cancel_later(std::shared_ptr<Hold> hold) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = hold->key_gone_by(now);
        add({std::move(hold), Duty::release, gone, true}, now);
    }

    /// How many leases it renews, and how many releases it repeats.
    [[nodiscard]] std::size_t watched() const {
        const std::lock_guard guard{state_->mutex};
        return state_->schedule.count(Duty::renew);
    }
    [[nodiscard]] std::size_t releasing() const {
        const std::lock_guard guard{state_->mutex};
        return state_->schedule.count(Duty::release);
    }
    [[nodiscard]] std::uint64_t renewals() const noexcept {
        return state_->renewals.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t connections() const noexcept {
        return state_->connections.load(std::memory_order_relaxed);
    }

  private:
    // What the thread works on; its members but the counters and what run() alone uses are
    // guarded by the mutex.
    struct State {
        State(const Endpoint& to, const ClientOptions& with, std::shared_ptr<Events> tell)
            : endpoint{to}, options{with}, events{std::move(tell)} {}

        void stop() {
            const std::lock_guard guard{mutex};
            stopping = true;
            changed.notify_all();
        }

        void run() {
            std::unique_lock guard{mutex};
            while (!stopping) {
                const BootTime now = detail::BootClock::now();
                Schedule::Due due = schedule.take_due(now);
                if (due.empty()) {
                    sleep(guard, now);
                    continue;
                }
                guard.unlock();
                work_on(due, now);
                // Destroying these may destroy the last handle, so not under the mutex.
                due = {};
                guard.lock();
            }
            const std::vector<Task> last = schedule.take_releases();
            guard.unlock();
            try {
                serve(last, Deadline::after(std::chrono::milliseconds{60}), detail::NoTick{});
            } catch (const std::exception&) {
                // Nobody is left to tell; the leases run out.
            }
        }

        void work_on(Schedule::Due& due, BootTime now) noexcept {
            try {
                tell_lost(due.lost, "it ran out before a renewal was confirmed");
                // The impatient first, by themselves: they must not cut short what others need.
                const auto rest = std::ranges::partition(due.work, [&](const Task& task) {
                    return patience(task, now) < options.response_timeout / 4;
                });
                const auto tick = [this] { return this->tick(); };
                const std::vector<Task> urgent{due.work.begin(), rest.begin()};
                const std::vector<Task> others{rest.begin(), rest.end()};
                serve(urgent, io_limit(urgent, now), tick);
                serve(others, io_limit(others, now), tick);
            } catch (const std::exception&) {
                // Out of memory, most likely. Nothing is forgotten: all of it becomes due again.
                connection.close();
            }
        }

        void sleep(std::unique_lock<std::mutex>& guard, BootTime now) {
            // A bound far away, for conversions of the standard library may overflow.
            asleep_until = std::min(schedule.next_due(), now + std::chrono::hours{24});
            changed.wait_for(guard, asleep_until - now);
            asleep_until = BootTime::min();
        }

        // While waiting for the server: leases go on running out, and others become due. Returns:
        // false to stop waiting, for they shall not be lost behind an answer that does not come.
        bool tick() {
            std::vector<Task> lost;
            bool go_on = true;
            {
                const std::lock_guard guard{mutex};
                const BootTime now = detail::BootClock::now();
                lost = schedule.take_lost(now);
                go_on = !stopping && schedule.next_due() > now;
            }
            tell_lost(lost, "it ran out before a renewal was confirmed");
            return go_on;
        }

        // How long an answer may take: a lease must have time for another try.
        [[nodiscard]] std::chrono::nanoseconds patience(const Task& task, BootTime now) const {
            const std::chrono::nanoseconds left = task.hold->deadline() - now;
            if (task.duty == Duty::release || left <= left.zero()) return options.response_timeout;
            return std::min(options.response_timeout, left / 2);
        }

        [[nodiscard]] Deadline io_limit(const std::vector<Task>& work, BootTime now) const {
            std::chrono::nanoseconds limit = options.response_timeout;
            for (const Task& task : work)
                limit = std::min(limit, patience(task, now));
            return Deadline::after(
                std::max<std::chrono::nanoseconds>(limit, std::chrono::milliseconds{2}));
        }

        // Sends everything in one write, then reads the answers in order. What the script cache
        // had forgotten goes out once more with the body; what was not answered, some time later.
        template <class Tick>
        void serve(const std::vector<Task>& work, Deadline deadline, Tick tick) {
            if (work.empty()) return;
            Outcome outcome;
            exchange(work, false, deadline, tick, outcome);
            if (!outcome.without_script.empty()) {
                const std::vector<Task> again = std::exchange(outcome.without_script, {});
                exchange(again, true, deadline, tick, outcome);
            }
            const BootTime now = detail::BootClock::now();
            const std::lock_guard guard{mutex};
            for (const Task& task : outcome.unanswered) {
                schedule.postpone(*task.hold, std::max(task.hold->retry_due(now), reconnect_at));
            }
        }

        struct Outcome {
            std::vector<Task> without_script{};
            std::vector<Task> unanswered{};
        };

        // Settles what is answered; puts the rest into `outcome`.
        template <class Tick>
        void exchange(const std::vector<Task>& work, bool with_body, Deadline deadline, Tick& tick,
                      Outcome& outcome) {
            const auto give_up_from = [&](std::size_t first) {
                outcome.unanswered.insert(outcome.unanswered.end(),
                                          work.begin() + static_cast<std::ptrdiff_t>(first),
                                          work.end());
                connection.close();
            };
            if (!connect(deadline, tick)) return give_up_from(0);
            for (const Task& task : work)
                append(task, with_body);
            const BootTime sent = detail::BootClock::now();
            if (connection.flush(deadline, tick) != Io::done) {
                trouble(connection.error());
                return give_up_from(0);
            }
            std::string first_error;  // of the server
            for (std::size_t i = 0; i < work.size(); ++i) {
                Reply reply;
                const Io got = connection.receive(reply, deadline, tick);
                if (got != Io::done) {
                    const bool late = got == Io::timeout || got == Io::stopped;
                    trouble(late ? std::string{"no reply in time"} : connection.error());
                    return give_up_from(i);
                }
                if (reply.is_error()) {
                    const ServerErrorKind kind = classify(reply.text).kind;
                    if (kind == ServerErrorKind::load_script && !with_body) {
                        outcome.without_script.push_back(work[i]);
                        continue;
                    }
                    if (first_error.empty()) first_error = reply.text;
                    if (kind == ServerErrorKind::rediscover) {
                        trouble_reply(first_error);
                        return give_up_from(i);
                    }
                    outcome.unanswered.push_back(work[i]);
                } else if (reply.type == Reply::Type::integer &&
                           (reply.integer == 0 || reply.integer == 1)) {
                    settle(work[i], reply.integer == 1, sent);
                } else {
                    trouble("the server answered with " + reply.describe());
                    return give_up_from(i);
                }
            }
            if (!first_error.empty()) trouble_reply(first_error);
        }

        // Returns: whether there is a connection. After a failure there is none for a while, so
        // that many leases do not knock one after the other.
        template <class Tick>
        [[nodiscard]] bool connect(Deadline deadline, Tick& tick) {
            if (connection.outstanding() == 0 && connection.is_ready()) return true;
            if (detail::BootClock::now() < reconnect_at) return false;
            const Io opened = connection.open(endpoint, options, deadline, tick);
            if (opened == Io::done) {
                backoff = Backoff{};
                connections.fetch_add(1, std::memory_order_relaxed);
                return true;
            }
            reconnect_at = detail::BootClock::now() + backoff.next();
            if (opened == Io::refused) {
                trouble_reply(connection.error());
            } else {
                trouble(connection.error());
            }
            return false;
        }

        void append(const Task& task, bool with_body) {
            const LockIdentity& identity = task.hold->identity();
            const Script& script = task.duty == Duty::renew ? renew_script : release_script;
            const std::string_view verb = with_body ? "EVAL" : "EVALSHA";
            const std::string_view what = with_body ? script.body : script.sha1;
            const std::string_view token = task.hold->token();
            if (task.duty == Duty::renew) {
                const std::string ttl = std::to_string(identity.options.ttl.count());
                connection.append(
                    {verb, what, "2", identity.lock_key, identity.fence_key, token, ttl});
            } else {
                connection.append({verb, what, "2", identity.lock_key, identity.queue_key, token});
            }
        }

        // The server answered: this token's, or not.
        void settle(const Task& task, bool ours, BootTime sent) {
            std::vector<Task> lost;
            {
                const std::lock_guard guard{mutex};
                const bool watched = schedule.contains(*task.hold, task.duty);
                if (!watched) return;
                if (task.duty == Duty::release) {
                    if (ours || !task.to_the_end) {
                        schedule.remove(*task.hold);
                    } else {
                        schedule.postpone(*task.hold, sent + std::chrono::seconds{1});
                    }
                } else if (ours && task.hold->renewed(sent, detail::BootClock::now())) {
                    renewals.fetch_add(1, std::memory_order_relaxed);
                    schedule.move(*task.hold, task.hold->renewal_due(sent));
                } else {
                    schedule.remove(*task.hold);
                    lost.push_back(task);
                }
            }
            tell_lost(lost, ours ? "it ran out before a renewal was confirmed"
                                 : "the server no longer has it under this token");
        }

        void tell_lost(const std::vector<Task>& lost, const char* reason) {
            for (const Task& task : lost) {
                if (task.hold->lose()) {
                    events->lost({task.hold->name(), task.hold->fence(), reason});
                }
            }
        }

        // What was under way stays in the schedule and is tried again. Told once, not per lease.
        void trouble(const std::string& what, LockErrc errc = LockErrc::backend_unavailable) {
            bool ending = false;
            {
                const std::lock_guard guard{mutex};
                ending = stopping;
            }
            if (!ending) {
                events->error(errc, endpoint.to_string() + ": " + what + "; will be tried again");
            }
        }

        void trouble_reply(const std::string& text) {
            const bool refused = classify(text).kind == ServerErrorKind::refused;
            trouble(text, refused ? LockErrc::backend_refused : LockErrc::backend_unavailable);
        }

        const Endpoint endpoint;
        const ClientOptions options;
        const std::shared_ptr<Events> events;
        std::atomic<std::uint64_t> renewals{0};
        std::atomic<std::uint64_t> connections{0};
        std::mutex mutex;
        std::condition_variable changed;
        bool stopping = false;
        Schedule schedule;
        BootTime asleep_until = BootTime::min();  // BootTime::min(): awake
        // Of run() alone.
        Connection connection;
        Backoff backoff;
        BootTime reconnect_at{};
    };

    void add(Task task, BootTime due) {
        const std::lock_guard guard{state_->mutex};
        if (!thread_.joinable()) {
            const detail::SignalsBlocked blocked;
            thread_ = std::thread{[state = state_] { state->run(); }};
        }
        state_->schedule.add(std::move(task), due);
        if (due < state_->asleep_until) state_->changed.notify_all();
    }

    std::shared_ptr<State> state_;
    std::thread thread_;  // started under the state's mutex
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
