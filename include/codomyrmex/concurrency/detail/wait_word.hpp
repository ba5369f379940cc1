// SPDX-License-Identifier: MIT
//
// A word that one thread sleeps on and another changes: what lies below a wait for a reply or for
// a turn. Sleeps at once, unlike std::atomic::wait, which spins and yields first and has no
// deadlines, and costs a system call to wake only where somebody sleeps. For one sleeper a word.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_WAIT_WORD_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_WAIT_WORD_HPP

#include <codomyrmex/concurrency/deadline.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

#if defined(__linux__)
#include <ctime>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#else
#include <condition_variable>
#include <mutex>
#endif

namespace codomyrmex::concurrency::detail {

/// Threads: set() and load() by any; wait_while() by one at a time.
class WaitWord {
  public:
    /// The values that users may give it are below this.
    static constexpr std::uint32_t asleep = 0x8000'0000U;

    explicit WaitWord(std::uint32_t value = 0) noexcept : word_{value} {}
    WaitWord(const WaitWord&) = delete;
    WaitWord& operator=(const WaitWord&) = delete;
    ~WaitWord() = default;

    [[nodiscard]] std::uint32_t load() const noexcept { return word_.load() & ~asleep; }

    /// Gives it another value and wakes who sleeps on it. What was written before is seen by who
    /// sees the value. Requires: it is not destroyed meanwhile.
    void set(std::uint32_t value) noexcept {
        if (set_quietly(value)) wake();
    }

    /// The same in two steps. Returns: whether wake() must follow.
    [[nodiscard]] bool set_quietly(std::uint32_t value) noexcept {
        return (word_.exchange(value) & asleep) != 0;
    }
    void wake() noexcept;

    /// Wakes who slept on a word when its value was changed.
    class Wake {
      public:
        Wake() = default;
        void operator()() const noexcept;

      private:
        friend class WaitWord;
#if defined(__linux__)
        void* address_ = nullptr;
#endif
    };

    /// As set(), but who sleeps is woken when the result is called, which may be when the word is
    /// gone: for who holds a lock that the woken one takes first.
    [[nodiscard]] Wake set_and_wake_later(std::uint32_t value) noexcept {
        Wake wake;
#if defined(__linux__)
        if (set_quietly(value)) wake.address_ = address();
#else
        set(value);
#endif
        return wake;
    }

    /// Sleeps while its value is `value`, at most until `deadline`.
    /// Returns: whether the value is another one.
    bool wait_while(std::uint32_t value, Deadline deadline) noexcept {
        for (;;) {
            std::uint32_t expected = value;
            // Says that somebody sleeps, so that set() wakes.
            if (!word_.compare_exchange_strong(expected, value | asleep) &&
                expected != (value | asleep)) {
                return true;
            }
            if (deadline.expired()) {
                expected = value | asleep;
                return !word_.compare_exchange_strong(expected, value) && expected != value;
            }
            sleep(value | asleep, deadline);
        }
    }

  private:
#if defined(__linux__)
    // The standard has no sleep on an atomic with a deadline; the system call has.
    // FUTEX_WAIT_BITSET takes a point in time of the clock that std::chrono::steady_clock shows.
    void sleep(std::uint32_t value, Deadline deadline) noexcept {
        timespec until{};
        const auto since_boot = deadline.time().time_since_epoch();
        const auto seconds = std::chrono::floor<std::chrono::seconds>(since_boot);
        until.tv_sec = static_cast<std::time_t>(seconds.count());
        until.tv_nsec = static_cast<long>((since_boot - seconds).count());
        ::syscall(SYS_futex, address(), FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, value,
                  deadline.is_never() ? nullptr : &until, nullptr, FUTEX_BITSET_MATCH_ANY);
    }

    [[nodiscard]] void* address() noexcept { return &word_; }

    static_assert(sizeof(std::atomic<std::uint32_t>) == sizeof(std::uint32_t));
#else
    void sleep(std::uint32_t value, Deadline deadline) noexcept {
        std::unique_lock guard{mutex_};
        // In slices, for some libraries overflow on a far deadline.
        const Deadline until = std::min(deadline, Deadline::after(std::chrono::hours{1}));
        changed_.wait_until(guard, until.time(), [&] { return word_.load() != value; });
    }

    std::mutex mutex_;
    std::condition_variable changed_;
#endif

    std::atomic<std::uint32_t> word_;
};

inline void WaitWord::Wake::operator()() const noexcept {
#if defined(__linux__)
    // The kernel does not look at what stands there. Whoever sleeps on something else at the same
    // address must expect to be woken for nothing, as with any futex.
    if (address_ == nullptr) return;
    ::syscall(SYS_futex, address_, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
#endif
}

inline void WaitWord::wake() noexcept {
#if defined(__linux__)
    ::syscall(SYS_futex, address(), FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, nullptr, nullptr, 0);
#else
    {
        const std::lock_guard guard{mutex_};
    }
    changed_.notify_one();
#endif
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_WAIT_WORD_HPP
