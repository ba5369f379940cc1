// SPDX-License-Identifier: MIT
//
// A mutex of the standard with a name, for the threads of one process. It adds nothing on the path
// of lock() and unlock(). For a lock between processes or machines see redis/lock.hpp; for locks
// found by name at run time, lock_manager.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_LOCAL_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_LOCAL_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>

#include <chrono>
#include <mutex>
#include <string>
#include <utility>

namespace codomyrmex::concurrency {

/// A mutex with a name; its members exist as far as `Mutex` can honour them.
///
/// Ownership is the mutex's: as the standard says, the thread that locked must unlock, a thread
/// that locks again deadlocks (unless the mutex is a recursive one), and unlocking what is not held
/// is undefined. It may be destroyed as soon as its last unlock() lets another thread in.
template <Lockable Mutex>
class BasicLocalLock {
  public:
    /// A lock nobody holds. The name is for people and diagnostics; it need not be unique, and two
    /// locks of one name are two locks.
    explicit BasicLocalLock(std::string name = {}) : name_{std::move(name)} {}

    BasicLocalLock(const BasicLocalLock&) = delete;
    BasicLocalLock& operator=(const BasicLocalLock&) = delete;
    ~BasicLocalLock() = default;

    /// Threads: safe to call concurrently.
    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    /// Waits for the lock.
    /// Requires: the calling thread does not hold it, unless the mutex is recursive.
    /// Throws: what the mutex throws.
    /// Threads: safe to call concurrently.
    void lock() noexcept(noexcept(std::declval<Mutex&>().lock())) { mutex_.lock(); }

    /// Takes the lock if it is free.
    /// Requires: as lock().
    /// Returns: true if acquired.
    /// Threads: safe to call concurrently.
    [[nodiscard]] bool try_lock() noexcept(noexcept(std::declval<Mutex&>().try_lock())) {
        return mutex_.try_lock();
    }

    /// Gives the lock back.
    /// Requires: the calling thread holds it.
    void unlock() noexcept { mutex_.unlock(); }

    /// Waits at most `timeout` for the lock.
    /// Requires: as lock().
    /// Returns: true if acquired. Zero or negative tries once; too large to add to now waits for
    /// as long as it takes.
    /// Threads: safe to call concurrently.
    template <class Rep, class Period>
        requires TimedLockable<Mutex>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout) {
        return detail::try_lock_until(mutex_, Deadline::after(timeout));
    }

    /// Waits until `when` for the lock; otherwise as try_lock_for(). time_point::max() is never.
    template <class Clock, class Duration>
        requires TimedLockable<Mutex>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        return detail::try_lock_until(mutex_, Deadline::at(when));
    }

    /// Waits for a shared hold.
    /// Requires: the calling thread has no hold on it.
    /// Throws: what the mutex throws.
    /// Threads: safe to call concurrently.
    void lock_shared()
        requires SharedLockable<Mutex>
    {
        mutex_.lock_shared();
    }

    /// Takes a shared hold if nobody holds the lock exclusively.
    /// Returns: true if acquired.
    [[nodiscard]] bool try_lock_shared()
        requires SharedLockable<Mutex>
    {
        return mutex_.try_lock_shared();
    }

    /// Gives a shared hold back.
    /// Requires: the calling thread has one.
    void unlock_shared() noexcept
        requires SharedLockable<Mutex>
    {
        mutex_.unlock_shared();
    }

    /// As try_lock_for(), for a shared hold.
    template <class Rep, class Period>
        requires TimedSharedLockable<Mutex>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& timeout) {
        return detail::try_lock_shared_until(mutex_, Deadline::after(timeout));
    }

    /// As try_lock_until(), for a shared hold.
    template <class Clock, class Duration>
        requires TimedSharedLockable<Mutex>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& when) {
        return detail::try_lock_shared_until(mutex_, Deadline::at(when));
    }

  private:
    Mutex mutex_;
    std::string name_;
};

/// The lock to take by default. It cannot be waited for with a limit.
using LocalLock = BasicLocalLock<std::mutex>;

/// A lock that can be waited for with a limit.
using TimedLocalLock = BasicLocalLock<std::timed_mutex>;

static_assert(Lockable<LocalLock> && !TimedLockable<LocalLock> && !SharedLockable<LocalLock>);
static_assert(TimedLockable<TimedLocalLock> && !SharedLockable<TimedLocalLock>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCAL_LOCK_HPP
