// SPDX-License-Identifier: MIT
//
// The state of one lease, without I/O: who holds what, under which fencing token, until when, and
// how the holder is told that it is over. The client, the keeper and the guard share one Hold;
// each change of it is a step of this state machine, so that a lease that ended never comes back.
//
//     pending --granted--> held --lose--> lost
//                           |
//                           +-----end---> ended
//
// Beside the state there is one deadline. Whoever sees it pass closes it for good, in the same
// compare-and-swap that a renewal would need to move it; so once valid() was false it stays false.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP

#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <version>
#if !defined(__cpp_lib_jthread)
#error "The Redis half needs std::stop_token: use libstdc++, or libc++ with -fexperimental-library"
#endif
#include <stop_token>

namespace codomyrmex::concurrency::redis {

using BootTime = detail::BootClock::time_point;

/// What all leases of one lock object have in common: its name, its keys, its options.
struct LockIdentity {
    std::string name{};
    std::string lock_key{};
    std::string fence_key{};
    std::string queue_key{};
    LeaseOptions options{};
};

/// How much earlier than the server a client gives a lease up, for clocks that do not run alike:
/// a hundredth of the time to live, and 2 ms.
[[nodiscard]] constexpr std::chrono::nanoseconds drift_allowance(
    std::chrono::nanoseconds ttl) noexcept {
    return ttl / 100 + std::chrono::milliseconds{2};
}

/// Requires: `options` within the documented bounds.
/// Throws: LockError(invalid_argument) that names the member which is not.
inline void validate(const LeaseOptions& options) {
    using namespace std::chrono_literals;
    if (options.ttl < 10ms || options.ttl > 24h) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::ttl must be from 10 ms to 24 h, not " +
                            std::to_string(options.ttl.count()) + " ms");
    }
    if (options.max_hold < 0ms) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_hold must not be negative, but is " +
                            std::to_string(options.max_hold.count()) + " ms");
    }
}

/// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes. Any bytes will do.
inline void validate_name(std::string_view name) {
    if (name.empty() || name.size() > 512) {
        throw LockError(
            LockErrc::invalid_argument,
            "the name of a lock must have 1 to 512 bytes, not " + std::to_string(name.size()));
    }
}

/// `{`, `}` and `%` percent-encoded: a name may not open or close the key's hash tag.
[[nodiscard]] inline std::string encode_name(std::string_view name) {
    std::string encoded;
    encoded.reserve(name.size());
    for (const char byte : name) {
        switch (byte) {
            case '{':
                encoded += "%7B";
                break;
            case '}':
                encoded += "%7D";
                break;
            case '%':
                encoded += "%25";
                break;
            default:
                encoded += byte;
        }
    }
    return encoded;
}

/// The identity of the lock `name` under the key prefix `prefix`.
/// Throws: LockError(invalid_argument) for a name or options that break their bounds.
[[nodiscard]] inline LockIdentity make_identity(std::string_view prefix, std::string_view name,
                                                LeaseOptions options) {
    validate_name(name);
    validate(options);
    std::string key = std::string{prefix} + "lock:{" + encode_name(name) + '}';
    LockIdentity identity{std::string{name}, key, key + ":fence", key + ":queue",
                          std::move(options)};
    return identity;
}

/// One attempt to acquire and the lease that comes of it.
/// Threads: all members may be called from any thread, but the three that are marked.
class Hold {
  public:
    /// A pending hold of `identity` under the owner token `token`.
    Hold(std::shared_ptr<const LockIdentity> identity, std::string token)
        : identity_{std::move(identity)}, token_{std::move(token)} {}

    [[nodiscard]] const std::string& name() const noexcept { return identity_->name; }
    [[nodiscard]] const LockIdentity& identity() const noexcept { return *identity_; }
    [[nodiscard]] const std::string& token() const noexcept { return token_; }
    [[nodiscard]] std::chrono::nanoseconds ttl() const noexcept { return identity_->options.ttl; }

    /// pending -> held: the server granted `fence` to a request that was sent at `sent`.
    /// Returns: false if the lease is over already at `now`; then it is still pending.
    /// Threads: by the acquiring thread only, before the hold is shown to others.
    [[nodiscard]] bool granted(std::uint64_t fence, BootTime sent, BootTime now) {
        const BootTime end = valid_until(sent);
        if (now >= end) return false;
        fence_ = fence;
        acquired_ = now;
        deadline_.store(end.time_since_epoch().count());
        state_.store(State::held);
        return true;
    }

    /// That somebody else held it when it was first asked for. Threads: as granted().
    void mark_contended() noexcept { contended_ = true; }
    [[nodiscard]] bool contended() const noexcept { return contended_; }

    /// A renewal sent at `sent` was confirmed: extends the deadline.
    /// Returns: false if the lease was over by `now`; the confirmation came too late.
    [[nodiscard]] bool renewed(BootTime sent, BootTime now) noexcept {
        const std::int64_t end = valid_until(sent).time_since_epoch().count();
        std::int64_t old = deadline_.load();
        while (old != closed) {
            if (now.time_since_epoch().count() >= old) {
                if (deadline_.compare_exchange_weak(old, closed)) return false;
            } else if (end <= old || deadline_.compare_exchange_weak(old, end)) {
                return state_.load() == State::held;
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

    /// valid_at() of the present, and false in the child of a fork: the lease is the parent's.
    [[nodiscard]] bool valid() const noexcept {
        return valid_at(detail::BootClock::now()) && !forked();
    }

    /// How long it stays valid without a renewal; zero if it is not.
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        const BootTime now = detail::BootClock::now();
        if (!valid_at(now) || forked()) return std::chrono::nanoseconds::zero();
        return std::max(deadline() - now, std::chrono::nanoseconds::zero());
    }

    /// The end of validity as it stands; the clock's beginning once it is over.
    [[nodiscard]] BootTime deadline() const noexcept {
        return BootTime{std::chrono::nanoseconds{deadline_.load()}};
    }

    /// The fencing token; 0 while pending.
    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_; }

    /// held -> lost: closes the deadline and asks the stop token to stop, which runs the callbacks
    /// registered with it, here. Returns: true if this call was the one that did it.
    bool lose() {
        deadline_.store(closed);
        State expected = State::held;
        if (!state_.compare_exchange_strong(expected, State::lost)) return false;
        stop_.request_stop();
        return true;
    }

    /// held -> ended: the holder gives it up; neither valid nor lost from here on.
    void end() noexcept {
        deadline_.store(closed);
        State expected = State::held;
        state_.compare_exchange_strong(expected, State::ended);
    }

    [[nodiscard]] bool held() const noexcept { return state_.load() == State::held; }
    [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

    /// When the renewal is due that follows a confirmation of a request sent at `sent`.
    [[nodiscard]] BootTime renewal_due(BootTime sent) const noexcept { return sent + ttl() / 3; }

    /// When to try again after a renewal whose outcome is unknown: a tenth of the time to live.
    [[nodiscard]] BootTime retry_due(BootTime now) const noexcept {
        return now + std::clamp<std::chrono::nanoseconds>(ttl() / 10, std::chrono::milliseconds{1},
                                                          std::chrono::seconds{1});
    }

    /// False once `max_hold` has passed: the lease is then left to run out.
    [[nodiscard]] bool renewable_at(BootTime now) const noexcept {
        using std::chrono::milliseconds;
        const milliseconds limit = identity_->options.max_hold;
        // In milliseconds: a limit that stands for ever does not fit into nanoseconds.
        return limit == milliseconds::zero() ||
               std::chrono::floor<milliseconds>(now - acquired_) < limit;
    }

    /// When the key of this lease is gone from the server by itself, at the latest, if the last
    /// request that could have set it was sent before `now`.
    [[nodiscard]] BootTime key_gone_by(BootTime now) const noexcept {
        return now + ttl() + drift_allowance(ttl());
    }

    /// True in the child of a fork, where this memory is a copy and the lease is the parent's.
    [[nodiscard]] bool forked() const noexcept { return detail::process_id() != process_; }

  private:
    enum class State : std::uint8_t { pending, held, lost, ended };

    // The deadline of a lease that is over. No clock that counts from boot shows it again.
    static constexpr std::int64_t closed = 0;

    [[nodiscard]] BootTime valid_until(BootTime sent) const noexcept {
        return sent + ttl() - drift_allowance(ttl());
    }

    std::shared_ptr<const LockIdentity> identity_;
    std::string token_;
    std::int64_t process_ = detail::process_id();
    std::uint64_t fence_ = 0;
    BootTime acquired_{};
    bool contended_ = false;
    std::atomic<State> state_{State::pending};
    // Seeing that it has passed closes it, also through a const Hold.
    mutable std::atomic<std::int64_t> deadline_{closed};
    std::stop_source stop_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_HOLD_HPP
