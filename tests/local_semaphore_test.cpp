// SPDX-License-Identifier: MIT
//
// Tests of local_semaphore.hpp. Those of the arithmetic of waiters run on a scripted bed, on one
// thread: what happens between two steps of an acquire is written down, not raced for.

#include <codomyrmex/concurrency/local_semaphore.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::error_of;
using support::message_of;

namespace {

/// Does in a wait what the test says, instead of sleeping.
struct ScriptedBed {
    // A semaphore makes its bed itself, so a test reaches it here.
    static inline ScriptedBed* last = nullptr;
    ScriptedBed() { last = this; }

    void post(std::ptrdiff_t count) {
        posts.push_back(count);
        available += count;
    }

    void wait() {
        ++waits;
        if (auto script = std::exchange(in_wait, nullptr)) script();
        --available;
    }

    bool wait_until(Deadline deadline) {
        deadlines.push_back(deadline);
        if (auto script = std::exchange(in_timed_wait, nullptr)) return script();
        return false;
    }

    std::vector<std::ptrdiff_t> posts;
    std::vector<Deadline> deadlines;
    std::ptrdiff_t available = 0;
    int waits = 0;
    std::function<void()> in_wait;
    std::function<bool()> in_timed_wait;
};

/// A clock that does what the test says when it is asked the time.
struct ScriptedClock {
    using duration = std::chrono::nanoseconds;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::time_point<ScriptedClock>;

    static time_point now() {
        if (const auto script = std::exchange(on_now, nullptr)) script();
        return time_point{};
    }

    static inline std::function<void()> on_now;
};

using ScriptedSemaphore = BasicLocalSemaphore<ScriptedBed>;

static_assert(!std::is_copy_constructible_v<LocalSemaphore>);
static_assert(!std::is_move_constructible_v<LocalSemaphore>);
static_assert(!std::is_convertible_v<std::ptrdiff_t, LocalSemaphore>);
static_assert(LocalSemaphore::max() == std::numeric_limits<std::ptrdiff_t>::max());
static_assert(TimedSemaphore<BasicLocalSemaphore<CountingSemaphoreBed>>);

}  // namespace

TEST_CASE("a fresh semaphore has all its permits free") {
    const LocalSemaphore semaphore{5};
    CHECK(semaphore.permits() == 5);
    CHECK(semaphore.available() == 5);
    CHECK(semaphore.waiting() == 0);
    CHECK(LocalSemaphore{LocalSemaphore::max()}.available() == LocalSemaphore::max());
}

TEST_CASE("a semaphore of less than one permit is refused with the number") {
    const auto number = GENERATE(std::ptrdiff_t{0}, std::ptrdiff_t{-1}, std::ptrdiff_t{-4711},
                                 std::numeric_limits<std::ptrdiff_t>::min());
    const auto make = [&] { LocalSemaphore{number}; };
    CAPTURE(number, message_of(make));
    CHECK(error_of(make) == LockErrc::invalid_argument);
    CHECK(message_of(make).find(std::to_string(number)) != std::string::npos);
}

TEST_CASE("as many permits can be taken as there are, and again when given back") {
    LocalSemaphore semaphore{2};
    semaphore.acquire();
    CHECK(semaphore.try_acquire());
    CHECK(semaphore.available() == 0);
    CHECK_FALSE(semaphore.try_acquire());
    CHECK_FALSE(semaphore.try_acquire_for(-1h));
    semaphore.release();
    CHECK(semaphore.available() == 1);
    CHECK(semaphore.try_acquire_for(0s));
    semaphore.release(2);
    CHECK(semaphore.available() == 2);
}

TEST_CASE("giving back more permits than are out is not_held and changes nothing") {
    LocalSemaphore semaphore{3};
    CHECK(error_of([&] { semaphore.release(); }) == LockErrc::not_held);
    CHECK(semaphore.available() == 3);
    semaphore.acquire();
    const auto too_many = [&] { semaphore.release(2); };
    CAPTURE(message_of(too_many));
    CHECK(error_of(too_many) == LockErrc::not_held);
    CHECK(message_of(too_many).find("2 permits") != std::string::npos);
    CHECK(error_of([&] { semaphore.release(LocalSemaphore::max()); }) == LockErrc::not_held);
    CHECK(semaphore.available() == 2);
    semaphore.release();
    CHECK(error_of([&] { semaphore.release(); }) == LockErrc::not_held);
}

TEST_CASE("giving back a negative number of permits is refused, giving back none does nothing") {
    LocalSemaphore semaphore{3};
    semaphore.acquire();
    CHECK(error_of([&] { semaphore.release(-1); }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { semaphore.release(std::numeric_limits<std::ptrdiff_t>::min()); }) ==
          LockErrc::invalid_argument);
    semaphore.release(0);
    CHECK(semaphore.available() == 2);
    semaphore.release();
    semaphore.release(0);
    CHECK(semaphore.available() == 3);
}

TEST_CASE("release leaves its error in the error_code, and clears it on success") {
    LocalSemaphore semaphore{1};
    std::error_code ec;
    semaphore.release(1, ec);
    CHECK(ec == LockErrc::not_held);
    semaphore.release(-1, ec);
    CHECK(ec == LockErrc::invalid_argument);
    semaphore.acquire();
    semaphore.release(1, ec);
    CHECK_FALSE(ec);
}

TEST_CASE("a release posts to those who wait and frees what is left") {
    ScriptedSemaphore semaphore{3};
    auto& bed = *ScriptedBed::last;
    for (int i = 0; i < 3; ++i)
        semaphore.acquire();
    std::ptrdiff_t waiting = 0;
    bed.in_wait = [&] {
        bed.in_wait = [&] {
            waiting = semaphore.waiting();
            semaphore.release(3);
        };
        semaphore.acquire();
    };
    semaphore.acquire();
    CHECK(waiting == 2);
    CHECK(bed.posts == std::vector<std::ptrdiff_t>{2});
    CHECK(bed.available == 0);
    CHECK(semaphore.available() == 1);
    CHECK(semaphore.waiting() == 0);
}

TEST_CASE("no more permits can be given back than there are, whoever waits or is about to wake") {
    ScriptedSemaphore semaphore{1};
    semaphore.acquire();
    std::error_code while_waiting;
    std::error_code while_woken;
    ScriptedBed::last->in_wait = [&] {
        semaphore.release(2, while_waiting);
        semaphore.release();
        semaphore.release(2, while_woken);
    };
    semaphore.acquire();
    CHECK(while_waiting == LockErrc::not_held);
    CHECK(while_woken == LockErrc::not_held);
    CHECK(semaphore.available() == 0);
    semaphore.release();
    CHECK(semaphore.available() == 1);
}

TEST_CASE("a waiter that gives up leaves no trace") {
    ScriptedSemaphore semaphore{1};
    auto& bed = *ScriptedBed::last;
    semaphore.acquire();
    std::ptrdiff_t waiting = 0;
    bed.in_timed_wait = [&] {
        waiting = semaphore.waiting();
        return false;
    };
    CHECK_FALSE(semaphore.try_acquire_for(1h));
    CHECK(waiting == 1);
    CHECK(semaphore.waiting() == 0);
    CHECK(bed.waits == 0);
    semaphore.release();
    CHECK(bed.posts.empty());
    CHECK(semaphore.available() == 1);
}

TEST_CASE("a waiter that is posted as it gives up takes the permit") {
    ScriptedSemaphore semaphore{1};
    auto& bed = *ScriptedBed::last;
    semaphore.acquire();
    bed.in_timed_wait = [&] {
        semaphore.release();
        return false;
    };
    CHECK(semaphore.try_acquire_for(1h));
    CHECK(bed.waits == 1);
    CHECK(bed.available == 0);
    CHECK(semaphore.available() == 0);
    semaphore.release();
    CHECK(semaphore.available() == 1);
}

TEST_CASE("of two waiters of which one is posted, one may give up and the other gets the permit") {
    ScriptedSemaphore semaphore{1};
    auto& bed = *ScriptedBed::last;
    semaphore.acquire();
    bool inner_acquired = true;
    bed.in_wait = [&] {
        bed.in_timed_wait = [&] {
            semaphore.release();
            return false;
        };
        inner_acquired = semaphore.try_acquire_for(1h);
    };
    semaphore.acquire();
    CHECK_FALSE(inner_acquired);
    CHECK(bed.available == 0);
    CHECK(semaphore.waiting() == 0);
    CHECK(semaphore.available() == 0);
}

TEST_CASE("a permit that comes free between the first try and the wait is taken without a wait") {
    ScriptedSemaphore semaphore{1};
    semaphore.acquire();
    // A timed acquire tries first, then asks the clock how long it may wait.
    ScriptedClock::on_now = [&] { semaphore.release(); };
    CHECK(semaphore.try_acquire_until(ScriptedClock::time_point{1h}));
    CHECK(ScriptedBed::last->deadlines.empty());
    CHECK(semaphore.available() == 0);
}

TEST_CASE("a timed acquire hands the bed its deadline, never if it is too far") {
    ScriptedSemaphore semaphore{1};
    auto& deadlines = ScriptedBed::last->deadlines;
    semaphore.acquire();
    const auto soon = std::chrono::steady_clock::now() + 1h;
    CHECK_FALSE(semaphore.try_acquire_until(soon));
    CHECK_FALSE(semaphore.try_acquire_for(std::chrono::hours::max()));
    CHECK_FALSE(semaphore.try_acquire_for(std::chrono::duration<double>{1e300}));
    CHECK_FALSE(semaphore.try_acquire_until(std::chrono::steady_clock::time_point::max()));
    CHECK_FALSE(semaphore.try_acquire_until(std::chrono::system_clock::time_point::max()));
    REQUIRE(deadlines.size() == 5);
    CHECK(deadlines[0].time() == soon);
    for (std::size_t i = 1; i < deadlines.size(); ++i)
        CHECK(deadlines[i].is_never());
}

TEST_CASE("a zero, negative or past time tries once and does not wait") {
    ScriptedSemaphore semaphore{1};
    semaphore.acquire();
    CHECK_FALSE(semaphore.try_acquire_for(0s));
    CHECK_FALSE(semaphore.try_acquire_for(std::chrono::hours::min()));
    CHECK_FALSE(semaphore.try_acquire_until(std::chrono::steady_clock::time_point{}));
    CHECK_FALSE(semaphore.try_acquire_until(std::chrono::system_clock::time_point::min()));
    CHECK(ScriptedBed::last->deadlines.empty());
    CHECK(semaphore.waiting() == 0);
}

TEMPLATE_TEST_CASE("never more threads are inside than there are permits", "", LocalSemaphore,
                   BasicLocalSemaphore<CountingSemaphoreBed>) {
    constexpr int permits = 3;
    TestType semaphore{permits};
    support::Occupancy section;
    std::atomic<int> turns{0};
    support::run_together(6, [&](int) {
        for (int i = 0; i < 800; ++i) {
            semaphore.acquire();
            section.enter();
            ++turns;
            section.leave();
            semaphore.release();
        }
    });
    CHECK(section.most() <= permits);
    CHECK(turns == 6 * 800);
    CHECK(semaphore.available() == permits);
    CHECK(semaphore.waiting() == 0);
}

TEMPLATE_TEST_CASE("whoever takes a permit sees what was written before it was given back", "",
                   LocalSemaphore, BasicLocalSemaphore<CountingSemaphoreBed>) {
    TestType semaphore{1};
    int counter = 0;  // plain: ThreadSanitizer tells if the order is missing
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 1000; ++i) {
            if (index % 2 == 0) {
                semaphore.acquire();
            } else {
                while (!semaphore.try_acquire_for(1ms)) {
                }
            }
            ++counter;
            semaphore.release();
        }
    });
    CHECK(counter == 4000);
}

TEMPLATE_TEST_CASE("waiters that time out while permits come lose none and invent none", "",
                   LocalSemaphore, BasicLocalSemaphore<CountingSemaphoreBed>) {
    constexpr int permits = 2;
    TestType semaphore{permits};
    support::Occupancy section;
    std::atomic<int> acquired{0};
    std::atomic<int> timed_out{0};
    support::run_together(6, [&](int index) {
        for (int i = 0; i < 400; ++i) {
            // Waits as long as a turn takes, so that time-outs and posts meet.
            if (semaphore.try_acquire_for(std::chrono::microseconds{(i * 7 + index * 13) % 120})) {
                section.enter();
                ++acquired;
                if (i % 8 == 0) std::this_thread::sleep_for(20us);
                section.leave();
                semaphore.release();
            } else {
                ++timed_out;
            }
        }
    });
    CAPTURE(acquired.load(), timed_out.load());
    CHECK(acquired + timed_out == 6 * 400);
    CHECK(section.most() <= permits);
    CHECK(semaphore.waiting() == 0);
    CHECK(semaphore.available() == permits);
    CHECK(semaphore.try_acquire());
    CHECK(semaphore.try_acquire());
    CHECK_FALSE(semaphore.try_acquire_for(1ms));
}

TEMPLATE_TEST_CASE("one release of several permits wakes as many waiters", "", LocalSemaphore,
                   BasicLocalSemaphore<CountingSemaphoreBed>) {
    TestType semaphore{4};
    for (int i = 0; i < 4; ++i)
        semaphore.acquire();
    std::vector<support::Thread> waiters;
    std::atomic<int> woken{0};
    for (int i = 0; i < 4; ++i) {
        waiters.emplace_back([&] {
            semaphore.acquire();
            ++woken;
        });
    }
    REQUIRE(support::eventually([&] { return semaphore.waiting() == 4; }));
    semaphore.release(3);
    CHECK(support::eventually([&] { return woken == 3; }));
    CHECK(semaphore.waiting() == 1);
    semaphore.release(1);
    waiters.clear();
    CHECK(woken == 4);
    CHECK(semaphore.available() == 0);
}

TEMPLATE_TEST_CASE("a semaphore may be destroyed as soon as the last acquire has returned", "",
                   LocalSemaphore, BasicLocalSemaphore<CountingSemaphoreBed>) {
    support::destroy_after_hand_over(
        300, [] { return std::make_unique<TestType>(1); },
        [](auto& semaphore) { semaphore.acquire(); }, [](auto& semaphore) { semaphore.release(); });
}
