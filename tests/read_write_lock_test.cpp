// SPDX-License-Identifier: MIT
//
// Tests of read_write_lock.hpp. That nobody starves is shown with readers that overlap by
// arrangement, not by chance: one leaves only when the next is in, or cannot get in.

#include <codomyrmex/concurrency/read_write_lock.hpp>

#include "support/catch2.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

static_assert(!std::is_copy_constructible_v<ReadWriteLock>);
static_assert(!std::is_move_constructible_v<ReadWriteLock>);
static_assert(std::is_same_v<decltype(std::declval<ReadWriteLock&>().read()),
                             std::shared_lock<ReadWriteLock>>);
static_assert(std::is_same_v<decltype(std::declval<ReadWriteLock&>().try_write()),
                             std::unique_lock<ReadWriteLock>>);
static_assert(!TimedSharedLockable<ReadWriteLock>);

/// Whether a writer waits, as a reader can tell while another reader is inside.
template <class Lock>
bool a_writer_waits(Lock& lock) {
    return !support::on_another_thread([&] { return lock.try_read().owns_lock(); });
}

template <class Lock>
bool readable(Lock& lock) {
    return support::on_another_thread([&] { return lock.try_read().owns_lock(); });
}

template <class Lock>
bool writable(Lock& lock) {
    return support::on_another_thread([&] { return lock.try_write().owns_lock(); });
}

/// A shared mutex that does what the test says when a writer comes to wait for it.
class ScriptedSharedMutex : public std::shared_mutex {
  public:
    void lock() {
        before_lock();
        std::shared_mutex::lock();
    }

    static inline std::function<void()> before_lock;
};

/// A shared mutex that throws when a writer would have to wait, as an implementation that detects a
/// deadlock does.
class ThrowingSharedMutex : public std::shared_mutex {
  public:
    void lock() { throw std::runtime_error{"deadlock"}; }
};

/// Readers that overlap: each leaves when the next is inside, or does not come in within `grace`.
/// All the while a writer asks for the lock.
/// Returns: how many of `rounds` readers came in before the writer.
template <class Lock, class WriterCame>
int overlapping_readers_before_writer(Lock& lock, int rounds, std::chrono::milliseconds grace,
                                      WriterCame writer_came) {
    struct Reader {
        support::Event inside;
        support::Event leave;
        support::Thread thread;
    };
    std::deque<Reader> readers;
    std::atomic<bool> writer_inside{false};
    std::atomic<int> before_writer{-1};  // the first is there before the writer asks
    const auto come = [&] {
        auto& reader = readers.emplace_back();
        reader.thread = support::Thread{[&] {
            const std::shared_lock guard{lock};
            if (!writer_inside) ++before_writer;
            reader.inside.set();
            reader.leave.wait();
        }};
        return reader.inside.wait(readers.size() == 1 ? support::patience : grace);
    };

    come();
    support::Thread writer{[&] {
        const std::unique_lock guard{lock};
        writer_inside = true;
    }};
    writer_came();
    for (int round = 0; round < rounds; ++round) {
        const bool overlapped = come();
        readers[readers.size() - 2].leave.set();
        if (!overlapped) break;
    }
    for (auto& reader : readers)
        reader.leave.set();
    writer.join();
    readers.clear();
    return before_writer;
}

}  // namespace

TEMPLATE_TEST_CASE("readers go together, a writer alone", "", ReadWriteLock, TimedReadWriteLock,
                   ScalableReadWriteLock) {
    TestType rw;
    {
        const auto reading = rw.read();
        CHECK(reading.owns_lock());
        CHECK(readable(rw));
        CHECK_FALSE(writable(rw));
    }
    {
        const auto writing = rw.write();
        CHECK(writing.owns_lock());
        CHECK_FALSE(readable(rw));
        CHECK_FALSE(writable(rw));
    }
    CHECK(readable(rw));
    CHECK(writable(rw));
}

TEMPLATE_TEST_CASE("readers never see what a writer has half done", "", ReadWriteLock,
                   TimedReadWriteLock, ScalableReadWriteLock) {
    TestType rw;
    support::Occupancy writers;
    int left = 0;
    int right = 0;  // plain: ThreadSanitizer tells if the order is missing
    std::atomic<int> torn{0};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 1500; ++i) {
            if (index == 0 || i % 16 == 0) {
                const auto guard = rw.write();
                writers.enter();
                ++left;
                ++right;
                writers.leave();
            } else {
                const auto guard = rw.read();
                if (left != right) ++torn;
            }
        }
    });
    CHECK(torn == 0);
    CHECK(writers.most() == 1);
    CHECK(left == 1500 + 3 * 94);
}

TEST_CASE("the standard's guards and std::lock work with it") {
    ReadWriteLock first;
    ReadWriteLock second;
    {
        const std::scoped_lock both{first, second};
        CHECK_FALSE(readable(first));
        CHECK_FALSE(readable(second));
    }
    const std::shared_lock shared{first};
    const std::unique_lock exclusive{second};
    CHECK(readable(first));
    CHECK_FALSE(readable(second));
}

TEST_CASE("std::condition_variable_any waits with a shared hold") {
    ReadWriteLock rw;
    std::condition_variable_any changed;
    bool ready = false;
    support::Thread writer{[&] {
        const auto guard = rw.write();
        ready = true;
        changed.notify_all();
    }};
    auto guard = rw.read();
    changed.wait(guard, [&] { return ready; });
    CHECK(guard.owns_lock());
}

TEST_CASE("an exception in the critical section frees the lock") {
    ReadWriteLock rw;
    try {
        const auto guard = rw.write();
        throw std::runtime_error{"from within"};
    } catch (const std::runtime_error&) {
    }
    CHECK(writable(rw));
}

TEMPLATE_TEST_CASE("timed verbs end at their deadline, and not before", "", TimedReadWriteLock,
                   ScalableReadWriteLock) {
    TestType rw;
    const auto past = std::chrono::steady_clock::now() - 1h;
    const auto guard = rw.write();
    CHECK(support::on_another_thread([&] {
        const auto start = std::chrono::steady_clock::now();
        const bool any = rw.try_write_for(5ms) || rw.try_read_for(5ms) ||
                         rw.try_write_until(std::chrono::steady_clock::now() + 5ms) ||
                         rw.try_read_until(std::chrono::steady_clock::now() + 5ms) ||
                         rw.try_write_for(-1h) || rw.try_read_for(0s) || rw.try_write_until(past) ||
                         rw.try_read_until(past);
        return !any && std::chrono::steady_clock::now() - start >= 20ms;
    }));
}

TEMPLATE_TEST_CASE("timed verbs get a free lock, whatever the time", "", TimedReadWriteLock,
                   ScalableReadWriteLock) {
    TestType rw;
    const auto past = std::chrono::steady_clock::now() - 1h;
    CHECK(rw.try_write_for(50ms));
    CHECK(rw.try_write_for(-1h));
    CHECK(rw.try_write_for(std::chrono::hours::max()));
    CHECK(rw.try_write_until(past));
    CHECK(rw.try_write_until(std::chrono::system_clock::time_point::max()));
    CHECK(rw.try_read_for(50ms));
    CHECK(rw.try_read_for(-1h));
    CHECK(rw.try_read_for(std::chrono::duration<double>{1e300}));
    CHECK(rw.try_read_until(past));
    CHECK(rw.try_read_until(std::chrono::steady_clock::time_point::max()));
}

TEMPLATE_TEST_CASE("timed verbs get the lock when its holder leaves in time", "",
                   TimedReadWriteLock, ScalableReadWriteLock) {
    TestType rw;
    auto guard = rw.write();
    std::atomic<int> got{0};
    std::vector<support::Thread> waiters;
    waiters.emplace_back([&] { got += rw.try_write_for(support::patience).owns_lock(); });
    waiters.emplace_back([&] { got += rw.try_read_for(support::patience).owns_lock(); });
    waiters.emplace_back([&] { got += rw.try_write_for(std::chrono::hours::max()).owns_lock(); });
    waiters.emplace_back([&] { got += rw.try_read_for(std::chrono::hours::max()).owns_lock(); });
    guard.unlock();
    waiters.clear();
    CHECK(got == 4);
}

TEST_CASE("a writer that waits keeps new readers and writers from trying past it") {
    ReadWriteLock rw;
    auto reading = rw.read();
    support::Thread writer{[&] { const auto guard = rw.write(); }};
    REQUIRE(support::eventually([&] { return a_writer_waits(rw); }));
    CHECK_FALSE(readable(rw));
    CHECK_FALSE(writable(rw));
    reading.unlock();
    writer.join();
    CHECK(readable(rw));
    CHECK(writable(rw));
}

#if defined(__GLIBCXX__) && defined(__GLIBC__)
TEST_CASE("std::shared_mutex keeps a writer out as long as readers overlap") {
    std::shared_mutex mutex;
    const int before_writer =
        overlapping_readers_before_writer(mutex, 40, support::patience, [] {});
    CHECK(before_writer == 40);
}
#endif

TEMPLATE_TEST_CASE("readers that overlap do not keep a writer out of ours", "", ReadWriteLock,
                   TimedReadWriteLock) {
    TestType rw;
    const int before_writer = overlapping_readers_before_writer(
        rw, 40, 50ms, [&] { support::eventually([&] { return a_writer_waits(rw); }); });
    CHECK(before_writer == 0);
}

TEST_CASE("readers that overlap do not keep a writer out of the one that scales") {
    // Here a writer has some patience first, so some readers may come in before it.
    constexpr int rounds = 500;
    ScalableReadWriteLock rw;
    const int before_writer = overlapping_readers_before_writer(rw, rounds, 50ms, [] {});
    CAPTURE(before_writer);
    CHECK(before_writer < rounds);
}

TEMPLATE_TEST_CASE("a stream of writers does not keep a reader out", "", ReadWriteLock,
                   TimedReadWriteLock, ScalableReadWriteLock) {
    TestType rw;
    std::atomic<bool> stop{false};
    std::atomic<int> turn{0};
    std::vector<support::Thread> writers;
    // Each holds the lock for so long that the others wait for it, and comes again at once.
    for (int i = 0; i < 3; ++i) {
        writers.emplace_back([&] {
            while (!stop) {
                const auto guard = rw.write();
                ++turn;
                std::this_thread::sleep_for(1ms);
            }
        });
    }
    REQUIRE(support::eventually([&] { return turn > 3; }));
    int most = 0;
    for (int round = 0; round < 10; ++round) {
        const int before = turn;
        const auto guard = rw.read();
        most = std::max(most, turn - before);
    }
    stop = true;
    writers.clear();
    // One turn by the rule; then those who were in line, and who came in the first millisecond.
    CHECK(most < 20);
}

TEST_CASE("a writer that gives up opens the gate for the readers that waited for it") {
    TimedReadWriteLock rw;
    const auto reading = rw.read();
    bool written = true;
    support::Thread writer{[&] { written = rw.try_write_for(50ms).owns_lock(); }};
    support::eventually([&] { return a_writer_waits(rw); }, 40ms);
    support::Event inside;
    support::Thread reader{[&] {
        const auto guard = rw.read();
        inside.set();
    }};
    CHECK(inside.wait());
    writer.join();
    CHECK_FALSE(written);
    CHECK(readable(rw));
}

TEST_CASE("a writer that gives up does not open the gate while another waits") {
    TimedReadWriteLock rw;
    auto reading = rw.read();
    support::Thread patient{[&] { const auto guard = rw.write(); }};
    REQUIRE(support::eventually([&] { return a_writer_waits(rw); }));
    std::atomic<bool> read{false};
    support::Thread reader{[&] { read = rw.try_read_for(40ms).owns_lock(); }};
    for (int i = 0; i < 20; ++i) {
        CHECK_FALSE(support::on_another_thread([&] { return rw.try_write_for(3ms).owns_lock(); }));
    }
    reader.join();
    CHECK_FALSE(read);
    reading.unlock();
    patient.join();
    CHECK(readable(rw));
}

TEST_CASE("a reader whose time runs out at the gate does not slip past the writer that waits") {
    TimedReadWriteLock rw;
    auto reading = rw.read();
    support::Thread writer{[&] { const auto guard = rw.write(); }};
    REQUIRE(support::eventually([&] { return a_writer_waits(rw); }));
    CHECK_FALSE(support::on_another_thread([&] { return rw.try_read_for(5ms).owns_lock(); }));
    CHECK_FALSE(support::on_another_thread([&] { return rw.try_read_for(0s).owns_lock(); }));
    reading.unlock();
}

TEST_CASE("nobody passes a writer that waits in the moment in which the lock is free") {
    BasicReadWriteLock<ScriptedSharedMutex> rw;
    support::Event leave;
    support::Event inside;
    support::Thread reader{[&] {
        const auto guard = rw.read();
        inside.set();
        leave.wait();
    }};
    REQUIRE(inside.wait());
    bool passed = true;
    ScriptedSharedMutex::before_lock = [&] {
        leave.set();
        reader.join();
        passed = writable(rw) || readable(rw);
    };
    const auto guard = rw.write();
    CHECK_FALSE(passed);
}

TEST_CASE("a writer that throws while it waits leaves the gate open") {
    BasicReadWriteLock<ThrowingSharedMutex> rw;
    const auto reading = rw.read();
    const bool threw = support::on_another_thread([&] {
        try {
            rw.lock();
        } catch (const std::runtime_error&) {
            return true;
        }
        return false;
    });
    CHECK(threw);
    CHECK(readable(rw));
}

TEMPLATE_TEST_CASE("timed readers and writers that give up leave the lock as it was", "",
                   TimedReadWriteLock, ScalableReadWriteLock) {
    TestType rw;
    int left = 0;
    int right = 0;
    std::atomic<int> torn{0};
    std::atomic<int> gave_up{0};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 400; ++i) {
            const std::chrono::microseconds timeout{(i * 7 + index * 13) % 100};
            if (i % 2 == 0) {
                if (const auto guard = rw.try_write_for(timeout)) {
                    ++left;
                    ++right;
                } else {
                    ++gave_up;
                }
            } else if (const auto guard = rw.try_read_for(timeout)) {
                if (left != right) ++torn;
            } else {
                ++gave_up;
            }
        }
    });
    CAPTURE(gave_up.load());
    CHECK(torn == 0);
    CHECK(readable(rw));
    CHECK(writable(rw));
}

TEMPLATE_TEST_CASE("it may be destroyed as soon as its last unlock lets another thread in", "",
                   ReadWriteLock, TimedReadWriteLock, ScalableReadWriteLock) {
    support::destroy_after_hand_over(
        200, [] { return std::make_unique<TestType>(); }, [](auto& rw) { rw.lock(); },
        [](auto& rw) { rw.unlock(); });
}

TEST_CASE("it may be destroyed as soon as the last reader lets a writer in") {
    for (int round = 0; round < 200; ++round) {
        auto rw = std::make_unique<ReadWriteLock>();
        auto* const shared = rw.get();
        support::Event inside;
        support::Thread reader{[&inside, shared] {
            shared->lock_shared();
            inside.set();
            shared->unlock_shared();
        }};
        inside.wait();
        shared->lock();
        shared->unlock();
        rw.reset();
    }
    SUCCEED("a sanitizer would have told");
}
