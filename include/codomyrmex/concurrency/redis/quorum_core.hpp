// SPDX-License-Identifier: MIT
//
// The one shared thing behind all copies of a QuorumClient in a process: how a lease over several
// independent masters is acquired, renewed and given back. After Redlock (redis.io/docs/latest/
// develop/use/patterns/distributed-locks), with fencing tokens, renewals that repair, and rounds
// that end as soon as they are decided. Not for users; quorum_client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/fork_mark.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder_text.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_attempt.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_caller.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/quorum_release.hpp>
#include <codomyrmex/concurrency/redis/quorum_renewal.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/quorum_waiters.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for the destructor.
class QuorumCore {
  public:
    /// Requires: the clients of `links` outlive it.
    /// Throws: std::exception if the system has no random numbers or no files.
    QuorumCore(const std::vector<std::shared_ptr<KeeperState>>& links, const QuorumOptions& options)
        : id_{detail::random_hex_128()},
          process_{process_text()},
          caller_{std::make_shared<QuorumCaller>(links, options)},
          keeper_{
              std::make_shared<QuorumKeeper>(caller_, std::make_shared<Events>(options.hooks))} {}
    QuorumCore(const QuorumCore&) = delete;
    QuorumCore& operator=(const QuorumCore&) = delete;
    ~QuorumCore() { keeper_->stop(); }

    /// Whether this is the child of the process that made it; there it must not be touched.
    [[nodiscard]] bool forked() const noexcept { return mark_->in_child(); }

    /// What it did so far.
    [[nodiscard]] QuorumStats stats() const { return keeper_->stats(); }
    /// Whether a request to that node has not ended.
    [[nodiscard]] bool owes(std::size_t node) const { return caller_->owes(node); }

    /// Tells the hook `on_error`.
    void report(LockErrc errc, const std::string& what) noexcept {
        keeper_->events->error(errc, what);
    }

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained: another was seen to
    /// hold it.
    /// Throws: LockError. Cost: one round trip when free.
    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        const std::string text = holder_text(process_, identity->options.label);
        const Desks::Loan loan{caller_->desks};
        const std::uint64_t seed = std::hash<std::string>{}(new_token());
        RetryPause pauses{caller_->options.max_retry_delay, seed};
        Deadline reach = reach_of(wait);
        bool contended = false;
        std::optional<QuorumWaiters::Place> place;
        for (;;) {
            const BootTime began = detail::BootClock::now();
            QuorumAttempt attempt{
                *keeper_, loan.desk(),
                std::make_shared<QuorumTenure>(identity, new_token(), text, mark_)};
            switch (attempt.run(round_limit(wait, reach))) {
                case QuorumRound::State::won:
                    return attempt.take(contended);
                case QuorumRound::State::refused:
                    throw LockError(attempt.refusal(),
                                    "cannot acquire '" + identity->name +
                                        "', a majority refuses: " + attempt.reasons());
                case QuorumRound::State::contended:
                    contended = true;
                    if (!wait.for_holders || over(wait)) return nullptr;
                    reach = reach_of(wait);
                    break;
                case QuorumRound::State::open:
                case QuorumRound::State::unreachable:
                    contended = contended || attempt.seen_held();
                    if (wait.for_holders && wait.stop.stop_requested()) return nullptr;
                    if (!reach.expired()) break;
                    // Held when last seen, and then the time was over: that is no failure.
                    if (contended && !wait.deadline.is_never()) return nullptr;
                    throw LockError(LockErrc::backend_unavailable,
                                    "cannot acquire '" + identity->name +
                                        "', no majority answers: " + attempt.reasons());
            }
            // Whoever waits gives back first what it had.
            attempt.give_up();
            if (!place) place.emplace(waiters_, identity->keys.main());
            const auto took = detail::BootClock::now() - began;
            place->sleep(pauses.next(took), std::min(wait.deadline, reach), wait.stop);
            if (wait.for_holders && contended && over(wait)) return nullptr;
        }
    }

    /// Gives `hold` back without waiting for the nodes.
    /// Returns: lost if that is known already; else ours.
    Released give_back(const std::shared_ptr<Hold>& hold) noexcept {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        try {
            const bool ours = end(hold);
            std::shared_ptr<QuorumRelease> release;
            if (ours) release = make_release(hold, nullptr);
            keeper_->release(tenure, release);
            waiters_.wake_first(tenure->identity().keys.main());
            return ours ? Released::ours : Released::lost;
        } catch (const std::exception& error) {
            // Out of memory: the lease runs out.
            report(LockErrc::unknown_outcome, error.what());
            return Released::unknown;
        }
    }

    /// Gives `hold` back and waits for the word of a majority, at most until `deadline`.
    /// Cost: one round trip; none if it was lost before.
    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        // Past its end there is nothing left to be answered.
        const auto left = std::max<std::chrono::nanoseconds>(
            std::min<std::chrono::nanoseconds>(hold->remaining(), caller_->options.patience),
            caller_->options.node_timeout);
        const Deadline limit = std::min(deadline, Deadline::after(left));
        if (!end(hold)) {
            keeper_->release(tenure, nullptr);
            return Released::lost;
        }
        const Desks::Loan loan{caller_->desks};
        const auto release = make_release(hold, loan.desk());
        keeper_->release(tenure, release);
        waiters_.wake_first(tenure->identity().keys.main());
        caller_->await(*release, limit);
        Released released = Released::unknown;
        {
            const auto guard = caller_->lock();
            release->closed = true;
            if (release->content.won()) released = Released::ours;
            if (release->content.denied()) released = Released::lost;
        }
        if (released == Released::lost) {
            keeper_->events->lost({hold->name(), hold->fence(), QuorumKeeper::not_ours});
        }
        return released;
    }

    /// Renews a lease now. Returns: false if it was lost. Throws: LockError(backend_unavailable) if
    /// no majority answers. Cost: one round trip.
    [[nodiscard]] bool renew(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        const Deadline limit =
            std::min(deadline.is_never() ? Deadline::after(caller_->options.patience) : deadline,
                     Deadline::after(hold->remaining()));
        const Desks::Loan loan{caller_->desks};
        RetryPause pauses{caller_->options.max_retry_delay, 1};
        for (;;) {
            if (!hold->valid()) {
                keeper_->lose(tenure, QuorumKeeper::ran_out);
                return false;
            }
            const auto renewal = std::make_shared<QuorumRenewal>(
                QuorumRenewal{{QuorumVotes{caller_->size()}, loan.desk()}});
            renewal->tenure = tenure;
            keeper_->send_renewals(renewal, false);
            caller_->await(*renewal,
                           std::min(limit, Deadline::after(caller_->options.node_timeout)));
            bool won = false;
            bool denied = false;
            std::string trouble;
            {
                const auto guard = caller_->lock();
                renewal->closed = true;
                won = renewal->content.won();
                denied = renewal->content.denied();
                trouble = renewal->trouble;
            }
            if (won && tenure->renewed(renewal->sent, detail::BootClock::now())) {
                return hold->held();
            }
            if (won || denied) {
                keeper_->lose(tenure, won ? QuorumKeeper::ran_out : QuorumKeeper::not_ours);
                return false;
            }
            if (limit.expired() && hold->valid()) {
                throw LockError(LockErrc::backend_unavailable,
                                "cannot renew '" + hold->name() + "', no majority answers: " +
                                    (trouble.empty() ? "no reply in time" : trouble));
            }
            std::this_thread::sleep_for(
                std::min(pauses.next(std::chrono::nanoseconds::zero()), limit.remaining()));
        }
    }

  private:
    [[nodiscard]] static bool over(const Wait& wait) noexcept {
        return wait.deadline.expired() || wait.stop.stop_requested();
    }

    // Until when a majority must have been reached: the caller's deadline; `patience` for a caller
    // without one; five times what a node may take for one who does not wait.
    [[nodiscard]] Deadline reach_of(const Wait& wait) const {
        if (!wait.for_holders) return Deadline::after(caller_->options.node_timeout * 5);
        if (wait.deadline.is_never()) return Deadline::after(caller_->options.patience);
        return wait.deadline;
    }

    [[nodiscard]] Deadline round_limit(const Wait& wait, Deadline reach) const {
        const Deadline round = Deadline::after(caller_->options.node_timeout);
        return wait.deadline.is_never() ? round : std::min(round, reach);
    }

    // Returns: whether it was still valid. It is ended, and a loss is told.
    [[nodiscard]] bool end(const std::shared_ptr<Hold>& hold) {
        const bool valid = hold->valid();
        if (!valid && hold->lose()) {
            keeper_->events->lost({hold->name(), hold->fence(), "it had run out at release"});
        }
        const bool ours = hold->end() && valid;
        hold->tenure()->used_by(nullptr);
        return ours;
    }

    [[nodiscard]] std::shared_ptr<QuorumRelease> make_release(const std::shared_ptr<Hold>& hold,
                                                              std::shared_ptr<Desk> desk) const {
        return std::make_shared<QuorumRelease>(
            QuorumRelease{{QuorumVotes{caller_->size()}, std::move(desk)}, hold});
    }

    [[nodiscard]] std::string new_token() {
        return id_ + '-' + std::to_string(counter_.fetch_add(1, std::memory_order_relaxed));
    }

    const std::shared_ptr<const detail::ForkMark> mark_ = std::make_shared<detail::ForkMark>();
    const std::string id_;
    const std::string process_;  // for people
    std::atomic<std::uint64_t> counter_{1};
    QuorumWaiters waiters_;
    const std::shared_ptr<QuorumCaller> caller_;
    const std::shared_ptr<QuorumKeeper> keeper_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP
