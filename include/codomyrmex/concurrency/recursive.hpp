// SPDX-License-Identifier: MIT
//
// Makes any lock reentrant: the thread that holds it may lock it again. For code that calls itself
// under a lock and cannot be parted into a locking and a locked half, which would be the better
// cure. Over a local lock it does what std::recursive_mutex does; over a distributed one only the
// first lock() and the last unlock() reach the backend.

#ifndef CODOMYRMEX_CONCURRENCY_RECURSIVE_HPP
#define CODOMYRMEX_CONCURRENCY_RECURSIVE_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/detail/thread_identity.hpp>
#include <codomyrmex/concurrency/error.hpp>

#include <atomic>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <system_error>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency {

/// An `L` that its holder may lock again: `Recursive<RedisLock> tree{"tree", client};`
///
/// | the caller | lock() | unlock() |
/// | --- | --- | --- |
/// | has no hold | waits for `L` | does nothing; not_held |
/// | holds it n times | n + 1 times, at once | n - 1 times; the last gives `L` back |
/// | has the id of a thread that ended while it held | throws abandoned | does nothing; not_held |
///
/// Ownership is the thread's, unlike in the rest of the library: who locked must unlock, as often
/// as it locked. A thread that ends while it holds is misuse: nobody gets the lock any more. This
/// is detected, as `abandoned`, when a later thread comes under the same std::thread::id.
///
/// Locking again only counts. If `L` leases and the lease was lost, the holder is not told by
/// lock() but by valid() and stop_token(); once another thread has got `L` through this object, the
/// former holder has no hold here any more.
///
/// std::condition_variable_any gives back one level only: wait() on it at depth 1.
template <Lockable L>
class Recursive {
  public:
    /// Makes the underlying lock from `args`, in place.
    template <class... Args>
        requires std::constructible_from<L, Args...>
    explicit Recursive(Args&&... args) : lock_(std::forward<Args>(args)...) {}

    Recursive(const Recursive&) = delete;
    Recursive& operator=(const Recursive&) = delete;
    ~Recursive() = default;

    /// Waits for the lock, unless the caller holds it.
    /// Throws: LockError(abandoned), see above; what the underlying lock throws.
    /// Threads: safe to call concurrently, as every member.
    void lock() {
        if (enter_again()) return;
        lock_.lock();
        enter();
    }

    /// Takes the lock if it is free or the caller's.
    /// Returns: true if acquired.
    /// Throws: as lock().
    [[nodiscard]] bool try_lock() { return enter_again() || (lock_.try_lock() && enter()); }

    /// Waits at most `timeout` for the lock, unless the caller holds it.
    /// Returns: true if acquired. Zero or negative tries once.
    /// Throws: as lock().
    template <class Rep, class Period>
        requires TimedLockable<L>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout) {
        return enter_again() || (lock_.try_lock_for(timeout) && enter());
    }

    /// Waits until `when` for the lock, unless the caller holds it; otherwise as try_lock_for().
    template <class Clock, class Duration>
        requires TimedLockable<L>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& when) {
        return enter_again() || (lock_.try_lock_until(when) && enter());
    }

    /// Gives back one level of the caller's hold; without one, does nothing.
    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }

    /// The same. `ec` is not_held if the caller has no hold, else what the underlying lock says of
    /// giving it back, else cleared.
    void unlock(std::error_code& ec) noexcept {
        ec.clear();
        const auto depth = this->depth();
        if (depth == 0) {
            ec = LockErrc::not_held;
            return;
        }
        depth_.store(depth - 1, std::memory_order_relaxed);
        if (depth > 1) return;
        owner_id_.store({}, std::memory_order_relaxed);
        // The last touch: whoever this lets in may destroy the lock.
        if constexpr (requires { lock_.unlock(ec); }) {
            lock_.unlock(ec);
        } else {
            lock_.unlock();
        }
    }

    /// How often the calling thread holds the lock; 0 if it does not.
    [[nodiscard]] std::size_t depth() const noexcept {
        return owner() == detail::ThreadIdentity::of_this_thread()
                   ? depth_.load(std::memory_order_relaxed)
                   : 0;
    }

    /// The lock inside, for its name and the like.
    [[nodiscard]] const L& underlying() const noexcept { return lock_; }

    /// What the underlying lock tells of its lease, where it has one.
    [[nodiscard]] auto fence() const noexcept
        requires requires(const L& lock) { lock.fence(); }
    {
        return lock_.fence();
    }

    [[nodiscard]] auto valid() const
        requires requires(const L& lock) { lock.valid(); }
    {
        return lock_.valid();
    }

    [[nodiscard]] auto remaining() const
        requires requires(const L& lock) { lock.remaining(); }
    {
        return lock_.remaining();
    }

    [[nodiscard]] auto stop_token() const
        requires requires(const L& lock) { lock.stop_token(); }
    {
        return lock_.stop_token();
    }

  private:
    [[nodiscard]] detail::ThreadIdentity owner() const noexcept {
        return {owner_id_.load(std::memory_order_relaxed),
                owner_kernel_id_.load(std::memory_order_relaxed)};
    }

    /// After the underlying lock was acquired.
    bool enter() noexcept {
        const auto self = detail::ThreadIdentity::of_this_thread();
        depth_.store(1, std::memory_order_relaxed);
        owner_kernel_id_.store(self.kernel_id, std::memory_order_relaxed);
        owner_id_.store(self.id, std::memory_order_relaxed);
        return true;
    }

    /// Returns: true if the caller holds the lock, now once more.
    bool enter_again() {
        const auto self = detail::ThreadIdentity::of_this_thread();
        const auto owner = this->owner();
        if (owner.id != self.id) return false;
        if (owner.kernel_id != self.kernel_id) {
            throw LockError{LockErrc::abandoned,
                            "a recursive lock was not unlocked by the thread that held it"};
        }
        depth_.store(depth_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
        return true;
    }

    L lock_;

    // Written by the holder only. Other threads read the owner to find that it is not them, and for
    // that any value serves that they have not written themselves, so relaxed suffices: a thread
    // sees its own writes in order, and the underlying lock orders those of successive holders.
    // Atomic, not plain, because others read while the holder writes.
    std::atomic<std::thread::id> owner_id_{};
    std::atomic<long> owner_kernel_id_{0};
    std::atomic<std::size_t> depth_{0};
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_RECURSIVE_HPP
