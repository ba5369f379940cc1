// SPDX-License-Identifier: MIT
//
// RAII for a permit of any semaphore: local, of the standard, or distributed. To a semaphore what
// std::unique_lock is to a mutex; over one whose permits are leases it is also the lease.

#ifndef CODOMYRMEX_CONCURRENCY_PERMIT_HPP
#define CODOMYRMEX_CONCURRENCY_PERMIT_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/error.hpp>

#include <chrono>
#include <cstdint>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>

namespace codomyrmex::concurrency {

namespace detail {

struct NoLease {
    void reset() noexcept {}
};

template <class S>
struct PermitLease {
    using type = NoLease;
};

template <Leasing S>
struct PermitLease<S> {
    using type = std::optional<typename S::lease_type>;
};

}  // namespace detail

/// One permit, given back by the destructor; or none.
///
/// Over a Leasing semaphore it keeps the lease; the permit may then be lost, which valid() and
/// stop_token() tell, and may outlive the semaphore. Over any other, the semaphore outlives it.
///
/// Threads: as a std::unique_ptr. It may be moved to another thread and released there.
template <Semaphore S>
class [[nodiscard]] Permit {
  public:
    /// Waits for a permit.
    /// Throws: what the semaphore throws.
    explicit Permit(S& semaphore) {
        if constexpr (Leasing<S>) {
            lease_.emplace(semaphore.lease());
        } else {
            semaphore.acquire();
            semaphore_ = &semaphore;
        }
    }

    /// Takes a permit if one is free, else is empty.
    Permit(S& semaphore, std::try_to_lock_t) {
        if constexpr (Leasing<S>) {
            lease_.emplace(semaphore.try_lease());
        } else if (semaphore.try_acquire()) {
            semaphore_ = &semaphore;
        }
    }

    /// Takes over a permit that the caller acquired with `semaphore.acquire()`, to be given back
    /// with `semaphore.release()`. It knows no lease, even if the semaphore leases.
    Permit(S& semaphore, std::adopt_lock_t) noexcept : semaphore_{&semaphore} {}

    /// Waits at most `timeout` for a permit, else is empty. Zero or negative tries once.
    template <class Rep, class Period>
        requires TimedSemaphore<S> || Leasing<S>
    Permit(S& semaphore, const std::chrono::duration<Rep, Period>& timeout) {
        if constexpr (Leasing<S>) {
            lease_.emplace(semaphore.try_lease_for(timeout));
        } else if (semaphore.try_acquire_for(timeout)) {
            semaphore_ = &semaphore;
        }
    }

    /// Waits until `when` for a permit, else is empty. A time that has passed tries once.
    template <class Clock, class Duration>
        requires TimedSemaphore<S> || Leasing<S>
    Permit(S& semaphore, const std::chrono::time_point<Clock, Duration>& when) {
        if constexpr (Leasing<S>) {
            lease_.emplace(semaphore.try_lease_until(when));
        } else if (semaphore.try_acquire_until(when)) {
            semaphore_ = &semaphore;
        }
    }

    Permit(Permit&& other) noexcept
        : semaphore_{std::exchange(other.semaphore_, nullptr)}, lease_{std::move(other.lease_)} {
        other.lease_.reset();
    }

    /// Gives back what it holds, then takes over what `other` holds.
    Permit& operator=(Permit&& other) noexcept {
        if (this == &other) return *this;
        drop();
        semaphore_ = std::exchange(other.semaphore_, nullptr);
        lease_ = std::move(other.lease_);
        other.lease_.reset();
        return *this;
    }

    /// Gives the permit back, silently: use release() to learn whether it was still held.
    ~Permit() { drop(); }

    /// Whether there is a permit to give back. One whose lease was lost counts until it is
    /// released; see valid().
    [[nodiscard]] bool owns_permit() const noexcept { return semaphore_ != nullptr || has_lease(); }

    [[nodiscard]] explicit operator bool() const noexcept { return owns_permit(); }

    /// Gives the permit back now. Whatever the outcome, the Permit is empty afterwards.
    /// Returns: true if it was still held; false if its lease had been lost.
    /// Throws: LockError(not_held) if it is empty, released before or moved from; what the
    /// semaphore throws.
    bool release() {
        if (!owns_permit()) {
            throw LockError{LockErrc::not_held, "release of a permit that is empty"};
        }
        if constexpr (Leasing<S>) {
            // Not by std::exchange(), which makes g++ 12 warn of what an empty optional does not
            // have.
            if (lease_) {
                auto lease = std::move(*lease_);
                lease_.reset();
                return lease.release();
            }
        }
        std::exchange(semaphore_, nullptr)->release();
        return true;
    }

    /// The same, with the error in `ec`, which is cleared when there is none.
    bool release(std::error_code& ec) noexcept {
        ec.clear();
        if (!owns_permit()) {
            ec = LockErrc::not_held;
            return false;
        }
        try {
            return release();
        } catch (const std::system_error& error) {
            ec = error.code();
        } catch (...) {
            ec = LockErrc::unknown_outcome;
        }
        return false;
    }

    /// The fencing token of the lease; 0 if there is none.
    [[nodiscard]] std::uint64_t fence() const noexcept
        requires Leasing<S>
    {
        return has_lease() ? lease_->fence() : 0;
    }

    /// Whether the lease holds; false if there is none.
    [[nodiscard]] bool valid() const
        requires Leasing<S>
    {
        return has_lease() && lease_->valid();
    }

    /// How long the lease holds without a renewal; zero if there is none.
    [[nodiscard]] std::chrono::nanoseconds remaining() const
        requires Leasing<S>
    {
        if (!has_lease()) return std::chrono::nanoseconds::zero();
        return lease_->remaining();
    }

    /// Asked to stop when the lease is lost; never if there is none.
    [[nodiscard]] auto stop_token() const
        requires Leasing<S>
    {
        using Token = decltype(lease_->stop_token());
        return has_lease() ? lease_->stop_token() : Token{};
    }

    void swap(Permit& other) noexcept { std::swap(*this, other); }

    friend void swap(Permit& a, Permit& b) noexcept { a.swap(b); }

  private:
    [[nodiscard]] bool has_lease() const noexcept {
        if constexpr (Leasing<S>) {
            return lease_ && static_cast<bool>(*lease_);
        } else {
            return false;
        }
    }

    void drop() noexcept {
        lease_.reset();
        std::error_code ignored;
        if (semaphore_ != nullptr) release(ignored);
    }

    S* semaphore_ = nullptr;  // set: a permit to give back with semaphore_->release()
    [[no_unique_address]] typename detail::PermitLease<S>::type lease_{};
};

template <Semaphore S, class... Args>
Permit(S&, Args...) -> Permit<S>;

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_PERMIT_HPP
