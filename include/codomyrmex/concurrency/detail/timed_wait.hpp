// SPDX-License-Identifier: MIT
//
// How a Deadline is waited for on the primitives of the standard: mutexes that have try_lock_until,
// and a condition variable. Not for users; every timed wait of the local half goes through here.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_TIMED_WAIT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_TIMED_WAIT_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__SANITIZE_THREAD__)
#define CODOMYRMEX_CONCURRENCY_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define CODOMYRMEX_CONCURRENCY_THREAD_SANITIZER 1
#endif
#endif

namespace codomyrmex::concurrency::detail {

/// The time point to hand to a mutex of the standard. Requires: the deadline is not never.
[[nodiscard]] inline auto mutex_time(Deadline deadline) noexcept {
#if defined(CODOMYRMEX_CONCURRENCY_THREAD_SANITIZER)
    // ThreadSanitizer of g++ 12 and of clang up to 16 does not know pthread_mutex_clocklock and its
    // like, which a wait on the steady clock calls: it misses the lock and reports races that are
    // none. It knows the waits on the system clock. The callers below mend an early return.
    using Clock = std::chrono::system_clock;
    const std::chrono::nanoseconds now{Clock::now().time_since_epoch()};
    const auto when = saturating_add(now, deadline.remaining());
    return Clock::time_point{std::chrono::duration_cast<Clock::duration>(when)};
#else
    return deadline.time();
#endif
}

/// Waits for the mutex until the deadline; one that has passed tries once, never waits for good.
/// Returns: true if acquired.
template <TimedLockable Mutex>
[[nodiscard]] bool try_lock_until(Mutex& mutex, Deadline deadline) {
    if (deadline.is_never()) {
        mutex.lock();
        return true;
    }
    // First without a deadline: some implementations refuse a time before the epoch of the clock
    // without trying. Then in a loop: try_lock_until may fail early.
    bool acquired = mutex.try_lock();
    while (!acquired && !deadline.expired())
        acquired = mutex.try_lock_until(mutex_time(deadline));
    return acquired;
}

/// The same for a shared hold.
template <TimedSharedLockable Mutex>
[[nodiscard]] bool try_lock_shared_until(Mutex& mutex, Deadline deadline) {
    if (deadline.is_never()) {
        mutex.lock_shared();
        return true;
    }
    bool acquired = mutex.try_lock_shared();
    while (!acquired && !deadline.expired()) {
        acquired = mutex.try_lock_shared_until(mutex_time(deadline));
    }
    return acquired;
}

/// Waits until `ready()` is true or the deadline has come. Requires: `lock` is held.
/// Returns: what `ready()` returned last.
template <class Ready>
bool wait_until(std::condition_variable& condition, std::unique_lock<std::mutex>& lock,
                Deadline deadline, Ready ready) {
    if (deadline.is_never()) {
        condition.wait(lock, ready);
        return true;
    }
    return condition.wait_until(lock, deadline.time(), ready);
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_TIMED_WAIT_HPP
