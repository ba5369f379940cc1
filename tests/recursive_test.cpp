// SPDX-License-Identifier: MIT
//
// Tests of recursive.hpp.

#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/recursive.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::error_of;

namespace {

/// Counts, tells of a lease, and says on unlock what it is told to.
struct FakeLock {
    void lock() {
        if (refuse) throw LockError{LockErrc::backend_unavailable, "fake lock"};
        ++locks;
    }

    bool try_lock() {
        ++locks;
        return true;
    }

    void unlock() noexcept { ++unlocks; }

    void unlock(std::error_code& ec) noexcept {
        ++unlocks;
        ec = unlock_says;
    }

    [[nodiscard]] std::uint64_t fence() const noexcept { return 42; }
    [[nodiscard]] bool valid() const { return !lost.stop_requested(); }
    [[nodiscard]] std::chrono::milliseconds remaining() const { return 7ms; }
    [[nodiscard]] support::StopToken stop_token() const { return lost.get_token(); }

    explicit FakeLock(FakeLock*& self) { self = this; }

    int locks = 0;
    int unlocks = 0;
    bool refuse = false;
    std::error_code unlock_says;
    support::StopSource lost;
};

static_assert(Lockable<Recursive<LocalLock>> && !TimedLockable<Recursive<LocalLock>>);
static_assert(TimedLockable<Recursive<TimedLocalLock>>);
static_assert(!std::is_copy_constructible_v<Recursive<LocalLock>>);
static_assert(!std::is_move_constructible_v<Recursive<LocalLock>>);
static_assert(std::is_constructible_v<Recursive<LocalLock>, const char*>);
static_assert(!std::is_constructible_v<Recursive<LocalLock>, int>);
static_assert(noexcept(std::declval<Recursive<LocalLock>&>().unlock()));

template <class L>
concept TellsOfALease =
    requires(const L& lock) { lock.fence(); } || requires(const L& lock) { lock.valid(); } ||
    requires(const L& lock) { lock.remaining(); } || requires(const L& lock) { lock.stop_token(); };
static_assert(!TellsOfALease<Recursive<LocalLock>>);

template <class L>
bool free_for_others(L& lock) {
    return support::on_another_thread([&] {
        return std::unique_lock{lock, std::try_to_lock}.owns_lock();
    });
}

/// Ends a thread that holds `lock`, and returns its id.
template <class L>
std::thread::id abandon(L& lock) {
    return support::on_another_thread([&] {
        lock.lock();
        return std::this_thread::get_id();
    });
}

}  // namespace

TEST_CASE("the holder may lock again, and others come in after the last unlock") {
    Recursive<LocalLock> tree{"tree"};
    CHECK(tree.depth() == 0);
    {
        const std::scoped_lock outer{tree};
        CHECK(tree.depth() == 1);
        {
            const std::unique_lock inner{tree, std::try_to_lock};
            CHECK(inner.owns_lock());
            CHECK(tree.depth() == 2);
            CHECK_FALSE(free_for_others(tree));
        }
        CHECK(tree.depth() == 1);
        CHECK_FALSE(free_for_others(tree));
    }
    CHECK(tree.depth() == 0);
    CHECK(free_for_others(tree));
}

TEST_CASE("the lock inside is made from the arguments and can be looked at") {
    const Recursive<LocalLock> tree{"tree"};
    CHECK(tree.underlying().name() == "tree");
    CHECK(Recursive<LocalLock>{}.underlying().name().empty());
}

TEST_CASE("only the first lock and the last unlock reach the lock inside") {
    FakeLock* inside = nullptr;
    Recursive<FakeLock> tree{inside};
    tree.lock();
    tree.lock();
    CHECK(tree.try_lock());
    CHECK(inside->locks == 1);
    tree.unlock();
    tree.unlock();
    CHECK(inside->unlocks == 0);
    tree.unlock();
    CHECK(inside->unlocks == 1);
    tree.unlock();
    CHECK(inside->unlocks == 1);
    tree.lock();
    CHECK(inside->locks == 2);
    CHECK(tree.depth() == 1);
}

TEST_CASE("a lock that throws leaves no hold") {
    FakeLock* inside = nullptr;
    Recursive<FakeLock> tree{inside};
    inside->refuse = true;
    CHECK(error_of([&] { tree.lock(); }) == LockErrc::backend_unavailable);
    CHECK(tree.depth() == 0);
    inside->refuse = false;
    tree.lock();
    CHECK(tree.depth() == 1);
}

TEST_CASE("unlock of what the caller does not hold is not_held and changes nothing") {
    Recursive<LocalLock> tree;
    std::error_code ec;
    tree.unlock(ec);
    CHECK(ec == LockErrc::not_held);

    const std::scoped_lock guard{tree};
    CHECK(support::on_another_thread([&] {
              std::error_code theirs;
              tree.unlock();
              tree.unlock(theirs);
              return theirs;
          }) == LockErrc::not_held);
    CHECK(tree.depth() == 1);
    CHECK_FALSE(free_for_others(tree));
}

TEST_CASE("unlock with an error_code passes on what the lock inside says, and clears it else") {
    FakeLock* inside = nullptr;
    Recursive<FakeLock> tree{inside};
    inside->unlock_says = LockErrc::lease_lost;
    tree.lock();
    tree.lock();
    std::error_code ec = LockErrc::mismatch;
    tree.unlock(ec);
    CHECK_FALSE(ec);
    tree.unlock(ec);
    CHECK(ec == LockErrc::lease_lost);

    Recursive<LocalLock> local;
    local.lock();
    local.unlock(ec);
    CHECK_FALSE(ec);
}

TEST_CASE("depth is the caller's own") {
    Recursive<LocalLock> tree;
    const std::scoped_lock guard{tree};
    CHECK(support::on_another_thread([&] { return tree.depth() + 1; }) == 1);
}

TEST_CASE("an exception in the critical section unlocks its level only") {
    Recursive<LocalLock> tree;
    const std::scoped_lock outer{tree};
    try {
        const std::scoped_lock inner{tree};
        throw std::runtime_error{"from within"};
    } catch (const std::runtime_error&) {
    }
    CHECK(tree.depth() == 1);
    CHECK_FALSE(free_for_others(tree));
}

TEST_CASE("timed locks enter again at once, whatever the time, and else wait for the lock inside") {
    Recursive<TimedLocalLock> tree;
    const auto past = std::chrono::steady_clock::now() - 1h;
    REQUIRE(tree.try_lock_for(1h));
    CHECK(tree.try_lock_for(-1h));
    CHECK(tree.try_lock_until(past));
    CHECK(tree.try_lock_until(std::chrono::system_clock::time_point::max()));
    CHECK(tree.depth() == 4);
    CHECK_FALSE(support::on_another_thread([&] {
        return std::unique_lock{tree, 1ms}.owns_lock() || std::unique_lock{tree, past}.owns_lock();
    }));
    for (int i = 0; i < 4; ++i)
        tree.unlock();
    CHECK(support::on_another_thread([&] {
        return std::unique_lock{tree, -1h}.owns_lock() && std::unique_lock{tree, past}.owns_lock();
    }));
}

TEST_CASE("threads that nest their locks exclude each other") {
    Recursive<LocalLock> tree;
    support::Occupancy section;
    int counter = 0;
    support::run_together(4, [&](int) {
        for (int i = 0; i < 1000; ++i) {
            const std::scoped_lock outer{tree};
            section.enter();
            for (int level = 0; level < i % 3; ++level) {
                const std::scoped_lock inner{tree};
                ++counter;
            }
            section.leave();
        }
    });
    CHECK(section.most() == 1);
    CHECK(counter == 4 * 999);
}

TEST_CASE("std::condition_variable_any waits with it at depth one") {
    Recursive<LocalLock> tree;
    std::condition_variable_any changed;
    bool ready = false;
    support::Thread other{[&] {
        const std::scoped_lock guard{tree};
        ready = true;
        changed.notify_all();
    }};
    std::unique_lock guard{tree};
    changed.wait(guard, [&] { return ready; });
    CHECK(tree.depth() == 1);
}

TEST_CASE("it tells of the lease of the lock inside") {
    FakeLock* inside = nullptr;
    Recursive<FakeLock> tree{inside};
    const std::scoped_lock guard{tree};
    CHECK(tree.fence() == 42);
    CHECK(tree.remaining() == 7ms);
    CHECK(tree.valid());
    CHECK_FALSE(tree.stop_token().stop_requested());
    inside->lost.request_stop();
    CHECK_FALSE(tree.valid());
    CHECK(tree.stop_token().stop_requested());
    const std::scoped_lock again{tree};
    CHECK(tree.depth() == 2);
}

TEST_CASE("a holder whose lease another thread took over has no hold any more") {
    FakeLock* inside = nullptr;
    Recursive<FakeLock> tree{inside};
    tree.lock();
    support::Event done;
    support::Event taken;
    std::size_t depth_there = 0;
    support::Thread successor{[&] {
        tree.lock();  // the fake lets it in, as if the lease had been lost
        taken.set();
        done.wait();
        depth_there = tree.depth();
        tree.unlock();
    }};
    REQUIRE(taken.wait());
    std::error_code ec;
    tree.unlock(ec);
    CHECK(ec == LockErrc::not_held);
    CHECK(tree.depth() == 0);
    CHECK(inside->unlocks == 0);
    done.set();
    successor.join();
    CHECK(depth_there == 1);
    CHECK(inside->unlocks == 1);
}

TEST_CASE("a later thread under the id of one that ended while it held is told so") {
    // Never destroyed, for a mutex must not be while it is held.
    static auto& tree = *new Recursive<TimedLocalLock>;
    const auto dead = abandon(tree);
    std::error_code by_lock;
    std::error_code by_try;
    std::error_code by_timeout;
    std::error_code by_time;
    std::error_code by_unlock;
    std::size_t depth = 1;
    bool met = false;
    // The system gives an id again when it likes; as a rule, to the next thread.
    for (int i = 0; i < 1000 && !met; ++i) {
        support::Thread{[&] {
            if (std::this_thread::get_id() != dead) return;
            met = true;
            by_lock = error_of([&] { tree.lock(); });
            by_try = error_of([&] { (void)tree.try_lock(); });
            by_timeout = error_of([&] { (void)tree.try_lock_for(1ms); });
            by_time =
                error_of([&] { (void)tree.try_lock_until(std::chrono::steady_clock::now()); });
            tree.unlock(by_unlock);
            depth = tree.depth();
        }}.join();
    }
    if (!met || detail::kernel_thread_id() == 0) SKIP("this system did not give the id again");
    CHECK(by_lock == LockErrc::abandoned);
    CHECK(by_try == LockErrc::abandoned);
    CHECK(by_timeout == LockErrc::abandoned);
    CHECK(by_time == LockErrc::abandoned);
    CHECK(by_unlock == LockErrc::not_held);
    CHECK(depth == 0);
}

TEST_CASE("it may be destroyed as soon as its last unlock lets another thread in") {
    support::destroy_after_hand_over(
        300, [] { return std::make_unique<Recursive<LocalLock>>(); },
        [](auto& lock) {
            lock.lock();
            lock.lock();
        },
        [](auto& lock) {
            lock.unlock();
            lock.unlock();
        });
}
