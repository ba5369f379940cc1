// SPDX-License-Identifier: MIT
//
// A point in time by which a call must end. Every timeout or time point that a user gives is
// turned into one Deadline at the boundary, once: rounded up, saturating, on the steady clock.
// Inside the library only deadlines travel, so that a wait in several steps cannot add up.

#ifndef CODOMYRMEX_CONCURRENCY_DEADLINE_HPP
#define CODOMYRMEX_CONCURRENCY_DEADLINE_HPP

#include <algorithm>
#include <chrono>
#include <compare>
#include <limits>
#include <ratio>
#include <type_traits>

namespace codomyrmex::concurrency {

namespace detail {

/// Any duration in nanoseconds: rounded up, saturating at both ends, zero for not-a-number.
template <class Rep, class Period>
[[nodiscard]] constexpr std::chrono::nanoseconds to_nanoseconds(
    const std::chrono::duration<Rep, Period>& duration) noexcept {
    using Nanoseconds = std::chrono::nanoseconds;
    using Ratio = std::ratio_divide<Period, std::nano>;
    if constexpr (std::is_same_v<Rep, Nanoseconds::rep> && Ratio::den == 1) {
        if (duration.count() > Nanoseconds::max().count() / Ratio::num) return Nanoseconds::max();
        if (duration.count() < Nanoseconds::min().count() / Ratio::num) return Nanoseconds::min();
        return Nanoseconds{duration.count() * Ratio::num};
    }
    // A long double holds the ends of the range well enough to tell what would overflow.
    using Wide = std::chrono::duration<long double, std::nano>;
    const Wide wide = duration;
    if (wide.count() != wide.count()) return Nanoseconds::zero();
    if (wide >= Wide{Nanoseconds::max()}) return Nanoseconds::max();
    if (wide <= Wide{Nanoseconds::min()}) return Nanoseconds::min();
    return std::chrono::ceil<Nanoseconds>(duration);
}

/// a + b, saturating.
[[nodiscard]] constexpr std::chrono::nanoseconds saturating_add(
    std::chrono::nanoseconds a, std::chrono::nanoseconds b) noexcept {
    using Nanoseconds = std::chrono::nanoseconds;
    if (b.count() > 0 && a > Nanoseconds::max() - b) return Nanoseconds::max();
    if (b.count() < 0 && a < Nanoseconds::min() - b) return Nanoseconds::min();
    return a + b;
}

}  // namespace detail

/// A point on the steady clock, or never. A value type; comparable; the earlier is the smaller.
class Deadline {
  public:
    using clock = std::chrono::steady_clock;
    using time_point = std::chrono::time_point<clock, std::chrono::nanoseconds>;

    /// The deadline that never comes.
    [[nodiscard]] static constexpr Deadline never() noexcept { return Deadline{time_point::max()}; }

    /// `timeout` from now. Zero or negative: has come already; too large to add: never.
    template <class Rep, class Period>
    [[nodiscard]] static Deadline after(
        const std::chrono::duration<Rep, Period>& timeout) noexcept {
        const auto now = std::chrono::nanoseconds{clock::now().time_since_epoch()};
        return Deadline{time_point{detail::saturating_add(now, detail::to_nanoseconds(timeout))}};
    }

    /// The time point `when`. One of another clock is converted once, now: later steps of that
    /// clock do not move the deadline.
    template <class Clock, class Duration>
    [[nodiscard]] static Deadline at(
        const std::chrono::time_point<Clock, Duration>& when) noexcept {
        const auto target = detail::to_nanoseconds(when.time_since_epoch());
        if (target == std::chrono::nanoseconds::max()) return never();
        if constexpr (std::is_same_v<Clock, clock>) {
            return Deadline{time_point{target}};
        } else {
            const auto now = detail::to_nanoseconds(Clock::now().time_since_epoch());
            // The most negative value has no opposite; one step inside it has.
            const auto minus = -std::max(now, -std::chrono::nanoseconds::max());
            return after(detail::saturating_add(target, minus));
        }
    }

    /// The point on the steady clock; time_point::max() for never.
    [[nodiscard]] constexpr time_point time() const noexcept { return when_; }

    [[nodiscard]] constexpr bool is_never() const noexcept { return when_ == time_point::max(); }

    [[nodiscard]] bool expired() const noexcept {
        return !is_never() && time_point{clock::now()} >= when_;
    }

    /// Whether it has come or will within `duration`.
    [[nodiscard]] bool expired_within(std::chrono::nanoseconds duration) const noexcept {
        return !is_never() && remaining() <= duration;
    }

    /// What is left: zero once it has come, nanoseconds::max() for never.
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        if (is_never()) return std::chrono::nanoseconds::max();
        const time_point now{clock::now()};
        return now >= when_ ? std::chrono::nanoseconds::zero() : when_ - now;
    }

    friend constexpr bool operator==(const Deadline&, const Deadline&) noexcept = default;

    // Spelt out, for the time points of libc++ before 17 cannot be compared so.
    friend constexpr auto operator<=>(const Deadline& a, const Deadline& b) noexcept {
        return a.when_.time_since_epoch().count() <=> b.when_.time_since_epoch().count();
    }

  private:
    explicit constexpr Deadline(time_point when) noexcept : when_{when} {}

    time_point when_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_DEADLINE_HPP
