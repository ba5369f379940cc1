// SPDX-License-Identifier: MIT
//
// What tests of threads need again and again: an event to wait for instead of sleeping, a start of
// several threads at one moment, and a counter of how many are in a section at a time. Made of
// mutexes and condition variables only, so that it does not stand on what it tests.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREADS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREADS_HPP

#include "support/thread.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// How long a test waits for something that ought to come at once before it calls it lost.
inline constexpr std::chrono::seconds patience{20};

/// Something that happens once.
class Event {
  public:
    void set() {
        const std::scoped_lock guard{mutex_};
        happened_ = true;
        condition_.notify_all();
    }

    /// Returns: false if it did not happen within the time.
    bool wait(std::chrono::milliseconds within = patience) {
        std::unique_lock guard{mutex_};
        return condition_.wait_for(guard, within, [this] { return happened_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable condition_;
    bool happened_ = false;
};

/// Waits until `ready()` is true, for what can be asked but gives no event.
template <class Ready>
bool eventually(Ready ready, std::chrono::milliseconds within = patience) {
    const auto end = std::chrono::steady_clock::now() + within;
    while (!ready()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(std::chrono::microseconds{50});
    }
    return true;
}

/// Runs `work(0)` to `work(count - 1)`, each on a thread of its own, all let go at one moment, and
/// waits for their ends.
template <class Work>
void run_together(int count, Work work) {
    Event start;
    std::vector<Thread> threads;
    for (int index = 0; index < count; ++index) {
        threads.emplace_back([&start, &work, index] {
            start.wait();
            work(index);
        });
    }
    start.set();
}

/// Runs `work` on another thread to its end and returns what it returned.
template <class Work>
auto on_another_thread(Work work) {
    decltype(work()) result{};
    Thread{[&] { result = work(); }}.join();
    return result;
}

/// How many are in a section, and the most there ever were.
class Occupancy {
  public:
    void enter() noexcept {
        const int now = inside_.fetch_add(1) + 1;
        int most = most_.load();
        while (now > most && !most_.compare_exchange_weak(most, now)) {
        }
    }

    void leave() noexcept { inside_.fetch_sub(1); }

    [[nodiscard]] int most() const noexcept { return most_.load(); }

  private:
    std::atomic<int> inside_{0};
    std::atomic<int> most_{0};
};

/// Checks from inside that readers and writers exclude each other as they should.
class ReadWriteSection {
  public:
    void enter_read() noexcept {
        ++readers_;
        if (writers_ != 0) ++violations_;
        if (left_ != right_) ++violations_;
    }
    void leave_read() noexcept {
        if (writers_ != 0) ++violations_;
        --readers_;
    }
    void enter_write() noexcept {
        if (++writers_ != 1 || readers_ != 0) ++violations_;
        ++left_;
    }
    void leave_write() noexcept {
        ++right_;
        if (--writers_ != 0 || readers_ != 0) ++violations_;
    }

    [[nodiscard]] int violations() const noexcept { return violations_; }

    /// Requires: nobody is inside, and the thread has synchronised with all who were.
    [[nodiscard]] long writes() const noexcept { return left_ == right_ ? left_ : -1; }

  private:
    std::atomic<int> readers_{0};
    std::atomic<int> writers_{0};
    std::atomic<int> violations_{0};
    long left_ = 0;  // plain: ThreadSanitizer tells if the order is missing
    long right_ = 0;
};

/// Lets a thread give a primitive back while another takes it and, having got it, destroys it:
/// `release` must not touch what it has given away. A sanitizer tells if it does.
/// Requires: `take` succeeds on a fresh primitive once, and again after `release`.
template <class Make, class Take, class Release>
void destroy_after_hand_over(int rounds, Make make, Take take, Release release) {
    for (int round = 0; round < rounds; ++round) {
        auto primitive = make();
        auto* const shared = primitive.get();
        Event taken;
        Thread giver{[&, shared] {
            take(*shared);
            taken.set();
            release(*shared);
        }};
        taken.wait();
        take(*shared);
        release(*shared);
        primitive.reset();
    }
}

/// The error that `action` throws; none if it returns.
template <class Action>
std::error_code error_of(Action action) {
    try {
        action();
    } catch (const std::system_error& error) {
        return error.code();
    }
    return {};
}

/// What the exception says that `action` throws; empty if it returns.
template <class Action>
std::string message_of(Action action) {
    try {
        action();
    } catch (const std::exception& error) {
        return error.what();
    }
    return {};
}

}  // namespace support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_THREADS_HPP
