// SPDX-License-Identifier: MIT
//
// A counting semaphore for the threads of one process: std::counting_semaphore's interface, and a
// capacity that it checks. An atomic count stands in front, so that acquire() and release() are one
// atomic instruction each as long as nobody waits; who must wait sleeps in a bed. For a semaphore
// between processes see redis/semaphore.hpp; for RAII, permit.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_LOCAL_SEMAPHORE_HPP
#define CODOMYRMEX_CONCURRENCY_LOCAL_SEMAPHORE_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/spin.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/semaphore_bed.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <limits>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

namespace codomyrmex::concurrency {

/// A number of permits; at most so many are out at a time.
///
/// | count | means | acquire() | release() |
/// | --- | --- | --- | --- |
/// | n > 0 | n permits are free | takes one | not_held if all are free |
/// | 0 | all are out, nobody waits | sleeps | one is free |
/// | -n < 0 | all are out, n threads wait | sleeps | wakes one of them |
///
/// A permit belongs to no thread: any may release it. The order in which waiters are served is not
/// promised. What was written before a release() is seen by the acquire() that takes the permit.
/// The semaphore may be destroyed as soon as the last acquire() has returned, even if the
/// release() that let it in has not.
template <SemaphoreBed Bed>
class BasicLocalSemaphore {
  public:
    /// A semaphore with `permits` permits, all free.
    /// Throws: LockError(invalid_argument) if there is not at least one.
    explicit BasicLocalSemaphore(std::ptrdiff_t permits) : permits_{permits}, count_{permits} {
        if (permits < 1) {
            throw LockError{
                LockErrc::invalid_argument,
                "a semaphore of " + std::to_string(permits) + " permits: there must be at least 1"};
        }
    }

    BasicLocalSemaphore(const BasicLocalSemaphore&) = delete;
    BasicLocalSemaphore& operator=(const BasicLocalSemaphore&) = delete;
    ~BasicLocalSemaphore() = default;

    /// The largest number of permits that a semaphore can have.
    [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept {
        return std::numeric_limits<std::ptrdiff_t>::max();
    }

    /// How many permits there are, free or not.
    [[nodiscard]] std::ptrdiff_t permits() const noexcept { return permits_; }

    /// How many permits are free. A snapshot: it may have changed when you read it.
    [[nodiscard]] std::ptrdiff_t available() const noexcept {
        return std::max<std::ptrdiff_t>(count_.load(std::memory_order_relaxed), 0);
    }

    /// How many threads wait. A snapshot.
    [[nodiscard]] std::ptrdiff_t waiting() const noexcept {
        return std::max<std::ptrdiff_t>(-count_.load(std::memory_order_relaxed), 0);
    }

    /// Waits for a permit and takes it.
    /// Threads: safe to call concurrently, as every member.
    /// Cost: one atomic instruction while permits are free.
    void acquire() noexcept {
        if (try_acquire() || try_again()) return;
        // Acquire: pairs with the release in give_back(). Each change of the count is one
        // read-modify-write, so the count is one release sequence, and whoever reads a permit in it
        // sees what was written before that permit was given back. In the bed, the post does this.
        if (count_.fetch_sub(1, std::memory_order_acquire) > 0) return;
        bed_.wait();
    }

    /// Takes a permit if one is free.
    /// Returns: true if taken; it does not fail while a permit is free.
    [[nodiscard]] bool try_acquire() noexcept {
        auto count = count_.load(std::memory_order_relaxed);
        while (count > 0) {
            if (count_.compare_exchange_weak(count, count - 1, std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    /// Waits at most `timeout` for a permit.
    /// Returns: true if taken. Zero or negative tries once; too large to add to now waits for as
    /// long as it takes.
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& timeout) noexcept {
        return try_acquire() || acquire_until(Deadline::after(timeout));
    }

    /// Waits until `when` for a permit; otherwise as try_acquire_for(). time_point::max() is never.
    template <class Clock, class Duration>
    [[nodiscard]] bool try_acquire_until(
        const std::chrono::time_point<Clock, Duration>& when) noexcept {
        return try_acquire() || acquire_until(Deadline::at(when));
    }

    /// Gives back `update` permits; 0 does nothing.
    /// Throws: LockError(invalid_argument) if `update` is negative, LockError(not_held) if fewer
    /// are out. Then nothing has changed.
    void release(std::ptrdiff_t update = 1) {
        if (const auto wrong = give_back(update)) throw_error(*wrong, update);
    }

    /// The same, with the error in `ec`, which is cleared on success.
    void release(std::ptrdiff_t update, std::error_code& ec) noexcept {
        ec.clear();
        if (const auto wrong = give_back(update)) ec = *wrong;
    }

  private:
    /// Returns: what is wrong, if anything.
    [[nodiscard]] std::optional<LockErrc> give_back(std::ptrdiff_t update) noexcept {
        if (update < 0) return LockErrc::invalid_argument;
        if (update == 0) return std::nullopt;
        auto count = count_.load(std::memory_order_relaxed);
        do {
            const auto free = std::max<std::ptrdiff_t>(count, 0);
            if (update > permits_ - free) return LockErrc::not_held;
            // Release: see acquire(). Once the exchange has shown a permit, its taker may destroy
            // the semaphore. From here on it may be touched only if somebody waits, for then that
            // waiter cannot return before the post.
        } while (!count_.compare_exchange_weak(count, count + update, std::memory_order_release,
                                               std::memory_order_relaxed));
        if (count < 0) bed_.post(std::min(update, -count));
        return std::nullopt;
    }

    [[noreturn]] void throw_error(LockErrc errc, std::ptrdiff_t update) const {
        throw LockError{errc, "release of " + std::to_string(update) +
                                  " permits of a semaphore of " + std::to_string(permits_)};
    }

    /// Tries for as long as a short hold takes, in front of a sleep. A permit that is given back
    /// while somebody sleeps is that thread's, and nobody has any use of it until it is awake: so
    /// the fewer sleep, the more permits are at work.
    [[nodiscard]] bool try_again() noexcept {
        const auto free = [this] { return count_.load(std::memory_order_relaxed) > 0; };
        for (int i = 0; i < yields; ++i) {
            if (detail::spin_until(looks, free) && try_acquire()) return true;
            std::this_thread::yield();
        }
        return try_acquire();
    }

    /// After try_acquire() has failed.
    bool acquire_until(Deadline deadline) noexcept {
        if (deadline.expired()) return false;
        if (try_again()) return true;
        if (count_.fetch_sub(1, std::memory_order_acquire) > 0) return true;
        if (bed_.wait_until(deadline)) return true;
        // Too late; give up the place among the waiters. While the count is negative, more threads
        // wait than posts are on their way, so one may leave and the rest still get theirs. Once it
        // is not, every waiter has a post on its way, this one too: it must take it, for nobody
        // else would, and the permit would be lost. It comes at once.
        auto count = count_.load(std::memory_order_relaxed);
        while (count < 0) {
            if (count_.compare_exchange_weak(count, count + 1, std::memory_order_relaxed)) {
                return false;
            }
        }
        bed_.wait();
        return true;
    }

    // What try_again() takes: enough for a holder that runs to come to its end, twice, and for one
    // that was put aside to run in between.
    static constexpr int looks = 40;
    static constexpr int yields = 2;

    const std::ptrdiff_t permits_;
    std::atomic<std::ptrdiff_t> count_;
    Bed bed_;
};

/// The semaphore to take by default.
using LocalSemaphore = BasicLocalSemaphore<DefaultSemaphoreBed>;

static_assert(TimedSemaphore<LocalSemaphore>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCAL_SEMAPHORE_HPP
