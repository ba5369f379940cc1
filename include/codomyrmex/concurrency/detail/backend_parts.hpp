// SPDX-License-Identifier: MIT
//
// What a LockManager derives from its backend: which kinds there are, what an entry of each has,
// and how the guards take it. A hold is a lease wherever the backend's primitive can give one.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_BACKEND_PARTS_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_BACKEND_PARTS_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/detail/access.hpp>
#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <concepts>
#include <cstddef>
#include <string_view>

namespace codomyrmex::concurrency::detail {

/// False for a backend whose client says why it has no permits and no readers.
template <class B>
concept SharedHoldsAddUp =
    !requires { typename B::client_type::holds_of_different_majorities_do_not_add_up; };

/// The backend makes read-write locks.
template <class B>
concept MakesReadWrite = SharedHoldsAddUp<B> && TimedSharedLockable<typename B::read_write_type> &&
                         requires(const B& backend, std::string_view name) {
                             {
                                 backend.make_read_write(name)
                             } -> std::same_as<typename B::read_write_type>;
                         };

/// The backend makes semaphores.
template <class B>
concept MakesSemaphores =
    SharedHoldsAddUp<B> && TimedSemaphore<typename B::semaphore_type> &&
    requires(const B& backend, std::string_view name, std::ptrdiff_t permits) {
        { backend.make_semaphore(name, permits) } -> std::same_as<typename B::semaphore_type>;
    };

/// The holds that a read-write lock gives are leases, not guards of the standard.
template <class L>
concept LeasingReadWrite = requires(L& lock) {
    { lock.read() } -> LeaseLike;
    { lock.write() } -> LeaseLike;
};

/// The entries for locks.
template <class L>
struct LockPart {
    using Registry = detail::Registry<LockSlot<L>>;
    using Access = SlotAccess<ExclusiveAccess<L>>;
    using HandleAccess = SlotAccess<ExclusiveAccess<L>>;
};

template <Leasing L>
struct LockPart<L> {
    using Registry = detail::Registry<LockSlot<L>>;
    using Access = SlotAccess<LeaseAccess<L, LeaseVerbs>>;
    using HandleAccess = SlotAccess<ExclusiveAccess<L>>;
};

/// The entries for read-write locks; nothing if the backend makes none.
template <class B>
struct ReadWritePart {
    struct Registry {
        Registry(const LockManagerOptions&, Probe&) noexcept {}
    };
    using ReadAccess = void;
    using WriteAccess = void;
};

template <MakesReadWrite B>
struct ReadWritePart<B> {
    using Lock = typename B::read_write_type;
    using Registry = detail::Registry<Lock>;
    using ReadAccess = SharedAccess<Lock>;
    using WriteAccess = ExclusiveAccess<Lock>;
};

template <MakesReadWrite B>
    requires LeasingReadWrite<typename B::read_write_type>
struct ReadWritePart<B> {
    using Lock = typename B::read_write_type;
    using Registry = detail::Registry<Lock>;
    using ReadAccess = LeaseAccess<Lock, ReadVerbs>;
    using WriteAccess = LeaseAccess<Lock, WriteVerbs>;
};

/// The entries for semaphores; nothing if the backend makes none.
template <class B>
struct SemaphorePart {
    struct Registry {
        Registry(const LockManagerOptions&, Probe&) noexcept {}
    };
    using Access = void;
};

template <MakesSemaphores B>
struct SemaphorePart<B> {
    using Registry = detail::Registry<typename B::semaphore_type>;
    using Access = PermitAccess<typename B::semaphore_type>;
};

template <MakesSemaphores B>
    requires Leasing<typename B::semaphore_type>
struct SemaphorePart<B> {
    using Registry = detail::Registry<typename B::semaphore_type>;
    using Access = LeaseAccess<typename B::semaphore_type, LeaseVerbs>;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_BACKEND_PARTS_HPP
