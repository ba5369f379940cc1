// SPDX-License-Identifier: MIT
//
// How the registry's guards take each kind of primitive and give it back: a policy for each verb
// (exclusive, shared, a permit, the three kinds of lease) says which members to call. What is
// counted thereby is obtain.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_ACCESS_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_ACCESS_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/erased_lock.hpp>
#include <codomyrmex/concurrency/error.hpp>

#include <concepts>
#include <cstddef>
#include <memory>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::detail {

// A policy has
//   primitive_type   what it works on
//   hold_type        what a guard keeps; nothing where the hold stands in the primitive itself
//   leasing          whether hold_type may hold a lease
//   exclusive        whether holds of this policy exclude all others
//   leases(p)        whether a hold of `p` can end by itself; then a try costs a round trip
//   take, try_take, try_take_until, give_back, observe.

/// Common to the policies over primitives that keep the hold in themselves.
template <class P, bool Exclusive>
struct PlainAccess {
    using primitive_type = P;
    struct hold_type {};
    static constexpr bool leasing = false;
    static constexpr bool exclusive = Exclusive;
    static constexpr bool leases(const P&) noexcept { return Leasing<P>; }

    /// What `look` says of the hold, which stands in the primitive.
    template <class Look>
    static auto observe(const P& primitive, const hold_type&, Look look) {
        return look(primitive);
    }
};

/// lock() and unlock().
template <class P>
struct ExclusiveAccess : PlainAccess<P, true> {
    using hold_type = typename PlainAccess<P, true>::hold_type;
    static void take(P& lock, hold_type&) { lock.lock(); }
    static bool try_take(P& lock, hold_type&) { return lock.try_lock(); }
    static bool try_take_until(P& lock, hold_type&, Deadline deadline) {
        return lock.try_lock_until(deadline.time());
    }
    static void give_back(P& lock, hold_type&, std::error_code& error) noexcept {
        unlock_and_tell(lock, error);
    }
};

/// lock_shared() and unlock_shared().
template <class P>
struct SharedAccess : PlainAccess<P, false> {
    using hold_type = typename PlainAccess<P, false>::hold_type;
    static void take(P& lock, hold_type&) { lock.lock_shared(); }
    static bool try_take(P& lock, hold_type&) { return lock.try_lock_shared(); }
    static bool try_take_until(P& lock, hold_type&, Deadline deadline) {
        return lock.try_lock_shared_until(deadline.time());
    }
    static void give_back(P& lock, hold_type&, std::error_code&) noexcept { lock.unlock_shared(); }
};

/// acquire() and release().
template <class P>
struct PermitAccess : PlainAccess<P, false> {
    using hold_type = typename PlainAccess<P, false>::hold_type;
    static void take(P& semaphore, hold_type&) { semaphore.acquire(); }
    static bool try_take(P& semaphore, hold_type&) { return semaphore.try_acquire(); }
    static bool try_take_until(P& semaphore, hold_type&, Deadline deadline) {
        return semaphore.try_acquire_until(deadline.time());
    }
    static void give_back(P& semaphore, hold_type&, std::error_code&) noexcept {
        semaphore.release();
    }
};

/// The three verbs of Leasing.
struct LeaseVerbs {
    static auto take(auto& primitive) { return primitive.lease(); }
    static auto try_take(auto& primitive) { return primitive.try_lease(); }
    static auto try_take_until(auto& primitive, Deadline::time_point time) {
        return primitive.try_lease_until(time);
    }
};

/// The same of a read-write lock whose read() is a lease.
struct ReadVerbs {
    static auto take(auto& primitive) { return primitive.read(); }
    static auto try_take(auto& primitive) { return primitive.try_read(); }
    static auto try_take_until(auto& primitive, Deadline::time_point time) {
        return primitive.try_read_until(time);
    }
};

/// The same of a read-write lock whose write() is a lease.
struct WriteVerbs {
    static auto take(auto& primitive) { return primitive.write(); }
    static auto try_take(auto& primitive) { return primitive.try_write(); }
    static auto try_take_until(auto& primitive, Deadline::time_point time) {
        return primitive.try_write_until(time);
    }
};

/// A hold that is a lease.
template <class P, class Verbs>
struct LeaseAccess {
    using primitive_type = P;
    using lease_type = decltype(Verbs::take(std::declval<P&>()));
    // A lease need not have a default constructor.
    using hold_type = std::optional<lease_type>;
    static constexpr bool leasing = true;
    static constexpr bool exclusive = true;
    static constexpr bool leases(const P&) noexcept { return true; }

    static void take(P& primitive, hold_type& hold) { hold.emplace(Verbs::take(primitive)); }

    static bool try_take(P& primitive, hold_type& hold) {
        return static_cast<bool>(hold.emplace(Verbs::try_take(primitive)));
    }

    static bool try_take_until(P& primitive, hold_type& hold, Deadline deadline) {
        return static_cast<bool>(hold.emplace(Verbs::try_take_until(primitive, deadline.time())));
    }

    /// Tries several at once, all or none, where the backend can; for its answer at most until
    /// `deadline`, unless that has passed already.
    /// Returns: the place of one that another holds, or how many there are if all were taken;
    /// nothing if they must be tried one by one.
    static std::optional<std::size_t> try_take_all(const std::vector<P*>& primitives,
                                                   std::vector<hold_type>& holds, Deadline deadline)
        requires requires(const std::vector<P*>& all, Deadline until,
                          std::optional<std::size_t>& held) {
            { P::try_lease_all(all, until, held) } -> std::same_as<std::vector<lease_type>>;
        }
    {
        std::optional<std::size_t> held;
        std::vector<lease_type> leases = P::try_lease_all(primitives, deadline, held);
        if (leases.size() != primitives.size()) return held;
        for (std::size_t i = 0; i < leases.size(); ++i)
            holds[i].emplace(std::move(leases[i]));
        return leases.size();
    }

    static void give_back(P&, hold_type& hold, std::error_code& error) noexcept {
        // A guard must not wait for a backend that does not answer, so it takes the lease's quiet
        // verb where there is one.
        if constexpr (requires { hold->unlock(error); }) {
            hold->unlock(error);
        } else {
            try {
                if (!hold->release()) error = LockErrc::lease_lost;
            } catch (const std::system_error& failure) {
                error = failure.code();
            } catch (...) {
                error = LockErrc::unknown_outcome;
            }
        }
        hold.reset();
    }

    /// What `look` says of the lease.
    template <class Look>
    static auto observe(const P&, const hold_type& hold, Look look) {
        return look(*hold);
    }
};

/// What an entry for a lock has: a lock that the backend made, or one that the user registered.
template <class L>
class LockSlot {
  public:
    template <class Make>
        requires std::is_same_v<std::invoke_result_t<Make>, L>
    explicit LockSlot(Make make) : own_(make()), is_own_{true} {}

    explicit LockSlot(ErasedLock lock) noexcept : foreign_{std::move(lock)}, is_own_{false} {}

    LockSlot(const LockSlot&) = delete;
    LockSlot& operator=(const LockSlot&) = delete;

    ~LockSlot() {
        if (is_own_) {
            std::destroy_at(&own_);
        } else {
            std::destroy_at(&foreign_);
        }
    }

    [[nodiscard]] bool is_own() const noexcept { return is_own_; }

    /// Requires: is_own().
    [[nodiscard]] L& own() noexcept { return own_; }
    [[nodiscard]] const L& own() const noexcept { return own_; }

    /// Requires: !is_own().
    [[nodiscard]] const ErasedLock& foreign() const noexcept { return foreign_; }

  private:
    // Not a std::variant: that cannot be filled with a lock, which does not move.
    union {
        L own_;
        ErasedLock foreign_;
    };
    const bool is_own_;
};

/// Access to whichever lock is in the slot: `OwnAccess` to the backend's, the standard's verbs to
/// the user's.
template <class OwnAccess>
struct SlotAccess {
    using lock_type = typename OwnAccess::primitive_type;
    using primitive_type = LockSlot<lock_type>;
    using hold_type = typename OwnAccess::hold_type;
    static constexpr bool leasing = OwnAccess::leasing;
    static constexpr bool exclusive = OwnAccess::exclusive;

    static bool leases(const primitive_type& slot) noexcept {
        return slot.is_own() ? OwnAccess::leases(slot.own()) : slot.foreign().leases();
    }

    static void take(primitive_type& slot, hold_type& hold) {
        if (slot.is_own()) [[likely]] {
            OwnAccess::take(slot.own(), hold);
        } else {
            slot.foreign().lock();
        }
    }

    static bool try_take(primitive_type& slot, hold_type& hold) {
        if (slot.is_own()) [[likely]]
            return OwnAccess::try_take(slot.own(), hold);
        return slot.foreign().try_lock();
    }

    static bool try_take_until(primitive_type& slot, hold_type& hold, Deadline deadline) {
        if (slot.is_own()) [[likely]]
            return OwnAccess::try_take_until(slot.own(), hold, deadline);
        return slot.foreign().try_lock_until(deadline);
    }

    static std::optional<std::size_t> try_take_all(const std::vector<primitive_type*>& slots,
                                                   std::vector<hold_type>& holds, Deadline deadline)
        requires requires(const std::vector<lock_type*>& locks) {
            OwnAccess::try_take_all(locks, holds, deadline);
        }
    {
        std::vector<lock_type*> locks;
        for (primitive_type* slot : slots) {
            // One of the user's own; those are tried one by one.
            if (!slot->is_own()) return std::nullopt;
            locks.push_back(&slot->own());
        }
        return OwnAccess::try_take_all(locks, holds, deadline);
    }

    static void give_back(primitive_type& slot, hold_type& hold, std::error_code& error) noexcept {
        if (slot.is_own()) [[likely]] {
            OwnAccess::give_back(slot.own(), hold, error);
        } else {
            slot.foreign().unlock(error);
        }
    }

    template <class Look>
    static auto observe(const primitive_type& slot, const hold_type& hold, Look look) {
        if (slot.is_own()) return OwnAccess::observe(slot.own(), hold, look);
        return look(slot.foreign());
    }
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_ACCESS_HPP
