// SPDX-License-Identifier: MIT
//
// What a lock, a semaphore, a lease and a backend are, as concepts. The syntax is in the code, the
// meaning in the numbered requirements above it: a type that has the syntax but not the meaning
// compiles and is wrong. The first five are the C++ standard's named requirements
// ([thread.req.lockable], [thread.sharedmutex.requirements]), so that std::unique_lock,
// std::shared_lock, std::scoped_lock and std::lock work with every lock here, and the registry
// works with every mutex of the standard.

#ifndef CODOMYRMEX_CONCURRENCY_CONCEPTS_HPP
#define CODOMYRMEX_CONCURRENCY_CONCEPTS_HPP

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace codomyrmex::concurrency {

/// A lock that can be taken and given back.
///
/// 1. `lock()` blocks until the caller holds the lock. If it throws, the lock is not held.
/// 2. `unlock()` requires that the lock is held; it gives the lock back and does not throw.
/// 3. What a holder wrote before `unlock()` is seen by whoever holds the lock next.
/// 4. Who must call `unlock()`, the thread that locked or any thread, is for the model to say.
template <class L>
concept BasicLockable = requires(L& lock) {
    lock.lock();
    lock.unlock();
};

/// A BasicLockable that can be tried.
///
/// 1. `try_lock()` does not wait for a holder. It returns true if and only if the caller holds the
///    lock now.
/// 2. It may fail though nobody holds the lock, but not for ever.
template <class L>
concept Lockable = BasicLockable<L> && requires(L& lock) {
    { lock.try_lock() } -> std::convertible_to<bool>;
};

/// A Lockable that can be waited for with a limit.
///
/// 1. `try_lock_for(timeout)` and `try_lock_until(time)` wait at most so long; they return true if
///    and only if the caller holds the lock.
/// 2. A zero or negative timeout, and a time that has passed, try once.
template <class L>
concept TimedLockable = Lockable<L> && requires(L& lock, std::chrono::nanoseconds timeout,
                                                std::chrono::steady_clock::time_point time) {
    { lock.try_lock_for(timeout) } -> std::convertible_to<bool>;
    { lock.try_lock_until(time) } -> std::convertible_to<bool>;
};

/// A Lockable that many may hold together, for reading.
///
/// 1. While somebody holds it exclusively, nobody holds it shared, and the other way round.
/// 2. `lock_shared()`, `try_lock_shared()` and `unlock_shared()` are to a shared hold what
///    `lock()`, `try_lock()` and `unlock()` are to the exclusive one.
template <class L>
concept SharedLockable = Lockable<L> && requires(L& lock) {
    lock.lock_shared();
    { lock.try_lock_shared() } -> std::convertible_to<bool>;
    lock.unlock_shared();
};

/// A SharedLockable that can be waited for with a limit, shared and exclusively.
///
/// 1. `try_lock_shared_for` and `try_lock_shared_until` keep the rules of TimedLockable.
template <class L>
concept TimedSharedLockable = SharedLockable<L> && TimedLockable<L> &&
                              requires(L& lock, std::chrono::nanoseconds timeout,
                                       std::chrono::steady_clock::time_point time) {
                                  {
                                      lock.try_lock_shared_for(timeout)
                                  } -> std::convertible_to<bool>;
                                  { lock.try_lock_shared_until(time) } -> std::convertible_to<bool>;
                              };

/// A number of permits, of which each holder has one.
///
/// 1. `acquire()` blocks until a permit is free and takes it. If it throws, none was taken.
/// 2. `try_acquire()` does not wait; it returns true if and only if it took a permit.
/// 3. `release()` gives one permit back; any thread may call it. Giving back more than was taken
///    is an error that the model reports.
/// 4. What was written before `release()` is seen by whoever acquires that permit next.
template <class S>
concept Semaphore = requires(S& semaphore) {
    semaphore.acquire();
    { semaphore.try_acquire() } -> std::convertible_to<bool>;
    semaphore.release();
};

/// A Semaphore that can be waited for with a limit.
///
/// 1. `try_acquire_for` and `try_acquire_until` keep the rules of TimedLockable.
template <class S>
concept TimedSemaphore = Semaphore<S> && requires(S& semaphore, std::chrono::nanoseconds timeout,
                                                  std::chrono::steady_clock::time_point time) {
    { semaphore.try_acquire_for(timeout) } -> std::convertible_to<bool>;
    { semaphore.try_acquire_until(time) } -> std::convertible_to<bool>;
};

/// A hold that can end by itself: a guard that knows it is a lease.
///
/// 1. It moves and does not copy. `bool(lease)` tells whether it stands for a hold at all.
/// 2. `valid()` is true only while the backend keeps the hold; it errs on the side of false.
/// 3. `remaining()` is how long `valid()` stays true without a renewal; zero when it is false.
/// 4. `fence()` is a number that strictly increases from each exclusive hold of a name to the
///    next; 0 means that there is none. It does not change while the lease lasts.
/// 5. `stop_token()` is asked to stop when the lease is lost, and only then.
/// 6. `release()` ends the hold; it returns whether the hold was still there. It throws `not_held`
///    when there is nothing to release. The destructor releases silently.
template <class L>
concept LeaseLike = std::movable<L> && !std::copyable<L> && requires(L& lease, const L& constant) {
    { static_cast<bool>(constant) };
    { constant.valid() } -> std::same_as<bool>;
    { constant.remaining() } -> std::convertible_to<std::chrono::nanoseconds>;
    { constant.fence() } noexcept -> std::same_as<std::uint64_t>;
    { constant.stop_token().stop_requested() } -> std::same_as<bool>;
    { lease.release() } -> std::same_as<bool>;
};

/// A primitive whose holds are leases: what a distributed lock or semaphore adds to a local one.
///
/// 1. `lease()` waits and returns a lease that stands for a hold.
/// 2. `try_lease()`, `try_lease_for(timeout)` and `try_lease_until(time)` keep the rules of
///    TimedLockable; they return an empty lease where those return false.
/// 3. A lease may outlive the primitive that gave it.
template <class P>
concept Leasing =
    LeaseLike<typename P::lease_type> && requires(P& primitive, std::chrono::nanoseconds timeout,
                                                  std::chrono::steady_clock::time_point time) {
        { primitive.lease() } -> std::same_as<typename P::lease_type>;
        { primitive.try_lease() } -> std::same_as<typename P::lease_type>;
        { primitive.try_lease_for(timeout) } -> std::same_as<typename P::lease_type>;
        { primitive.try_lease_until(time) } -> std::same_as<typename P::lease_type>;
    };

/// What LockManager needs to make the locks that it hands out.
///
/// 1. `lock_type` is TimedLockable. `make_lock(name)` returns a fresh one for that name, by value
///    (locks do not move, so as a prvalue); it may throw if the name will not do.
/// 2. Two locks made for one name by backends that are copies of each other exclude each other, or
///    are never in use at a time: the registry makes one lock a name.
/// 3. Optionally `read_write_type`, TimedSharedLockable, with `make_read_write(name)`, and
///    `semaphore_type`, a TimedSemaphore, with `make_semaphore(name, permits)`.
/// 4. It can be copied, and its members may be called from any thread.
///
/// Example: LocalBackend, RedisBackend.
template <class B>
concept Backend = std::copy_constructible<B> && TimedLockable<typename B::lock_type> &&
                  requires(const B& backend, std::string_view name) {
                      { backend.make_lock(name) } -> std::same_as<typename B::lock_type>;
                  };

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_CONCEPTS_HPP
