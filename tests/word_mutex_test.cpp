// SPDX-License-Identifier: MIT
//
// Tests of word_mutex.hpp.

#include <codomyrmex/concurrency/word_mutex.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <type_traits>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

static_assert(!std::is_copy_constructible_v<WordMutex>);
static_assert(!std::is_move_constructible_v<WordMutex>);

/// Threads that lock in all ways there are; the word must come back to where it was.
void stress(int threads, int rounds, int longest_us) {
    WordMutex mutex;
    support::Occupancy section;
    long counter = 0;  // plain: ThreadSanitizer tells if the order is missing
    std::atomic<long> acquired{0};
    support::run_together(threads, [&](int index) {
        for (int i = 0; i < rounds; ++i) {
            const int step = i * 7 + index * 13;
            std::unique_lock guard{mutex, std::defer_lock};
            if (step % 4 == 0) {
                if (!guard.try_lock_for(std::chrono::microseconds{step % longest_us})) continue;
            } else if (step % 4 == 1) {
                if (!guard.try_lock()) continue;
            } else {
                guard.lock();
            }
            section.enter();
            ++counter;
            ++acquired;
            // The others come to sleep.
            if (step % 32 == 0) std::this_thread::sleep_for(30us);
            section.leave();
        }
    });
    CHECK(section.most() == 1);
    CHECK(counter == acquired);
    CHECK(mutex.try_lock());
    mutex.unlock();
}

}  // namespace

TEST_CASE("it is held by one at a time") {
    WordMutex mutex;
    {
        const std::scoped_lock guard{mutex};
        CHECK_FALSE(support::on_another_thread([&] { return mutex.try_lock(); }));
    }
    CHECK(mutex.try_lock());
    CHECK_FALSE(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("a hold may end on another thread than it began on") {
    WordMutex mutex;
    mutex.lock();
    support::Thread{[&] { mutex.unlock(); }}.join();
    CHECK(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("timed verbs end at their deadline, and not before") {
    WordMutex mutex;
    mutex.lock();
    CHECK(support::on_another_thread([&] {
        const auto start = std::chrono::steady_clock::now();
        const bool any = mutex.try_lock_for(5ms) ||
                         mutex.try_lock_until(std::chrono::steady_clock::now() + 5ms) ||
                         mutex.try_lock_until(std::chrono::system_clock::now() + 5ms) ||
                         mutex.try_lock_for(-1h) || mutex.try_lock_for(0s);
        return !any && std::chrono::steady_clock::now() - start >= 14ms;
    }));
    mutex.unlock();
    CHECK(mutex.try_lock_for(-1h));
    mutex.unlock();
    CHECK(mutex.try_lock_for(std::chrono::hours::max()));
    mutex.unlock();
}

TEST_CASE("all who sleep get it, those between whom one gave up too") {
    WordMutex mutex;
    mutex.lock();
    std::atomic<int> got{0};
    std::atomic<int> gave_up{0};
    std::vector<support::Thread> threads;
    for (int i = 0; i < 9; ++i) {
        threads.emplace_back([&, i] {
            if (i % 3 == 1) {
                gave_up += !mutex.try_lock_for(5ms);
                return;
            }
            if (i % 3 == 2 && !mutex.try_lock_for(support::patience)) return;
            if (i % 3 == 0) mutex.lock();
            ++got;
            mutex.unlock();
        });
    }
    REQUIRE(support::eventually([&] { return gave_up == 3; }));
    mutex.unlock();
    threads.clear();
    CHECK(got == 6);
    CHECK(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("whoever holds it sees what the holder before wrote, however each came by it") {
    stress(6, 1500, 100);
    stress(3, 3000, 30);
}

TEST_CASE("waiters that give up as they are woken leave no other asleep") {
    WordMutex mutex;
    std::atomic<int> left{4};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 300; ++i) {
            // Holds as long as others wait, so that wake-ups and time-outs meet.
            if (mutex.try_lock_for(std::chrono::microseconds{40 + (i * 7 + index * 13) % 80})) {
                std::this_thread::sleep_for(std::chrono::microseconds{i % 60});
                mutex.unlock();
            }
            if (i % 10 == 0) {
                mutex.lock();
                mutex.unlock();
            }
        }
        --left;
    });
    CHECK(left == 0);
    CHECK(mutex.try_lock());
    mutex.unlock();
}

TEST_CASE("std::condition_variable_any waits with it") {
    WordMutex mutex;
    std::condition_variable_any changed;
    bool ready = false;
    support::Thread setter{[&] {
        const std::scoped_lock guard{mutex};
        ready = true;
        changed.notify_all();
    }};
    std::unique_lock guard{mutex};
    changed.wait(guard, [&] { return ready; });
    CHECK(guard.owns_lock());
}

TEST_CASE("it may be destroyed as soon as its last unlock lets another thread in") {
    support::destroy_after_hand_over(
        300, [] { return std::make_unique<WordMutex>(); }, [](auto& mutex) { mutex.lock(); },
        [](auto& mutex) { mutex.unlock(); });
}

TEST_CASE("it may be destroyed at once by a waiter that slept when it was unlocked") {
    for (int round = 0; round < 100; ++round) {
        auto mutex = std::make_unique<WordMutex>();
        auto* const shared = mutex.get();
        support::Event inside;
        support::Thread holder{[&inside, shared] {
            shared->lock();
            inside.set();
            std::this_thread::sleep_for(200us);
            shared->unlock();
        }};
        inside.wait();
        shared->lock();
        shared->unlock();
        mutex.reset();
    }
    SUCCEED("a sanitizer would have told");
}
