// SPDX-License-Identifier: MIT
//
// The state of a lease, without I/O: who holds what, under which fencing token, until when, and how
// the holder is told that it is over. Two parts: a Tenure is what the server knows, a key under an
// owner token until a deadline; a Hold is one holder's use of it. A tenure goes from hold to hold
// when threads of one process hand a lock to each other, or is kept for a while without one.
//
//     Tenure   pending --granted--> live --close--> over
//     Hold                          held --lose---> lost
//                                    |
//                                    +-----end----> ended
//
// Whoever sees the deadline pass closes it for good, in the same compare-and-swap that a renewal
// would need to move it; so once valid() was false it stays false.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP

#include <codomyrmex/concurrency/detail/fork_mark.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <version>
#if !defined(__cpp_lib_jthread)
#error "The Redis half needs std::stop_token: libstdc++, or libc++ 18 with -fexperimental-library"
#endif
#include <stop_token>

namespace codomyrmex::concurrency::redis {

class Hold;
class Schedule;

/// What stands in the server under one owner token: first wanted, then granted, until it is over.
/// Threads: all members may be called from any thread, but those that are marked.
class Tenure {
  public:
    /// `mark`: of the process that wants it.
    Tenure(
        std::shared_ptr<const LockIdentity> identity, std::string token,
        std::shared_ptr<const detail::ForkMark> mark = std::make_shared<const detail::ForkMark>())
        : identity_{std::move(identity)}, token_{std::move(token)}, mark_{std::move(mark)} {}
    Tenure(const Tenure&) = delete;
    Tenure& operator=(const Tenure&) = delete;
    ~Tenure() = default;

    [[nodiscard]] const LockIdentity& identity() const noexcept { return *identity_; }
    [[nodiscard]] const std::string& name() const noexcept { return identity_->name; }
    [[nodiscard]] const std::string& token() const noexcept { return token_; }
    [[nodiscard]] std::chrono::nanoseconds ttl() const noexcept { return identity_->options.ttl; }

    /// pending -> live: the server granted it. Returns: false if it is over already at `now`; then
    /// it is still pending. Threads: by the acquiring thread, before it is shown to others.
    [[nodiscard]] bool granted(const Grant& grant, BootTime now) noexcept {
        if (now >= grant.until()) return false;
        fences_left_ = grant.fences;
        next_fence_ = grant.fence;
        term_.store(grant.ttl.count());
        acquired_.store(now.time_since_epoch().count());
        deadline_.store(grant.until().time_since_epoch().count());
        return true;
    }

    /// The next fencing token that is reserved for it; 0 if there is none.
    /// Threads: by whoever has its use, one at a time.
    [[nodiscard]] std::uint64_t take_fence() noexcept {
        if (fences_left_ == 0) return 0;
        --fences_left_;
        return next_fence_++;
    }
    [[nodiscard]] bool has_fence() const noexcept { return fences_left_ != 0; }

    /// That another process' release made it the holder. Threads: as granted().
    void mark_handed_over() noexcept { handed_over_ = true; }

    /// How the next hold of it comes about; `contended`: that it had to wait for another.
    /// Threads: as take_fence().
    [[nodiscard]] HandOver take_hand_over(bool contended) noexcept {
        if (std::exchange(used_, true)) return contended ? HandOver::local : HandOver::none;
        return handed_over_ ? HandOver::remote : HandOver::none;
    }

    /// A renewal sent at `sent` was confirmed: extends the deadline.
    /// Returns: false if the lease was over by `now`; the confirmation came too late.
    [[nodiscard]] bool renewed(BootTime sent, BootTime now) noexcept {
        const std::int64_t end = (sent + ttl() - drift_allowance(ttl())).time_since_epoch().count();
        std::int64_t old = deadline_.load();
        while (old != closed) {
            if (now.time_since_epoch().count() >= old) {
                if (deadline_.compare_exchange_weak(old, closed)) return false;
            } else if (end <= old || deadline_.compare_exchange_weak(old, end)) {
                term_.store(ttl().count());
                return true;
            }
        }
        return false;
    }

    /// True while nobody else can hold the lock, as far as `now` goes. Once false, always false.
    [[nodiscard]] bool valid_at(BootTime now) const noexcept {
        std::int64_t end = deadline_.load();
        while (end != closed) {
            if (now.time_since_epoch().count() < end) return true;
            if (deadline_.compare_exchange_weak(end, closed)) return false;
        }
        return false;
    }

    /// live -> over.
    void close() noexcept { deadline_.store(closed); }

    /// The end of validity as it stands; the clock's beginning once it is over.
    [[nodiscard]] BootTime deadline() const noexcept {
        return BootTime{std::chrono::nanoseconds{deadline_.load()}};
    }

    /// How long the lease was granted or extended for the last time.
    [[nodiscard]] std::chrono::nanoseconds term() const noexcept {
        return std::chrono::nanoseconds{term_.load()};
    }

    /// When the renewal is due that follows a grant or a confirmation counted from `since`: after a
    /// third of the time that it gave.
    [[nodiscard]] BootTime renewal_due(BootTime since) const noexcept { return since + term() / 3; }

    /// When to try again after a renewal whose outcome is unknown: a tenth of that time.
    [[nodiscard]] BootTime retry_due(BootTime now) const noexcept {
        return now + std::clamp<std::chrono::nanoseconds>(term() / 10, std::chrono::milliseconds{1},
                                                          std::chrono::seconds{1});
    }

    /// False once it was held for `max_hold`: the lease is then left to run out.
    [[nodiscard]] bool renewable_at(BootTime now) const noexcept {
        using std::chrono::milliseconds;
        const milliseconds limit = identity_->options.max_hold;
        // In milliseconds: a limit that stands for ever does not fit into nanoseconds.
        return limit == milliseconds::zero() ||
               std::chrono::floor<milliseconds>(now - acquired()) < limit;
    }

    /// Since when its holder has it.
    [[nodiscard]] BootTime acquired() const noexcept {
        return BootTime{std::chrono::nanoseconds{acquired_.load()}};
    }
    /// Another holder has it from `now` on.
    void passed_on(BootTime now) noexcept { acquired_.store(now.time_since_epoch().count()); }

    /// How long its key lasts in the server by itself, at most, from the last request that could
    /// have set it.
    [[nodiscard]] std::chrono::nanoseconds key_lasts() const noexcept {
        return ttl() + drift_allowance(ttl());
    }
    /// When it is gone at the latest, if that was sent before `now`.
    [[nodiscard]] BootTime key_gone_by(BootTime now) const noexcept { return now + key_lasts(); }

    /// A number for its next conversion, larger than that of the one before.
    [[nodiscard]] std::uint64_t next_conversion() noexcept { return conversions_.fetch_add(1) + 1; }

    /// That a copy of the request that made it may be executed later, when it was given back.
    /// Threads: as granted().
    void mark_doubtful() noexcept { doubtful_ = true; }
    [[nodiscard]] bool doubtful() const noexcept { return doubtful_; }

    /// How it may stand in the queue; empty if it surely does not.
    /// Threads: set as granted(). stand_as() throws: std::bad_alloc.
    void stand_as(std::string waiter) {
        waiter_ = std::make_unique<const std::string>(std::move(waiter));
        stood_ = true;
    }
    void leave_queue() noexcept { waiter_ = nullptr; }
    [[nodiscard]] std::string_view waiter() const noexcept {
        return waiter_ ? std::string_view{*waiter_} : std::string_view{};
    }
    /// Whether it ever did.
    [[nodiscard]] bool stood() const noexcept { return stood_; }

    /// True in the child of a fork, where this memory is a copy and the lease is the parent's.
    [[nodiscard]] bool forked() const noexcept { return mark_->in_child(); }

    /// Who is to be told when it is lost. Empty: nobody.
    void used_by(std::shared_ptr<Hold> hold) noexcept {
        const std::lock_guard guard{mutex_};
        user_.swap(hold);
    }
    [[nodiscard]] std::shared_ptr<Hold> user() const {
        const std::lock_guard guard{mutex_};
        return user_;
    }

  private:
    friend class Schedule;

    // The deadline of a lease that is over. No clock that counts from boot shows it again.
    static constexpr std::int64_t closed = 0;

    const std::shared_ptr<const LockIdentity> identity_;
    const std::string token_;
    const std::shared_ptr<const detail::ForkMark> mark_;
    std::uint64_t next_fence_ = 0;
    std::uint64_t fences_left_ = 0;
    std::unique_ptr<const std::string> waiter_;  // most never stand in a queue
    std::atomic<std::uint64_t> conversions_{0};
    std::atomic<std::int64_t> acquired_{0};
    std::atomic<std::int64_t> term_{0};
    // Seeing that it has passed closes it, also through a const Tenure.
    mutable std::atomic<std::int64_t> deadline_{closed};
    mutable WordMutex mutex_;
    std::shared_ptr<Hold> user_;
    BootTime scheduled_{};  // of the schedule that it is in: when it is due there
    bool doubtful_ = false;
    bool handed_over_ = false;
    bool used_ = false;
    bool stood_ = false;
};

/// One holder's use of a tenure, from the acquisition to the release or the loss.
/// Threads: all members may be called from any thread.
class Hold {
  public:
    /// A hold of `tenure` under the next of its fencing tokens. `contended`: that somebody else
    /// held the lock when it was first asked for.
    /// Requires: the tenure is live, has a token left, and nobody else has its use.
    /// Throws: std::bad_alloc.
    Hold(std::shared_ptr<Tenure> tenure, bool contended)
        : tenure_{std::move(tenure)},
          fence_{tenure_->take_fence()},
          contended_{contended},
          hand_over_{tenure_->take_hand_over(contended)} {}

    /// The hold that takes the place of `other`, under another fencing token of the server's. Who
    /// has the stop token of the one has that of the other.
    Hold(const Hold& other, std::uint64_t fence) noexcept
        : tenure_{other.tenure_},
          fence_{fence},
          contended_{other.contended_},
          hand_over_{other.hand_over_},
          stop_{other.stop_} {}

    [[nodiscard]] const std::shared_ptr<Tenure>& tenure() const noexcept { return tenure_; }
    [[nodiscard]] const std::string& name() const noexcept { return tenure_->name(); }
    [[nodiscard]] const std::string& token() const noexcept { return tenure_->token(); }
    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_; }
    [[nodiscard]] bool contended() const noexcept { return contended_; }
    [[nodiscard]] HandOver hand_over() const noexcept { return hand_over_; }

    /// True while nobody else can hold the lock, as far as `now` goes. Once false, always false.
    [[nodiscard]] bool valid_at(BootTime now) const noexcept {
        return state_.load() == State::held && tenure_->valid_at(now);
    }

    /// valid_at() of the present, and false in the child of a fork: the lease is the parent's.
    [[nodiscard]] bool valid() const noexcept {
        return valid_at(detail::BootClock::now()) && !forked();
    }

    /// How long it stays valid without a renewal; zero if it is not.
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        const BootTime now = detail::BootClock::now();
        if (!valid_at(now) || forked()) return std::chrono::nanoseconds::zero();
        return std::max(tenure_->deadline() - now, std::chrono::nanoseconds::zero());
    }

    /// held -> lost: asks the stop token to stop, which runs the callbacks registered with it,
    /// here. The tenure is over, too. Returns: true if this call was the one that did it.
    bool lose() {
        State expected = State::held;
        if (!state_.compare_exchange_strong(expected, State::lost)) return false;
        tenure_->close();
        stop_.request_stop();
        return true;
    }

    /// held -> ended: the holder gives it up; neither valid nor lost from here on.
    /// Returns: true if this call was the one that did it.
    bool end() noexcept {
        State expected = State::held;
        return state_.compare_exchange_strong(expected, State::ended);
    }

    [[nodiscard]] bool held() const noexcept { return state_.load() == State::held; }
    [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

    /// True in the child of a fork.
    [[nodiscard]] bool forked() const noexcept { return tenure_->forked(); }

  private:
    enum class State : std::uint8_t { held, lost, ended };

    const std::shared_ptr<Tenure> tenure_;
    const std::uint64_t fence_;
    const bool contended_;
    const HandOver hand_over_;
    std::atomic<State> state_{State::held};
    std::stop_source stop_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP
