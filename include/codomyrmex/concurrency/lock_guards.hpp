// SPDX-License-Identifier: MIT
//
// What a LockManager hands out: Guard, one hold of one name; MultiGuard, several holds or none; and
// Handle, the lock of a name for code that wants to lock it itself. Nobody makes them but the
// LockManager, which must outlive them. <codomyrmex/concurrency/lock_manager.hpp> brings them
// along.

#ifndef CODOMYRMEX_CONCURRENCY_LOCK_GUARDS_HPP
#define CODOMYRMEX_CONCURRENCY_LOCK_GUARDS_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/erased_lock.hpp>
#include <codomyrmex/concurrency/detail/obtain.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry_entry.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace codomyrmex::concurrency {

/// One hold of one name: exclusive, shared or a permit, as `Access` says. Empty if it was not
/// obtained, was moved from, or is unlocked. Ends the hold when it is destroyed. Moves only.
///
/// | state | bool | unlock(error) |
/// | --- | --- | --- |
/// | holds | true | releases; no error |
/// | holds a lease that was lost | true, and valid() is false | `lease_lost`; nobody is disturbed |
/// | empty | false | `not_held`; does nothing |
///
/// Threads: a Guard is for one thread at a time. It may be unlocked on another thread than it was
/// obtained on if the lock below allows that: the local locks do not, the semaphores and leases do.
template <class Access>
class [[nodiscard]] Guard {
  public:
    using primitive_type = typename Access::primitive_type;
    using hold_type = typename Access::hold_type;

    /// An empty one.
    Guard() noexcept = default;

    /// Takes over `hold` on `entry`; for LockManager.
    Guard(detail::Reference<primitive_type> entry, hold_type hold, detail::HoldStart start) noexcept
        : entry_{std::move(entry)}, hold_{std::move(hold)}, start_{start} {}

    Guard(Guard&& other) noexcept = default;

    /// Releases what it held before.
    Guard& operator=(Guard&& other) noexcept {
        if (this != &other) {
            unlock();
            entry_ = std::move(other.entry_);
            hold_ = std::move(other.hold_);
            start_ = other.start_;
        }
        return *this;
    }

    ~Guard() { unlock(); }

    /// Returns: the name that is held; empty when empty. Good for as long as the guard holds.
    [[nodiscard]] std::string_view name() const noexcept {
        return entry_ ? std::string_view{entry_->name} : std::string_view{};
    }

    /// Returns: whether there is something to unlock. A lease that was lost is still to be
    /// unlocked: ask valid() whether it can be relied on.
    [[nodiscard]] bool owns_lock() const noexcept { return static_cast<bool>(entry_); }
    [[nodiscard]] explicit operator bool() const noexcept { return owns_lock(); }

    /// Ends the hold; does nothing when empty. Cost: nothing that is waited for, where the lease
    /// has a quiet verb, as those over Redis have; else one round trip.
    void unlock() noexcept {
        if (!entry_) return;
        std::error_code ignored;
        finish(ignored);
    }

    /// As above, and clears `error` or leaves there what was wrong: `not_held` when empty,
    /// `lease_lost` when the hold was gone before, or what the backend reports.
    void unlock(std::error_code& error) noexcept {
        if (!entry_) {
            error = LockErrc::not_held;
            return;
        }
        error.clear();
        finish(error);
    }

    /// Returns: the fencing token of the lease; 0 when empty, or for a registered lock without one.
    [[nodiscard]] std::uint64_t fence() const
        requires(Access::leasing)
    {
        return entry_ ? observe([](const auto& hold) { return detail::fence_of(hold); }) : 0;
    }

    /// Returns: whether the hold can be relied on; false when empty.
    [[nodiscard]] bool valid() const
        requires(Access::leasing)
    {
        return entry_ && observe([](const auto& hold) { return detail::valid_of(hold); });
    }

    /// Returns: how long valid() stays true without a renewal; zero when empty, nanoseconds::max()
    /// for a registered lock that cannot be lost.
    [[nodiscard]] std::chrono::nanoseconds remaining() const
        requires(Access::leasing)
    {
        if (!entry_) return std::chrono::nanoseconds::zero();
        return observe([](const auto& hold) { return detail::remaining_of(hold); });
    }

#if defined(__cpp_lib_jthread)
    /// Returns: the token that is asked to stop when the lease is lost; one that never is when
    /// empty, or for a registered lock that cannot be lost.
    [[nodiscard]] std::stop_token stop_token() const
        requires(Access::leasing)
    {
        if (!entry_) return {};
        return observe([](const auto& hold) { return detail::stop_token_of(hold); });
    }
#endif

    /// For who ends several on one thread: while what this gives lives, they are collected; at its
    /// end they go to the backend together.
    [[nodiscard]] auto together() const
        requires requires(const hold_type& hold) { hold->together(); }
    {
        using Together = decltype(hold_->together());
        return hold_ ? hold_->together() : Together{};
    }

  private:
    void finish(std::error_code& error) noexcept {
        detail::give_back<Access>(*entry_, hold_, start_, error);
        entry_.reset();
    }

    template <class Look>
    auto observe(Look look) const {
        return Access::observe(entry_->primitive, hold_, look);
    }

    detail::Reference<primitive_type> entry_;
    [[no_unique_address]] hold_type hold_;
    detail::HoldStart start_;
};

namespace detail {

/// What keeps the ends of `guards` together; nothing where that cannot be, or need not.
template <class Access>
[[nodiscard]] auto together_of(const std::vector<Guard<Access>>& guards) noexcept {
    if constexpr (requires { guards.front().together(); }) {
        using Together = decltype(guards.front().together());
        try {
            return guards.size() < 2 ? Together{} : guards.front().together();
        } catch (const std::exception&) {
            return Together{};
        }
    } else {
        return nullptr;
    }
}

}  // namespace detail

/// Several holds, obtained all or none. A range of its guards, sorted by name, each name once.
/// Moves only; ends all holds when it is destroyed.
///
/// Like std::scoped_lock<>, one over no names owns nothing and succeeds: it is true until it is
/// unlocked.
///
/// Threads: as Guard.
template <class Access>
class [[nodiscard]] MultiGuard {
  public:
    using guard_type = Guard<Access>;

    /// Not obtained.
    MultiGuard() noexcept = default;

    /// Takes the guards over; for LockManager.
    explicit MultiGuard(std::vector<guard_type> guards) noexcept
        : guards_{std::move(guards)}, owns_{true} {}

    MultiGuard(MultiGuard&& other) noexcept
        : guards_{std::exchange(other.guards_, {})}, owns_{std::exchange(other.owns_, false)} {}

    /// Releases what it held before.
    MultiGuard& operator=(MultiGuard&& other) noexcept {
        if (this != &other) {
            unlock();
            guards_ = std::exchange(other.guards_, {});
            owns_ = std::exchange(other.owns_, false);
        }
        return *this;
    }

    ~MultiGuard() { unlock(); }

    /// The number of names held.
    [[nodiscard]] std::size_t size() const noexcept { return guards_.size(); }
    [[nodiscard]] auto begin() const noexcept { return guards_.begin(); }
    [[nodiscard]] auto end() const noexcept { return guards_.end(); }

    [[nodiscard]] bool owns_lock() const noexcept { return owns_; }
    [[nodiscard]] explicit operator bool() const noexcept { return owns_; }

    /// Ends all holds; does nothing when it owns none.
    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }

    /// As above, and clears `error` or leaves there what was wrong first; the rest is released all
    /// the same.
    void unlock(std::error_code& error) noexcept {
        error.clear();
        if (!std::exchange(owns_, false)) error = LockErrc::not_held;
        [[maybe_unused]] const auto together = detail::together_of(guards_);
        while (!guards_.empty()) {
            std::error_code one;
            guards_.back().unlock(one);
            if (!error) error = one;
            guards_.pop_back();
        }
    }

  private:
    std::vector<guard_type> guards_;
    bool owns_ = false;
};

/// The lock of a name, to be used with std::unique_lock, std::scoped_lock and std::lock, or over
/// and over without a look-up. It keeps the entry in the registry, and nothing locked: whoever
/// locks it unlocks it before it goes. Neither copies nor moves.
///
/// Two handles of one name are one lock, as `Guard`s of that name: std::scoped_lock over both never
/// ends. Where the lock leases, lock() keeps the lease in the lock object that all users of the
/// name in this manager share, and fence(), valid(), remaining() and stop_token() tell of it.
///
/// Throws: the locking verbs as those of the lock below, LockError where a backend fails; with a
/// std::error_code& nothing but std::bad_alloc.
/// Threads: safe to call concurrently, as a lock.
template <class Access>
class Handle {
  public:
    using primitive_type = typename Access::primitive_type;
    using lock_type = typename Access::lock_type;

    /// For LockManager.
    explicit Handle(detail::Reference<primitive_type> entry) noexcept : entry_{std::move(entry)} {}

    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    ~Handle() = default;

    [[nodiscard]] std::string_view name() const noexcept { return entry_->name; }

    /// Waits until it holds; with a std::error_code&, it holds if and only if there is no error.
    void lock(OnError error = {}) {
        error.run([&] { static_cast<void>(obtain(Deadline::never())); });
    }

    /// Returns: whether it holds. Contention is no error.
    [[nodiscard]] bool try_lock(OnError error = {}) {
        return error.run([&] {
            hold_type hold;
            detail::HoldStart start;
            const bool obtained = detail::try_obtain<Access>(*entry_, hold, start);
            keep(start);
            return obtained;
        });
    }

    /// Waits at most `timeout`. Returns: whether it holds. Zero or negative tries once.
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout,
                                    OnError error = {}) {
        return error.run([&] { return obtain(Deadline::after(timeout)); });
    }

    /// Waits at most until `time`. Returns: whether it holds. A time that has passed tries once.
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time,
                                      OnError error = {}) {
        return error.run([&] { return obtain(Deadline::at(time)); });
    }

    /// Requires: it is held through a handle, as the lock below wants it; where it leases,
    /// unlocking what is not held is `not_held` and does nothing.
    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }
    void unlock(std::error_code& error) noexcept {
        hold_type hold;
        error.clear();
        const auto start = entry_->held_since.load(std::memory_order_relaxed);
        detail::give_back<Access>(*entry_, hold, detail::HoldStart::from_raw(start), error);
    }

    /// Returns: as Guard's, of the hold that is in the lock.
    [[nodiscard]] std::uint64_t fence() const
        requires Leasing<lock_type>
    {
        return observe([](const auto& lock) { return detail::fence_of(lock); });
    }
    [[nodiscard]] bool valid() const
        requires Leasing<lock_type>
    {
        return observe([](const auto& lock) { return detail::valid_of(lock); });
    }
    [[nodiscard]] std::chrono::nanoseconds remaining() const
        requires Leasing<lock_type>
    {
        return observe([](const auto& lock) { return detail::remaining_of(lock); });
    }
#if defined(__cpp_lib_jthread)
    [[nodiscard]] std::stop_token stop_token() const
        requires Leasing<lock_type>
    {
        return observe([](const auto& lock) { return detail::stop_token_of(lock); });
    }
#endif

  private:
    using hold_type = typename Access::hold_type;

    [[nodiscard]] bool obtain(Deadline deadline) {
        hold_type hold;
        detail::HoldStart start;
        const bool obtained = detail::obtain<Access>(*entry_, hold, start, deadline);
        keep(start);
        return obtained;
    }

    // The hold is in the lock, and so is its beginning.
    void keep(detail::HoldStart start) noexcept {
        if (start) entry_->held_since.store(start.raw(), std::memory_order_relaxed);
    }

    template <class Look>
    auto observe(Look look) const {
        return Access::observe(entry_->primitive, hold_type{}, look);
    }

    const detail::Reference<primitive_type> entry_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCK_GUARDS_HPP
