// SPDX-License-Identifier: MIT
//
// Any lock of a user's, behind one type: what LockManager::register_lock keeps. It costs an
// indirect call for each verb; a lock that is known by its type needs none of this.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_ERASED_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_ERASED_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <system_error>
#include <utility>
#include <version>

#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace codomyrmex::concurrency::detail {

/// Unlocks, and says in `error` what was wrong where the lock can tell.
template <BasicLockable L>
void unlock_and_tell(L& lock, std::error_code& error) noexcept {
    if constexpr (requires { lock.unlock(error); }) {
        lock.unlock(error);
    } else {
        lock.unlock();
    }
}

// What a lock can say of its own hold; a lock that cannot lose it has answers that never worry.

template <class L>
[[nodiscard]] std::uint64_t fence_of(const L& lock) {
    if constexpr (requires { lock.fence(); }) {
        return lock.fence();
    } else {
        return 0;
    }
}

template <class L>
[[nodiscard]] bool valid_of(const L& lock) {
    if constexpr (requires { lock.valid(); }) {
        return lock.valid();
    } else {
        return true;
    }
}

template <class L>
[[nodiscard]] std::chrono::nanoseconds remaining_of(const L& lock) {
    if constexpr (requires { lock.remaining(); }) {
        return lock.remaining();
    } else {
        return std::chrono::nanoseconds::max();
    }
}

#if defined(__cpp_lib_jthread)
template <class L>
[[nodiscard]] std::stop_token stop_token_of(const L& lock) {
    if constexpr (requires { lock.stop_token(); }) {
        return lock.stop_token();
    } else {
        return {};
    }
}
#endif

/// A reference to a lock, or a share in one.
class ErasedLock {
  public:
    /// Requires: `lock` outlives this.
    template <TimedLockable L>
    explicit ErasedLock(L& lock) noexcept
        // Shares in nothing, so that nobody destroys the lock.
        : lock_{std::shared_ptr<void>{}, std::addressof(lock)}, verbs_{&verbs_of<L>} {}

    /// Requires: `lock` is not null.
    template <TimedLockable L>
    explicit ErasedLock(std::shared_ptr<L> lock) noexcept
        : lock_{std::move(lock)}, verbs_{&verbs_of<L>} {}

    void lock() const { verbs_->lock(lock_.get()); }
    [[nodiscard]] bool try_lock() const { return verbs_->try_lock(lock_.get()); }
    [[nodiscard]] bool try_lock_until(Deadline deadline) const {
        return verbs_->try_lock_until(lock_.get(), deadline);
    }
    void unlock(std::error_code& error) const noexcept { verbs_->unlock(lock_.get(), error); }

    /// Whether the hold is a lease, so that each try costs a round trip.
    [[nodiscard]] bool leases() const noexcept { return verbs_->leases; }

    [[nodiscard]] std::uint64_t fence() const { return verbs_->fence(lock_.get()); }
    [[nodiscard]] bool valid() const { return verbs_->valid(lock_.get()); }
    [[nodiscard]] std::chrono::nanoseconds remaining() const {
        return verbs_->remaining(lock_.get());
    }
#if defined(__cpp_lib_jthread)
    [[nodiscard]] std::stop_token stop_token() const { return verbs_->stop_token(lock_.get()); }
#endif

  private:
    struct Verbs {
        void (*lock)(void*);
        bool (*try_lock)(void*);
        bool (*try_lock_until)(void*, Deadline);
        void (*unlock)(void*, std::error_code&) noexcept;
        std::uint64_t (*fence)(const void*);
        bool (*valid)(const void*);
        std::chrono::nanoseconds (*remaining)(const void*);
#if defined(__cpp_lib_jthread)
        std::stop_token (*stop_token)(const void*);
#endif
        bool leases;
    };

    template <class L>
    [[nodiscard]] static L& as(void* lock) noexcept {
        return *static_cast<L*>(lock);
    }

    template <class L>
    [[nodiscard]] static const L& as(const void* lock) noexcept {
        return *static_cast<const L*>(lock);
    }

    template <class L>
    static constexpr Verbs verbs_of = {
        .lock = [](void* lock) { as<L>(lock).lock(); },
        .try_lock = [](void* lock) -> bool { return as<L>(lock).try_lock(); },
        .try_lock_until = [](void* lock, Deadline deadline) -> bool {
            return as<L>(lock).try_lock_until(deadline.time());
        },
        .unlock = [](void* lock,
                     std::error_code& error) noexcept { unlock_and_tell(as<L>(lock), error); },
        .fence = [](const void* lock) { return fence_of(as<L>(lock)); },
        .valid = [](const void* lock) { return valid_of(as<L>(lock)); },
        .remaining = [](const void* lock) { return remaining_of(as<L>(lock)); },
#if defined(__cpp_lib_jthread)
        .stop_token = [](const void* lock) { return stop_token_of(as<L>(lock)); },
#endif
        .leases = requires(const L& lock){lock.fence();
},
};  // namespace codomyrmex::concurrency::detail

std::shared_ptr<void> lock_;
const Verbs* verbs_;
}
;

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_ERASED_LOCK_HPP
