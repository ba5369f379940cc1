// SPDX-License-Identifier: MIT
//
// The one background thread of a quorum. It renews the leases that are held, tells of losses, and
// repeats releases that were not answered; and it gives leases back, for whoever calls, without
// waiting. The nodes are asked through quorum_caller.hpp, so none that is down delays it.
//
// The thread and all that it works on are kept by requests under way, too.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_caller.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/quorum_release.hpp>
#include <codomyrmex/concurrency/redis/quorum_renewal.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/quorum_scripts.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for stop().
class QuorumKeeper : public std::enable_shared_from_this<QuorumKeeper> {
  public:
    /// Requires of who calls any other member: that the clients of the nodes live meanwhile.
    QuorumKeeper(std::shared_ptr<QuorumCaller> by, std::shared_ptr<Events> tell)
        : caller{std::move(by)}, events{std::move(tell)}, awaited_(caller->size()) {}

    const std::shared_ptr<QuorumCaller> caller;
    const std::shared_ptr<Events> events;

    /// Why a lease is lost.
    static constexpr const char* ran_out = "it ran out before a majority confirmed a renewal";
    static constexpr const char* not_ours = "a majority no longer has it under this token";

    // --- Leases.

    /// Renews `tenure`, granted at `since`, until it is given back.
    /// Throws: std::exception for want of memory or threads.
    void watch(std::shared_ptr<QuorumTenure> tenure, BootTime since) {
        const BootTime due = tenure->renewal_due(since);
        const auto guard = caller->lock();
        start();
        schedule_.add({std::move(tenure), Duty::renew, {}, false}, due);
        if (due < asleep_until_) desk_->notify();
    }

    /// Gives `tenure` back to every node that may have its key, and does not wait. Once only.
    /// `release`: where the answers are counted, or null.
    /// Cost: one request to each of these nodes.
    void release(const std::shared_ptr<QuorumTenure>& tenure,
                 const std::shared_ptr<QuorumRelease>& release) {
        {
            const auto guard = caller->lock();
            schedule_.remove(*tenure);
        }
        if (!tenure->give_back()) return;
        tenure->close();
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now);
        for (std::size_t number = 0; number < caller->size(); ++number) {
            if (tenure->was_asked(number)) {
                ++releases_pending_;
                send_release({tenure, number, gone, release}, now);
            } else if (release) {
                const auto guard = caller->lock();
                release->content.vote(number, QuorumVotes::Vote::none);
            }
        }
    }

    /// Asks all nodes to renew, and does not wait. Does nothing if it was given back. `corked`:
    /// another follows at once.
    /// Cost: one request to each node.
    void send_renewals(const std::shared_ptr<QuorumRenewal>& renewal, bool corked) {
        QuorumTenure& tenure = *renewal->tenure;
        tenure.unless_given_back([&] {
            renewal->sent = detail::BootClock::now();
            const BootTime end = tenure.deadline();
            if (end <= renewal->sent) return;
            const Deadline limit = Deadline::after(end - renewal->sent);
            for (std::size_t number = 0; number < caller->size(); ++number) {
                QuorumCaller::Node& node = caller->node(number);
                if (caller->silent(number, renewal->sent)) {
                    const auto guard = caller->lock();
                    renewal->skip(number, node.name, node.why_silent());
                    continue;
                }
                if (renewal->by_keeper) {
                    const auto guard = caller->lock();
                    ++awaited_[number];
                }
                tenure.asked(number);
                caller->send(
                    number, quorum_renew_command(tenure, node.link.clock.at(end)), limit, false,
                    [self = shared_from_this(), renewal, number](Exchange& exchange) {
                        self->renewed(renewal, number, exchange);
                    },
                    corked);
            }
        });
    }

    /// Tells that `tenure` is lost.
    void lose(const std::shared_ptr<QuorumTenure>& tenure, const char* reason) {
        tenure->close();
        {
            const auto guard = caller->lock();
            schedule_.remove(*tenure);
        }
        const std::shared_ptr<Hold> user = tenure->user();
        if (user && user->lose()) events->lost({user->name(), user->fence(), reason});
    }

    // --- Counts.

    std::atomic<std::uint64_t> rounds{0};       ///< as in QuorumStats; counted by who tries
    std::atomic<std::uint64_t> write_backs{0};  ///< the same

    [[nodiscard]] QuorumStats stats() const {
        QuorumStats stats;
        stats.rounds = rounds.load();
        stats.write_backs = write_backs.load();
        stats.renewals = renewals_.load();
        stats.repairs = repairs_.load();
        stats.leases_lost = events->leases_lost();
        stats.releases_pending = releases_pending_.load();
        stats.hook_exceptions = events->exceptions();
        const auto guard = caller->lock();
        stats.leases_watched = schedule_.count(Duty::renew);
        return stats;
    }

    // --- The thread.

    /// Ends it; on the thread itself, does not wait for it. What is to be released is with the
    /// clients by now, but for what they answered with an error.
    /// Threads: by one, once.
    void stop() {
        {
            const auto guard = caller->lock();
            stopping_ = true;
            desk_->notify();
        }
        if (!thread_.joinable()) return;
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
    }

  private:
    // --- Of the thread.

    void run() {
        // So that the connections live as long as the thread uses them.
        const auto links = caller->keep_links();
        if (links.empty()) return;
        auto guard = caller->lock();
        while (!stopping_) {
            if (!work(guard, detail::BootClock::now())) rest(guard);
        }
    }

    // Does what is due. Returns: false if nothing was.
    bool work(std::unique_lock<std::mutex>& guard, BootTime now) {
        std::vector<std::shared_ptr<QuorumRenewal>> settled = std::exchange(settled_, {});
        const std::vector<LostLease> losses = std::exchange(losses_, {});
        Schedule::Due due = schedule_.take_due(now);
        std::vector<QuorumDebt> debts = debts_.take_due(now);
        if (settled.empty() && losses.empty() && due.empty() && debts.empty()) return false;
        guard.unlock();
        try {
            for (const auto& renewal : settled)
                settle(*renewal);
            for (const LostLease& loss : losses)
                events->lost(loss);
            for (const Task& task : due.lost)
                lose(std::static_pointer_cast<QuorumTenure>(task.tenure), ran_out);
            for (QuorumDebt& debt : debts)
                send_release(std::move(debt), now);
            renew(due.work);
        } catch (const std::exception& error) {
            // Out of memory, most likely. Renewals become due again; keys run out.
            events->error(LockErrc::backend_unavailable, error.what());
        }
        // Destroying these may destroy the last handle, so not under the lock.
        settled.clear();
        debts.clear();
        due = {};
        guard.lock();
        return true;
    }

    void renew(const std::vector<Task>& tasks) {
        for (std::size_t i = 0; i < tasks.size(); ++i) {
            const auto renewal =
                std::make_shared<QuorumRenewal>(QuorumRenewal{{QuorumVotes{caller->size()}}});
            renewal->tenure = std::static_pointer_cast<QuorumTenure>(tasks[i].tenure);
            renewal->by_keeper = true;
            // All in one write a node.
            send_renewals(renewal, i + 1 < tasks.size());
        }
    }

    void settle(QuorumRenewal& renewal) {
        const std::shared_ptr<QuorumTenure>& tenure = renewal.tenure;
        const BootTime now = detail::BootClock::now();
        const char* reason = nullptr;
        bool tell = false;
        {
            const auto guard = caller->lock();
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

    void rest(std::unique_lock<std::mutex>& guard) {
        // A bound far away, for conversions of the standard library may overflow.
        const BootTime now = detail::BootClock::now();
        const BootTime until =
            std::min({schedule_.next_due(), debts_.next_due(), now + std::chrono::hours{24}});
        std::vector<std::size_t> waited_for;
        for (std::size_t number = 0; number < caller->size(); ++number)
            if (awaited_[number] != 0) waited_for.push_back(number);
        desk_->sleep_begins();
        asleep_until_ = until;
        guard.unlock();
        try {
            caller->sleep(*desk_, waited_for, Deadline::after(until - now),
                          QuorumCaller::look_again);
        } catch (const std::exception& error) {
            events->error(LockErrc::backend_unavailable, error.what());
        }
        guard.lock();
        asleep_until_ = BootTime::min();
    }

    // --- Under the lock.

    void start() {
        if (thread_.joinable() || stopping_) return;
        const detail::SignalsBlocked blocked;
        thread_ = std::thread{[self = shared_from_this()] { self->run(); }};
    }

    void renewed(const std::shared_ptr<QuorumRenewal>& renewal, std::size_t number,
                 const Exchange& exchange) {
        QuorumCaller::Node& node = caller->node(number);
        if (renewal->by_keeper) --awaited_[number];
        const auto answer = caller->hear(node, exchange, read_quorum_step);
        if (answer && answer->kind == 2) ++repairs_;
        renewal->count(number, node.name, exchange, answer);
        if (!renewal->take_decision()) return;
        if (renewal->by_keeper) {
            settled_.push_back(renewal);
            desk_->notify();
        } else {
            renewal->desk->notify();
        }
    }

    void released(const QuorumDebt& debt, const Exchange& exchange) {
        const auto answer = caller->hear(caller->node(debt.node), exchange, read_quorum_release);
        const ReleaseVerdict verdict =
            judge_release(exchange, answer, debt.tenure->doubtful_at(debt.node));
        count(debt, verdict.vote);
        if (!verdict.again) {
            --releases_pending_;
            return;
        }
        const BootTime due = detail::BootClock::now() + *verdict.again;
        if (due >= debt.gone || stopping_) {
            --releases_pending_;
            return count(debt, QuorumVotes::Vote::none);
        }
        start();
        debts_.add(due, debt);
        if (due < asleep_until_) desk_->notify();
    }

    void count(const QuorumDebt& debt, QuorumVotes::Vote vote) {
        if (!debt.release || vote == QuorumVotes::Vote::open) return;
        QuorumRelease& release = *debt.release;
        release.content.vote(debt.node, vote);
        if (!release.take_decision()) return;
        if (release.desk) return release.desk->notify();
        if (!release.content.denied() || !release.hold) return;
        start();
        losses_.push_back({release.hold->name(), release.hold->fence(), not_ours});
        desk_->notify();
    }

    // --- Without it.

    void send_release(QuorumDebt debt, BootTime now) {
        const Deadline gone = Deadline::after(debt.gone - now);
        Command command = quorum_release_command(*debt.tenure);
        const std::size_t number = debt.node;
        // Sent again before any later request, until it is answered or the key is gone by itself.
        caller->send(number, std::move(command), gone, true,
                     [self = shared_from_this(), debt = std::move(debt)](Exchange& exchange) {
                         self->released(debt, exchange);
                     });
    }

    std::atomic<std::uint64_t> renewals_{0};
    std::atomic<std::uint64_t> repairs_{0};
    std::atomic<std::uint64_t> releases_pending_{0};

    // Guarded by the caller's lock.
    const std::shared_ptr<Desk> desk_ = std::make_shared<Desk>();  // of the thread
    std::thread thread_;
    bool stopping_ = false;
    BootTime asleep_until_ = BootTime::min();
    Schedule schedule_;
    QuorumDebts debts_;
    std::vector<std::size_t> awaited_;  // of each node, renewals by the thread that have not ended
    std::vector<std::shared_ptr<QuorumRenewal>> settled_;
    std::vector<LostLease> losses_;
    BootTime quiet_until_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_KEEPER_HPP
