// SPDX-License-Identifier: MIT
//
// Tests of deadline.hpp.

#include <codomyrmex/concurrency/deadline.hpp>

#include "support/catch2.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using detail::saturating_add;
using detail::to_nanoseconds;

namespace {

using Nanoseconds = std::chrono::nanoseconds;
using Seconds = std::chrono::duration<double>;
using Steady = std::chrono::steady_clock;
using System = std::chrono::system_clock;

/// A clock whose epoch is far in the future, so that its now() is negative, up to the extreme.
template <std::int64_t Now>
struct StoppedClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<StoppedClock>;
    static constexpr bool is_steady = true;
    static time_point now() noexcept { return time_point{duration{Now}}; }
};

using Ancient = StoppedClock<std::numeric_limits<std::int64_t>::min()>;
using Zero = StoppedClock<0>;

static_assert(std::is_trivially_copyable_v<Deadline>);
static_assert(noexcept(Deadline::after(Nanoseconds::zero())));

}  // namespace

TEST_CASE("a duration becomes nanoseconds rounded up") {
    CHECK(to_nanoseconds(3ms) == 3'000'000ns);
    CHECK(to_nanoseconds(-3ms) == -3'000'000ns);
    using Picoseconds = std::chrono::duration<std::int64_t, std::pico>;
    CHECK(to_nanoseconds(Picoseconds{1}) == 1ns);
    CHECK(to_nanoseconds(Picoseconds{1000}) == 1ns);
    CHECK(to_nanoseconds(Picoseconds{1001}) == 2ns);
    CHECK(to_nanoseconds(Picoseconds{-1}) == 0ns);
    CHECK(to_nanoseconds(Seconds{1.5e-9}) == 2ns);
}

TEST_CASE("a duration too large for nanoseconds saturates, whatever its type") {
    CHECK(to_nanoseconds(std::chrono::hours::max()) == Nanoseconds::max());
    CHECK(to_nanoseconds(std::chrono::hours::min()) == Nanoseconds::min());
    CHECK(to_nanoseconds(Nanoseconds::max()) == Nanoseconds::max());
    CHECK(to_nanoseconds(Nanoseconds::min()) == Nanoseconds::min());
    CHECK(to_nanoseconds(Seconds{1e300}) == Nanoseconds::max());
    CHECK(to_nanoseconds(Seconds{-1e300}) == Nanoseconds::min());
    CHECK(to_nanoseconds(Seconds{std::numeric_limits<double>::infinity()}) == Nanoseconds::max());
    CHECK(to_nanoseconds(std::chrono::years{292}) < Nanoseconds::max());
    CHECK(to_nanoseconds(std::chrono::years{293}) == Nanoseconds::max());
}

TEST_CASE("a duration that is not a number is zero") {
    CHECK(to_nanoseconds(Seconds{std::numeric_limits<double>::quiet_NaN()}) == 0ns);
}

TEST_CASE("sums saturate at both ends") {
    CHECK(saturating_add(Nanoseconds::max(), 1ns) == Nanoseconds::max());
    CHECK(saturating_add(Nanoseconds::min(), -1ns) == Nanoseconds::min());
    CHECK(saturating_add(Nanoseconds::max(), Nanoseconds::min()) == -1ns);
    CHECK(saturating_add(2ns, 3ns) == 5ns);
}

TEST_CASE("never has not come and never comes") {
    const auto never = Deadline::never();
    CHECK(never.is_never());
    CHECK_FALSE(never.expired());
    CHECK(never.remaining() == Nanoseconds::max());
    CHECK(never.time() == Deadline::time_point::max());
}

TEST_CASE("a timeout that cannot be added to now is never") {
    CHECK(Deadline::after(Nanoseconds::max()).is_never());
    CHECK(Deadline::after(std::chrono::hours::max()).is_never());
    CHECK(Deadline::after(Seconds{1e300}).is_never());
    CHECK_FALSE(Deadline::after(24h * 365 * 100).is_never());
}

TEST_CASE("a zero or negative timeout has come already") {
    for (const auto timeout : {0ns, -1ns, Nanoseconds{-1h}, Nanoseconds::min()}) {
        const auto deadline = Deadline::after(timeout);
        CAPTURE(timeout.count());
        CHECK(deadline.expired());
        CHECK(deadline.remaining() == 0ns);
    }
}

TEST_CASE("a timeout counts from now") {
    const auto before = Steady::now();
    const auto deadline = Deadline::after(1h);
    const auto after = Steady::now();
    CHECK(deadline.time() >= before + 1h);
    CHECK(deadline.time() <= after + 1h);
    CHECK_FALSE(deadline.expired());
    CHECK(deadline.remaining() <= 1h);
    CHECK(deadline.remaining() > 59min);
}

TEST_CASE("a steady time point is taken as it is") {
    const auto when = Steady::now() + 1h;
    CHECK(Deadline::at(when).time() == when);
    CHECK(Deadline::at(Steady::time_point::min()).expired());
    CHECK(Deadline::at(Steady::time_point{}).expired());
}

TEST_CASE("the last time point of any clock is never") {
    CHECK(Deadline::at(Steady::time_point::max()).is_never());
    CHECK(Deadline::at(System::time_point::max()).is_never());
    CHECK(Deadline::at(std::chrono::time_point<System, std::chrono::hours>::max()).is_never());
    CHECK(Deadline::at(Ancient::time_point::max()).is_never());
}

TEST_CASE("a time point of another clock is converted by how far off it is") {
    const auto future = Deadline::at(System::now() + 1h);
    CHECK_FALSE(future.expired());
    CHECK(future.remaining() <= 1h);
    CHECK(future.remaining() > 59min);
    CHECK(Deadline::at(System::now() - 1s).expired());
    CHECK(Deadline::at(System::time_point::min()).expired());

    const auto ahead = Deadline::at(Zero::time_point{1h});
    CHECK(ahead.remaining() > 59min);
    CHECK(ahead.remaining() <= 1h);
    CHECK(Deadline::at(Zero::time_point{}).expired());
}

TEST_CASE("a clock at the far end of its range does not overflow the sum") {
    CHECK(Deadline::at(Ancient::time_point{1h}).is_never());
    CHECK_FALSE(Deadline::at(Ancient::now() + 1h).is_never());
}

TEST_CASE("the earlier deadline is the smaller") {
    const auto soon = Deadline::after(1s);
    const auto late = Deadline::after(1h);
    CHECK(soon < late);
    CHECK(late < Deadline::never());
    CHECK(soon == soon);
    CHECK(std::min(Deadline::never(), soon) == soon);
}
