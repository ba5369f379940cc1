// SPDX-License-Identifier: MIT
//
// A mutex of one word, for where locks are many: eight bytes, and it can be waited for with a
// limit. As fast as std::timed_mutex when nobody contends, and faster when many do, for it lets a
// thread that runs take it before one that sleeps. std::mutex, in LocalLock, stays the one to take
// where there is no reason for another.

#ifndef CODOMYRMEX_CONCURRENCY_WORD_MUTEX_HPP
#define CODOMYRMEX_CONCURRENCY_WORD_MUTEX_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/spin.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

namespace codomyrmex::concurrency {

/// A timed mutex in one word.
///
/// | the word | means |
/// | --- | --- |
/// | 0 | free, nobody waits |
/// | locked | somebody holds it |
/// | address of a waiter | somebody sleeps; the waiters are a list, the latest first |
/// | queue | somebody takes waiters out of the list |
///
/// Waiters are woken in the order of their coming, but a thread that comes while the mutex is free
/// takes it before the one that is being woken. A hold belongs to no thread: any may end it. It may
/// be destroyed as soon as its last unlock() lets another thread in.
///
/// The list and what its threads sleep on are on their own stacks (so did WebKit's WordLock), so
/// that there is no table that two shared libraries might have twice.
class WordMutex {
  public:
    /// A mutex nobody holds.
    constexpr WordMutex() noexcept = default;

    WordMutex(const WordMutex&) = delete;
    WordMutex& operator=(const WordMutex&) = delete;

    /// Requires: nobody holds it or waits for it.
    ~WordMutex() = default;

    /// Waits for the mutex.
    /// Requires: the calling thread does not hold it.
    /// Throws: std::system_error if std::mutex does.
    /// Threads: safe to call concurrently, as every member.
    /// Cost: one atomic instruction when free.
    void lock() {
        if (!take_free()) lock_slowly(Deadline::never());
    }

    /// Takes the mutex if it is free.
    /// Requires: as lock().
    /// Returns: true if acquired; it does not fail while the mutex is free.
    [[nodiscard]] bool try_lock() noexcept {
        auto seen = word_.load(std::memory_order_relaxed);
        while ((seen & locked_bit) == 0) {
            // Acquire: pairs with the release of the unlock that freed it. All changes of the word
            // are exchanges, so what came between is in that one's release sequence.
            if (word_.compare_exchange_weak(seen, seen | locked_bit, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    /// Waits at most `timeout` for the mutex.
    /// Requires: as lock().
    /// Returns: true if acquired. Zero or negative tries once; too large to add to now waits for as
    /// long as it takes.
    /// Throws: as lock().
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout) {
        return try_lock() || lock_slowly(Deadline::after(timeout));
    }

    /// Waits until `when` for the mutex; otherwise as try_lock_for(). time_point::max() is never.
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        return try_lock() || lock_slowly(Deadline::at(when));
    }

    /// Gives the mutex back, and wakes who has waited longest.
    /// Requires: somebody holds it.
    void unlock() noexcept {
        auto expected = locked_bit;
        // Release: pairs with the acquire of the next lock. If it works it is the last that this
        // thread does to the mutex.
        if (!word_.compare_exchange_strong(expected, 0, std::memory_order_release,
                                           std::memory_order_relaxed)) {
            unlock_slowly();
        }
    }

  private:
    static constexpr std::uintptr_t locked_bit = 1;
    static constexpr std::uintptr_t queue_bit = 2;
    static constexpr std::uintptr_t bits = locked_bit | queue_bit;

    // How often who meets somebody looks again, then lets others run, before it sleeps.
    static constexpr int looks = 40;
    static constexpr int yields = 2;

    /// A thread that sleeps. On its stack; it leaves only after it has been woken, or has taken
    /// itself out of the list.
    struct alignas(8) Waiter {
        Waiter* next = nullptr;  // came before this one; under the queue bit once it is in the list
        std::mutex mutex{};
        std::condition_variable woken{};
        bool awake = false;  // under `mutex`

        void wake() noexcept {
            // Notified while the mutex is held: the thread leaves, and all this with it, only when
            // we are done.
            const std::lock_guard guard{mutex};
            awake = true;
            woken.notify_one();
        }

        bool sleep(Deadline deadline) {
            std::unique_lock guard{mutex};
            return detail::wait_until(woken, guard, deadline, [this] { return awake; });
        }
    };

    static Waiter* latest(std::uintptr_t word) noexcept {
        // NOLINTNEXTLINE(performance-no-int-to-ptr): it and the bits are one atomic word
        return reinterpret_cast<Waiter*>(word & ~bits);
    }

    [[nodiscard]] bool take_free() noexcept {
        std::uintptr_t free = 0;
        return word_.compare_exchange_weak(free, locked_bit, std::memory_order_acquire,
                                           std::memory_order_relaxed);
    }

    bool lock_slowly(Deadline deadline) {
        for (;;) {
            const auto unlocked = [this] {
                return (word_.load(std::memory_order_relaxed) & locked_bit) == 0;
            };
            for (int i = 0; i <= yields; ++i) {
                if (detail::spin_until(looks, unlocked) && try_lock()) return true;
                // In front of others that wait for a processor: the holder may be one of them.
                if (i < yields && latest(word_.load(std::memory_order_relaxed)) == nullptr) {
                    std::this_thread::yield();
                }
            }
            if (deadline.expired()) return try_lock();
            Waiter waiter;
            if (!enqueue(waiter)) continue;
            // Woken is not let in: whoever is awake may take the mutex first. If so, it is locked,
            // and that thread's unlock wakes the next; so a wake-up that comes with the end of the
            // time is not lost to the others.
            if (!waiter.sleep(deadline) && leave(waiter)) return try_lock();
        }
    }

    /// Puts the waiter into the list. Returns: false, and does not, if the mutex is free.
    bool enqueue(Waiter& waiter) noexcept {
        auto seen = word_.load(std::memory_order_relaxed);
        do {
            if ((seen & locked_bit) == 0) return false;
            waiter.next = latest(seen);
            // Release: who takes it out of the list sees what is in it. Locked, as it is, so that
            // there is an unlock to come that looks at the list.
        } while (!word_.compare_exchange_weak(
            seen, reinterpret_cast<std::uintptr_t>(&waiter) | (seen & bits),
            std::memory_order_release, std::memory_order_relaxed));
        return true;
    }

    /// Waits for the right to take waiters out of the list. Whoever puts one in front needs none.
    /// Returns: the word.
    std::uintptr_t lock_queue() noexcept {
        auto seen = word_.load(std::memory_order_relaxed);
        for (;;) {
            if ((seen & queue_bit) != 0) {
                // For the few steps that its holder does with it; should that not run, let it.
                std::this_thread::yield();
                seen = word_.load(std::memory_order_relaxed);
            } else if (word_.compare_exchange_weak(seen, seen | queue_bit,
                                                   std::memory_order_acquire,
                                                   std::memory_order_relaxed)) {
                return seen | queue_bit;
            }
        }
    }

    /// Takes a waiter out of the list and clears `drop` in the word: the one that `is_it` tells,
    /// called with each from the latest on. Requires: the queue bit is held, in `seen` is the word.
    /// Returns: the waiter; if there is none, null, and the queue bit is cleared.
    template <class IsIt>
    Waiter* take_out(std::uintptr_t seen, std::uintptr_t drop, IsIt is_it) noexcept {
        for (;;) {
            Waiter* before = nullptr;
            Waiter* found = latest(seen);
            while (found != nullptr && !is_it(*found)) {
                before = found;
                found = found->next;
            }
            if (found == nullptr) {
                word_.fetch_and(~queue_bit, std::memory_order_release);
                return nullptr;
            }
            if (before != nullptr) {
                before->next = found->next;
                // Release, here and below: the next who has the queue bit sees the list, and if
                // `drop` unlocks, the next who locks sees what was done under the lock.
                word_.fetch_and(~drop, std::memory_order_release);
                return found;
            }
            // Acquire if it fails: somebody has come in front, and we go through it next.
            const auto rest = reinterpret_cast<std::uintptr_t>(found->next);
            if (word_.compare_exchange_weak(seen, rest | (seen & bits & ~drop),
                                            std::memory_order_release, std::memory_order_acquire)) {
                return found;
            }
        }
    }

    /// Requires: the mutex is held.
    void unlock_slowly() noexcept {
        auto seen = word_.load(std::memory_order_relaxed);
        while (latest(seen) == nullptr && (seen & queue_bit) == 0) {
            if (word_.compare_exchange_weak(seen, 0, std::memory_order_release,
                                            std::memory_order_relaxed)) {
                return;
            }
        }
        // A waiter that is in the list stays there, or in its place somebody does who came later:
        // but it may leave, and then there is nobody to wake.
        Waiter* const longest =
            take_out(lock_queue(), bits, [](const Waiter& waiter) { return !waiter.next; });
        if (longest == nullptr) {
            unlock();
        } else {
            // The mutex is free, and may be gone: from here on only the waiter is touched.
            longest->wake();
        }
    }

    /// Takes a waiter whose time is up out of the list. Returns: false if it has been woken.
    bool leave(Waiter& waiter) noexcept {
        const auto is_it = [&](const Waiter& other) { return &other == &waiter; };
        if (take_out(lock_queue(), queue_bit, is_it) != nullptr) return true;
        // Somebody else took it out and is about to wake it.
        waiter.sleep(Deadline::never());
        return false;
    }

    std::atomic<std::uintptr_t> word_{0};
};

static_assert(sizeof(WordMutex) == sizeof(void*));
static_assert(TimedLockable<WordMutex>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_WORD_MUTEX_HPP
