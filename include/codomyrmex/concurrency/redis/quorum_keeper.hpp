// SPDX-License-Identifier: MIT
//
// What all calls on a quorum share: its nodes, each asked over the connection of its own client;
// the counting of answers, on whatever thread reads them; and one background thread, which renews
// leases, tells of losses, and repeats releases that were not answered. It never waits for a node:
// who is slow or down is left to the thread of that node's client, which connects and reads.
//
// The thread and all that it works on are kept by requests under way, too, so it refers to the
// clients' connections without owning them: they own the requests.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/detail/wake_file.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_node.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for run(), which is the thread.
class QuorumKeeper : public std::enable_shared_from_this<QuorumKeeper> {
  public:
    /// Where a thread waits for answers.
    struct Desk {
        detail::WakeFile wake{};
        bool asleep = false;
    };

    /// A question to all nodes: guarded, as all that is counted, by the keeper.
    template <class Content>
    struct Ballot {
        Content content;
        std::shared_ptr<Desk> desk{};  ///< of who waits for it, if anybody does
        bool closed = false;           ///< the decision was acted upon
    };

    /// The same for giving back a lease.
    struct Release : Ballot<QuorumVotes> {
        std::shared_ptr<Hold> hold{};  ///< of whom a loss is told that the answers show, if any
    };

    /// The same for a renewal.
    struct Renewal : Ballot<QuorumVotes> {
        std::shared_ptr<QuorumTenure> tenure{};
        BootTime sent{};         ///< before its first request
        bool by_keeper = false;  ///< the thread settles it
        std::string trouble{};   ///< the last reason why a node did not renew
    };

    /// One node. Its memory is guarded by the keeper.
    struct Node {
        explicit Node(const std::shared_ptr<KeeperState>& to)
            : link{*to}, owner{to}, name{to->endpoint.to_string()} {}
        KeeperState& link;
        const std::weak_ptr<KeeperState> owner;
        const std::string name;
        NodeMemory memory{};
        std::string trouble{};          // the last, unless it answered since
        std::size_t renewals_owed = 0;  // of the thread's own
        std::uint64_t to_drop = 0;      // a connection whose order or server is in doubt

        [[nodiscard]] std::string why_silent() const {
            return trouble.empty() ? "it does not answer" : trouble;
        }
    };

    /// A thread that waits for another try; an unlock in this process wakes the first of a key.
    struct Waiter {
        static constexpr std::uint32_t asleep = 0;
        static constexpr std::uint32_t awake = 1;
        const std::string& key;
        detail::WaitWord state{asleep};
    };

    /// Requires of who calls any other member: that the clients of `links` live meanwhile.
    QuorumKeeper(const std::vector<std::shared_ptr<KeeperState>>& links, QuorumOptions with,
                 std::shared_ptr<Events> tell)
        : options{std::move(with)}, events{std::move(tell)} {
        nodes_.reserve(links.size());
        for (const auto& link : links)
            nodes_.push_back(std::make_unique<Node>(link));
    }

    const QuorumOptions options;
    const std::shared_ptr<Events> events;

    [[nodiscard]] std::size_t size() const noexcept { return nodes_.size(); }
    [[nodiscard]] Node& node(std::size_t number) noexcept { return *nodes_[number]; }

    // --- Asking and counting.

    /// Guards ballots and the nodes' memories. Not to be held while something is sent.
    [[nodiscard]] std::unique_lock<std::mutex> lock() { return std::unique_lock{mutex_}; }

    [[nodiscard]] bool silent(std::size_t number, BootTime now) {
        const std::lock_guard guard{mutex_};
        return nodes_[number]->memory.silent(now, options.node_timeout);
    }

    /// Sends `bytes` to a node. `then(exchange)`: called once when it has ended, under the lock, by
    /// whatever thread; must not throw but for want of memory.
    template <class Then>
    // NOLINTNEXTLINE(performance-unnecessary-value-param): it is moved on.
    void send(std::size_t number, std::string bytes, Deadline deadline, bool repeat, Then then,
              bool corked = false) {
        Node& node = *nodes_[number];
        std::uint64_t drop = 0;
        {
            const std::lock_guard guard{mutex_};
            drop = std::exchange(node.to_drop, 0);
            node.memory.asked(detail::BootClock::now());
        }
        if (drop != 0) node.link.pipeline.disconnect(drop);
        try {
            node.link.pipeline.send(
                std::move(bytes), deadline, repeat,
                [self = shared_from_this(), &node, then = std::move(then)](Exchange& exchange) {
                    const std::lock_guard guard{self->mutex_};
                    const bool answered = exchange.outcome == Exchange::Outcome::answered;
                    node.memory.ended(detail::BootClock::now(), answered);
                    try {
                        node.trouble = answered ? std::string{} : exchange.error;
                        then(exchange);
                    } catch (const std::exception&) {
                        // Out of memory: as if there had been no answer.
                    }
                },
                corked);
        } catch (...) {
            const std::lock_guard guard{mutex_};
            node.memory.ended(detail::BootClock::now(), false);
            throw;
        }
    }

    /// Waits until `ballot` is decided, at most until `limit`, and reads answers meanwhile.
    template <class Content>
    void await(Ballot<Content>& ballot, Deadline limit) {
        Desk& desk = *ballot.desk;
        std::vector<pollfd> files;
        std::vector<std::size_t> waited_for;
        files.reserve(size() + 1);
        for (std::chrono::milliseconds look{1};; look = std::min(look * 2, look_again)) {
            waited_for.clear();
            {
                const std::lock_guard guard{mutex_};
                if (ballot.content.decided()) return;
                for (std::size_t number = 0; number < size(); ++number)
                    if (ballot.content.waits_for(number)) waited_for.push_back(number);
                desk.asleep = true;
            }
            wait_for_files(desk, waited_for, files, limit, look);
            if (limit.expired()) {
                const std::lock_guard guard{mutex_};
                return;
            }
        }
    }

    /// To be called under the lock, after what `desk` waits for may have come true.
    static void notify(Desk* desk) noexcept {
        if (desk != nullptr && std::exchange(desk->asleep, false)) desk->wake.signal();
    }

    /// A place to wait at, and back with it.
    [[nodiscard]] std::shared_ptr<Desk> borrow_desk() {
        {
            const std::lock_guard guard{mutex_};
            if (!desks_.empty()) {
                auto desk = std::move(desks_.back());
                desks_.pop_back();
                return desk;
            }
        }
        return std::make_shared<Desk>();
    }
    void return_desk(std::shared_ptr<Desk> desk) noexcept {
        const std::lock_guard guard{mutex_};
        desk->asleep = false;
        try {
            if (desks_.size() < 16) desks_.push_back(std::move(desk));
        } catch (const std::exception&) {
            // Then the next one makes its own.
        }
    }

    /// What an error reply means for the next request to that node. Under the lock.
    /// Returns: what is to be told of it; backend_unavailable for what passes.
    LockErrc learn_error(Node& node, const Exchange& exchange, const Script& script) {
        switch (classify(exchange.reply.text).kind) {
            case ServerErrorKind::load_script:
                node.link.forget(script);
                break;
            case ServerErrorKind::rediscover:
                node.to_drop = exchange.connection;
                break;
            case ServerErrorKind::foreign_key:
                return LockErrc::foreign_key;
            case ServerErrorKind::redirect:
                return LockErrc::unsupported;
            case ServerErrorKind::refused:
                return LockErrc::backend_refused;
            case ServerErrorKind::retry:
            case ServerErrorKind::mismatch:
            case ServerErrorKind::unknown_outcome:
                break;
        }
        return LockErrc::backend_unavailable;
    }

    // --- Leases.

    /// Renews `tenure`, granted at `since`, until it is given back.
    void watch(std::shared_ptr<QuorumTenure> tenure, BootTime since) {
        const BootTime due = tenure->renewal_due(since);
        const std::lock_guard guard{mutex_};
        start();
        schedule_.add({std::move(tenure), Duty::renew, {}, false}, due);
        if (due < asleep_until_) notify(own_.get());
    }

    /// Gives `tenure` back to every node that may have its key, and does not wait. Once only.
    /// `release`: where the answers are counted, or null.
    void release(const std::shared_ptr<QuorumTenure>& tenure,
                 const std::shared_ptr<Release>& release) {
        {
            const std::lock_guard guard{mutex_};
            schedule_.remove(*tenure);
        }
        if (!tenure->give_back()) return;
        tenure->close();
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now);
        for (std::size_t number = 0; number < size(); ++number) {
            if (tenure->was_asked(number)) {
                ++releases_pending_;
                send_release({tenure, number, gone, release}, now);
            } else if (release) {
                const std::lock_guard guard{mutex_};
                release->content.vote(number, QuorumVotes::Vote::none);
            }
        }
    }

    /// Lets the first thread that waits here for the lock `key` try at once: it was given back.
    void wake_waiter(const std::string& key) noexcept {
        const std::lock_guard guard{mutex_};
        const auto first = std::ranges::find_if(
            waiters_, [&](const Waiter* waiter) { return waiter->key == key; });
        if (first != waiters_.end()) (*first)->state.set(Waiter::awake);
    }

    /// Asks all nodes to renew. Does nothing if it was given back.
    void send_renewals(const std::shared_ptr<Renewal>& renewal, bool corked) {
        QuorumTenure& tenure = *renewal->tenure;
        tenure.unless_given_back([&] {
            renewal->sent = detail::BootClock::now();
            const BootTime end = tenure.deadline();
            if (end <= renewal->sent) return;
            const Deadline limit = Deadline::after(end - renewal->sent);
            for (std::size_t number = 0; number < size(); ++number) {
                Node& node = *nodes_[number];
                if (silent(number, renewal->sent)) {
                    const std::lock_guard guard{mutex_};
                    skip(*renewal, number, node.name + ": " + node.why_silent());
                    continue;
                }
                if (renewal->by_keeper) {
                    const std::lock_guard guard{mutex_};
                    ++node.renewals_owed;
                }
                tenure.asked(number);
                send(
                    number,
                    quorum_renew_command(node.link.how_to_call(quorum_renew_script), tenure,
                                         node.link.clock.at(end)),
                    limit, false,
                    [this, renewal, number](Exchange& exchange) {
                        renewed(renewal, number, exchange);
                    },
                    corked);
            }
        });
    }

    /// Tells that `tenure` is lost.
    void lose(const std::shared_ptr<QuorumTenure>& tenure, const char* reason) {
        tenure->close();
        {
            const std::lock_guard guard{mutex_};
            schedule_.remove(*tenure);
        }
        const std::shared_ptr<Hold> user = tenure->user();
        if (user && user->lose()) events->lost({user->name(), user->fence(), reason});
    }

    static constexpr const char* ran_out = "it ran out before a majority confirmed a renewal";
    static constexpr const char* not_ours = "a majority no longer has it under this token";

    // --- Waiting for another try.

    /// Sleeps at most `pause` or until `deadline`; less if the lock is given back in this process.
    void sleep(Waiter& waiter, std::chrono::nanoseconds pause, Deadline deadline) {
        waiter.state.wait_while(Waiter::asleep, std::min(deadline, Deadline::after(pause)));
        const std::lock_guard guard{mutex_};
        waiter.state.set(Waiter::asleep);
    }
    void enter(Waiter& waiter) {
        const std::lock_guard guard{mutex_};
        waiters_.push_back(&waiter);
    }
    void leave(Waiter& waiter) noexcept {
        const std::lock_guard guard{mutex_};
        waiters_.remove(&waiter);
    }

    // --- Counts.

    std::atomic<std::uint64_t> rounds{0};
    std::atomic<std::uint64_t> write_backs{0};

    [[nodiscard]] QuorumStats stats() const {
        QuorumStats stats;
        stats.rounds = rounds.load();
        stats.write_backs = write_backs.load();
        stats.renewals = renewals_.load();
        stats.repairs = repairs_.load();
        stats.leases_lost = events->leases_lost();
        stats.releases_pending = releases_pending_.load();
        stats.hook_exceptions = events->exceptions();
        const std::lock_guard guard{mutex_};
        stats.leases_watched = schedule_.count(Duty::renew);
        return stats;
    }

    /// Whether a request to that node has not ended.
    [[nodiscard]] bool owes(std::size_t number) const {
        const std::lock_guard guard{mutex_};
        return nodes_[number]->memory.owed() != 0;
    }

    // --- The thread.

    /// Ends it; on the thread itself, does not wait for it. What is to be released is with the
    /// clients by now, but for what they answered with an error.
    void stop() {
        {
            const std::lock_guard guard{mutex_};
            stopping_ = true;
            notify(own_.get());
        }
        if (!thread_.joinable()) return;
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

  private:
    // A node that has not answered a release.
    struct Debt {
        std::shared_ptr<QuorumTenure> tenure{};
        std::size_t node = 0;
        BootTime gone{};  // when the key is gone without it
        std::shared_ptr<Release> release{};
    };

    // While a node whose answer is waited for has no connection, or another thread reads there.
    static constexpr std::chrono::milliseconds look_again{16};

    void wait_for_files(Desk& desk, const std::vector<std::size_t>& numbers,
                        std::vector<pollfd>& files, Deadline limit,
                        std::chrono::milliseconds look) {
        files.clear();
        files.push_back({desk.wake.descriptor(), POLLIN, 0});
        for (const std::size_t number : numbers) {
            const int file = nodes_[number]->link.pipeline.awaited_file();
            if (file < 0) limit = std::min(limit, Deadline::after(look));
            files.push_back({file, POLLIN, 0});
        }
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit.remaining()).count();
        ::poll(files.data(), static_cast<nfds_t>(files.size()),
               static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000)));
        {
            const std::lock_guard guard{mutex_};
            desk.asleep = false;
        }
        if (files[0].revents != 0) desk.wake.drain();
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            if (files[i + 1].revents != 0) nodes_[numbers[i]]->link.pipeline.pump_now();
        }
    }

    // --- Of the thread.

    void run() {
        // So that the connections live as long as the thread uses them.
        std::vector<std::shared_ptr<KeeperState>> links;
        for (const auto& node : nodes_)
            links.push_back(node->owner.lock());
        if (std::ranges::find(links, nullptr) != links.end()) return;
        std::vector<pollfd> files;
        std::unique_lock guard{mutex_};
        while (!stopping_) {
            if (!work(guard, detail::BootClock::now())) rest(guard, files);
        }
    }

    // Does what is due. Returns: false if nothing was.
    bool work(std::unique_lock<std::mutex>& guard, BootTime now) {
        std::vector<std::shared_ptr<Renewal>> settled = std::exchange(settled_, {});
        const std::vector<LostLease> losses = std::exchange(losses_, {});
        Schedule::Due due = schedule_.take_due(now);
        std::vector<Debt> debts;
        while (!debts_.empty() && debts_.begin()->first <= now) {
            debts.push_back(std::move(debts_.begin()->second));
            debts_.erase(debts_.begin());
        }
        if (settled.empty() && losses.empty() && due.empty() && debts.empty()) return false;
        guard.unlock();
        try {
            for (const auto& renewal : settled)
                settle(*renewal);
            for (const LostLease& loss : losses)
                events->lost(loss);
            for (const Task& task : due.lost)
                lose(std::static_pointer_cast<QuorumTenure>(task.tenure), ran_out);
            for (Debt& debt : debts)
                send_release(std::move(debt), now);
            renew(due.work);
        } catch (const std::exception& error) {
            // Out of memory, most likely. Renewals become due again; keys run out.
            events->error(LockErrc::backend_unavailable, error.what());
        }
        // Destroying these may destroy the last handle, so not under the mutex.
        settled.clear();
        debts.clear();
        due = {};
        guard.lock();
        return true;
    }

    void renew(const std::vector<Task>& tasks) {
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            const auto renewal = std::make_shared<Renewal>(Renewal{{QuorumVotes{size()}}});
            renewal->tenure = std::static_pointer_cast<QuorumTenure>(tasks[i].tenure);
            renewal->by_keeper = true;
            // All in one write a node.
            send_renewals(renewal, i + 1 < tasks.size());
        }
    }

    void rest(std::unique_lock<std::mutex>& guard, std::vector<pollfd>& files) {
        // A bound far away, for conversions of the standard library may overflow.
        const BootTime now = detail::BootClock::now();
        BootTime until = std::min(schedule_.next_due(), now + std::chrono::hours{24});
        if (!debts_.empty()) until = std::min(until, debts_.begin()->first);
        std::vector<std::size_t> waited_for;
        for (std::size_t number = 0; number < size(); ++number)
            if (nodes_[number]->renewals_owed != 0) waited_for.push_back(number);
        own_->asleep = true;
        asleep_until_ = until;
        guard.unlock();
        try {
            wait_for_files(*own_, waited_for, files, Deadline::after(until - now), look_again);
        } catch (const std::exception& error) {
            events->error(LockErrc::backend_unavailable, error.what());
        }
        guard.lock();
        asleep_until_ = BootTime::min();
    }

    void settle(Renewal& renewal) {
        const std::shared_ptr<QuorumTenure>& tenure = renewal.tenure;
        const BootTime now = detail::BootClock::now();
        const char* reason = nullptr;
        bool tell = false;
        {
            const std::lock_guard guard{mutex_};
            if (!schedule_.contains(*tenure, Duty::renew)) return;
            if (renewal.content.won()) {
                if (tenure->renewed(renewal.sent, now)) {
                    ++renewals_;
                    schedule_.move(*tenure, tenure->renewal_due(renewal.sent));
                } else {
                    reason = ran_out;
                }
            } else if (renewal.content.denied()) {
                reason = not_ours;
            } else {
                schedule_.postpone(*tenure, tenure->retry_due(now));
                // Told once, not for each lease.
                tell = !stopping_ && now >= quiet_until_;
                if (tell) quiet_until_ = now + std::chrono::milliseconds{100};
            }
        }
        if (reason != nullptr) lose(tenure, reason);
        if (tell) {
            events->error(LockErrc::backend_unavailable, "no majority renewed '" + tenure->name() +
                                                             "' (" + renewal.trouble +
                                                             "); will be tried again");
        }
    }

    // --- Under the lock.

    void start() {
        if (thread_.joinable() || stopping_) return;
        const detail::SignalsBlocked blocked;
        thread_ = std::thread{[self = shared_from_this()] { self->run(); }};
    }

    void skip(Renewal& renewal, std::size_t number, std::string why) {
        renewal.content.vote(number, QuorumVotes::Vote::none);
        renewal.trouble = std::move(why);
    }

    void renewed(const std::shared_ptr<Renewal>& renewal, std::size_t number,
                 const Exchange& exchange) {
        using Vote = QuorumVotes::Vote;
        Node& node = *nodes_[number];
        if (renewal->by_keeper) --node.renewals_owed;
        const auto answer =
            exchange.reply.is_error() ? std::nullopt : read_quorum_step(exchange.reply);
        if (exchange.outcome == Exchange::Outcome::answered && answer) {
            node.link.clock.learn(answer->time, exchange.sent);
            if (answer->kind == 2) ++repairs_;
            const bool late = answer->kind == 3;
            if (late) skip(*renewal, number, node.name + ": it was executed too late");
            renewal->content.vote(number, answer->kind == 0 ? Vote::no : Vote::yes);
        } else if (exchange.outcome == Exchange::Outcome::answered) {
            if (!exchange.reply.is_error())
                node.to_drop = exchange.connection;
            else
                learn_error(node, exchange, quorum_renew_script);
            renewal->tenure->mark_doubtful_at(number);
            skip(*renewal, number, node.name + ": " + exchange.reply.describe());
        } else {
            // A copy that is executed when the lease is over would give it a key again.
            if (exchange.outcome == Exchange::Outcome::unknown) {
                renewal->tenure->mark_doubtful_at(number);
            }
            skip(*renewal, number, node.name + ": " + exchange.error);
        }
        if (!renewal->content.decided() || std::exchange(renewal->closed, true)) return;
        if (renewal->by_keeper) {
            settled_.push_back(renewal);
            notify(own_.get());
        } else {
            notify(renewal->desk.get());
        }
    }

    void released(const Debt& debt, const Exchange& exchange) {
        using Vote = QuorumVotes::Vote;
        Node& node = *nodes_[debt.node];
        const bool doubtful = debt.tenure->doubtful_at(debt.node);
        const auto answer = exchange.outcome == Exchange::Outcome::answered
                                ? exchange.reply.as_integer()
                                : std::nullopt;
        if (answer && debt.release) {
            // After a repetition, "not yours" may come of the first copy.
            const bool sure = *answer != 0 || (!exchange.repeated && !doubtful);
            const Vote no = sure ? Vote::no : Vote::none;
            count(*debt.release, debt.node, *answer != 0 ? Vote::yes : no);
        }
        if (answer && !doubtful) {
            --releases_pending_;
            return;
        }
        std::chrono::milliseconds pause{answer ? 500 : 100};
        if (exchange.outcome == Exchange::Outcome::answered && !answer) {
            if (!exchange.reply.is_error()) {
                node.to_drop = exchange.connection;
            } else {
                learn_error(node, exchange, quorum_release_script);
                // With the body, at once.
                if (classify(exchange.reply.text).kind == ServerErrorKind::load_script) {
                    pause = std::chrono::milliseconds{0};
                }
            }
        }
        later(debt, pause);
    }

    void later(const Debt& debt, std::chrono::milliseconds pause) {
        const BootTime due = detail::BootClock::now() + pause;
        if (due >= debt.gone || stopping_) {
            --releases_pending_;
            if (debt.release) count(*debt.release, debt.node, QuorumVotes::Vote::none);
            return;
        }
        start();
        debts_.emplace(due, debt);
        if (due < asleep_until_) notify(own_.get());
    }

    void count(Release& release, std::size_t number, QuorumVotes::Vote vote) {
        release.content.vote(number, vote);
        if (!release.content.decided() || release.closed) return;
        if (release.desk) return notify(release.desk.get());
        release.closed = true;
        if (!release.content.denied() || !release.hold) return;
        start();
        losses_.push_back({release.hold->name(), release.hold->fence(), not_ours});
        notify(own_.get());
    }

    // --- Without it.

    void send_release(Debt debt, BootTime now) {
        Node& node = *nodes_[debt.node];
        const Deadline gone = Deadline::after(debt.gone - now);
        std::string bytes =
            quorum_release_command(node.link.how_to_call(quorum_release_script), *debt.tenure);
        const std::size_t number = debt.node;
        // Sent again before any later request, until it is answered or the key is gone by itself.
        send(number, std::move(bytes), gone, true,
             [this, debt = std::move(debt)](Exchange& exchange) { released(debt, exchange); });
    }

    std::vector<std::unique_ptr<Node>> nodes_;
    const std::shared_ptr<Desk> own_ = std::make_shared<Desk>();
    std::atomic<std::uint64_t> renewals_{0};
    std::atomic<std::uint64_t> repairs_{0};
    std::atomic<std::uint64_t> releases_pending_{0};

    mutable std::mutex mutex_;  // guards the next, and what is said of it above
    bool stopping_ = false;
    std::thread thread_;
    Schedule schedule_;
    std::multimap<BootTime, Debt> debts_;
    std::vector<std::shared_ptr<Renewal>> settled_;
    std::vector<LostLease> losses_;
    std::vector<std::shared_ptr<Desk>> desks_;
    std::list<Waiter*> waiters_;
    BootTime asleep_until_ = BootTime::min();
    BootTime quiet_until_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP
