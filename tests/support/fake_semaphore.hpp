// SPDX-License-Identifier: MIT
//
// A semaphore whose permits are leases, without a backend: the test says when a lease is lost and
// what a release answers. It proves what Permit makes of the concept Leasing.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_SEMAPHORE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_SEMAPHORE_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/error.hpp>

#include "support/thread.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <utility>

namespace support {

/// What a FakeSemaphore and its leases share; a lease may outlive the semaphore.
struct FakeBackend {
    int free = 0;
    int releases = 0;
    std::uint64_t fence = 0;
    bool reachable = true;
    StopSource lost;
};

class FakeLease {
  public:
    FakeLease() = default;

    explicit FakeLease(std::shared_ptr<FakeBackend> backend)
        : backend_{std::move(backend)}, fence_{++backend_->fence} {}

    FakeLease(FakeLease&& other) noexcept = default;

    FakeLease& operator=(FakeLease&& other) noexcept {
        if (this != &other) {
            give_back();
            backend_ = std::move(other.backend_);
            fence_ = other.fence_;
        }
        return *this;
    }

    ~FakeLease() { give_back(); }

    explicit operator bool() const noexcept { return backend_ != nullptr; }
    [[nodiscard]] bool valid() const { return !backend_->lost.stop_requested(); }

    [[nodiscard]] std::chrono::milliseconds remaining() const {
        return std::chrono::milliseconds{valid() ? 7 : 0};
    }

    [[nodiscard]] std::uint64_t fence() const noexcept { return fence_; }
    [[nodiscard]] StopToken stop_token() const { return backend_->lost.get_token(); }

    bool release() {
        using codomyrmex::concurrency::LockErrc;
        using codomyrmex::concurrency::LockError;
        if (!backend_) throw LockError{LockErrc::not_held, "fake lease"};
        if (!backend_->reachable) throw LockError{LockErrc::unknown_outcome, "fake lease"};
        return give_back();
    }

  private:
    bool give_back() noexcept {
        if (!backend_) return false;
        const auto backend = std::move(backend_);
        ++backend->releases;
        if (backend->lost.stop_requested()) return false;
        ++backend->free;
        return true;
    }

    std::shared_ptr<FakeBackend> backend_;
    std::uint64_t fence_ = 0;
};

class FakeSemaphore {
  public:
    using lease_type = FakeLease;

    explicit FakeSemaphore(int permits) { backend->free = permits; }

    void acquire() { --backend->free; }
    bool try_acquire() { return backend->free > 0 && backend->free-- > 0; }

    template <class Rep, class Period>
    bool try_acquire_for(const std::chrono::duration<Rep, Period>&) {
        return try_acquire();
    }

    template <class Clock, class Duration>
    bool try_acquire_until(const std::chrono::time_point<Clock, Duration>&) {
        return try_acquire();
    }

    void release() {
        ++plain_releases;
        ++backend->free;
    }

    FakeLease lease() {
        acquire();
        return FakeLease{backend};
    }

    FakeLease try_lease() { return try_acquire() ? FakeLease{backend} : FakeLease{}; }

    template <class Rep, class Period>
    FakeLease try_lease_for(const std::chrono::duration<Rep, Period>& timeout) {
        last_timeout = timeout;
        return try_lease();
    }

    template <class Clock, class Duration>
    FakeLease try_lease_until(const std::chrono::time_point<Clock, Duration>& when) {
        last_time = when;
        return try_lease();
    }

    std::shared_ptr<FakeBackend> backend = std::make_shared<FakeBackend>();
    int plain_releases = 0;
    std::chrono::nanoseconds last_timeout{};
    std::chrono::steady_clock::time_point last_time{};
};

static_assert(codomyrmex::concurrency::TimedSemaphore<FakeSemaphore>);
static_assert(codomyrmex::concurrency::Leasing<FakeSemaphore>);

}  // namespace support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_SEMAPHORE_HPP
