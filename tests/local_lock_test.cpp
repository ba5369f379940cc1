// SPDX-License-Identifier: MIT
//
// Tests of local_lock.hpp, and of detail/timed_wait.hpp beneath it.

#include <codomyrmex/concurrency/local_lock.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <type_traits>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

/// Records how it is waited for, and fails as often as it is told.
struct ScriptedMutex {
    // BasicLocalLock makes its mutex itself, so a test reaches it here.
    static inline ScriptedMutex* last = nullptr;
    ScriptedMutex() { last = this; }

    void lock() { ++locks; }
    void unlock() { ++unlocks; }

    bool try_lock() {
        ++tries;
        return false;
    }

    template <class Rep, class Period>
    bool try_lock_for(const std::chrono::duration<Rep, Period>&) {
        return false;
    }

    template <class Clock, class Duration>
    bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        ++waits;
        left = std::chrono::ceil<std::chrono::nanoseconds>(when - Clock::now());
        return waits > early_returns;
    }

    int locks = 0;
    int unlocks = 0;
    int tries = 0;
    int waits = 0;
    int early_returns = 0;
    std::chrono::nanoseconds left{};
};

using ScriptedLock = BasicLocalLock<ScriptedMutex>;
using SharedLock = BasicLocalLock<std::shared_mutex>;
using TimedSharedLock = BasicLocalLock<std::shared_timed_mutex>;

static_assert(!std::is_copy_constructible_v<LocalLock> && !std::is_move_constructible_v<LocalLock>);
static_assert(!std::is_copy_assignable_v<LocalLock> && !std::is_move_assignable_v<LocalLock>);
static_assert(!std::is_convertible_v<std::string, LocalLock>);
static_assert(noexcept(std::declval<LocalLock&>().try_lock()));
static_assert(noexcept(std::declval<LocalLock&>().unlock()));
static_assert(SharedLockable<SharedLock> && !TimedLockable<SharedLock>);
static_assert(TimedSharedLockable<TimedSharedLock>);
static_assert(sizeof(LocalLock) == sizeof(std::mutex) + sizeof(std::string));

bool free_for_others(LocalLock& lock) {
    return support::on_another_thread([&] {
        return std::unique_lock{lock, std::try_to_lock}.owns_lock();
    });
}

}  // namespace

TEST_CASE("a lock has the name it was given, or none") {
    const LocalLock lock{"my_resource"};
    CHECK(lock.name() == "my_resource");
    CHECK(LocalLock{}.name().empty());
    CHECK(TimedLocalLock{"timed"}.name() == "timed");
}

TEMPLATE_TEST_CASE("a lock lets one thread in at a time, and each sees what the last one wrote", "",
                   LocalLock, TimedLocalLock, SharedLock) {
    TestType lock{"counter"};
    support::Occupancy section;
    int counter = 0;
    support::run_together(4, [&](int) {
        for (int i = 0; i < 3000; ++i) {
            const std::scoped_lock guard{lock};
            section.enter();
            ++counter;
            section.leave();
        }
    });
    CHECK(section.most() == 1);
    CHECK(counter == 4 * 3000);
}

TEST_CASE("try_lock fails while another thread holds the lock, and succeeds when it is free") {
    LocalLock lock;
    {
        const std::scoped_lock guard{lock};
        CHECK_FALSE(free_for_others(lock));
    }
    CHECK(free_for_others(lock));
}

TEST_CASE("an exception in the critical section frees the lock and goes on unharmed") {
    LocalLock lock;
    try {
        const std::scoped_lock guard{lock};
        throw std::runtime_error{"from within"};
    } catch (const std::runtime_error& error) {
        CHECK(std::string{error.what()} == "from within");
    }
    CHECK(free_for_others(lock));
}

TEST_CASE("threads that lock two locks in opposite orders with std::scoped_lock all come through") {
    LocalLock first;
    TimedLocalLock second;
    int turns = 0;
    support::run_together(2, [&](int index) {
        for (int i = 0; i < 2000; ++i) {
            if (index == 0) {
                const std::scoped_lock guard{first, second};
                ++turns;
            } else {
                const std::scoped_lock guard{second, first};
                ++turns;
            }
        }
    });
    CHECK(turns == 4000);
}

TEST_CASE("std::condition_variable_any waits with a lock of ours") {
    LocalLock lock;
    std::condition_variable_any changed;
    int turn = 0;
    support::run_together(2, [&](int index) {
        for (int i = 0; i < 500; ++i) {
            std::unique_lock guard{lock};
            changed.wait(guard, [&] { return turn % 2 == index; });
            ++turn;
            changed.notify_all();
        }
    });
    CHECK(turn == 1000);
}

TEST_CASE("a timed wait ends at its deadline and not before") {
    TimedLocalLock lock;
    const std::scoped_lock guard{lock};
    const auto waited = [&](auto wait) {
        return support::on_another_thread([&] {
            const auto start = std::chrono::steady_clock::now();
            const bool acquired = wait();
            return std::pair{acquired, std::chrono::steady_clock::now() - start};
        });
    };
    const auto [by_timeout, timeout_took] = waited([&] { return lock.try_lock_for(10ms); });
    CHECK_FALSE(by_timeout);
    CHECK(timeout_took >= 10ms);
    const auto [by_steady, steady_took] =
        waited([&] { return lock.try_lock_until(std::chrono::steady_clock::now() + 10ms); });
    CHECK_FALSE(by_steady);
    CHECK(steady_took >= 10ms);
    const auto [by_system, system_took] =
        waited([&] { return lock.try_lock_until(std::chrono::system_clock::now() + 10ms); });
    CHECK_FALSE(by_system);
    CHECK(system_took >= 9ms);
}

TEST_CASE("a timed wait gets the lock when its holder gives it back") {
    TimedLocalLock lock;
    std::unique_lock guard{lock};
    support::Event waiting;
    bool acquired = false;
    support::Thread waiter{[&] {
        waiting.set();
        acquired = std::unique_lock{lock, support::patience}.owns_lock();
    }};
    REQUIRE(waiting.wait());
    guard.unlock();
    waiter.join();
    CHECK(acquired);
}

TEST_CASE("a zero, negative or past time tries exactly once") {
    ScriptedLock scripted;
    CHECK_FALSE(scripted.try_lock_for(0s));
    CHECK_FALSE(scripted.try_lock_for(-1h));
    CHECK_FALSE(scripted.try_lock_for(std::chrono::hours::min()));
    CHECK_FALSE(scripted.try_lock_until(std::chrono::steady_clock::time_point{}));
    CHECK_FALSE(scripted.try_lock_until(std::chrono::system_clock::time_point::min()));
    CHECK(ScriptedMutex::last->tries == 5);
    CHECK(ScriptedMutex::last->waits == 0);
    CHECK(ScriptedMutex::last->locks == 0);

    TimedLocalLock lock;
    REQUIRE(lock.try_lock_for(-1h));
    lock.unlock();
    REQUIRE(lock.try_lock_until(std::chrono::steady_clock::time_point::min()));
    lock.unlock();
}

TEST_CASE("a time too far to be reached waits without a limit instead of overflowing") {
    ScriptedLock scripted;
    CHECK(scripted.try_lock_for(std::chrono::nanoseconds::max()));
    CHECK(scripted.try_lock_for(std::chrono::hours::max()));
    CHECK(scripted.try_lock_for(std::chrono::duration<double>{1e300}));
    CHECK(scripted.try_lock_until(std::chrono::steady_clock::time_point::max()));
    CHECK(scripted.try_lock_until(std::chrono::system_clock::time_point::max()));
    CHECK(ScriptedMutex::last->locks == 5);
    CHECK(ScriptedMutex::last->waits == 0);
}

TEST_CASE("a mutex that gives up early is waited for again until the deadline") {
    ScriptedLock scripted;
    ScriptedMutex::last->early_returns = 3;
    CHECK(scripted.try_lock_for(1h));
    CHECK(ScriptedMutex::last->waits == 4);
    CHECK(ScriptedMutex::last->left <= 1h);
    CHECK(ScriptedMutex::last->left > 59min);
}

TEST_CASE("over a recursive mutex the holder may lock again") {
    BasicLocalLock<std::recursive_mutex> tree{"tree"};
    const std::scoped_lock outer{tree};
    const std::scoped_lock inner{tree};
    CHECK_FALSE(support::on_another_thread([&] {
        return std::unique_lock{tree, std::try_to_lock}.owns_lock();
    }));
}

TEST_CASE("over a shared mutex shared holds go together and keep the exclusive one out") {
    TimedSharedLock lock;
    const std::shared_lock reader{lock};
    CHECK(support::on_another_thread([&] {
        return std::shared_lock{lock, std::try_to_lock}.owns_lock() &&
               std::shared_lock{lock, 1h}.owns_lock() &&
               std::shared_lock{lock, std::chrono::steady_clock::now() + 1h}.owns_lock() &&
               std::shared_lock{lock, std::chrono::hours::max()}.owns_lock();
    }));
    CHECK_FALSE(support::on_another_thread([&] {
        return std::unique_lock{lock, std::try_to_lock}.owns_lock() ||
               std::unique_lock{lock, 1ms}.owns_lock();
    }));
}

TEST_CASE("over a shared mutex the exclusive hold keeps shared ones out") {
    TimedSharedLock lock;
    const std::unique_lock writer{lock};
    CHECK_FALSE(support::on_another_thread([&] {
        return std::shared_lock{lock, std::try_to_lock}.owns_lock() ||
               std::shared_lock{lock, 1ms}.owns_lock() || std::shared_lock{lock, -1h}.owns_lock();
    }));
}

TEMPLATE_TEST_CASE("a lock may be destroyed as soon as its last unlock lets another thread in", "",
                   LocalLock, TimedLocalLock) {
    support::destroy_after_hand_over(
        300, [] { return std::make_unique<TestType>(); }, [](auto& lock) { lock.lock(); },
        [](auto& lock) { lock.unlock(); });
}
