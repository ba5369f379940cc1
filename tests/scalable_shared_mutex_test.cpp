// SPDX-License-Identifier: MIT
//
// Tests of scalable_shared_mutex.hpp. Most run on one slot too: there all threads meet in one word.

#include <codomyrmex/concurrency/scalable_shared_mutex.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

using OneSlot = BasicScalableSharedMutex<1>;

static_assert(!std::is_copy_constructible_v<ScalableSharedMutex>);
static_assert(!std::is_move_constructible_v<ScalableSharedMutex>);
static_assert(TimedSharedLockable<OneSlot>);
static_assert(alignof(ScalableSharedMutex) == 64);
#if defined(__GLIBCXX__) && defined(__x86_64__)
static_assert(sizeof(ScalableSharedMutex) == 704, "as the documentation says");
#endif

template <class Mutex>
bool readable(Mutex& mutex) {
    return support::on_another_thread([&] {
        return std::shared_lock{mutex, std::try_to_lock}.owns_lock();
    });
}

template <class Mutex>
bool writable(Mutex& mutex) {
    return support::on_another_thread([&] {
        return std::unique_lock{mutex, std::try_to_lock}.owns_lock();
    });
}

/// Makes the next unlock leave the slots open, or closed, as many or few reads do.
template <class Mutex>
void after_reads(Mutex& mutex, int reads) {
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < reads; ++i)
            const std::shared_lock guard{mutex};
        const std::unique_lock guard{mutex};
    }
}

/// So many threads read and write, in every way there is; one in `write_every` writes.
template <class Mutex>
void stress(int threads, int rounds, int write_every) {
    Mutex mutex;
    support::ReadWriteSection section;
    std::atomic<long> writes{0};
    support::run_together(threads, [&](int index) {
        for (int i = 0; i < rounds; ++i) {
            const int step = i * 7 + index * 13;
            const std::chrono::microseconds timeout{step % 90};
            if ((i + index) % write_every == 0) {
                std::unique_lock guard{mutex, std::defer_lock};
                if (step % 5 == 0) {
                    if (!guard.try_lock_for(timeout)) continue;
                } else if (step % 5 == 1) {
                    if (!guard.try_lock()) continue;
                } else {
                    guard.lock();
                }
                section.enter_write();
                ++writes;
                if (step % 64 == 0) std::this_thread::yield();
                section.leave_write();
            } else {
                std::shared_lock guard{mutex, std::defer_lock};
                if (step % 5 == 0) {
                    if (!guard.try_lock_for(timeout)) continue;
                } else if (step % 5 == 1) {
                    if (!guard.try_lock()) continue;
                } else {
                    guard.lock();
                }
                section.enter_read();
                if (step % 64 == 0) std::this_thread::yield();
                section.leave_read();
            }
        }
    });
    CHECK(section.violations() == 0);
    const std::unique_lock guard{mutex, std::try_to_lock};
    REQUIRE(guard.owns_lock());
    CHECK(section.writes() == writes);
}

}  // namespace

TEMPLATE_TEST_CASE("whether its slots are open or closed, readers go together and a writer alone",
                   "", ScalableSharedMutex, OneSlot) {
    TestType mutex;
    after_reads(mutex, GENERATE(0, 1, 100));
    {
        const std::shared_lock reading{mutex};
        CHECK(readable(mutex));
        CHECK_FALSE(writable(mutex));
        CHECK(readable(mutex));
    }
    {
        const std::unique_lock writing{mutex};
        CHECK_FALSE(readable(mutex));
        CHECK_FALSE(writable(mutex));
    }
    CHECK(readable(mutex));
    CHECK(writable(mutex));
}

TEMPLATE_TEST_CASE("a hold may end on another thread than it began on", "", ScalableSharedMutex,
                   OneSlot) {
    TestType mutex;
    after_reads(mutex, GENERATE(0, 100));
    for (int round = 0; round < 20; ++round) {
        std::vector<std::shared_lock<TestType>> reading;
        for (int i = 0; i < 5; ++i)
            reading.emplace_back(mutex);
        CHECK_FALSE(writable(mutex));
        std::vector<support::Thread> threads;
        for (auto& one : reading)
            threads.emplace_back([guard = std::move(one)]() mutable { guard.unlock(); });
        threads.clear();
        std::unique_lock writing{mutex, std::try_to_lock};
        REQUIRE(writing.owns_lock());
        support::Thread{[guard = std::move(writing)]() mutable { guard.unlock(); }}.join();
        CHECK(readable(mutex));
    }
}

TEMPLATE_TEST_CASE("a reader inside while the slots close, open and close again is not forgotten",
                   "", ScalableSharedMutex, OneSlot) {
    TestType mutex;
    std::shared_lock first{mutex};
    CHECK_FALSE(support::on_another_thread([&] { return mutex.try_lock_for(1ms); }));
    // Enough to have the slots opened.
    for (int i = 0; i < 100; ++i)
        CHECK(readable(mutex));
    CHECK_FALSE(support::on_another_thread([&] { return mutex.try_lock_for(1ms); }));
    first.unlock();
    CHECK(writable(mutex));
}

TEST_CASE("a writer waits for readers that came by a slot and readers that came by the mutex") {
    ScalableSharedMutex mutex;
    std::shared_lock by_slot{mutex};
    CHECK_FALSE(writable(mutex));
    CHECK_FALSE(support::on_another_thread([&] { return mutex.try_lock_for(1ms); }));
    std::shared_lock by_mutex{mutex};
    support::Event written;
    support::Thread writer{[&] {
        const std::unique_lock guard{mutex};
        written.set();
    }};
    by_slot.unlock();
    CHECK_FALSE(written.wait(2ms));
    by_mutex.unlock();
    CHECK(written.wait());
}

TEST_CASE("a writer that waits long enough keeps new readers out, and its turn lets them in") {
    ScalableSharedMutex mutex;
    std::shared_lock reading{mutex};
    support::Event inside;
    support::Event leave;
    support::Thread writer{[&] {
        const std::unique_lock guard{mutex};
        inside.set();
        leave.wait();
    }};
    // Tries now and then meet it trying too; for good is when a timed one fails.
    REQUIRE(support::eventually([&] {
        return !support::on_another_thread([&] {
            return std::shared_lock{mutex, 5ms}.owns_lock();
        });
    }));
    CHECK_FALSE(readable(mutex));
    support::Event read;
    support::Thread reader{[&] {
        const std::shared_lock guard{mutex};
        read.set();
    }};
    reading.unlock();
    CHECK(inside.wait());
    CHECK_FALSE(read.wait(2ms));
    leave.set();
    CHECK(read.wait());
}

TEST_CASE("who waits to read when a writer unlocks comes before the next writer") {
    ScalableSharedMutex mutex;
    std::unique_lock writing{mutex};
    std::atomic<int> order{0};
    int read_at = 0;
    int written_at = 0;
    support::Thread reader{[&] {
        const std::shared_lock guard{mutex};
        read_at = ++order;
    }};
    support::Thread writer{[&] {
        // Long after the reader waits; it shows nothing if it is not.
        std::this_thread::sleep_for(20ms);
        const std::unique_lock guard{mutex};
        written_at = ++order;
    }};
    std::this_thread::sleep_for(40ms);
    writing.unlock();
    reader.join();
    writer.join();
    CHECK(read_at == 1);
    CHECK(written_at == 2);
}

TEST_CASE("a writer that gives up lets those in whom it kept out") {
    ScalableSharedMutex mutex;
    const std::shared_lock reading{mutex};
    bool written = true;
    support::Thread writer{[&] { written = mutex.try_lock_for(20ms); }};
    std::vector<support::Thread> readers;
    std::atomic<int> read{0};
    for (int i = 0; i < 3; ++i) {
        readers.emplace_back([&] {
            for (int turn = 0; turn < 50; ++turn) {
                const std::shared_lock guard{mutex};
                std::this_thread::yield();
            }
            ++read;
        });
    }
    readers.clear();
    writer.join();
    CHECK_FALSE(written);
    CHECK(read == 3);
    CHECK(readable(mutex));
}

TEST_CASE("timed verbs end at their deadline, and not before") {
    ScalableSharedMutex mutex;
    std::unique_lock writing{mutex};
    CHECK(support::on_another_thread([&] {
        const auto start = std::chrono::steady_clock::now();
        const bool any = mutex.try_lock_for(5ms) || mutex.try_lock_shared_for(5ms) ||
                         mutex.try_lock_until(std::chrono::steady_clock::now() + 5ms) ||
                         mutex.try_lock_shared_until(std::chrono::system_clock::now() + 5ms) ||
                         mutex.try_lock_for(-1h) || mutex.try_lock_shared_for(0s);
        return !any && std::chrono::steady_clock::now() - start >= 19ms;
    }));
    writing.unlock();
    CHECK(mutex.try_lock_for(-1h));
    mutex.unlock();
    CHECK(mutex.try_lock_shared_until(std::chrono::steady_clock::time_point::max()));
    mutex.unlock_shared();
}

TEMPLATE_TEST_CASE("readers and writers of all kinds exclude each other", "", ScalableSharedMutex,
                   OneSlot) {
    const int write_every = GENERATE(2, 10, 100);
    CAPTURE(write_every);
    stress<TestType>(6, 1500, write_every);
}

TEST_CASE("a stream of writers does not keep a reader out, nor readers a writer") {
    ScalableSharedMutex mutex;
    std::atomic<bool> stop{false};
    std::atomic<int> writes{0};
    std::atomic<int> reads{0};
    std::vector<support::Thread> threads;
    for (int i = 0; i < 3; ++i) {
        threads.emplace_back([&] {
            while (!stop) {
                const std::unique_lock guard{mutex};
                ++writes;
            }
        });
        threads.emplace_back([&] {
            while (!stop) {
                const std::shared_lock guard{mutex};
                ++reads;
            }
        });
    }
    CHECK(support::eventually([&] { return reads > 1000 && writes > 1000; }));
    stop = true;
}

TEST_CASE("it may be destroyed at once when a writer that unlocks has let a writer in") {
    support::destroy_after_hand_over(
        300, [] { return std::make_unique<ScalableSharedMutex>(); },
        [](auto& mutex) { mutex.lock(); }, [](auto& mutex) { mutex.unlock(); });
}

TEST_CASE("it may be destroyed at once when a reader that unlocks has let a writer in") {
    const int reads = GENERATE(0, 100);
    for (int round = 0; round < 200; ++round) {
        auto mutex = std::make_unique<ScalableSharedMutex>();
        auto* const shared = mutex.get();
        after_reads(*shared, reads);
        support::Event inside;
        support::Thread reader{[&inside, shared] {
            shared->lock_shared();
            inside.set();
            shared->unlock_shared();
        }};
        inside.wait();
        shared->lock();
        shared->unlock();
        mutex.reset();
    }
    SUCCEED("a sanitizer would have told");
}

TEST_CASE("it may be destroyed at once when a writer that unlocks has let a reader in") {
    const int reads = GENERATE(0, 100);
    for (int round = 0; round < 200; ++round) {
        auto mutex = std::make_unique<BasicScalableSharedMutex<64>>();
        auto* const shared = mutex.get();
        after_reads(*shared, reads);
        support::Event inside;
        support::Thread writer{[&inside, shared] {
            shared->lock();
            inside.set();
            shared->unlock();
        }};
        inside.wait();
        shared->lock_shared();
        shared->unlock_shared();
        mutex.reset();
    }
    SUCCEED("a sanitizer would have told");
}
