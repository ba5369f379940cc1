// SPDX-License-Identifier: MIT
//
// One thread asks the server for a lock: at once, or standing in the server's queue until a release
// elsewhere makes it the holder. Grants come as messages, which may be lost, so it asks again now
// and then; that keeps its place. Whatever way it ends without the lock, it gives up its place, and
// the lock, should that have come meanwhile.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_ACQUISITION_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_ACQUISITION_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/caller.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// How long to wait for a lock.
struct Wait {
    bool for_holders = true;                ///< false: tries once
    Deadline deadline = Deadline::never();  ///< where it waits
    std::stop_token stop{};                 ///< ends the wait as the deadline does
};

/// Until `deadline`, or until `stop` is asked to stop; once if the deadline has passed.
[[nodiscard]] inline Wait wait_until(Deadline deadline, std::stop_token stop = {}) {
    return {!deadline.expired(), deadline, std::move(stop)};
}

/// Not at all.
[[nodiscard]] inline Wait wait_not() {
    return wait_until(Deadline::after(std::chrono::nanoseconds::zero()));
}

/// When a waiter asks again: the holder's lease may run out by then; the one before it may have
/// died with its grant; and a message may have been lost. Not later for those who stand farther
/// back: they move up without being told, and then would sleep on behind one that died.
[[nodiscard]] constexpr std::chrono::nanoseconds ask_again_after(
    std::chrono::milliseconds holder_left, std::chrono::milliseconds grant_ttl) noexcept {
    const auto soonest =
        std::min<std::chrono::nanoseconds>({holder_left, grant_ttl, std::chrono::seconds{10}});
    return std::max<std::chrono::nanoseconds>(soonest, std::chrono::milliseconds{1});
}

/// To be used once, by one thread.
class Acquisition {
  public:
    /// `text`: what the holder is called. `reach`: by when a server must have answered, for a wait
    /// without a deadline. `contended`: that another was seen to hold it already, in this process.
    /// Requires: the references outlive it.
    Acquisition(KeeperState& keeper, std::shared_ptr<Tenure> tenure, std::string text,
                std::uint64_t block, const Wait& wait, Deadline reach, bool contended = false)
        : keeper_{keeper},
          caller_{keeper},
          tenure_{std::move(tenure)},
          text_{std::move(text)},
          block_{block},
          wait_{wait},
          reach_{reach},
          contended_{contended} {}
    Acquisition(const Acquisition&) = delete;
    Acquisition& operator=(const Acquisition&) = delete;

    ~Acquisition() {
        if (!obtained_ && (tenure_->doubtful() || standing_ || granted_)) keeper_.give_up(tenure_);
    }

    /// Returns: whether the lock was obtained: the tenure is live and renewed from here on.
    /// Throws: LockError.
    [[nodiscard]] bool run() {
        // It may be one of these that is asked for.
        keeper_.release_all(keeper_.batches.take());
        const std::stop_callback stop{wait_.stop,
                                      [this] { waiter_.state.set(GrantWaiter::woken); }};
        bool listening = wait_.for_holders &&
                         (wants_listening() ? keeper_.listen(wait_.deadline) : keeper_.listens());
        for (;;) {
            if (listening) stand();
            const std::optional<AcquireAnswer> answer = ask();
            if (!answer) return false;
            if (answer->outcome == AcquireAnswer::Outcome::granted) return true;
            if (answer->outcome == AcquireAnswer::Outcome::late) {
                if (!limit().expired()) continue;
                // Held when last seen, and then the time was over: that is no failure.
                if (contended_ && over()) return false;
                throw LockError(LockErrc::backend_unavailable,
                                keeper_.endpoint.to_string() + ": the request for '" +
                                    tenure_->name() + "' was executed too late");
            }
            contended_ = true;
            if (!wait_.for_holders || over()) return false;
            if (!listening) {
                listening = keeper_.listen(wait_.deadline);
                if (!listening) sleep(next_pause(answer->left));
            } else if (await_grant(*answer)) {
                return true;
            }
            if (over()) return false;
            reach_ = Deadline::after(keeper_.options.patience);
        }
    }

    /// Whether somebody else held it when it was first asked for.
    [[nodiscard]] bool contended() const noexcept { return contended_; }
    /// Whether it was handed over.
    [[nodiscard]] bool handed_over() const noexcept { return handed_over_; }

  private:
    [[nodiscard]] const LeaseOptions& options() const noexcept {
        return tenure_->identity().options;
    }
    // What is retained must be given back when it is wanted.
    [[nodiscard]] bool wants_listening() const noexcept {
        return options().retain != options().retain.zero();
    }
    [[nodiscard]] bool over() const noexcept {
        return wait_.deadline.expired() || wait_.stop.stop_requested();
    }
    [[nodiscard]] Deadline limit() const {
        if (wait_.deadline.is_never()) return reach_;
        return wait_.for_holders ? wait_.deadline : caller_.limit(wait_.deadline);
    }

    void stand() {
        if (standing_) return;
        tenure_->stand_as(make_waiter(*tenure_, keeper_.options.grant_ttl, block_, text_));
        // Before it asks, for a grant may overtake the answer.
        keeper_.wait_for_grant(tenure_->token(), waiter_);
        standing_ = true;
    }

    // Returns: nothing if the time was over, and it was held when it was last seen.
    [[nodiscard]] std::optional<AcquireAnswer> ask() {
        std::optional<AcquireAnswer> acquired;
        const Answer answer = caller_.run(
            limit(),
            [&](BootTime give_up, RequestNumber number) {
                return acquire_command(*tenure_, keeper_.name.prefix, text_,
                                       keeper_.clock.at(give_up), block_, tenure_->waiter(),
                                       number);
            },
            [&](const Reply& reply) {
                acquired = read_acquire(reply);
                return acquired.has_value();
            },
            wait_.stop);
        if (answer.retry.maybe_executed()) tenure_->mark_doubtful();
        if (!answer.ok) {
            const bool gave_up =
                (contended_ && over()) || (wait_.for_holders && wait_.stop.stop_requested());
            if (gave_up && answer.retry.error() == LockErrc::backend_unavailable) return {};
            if (answer.retry.error() == LockErrc::mismatch) throw mismatch(answer);
            throw caller_.failure(answer, "cannot acquire '" + tenure_->name() + '\'');
        }
        keeper_.clock.learn(acquired->time, answer.sent);
        asked_ = answer.sent;
        answered_ = acquired->time;
        connection_ = answer.connection;
        if (acquired->outcome != AcquireAnswer::Outcome::granted) return acquired;
        granted_ = true;
        if (obtain({acquired->fence, acquired->fences, answer.sent, options().ttl, {}})) {
            return acquired;
        }
        throw LockError(LockErrc::validity_exhausted,
                        "'" + tenure_->name() +
                            "' was acquired, but the answer took longer than its lease of " +
                            std::to_string(options().ttl.count()) +
                            " ms is valid; ask for a longer ttl");
    }

    [[nodiscard]] LockError mismatch(const Answer& answer) const {
        const std::string text = answer.retry.reason();
        return {LockErrc::mismatch, keeper_.endpoint.to_string() + ": the semaphore '" +
                                        tenure_->name() + "' has " +
                                        std::string{classify(text).message} + " permits, not " +
                                        std::to_string(tenure_->identity().capacity) +
                                        "; use the same number everywhere, or resize() it"};
    }

    // Where nobody hears of grants: how long to wait before it asks again.
    [[nodiscard]] std::chrono::nanoseconds next_pause(std::chrono::milliseconds left) {
        if (!pauses_) {
            pauses_.emplace(std::chrono::milliseconds{50},
                            std::hash<std::string>{}(tenure_->token()));
        }
        return std::min<std::chrono::nanoseconds>(pauses_->next(),
                                                  std::max(left, std::chrono::milliseconds{1}));
    }

    // Returns: whether it was granted, in time; otherwise, it asks again.
    [[nodiscard]] bool await_grant(const AcquireAnswer& answer) {
        const auto pause = ask_again_after(answer.left, keeper_.options.grant_ttl);
        // Those who wait for one lease to run out do not ask all at once.
        const auto spread =
            std::min<std::chrono::nanoseconds>(pause / 16, std::chrono::milliseconds{20});
        const auto part =
            static_cast<std::int64_t>(std::hash<std::string>{}(tenure_->token()) % 1024U);
        sleep(pause + spread / 1024 * part);
        const std::optional<DeliveredGrant> grant = keeper_.take_grant(waiter_);
        if (!grant) return false;
        // Of another server, perhaps, which must confirm it.
        if (keeper_.pipeline.connections() != connection_) return false;
        if (!obtain(grant_by_message(grant->message, asked_, answered_, grant->received))) {
            return false;
        }
        handed_over_ = true;
        tenure_->mark_handed_over();
        return true;
    }

    [[nodiscard]] bool obtain(const Grant& grant) {
        if (!tenure_->granted(grant, detail::BootClock::now())) return false;
        if (standing_) {
            keeper_.settle(tenure_->token());
            // Whoever made it the holder took it out of the queue.
            if (!tenure_->doubtful()) tenure_->leave_queue();
        }
        keeper_.watch(tenure_, grant.since);
        obtained_ = true;
        return true;
    }

    void sleep(std::chrono::nanoseconds duration) {
        if (wait_.stop.stop_requested()) return;
        waiter_.state.wait_while(GrantWaiter::waiting,
                                 std::min(wait_.deadline, Deadline::after(duration)));
    }

    KeeperState& keeper_;
    Caller caller_;
    const std::shared_ptr<Tenure> tenure_;
    const std::string text_;
    const std::uint64_t block_;
    const Wait& wait_;
    Deadline reach_;
    GrantWaiter waiter_;
    std::optional<Backoff> pauses_;
    bool standing_ = false;
    bool granted_ = false;  // by the server
    bool obtained_ = false;
    bool contended_;
    bool handed_over_ = false;
    // The last answer, and the request for it.
    BootTime asked_{};
    ServerTime answered_{};
    std::uint64_t connection_ = 0;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_ACQUISITION_HPP
