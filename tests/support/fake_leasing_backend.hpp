// SPDX-License-Identifier: MIT
//
// A backend whose locks, read-write locks and semaphores give leases, in memory: the test says when
// a lease is lost and when the backend cannot answer, and sees how often it was asked. It proves
// what LockManager makes of a distributed backend without one.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_LEASING_BACKEND_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_LEASING_BACKEND_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>

#include "support/thread.hpp"

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace support {

/// The server that all copies of a FakeLeasingBackend talk to. A primitive is a number of units; a
/// lock has one, a semaphore one a permit, and a writer takes all that readers share.
class FakeServer {
  public:
    using LockErrc = codomyrmex::concurrency::LockErrc;
    using LockError = codomyrmex::concurrency::LockError;
    using Deadline = codomyrmex::concurrency::Deadline;

    struct Hold {
        std::string key;
        int units;
        std::uint64_t fence;
        bool contended;
        bool lost = false;
        StopSource stop{};
    };

    /// Returns: null if the deadline came first.
    std::shared_ptr<Hold> take(const std::string& key, int capacity, int units, Deadline deadline) {
        std::unique_lock guard{mutex_};
        check();
        ++requests_;
        Pool& pool = pools_[key];
        const bool contended = pool.used + units > capacity;
        while (pool.used + units > capacity) {
            if (deadline.is_never()) {
                changed_.wait(guard);
            } else if (deadline.expired()) {
                return nullptr;
            } else {
                changed_.wait_until(guard, deadline.time());
            }
            check();
        }
        pool.used += units;
        pool.holds.push_back(
            std::make_shared<Hold>(Hold{key, units, ++pool.fence, contended, false, {}}));
        return pool.holds.back();
    }

    /// Returns: whether it was still there.
    bool release(const std::shared_ptr<Hold>& hold) {
        const std::scoped_lock guard{mutex_};
        check();
        return end(hold);
    }

    [[nodiscard]] bool valid(const Hold& hold) {
        const std::scoped_lock guard{mutex_};
        return !hold.lost;
    }

    /// Takes all holds of that key away from their holders.
    void lose(const std::string& key) {
        std::vector<std::shared_ptr<Hold>> lost;
        {
            const std::scoped_lock guard{mutex_};
            lost = pools_[key].holds;
            for (const auto& hold : lost) {
                end(hold);
                hold->lost = true;
            }
        }
        for (const auto& hold : lost)
            hold->stop.request_stop();
    }

    /// From now on every request fails so; nullopt: none does.
    void fail_with(std::optional<LockErrc> failure) {
        const std::scoped_lock guard{mutex_};
        failure_ = failure;
        changed_.notify_all();
    }

    [[nodiscard]] int used(const std::string& key) {
        const std::scoped_lock guard{mutex_};
        return pools_[key].used;
    }

    /// How often somebody asked for something.
    [[nodiscard]] int requests() {
        const std::scoped_lock guard{mutex_};
        return requests_;
    }

  private:
    struct Pool {
        int used = 0;
        std::uint64_t fence = 0;
        std::vector<std::shared_ptr<Hold>> holds{};
    };

    void check() const {
        if (failure_) throw LockError{*failure_, "fake server"};
    }

    bool end(const std::shared_ptr<Hold>& hold) {
        Pool& pool = pools_[hold->key];
        if (std::erase(pool.holds, hold) == 0) return false;
        pool.used -= hold->units;
        changed_.notify_all();
        return true;
    }

    std::mutex mutex_;
    std::condition_variable changed_;
    std::map<std::string, Pool> pools_;
    std::optional<LockErrc> failure_;
    int requests_ = 0;
};

/// A lease without a default constructor, for a lease need not have one.
class FakeServerLease {
  public:
    FakeServerLease(std::shared_ptr<FakeServer> server, std::shared_ptr<FakeServer::Hold> hold)
        : server_{std::move(server)}, hold_{std::move(hold)} {}

    FakeServerLease(FakeServerLease&&) noexcept = default;

    FakeServerLease& operator=(FakeServerLease&& other) noexcept {
        drop();
        server_ = std::move(other.server_);
        hold_ = std::move(other.hold_);
        return *this;
    }

    ~FakeServerLease() { drop(); }

    explicit operator bool() const noexcept { return hold_ != nullptr; }
    [[nodiscard]] bool valid() const { return hold_ && server_->valid(*hold_); }

    [[nodiscard]] std::chrono::milliseconds remaining() const {
        return std::chrono::milliseconds{valid() ? 7 : 0};
    }

    [[nodiscard]] std::uint64_t fence() const noexcept { return hold_ ? hold_->fence : 0; }
    [[nodiscard]] bool contended() const noexcept { return hold_ && hold_->contended; }

    [[nodiscard]] StopToken stop_token() const {
        return hold_ ? hold_->stop.get_token() : StopToken{};
    }

    bool release() {
        using codomyrmex::concurrency::LockErrc;
        using codomyrmex::concurrency::LockError;
        if (!hold_) throw LockError{LockErrc::not_held, "fake lease"};
        return server_->release(std::exchange(hold_, nullptr));
    }

  private:
    void drop() noexcept {
        try {
            if (hold_) release();
        } catch (const std::exception&) {
            hold_ = nullptr;
        }
    }

    std::shared_ptr<FakeServer> server_;
    std::shared_ptr<FakeServer::Hold> hold_;
};

/// What the three primitives have in common.
class FakeLeasing {
  public:
    using lease_type = FakeServerLease;
    using Deadline = codomyrmex::concurrency::Deadline;

    FakeLeasing(std::shared_ptr<FakeServer> server, std::string key, int capacity)
        : server_{std::move(server)}, key_{std::move(key)}, capacity_{capacity} {}

    FakeLeasing(const FakeLeasing&) = delete;
    FakeLeasing& operator=(const FakeLeasing&) = delete;

  protected:
    lease_type take(int units, Deadline deadline) {
        return {server_, server_->take(key_, capacity_, units, deadline)};
    }

    /// Takes, and keeps the lease in here.
    bool keep(int units, Deadline deadline) {
        auto lease = take(units, deadline);
        if (!lease) return false;
        const std::scoped_lock guard{mutex_};
        kept_.push_back(std::move(lease));
        return true;
    }

    bool release_one() {
        using codomyrmex::concurrency::LockErrc;
        using codomyrmex::concurrency::LockError;
        const std::scoped_lock guard{mutex_};
        if (kept_.empty()) throw LockError{LockErrc::not_held, "fake"};
        auto lease = std::move(kept_.back());
        kept_.pop_back();
        return lease.release();
    }

    template <class Look, class Default>
    auto observe(Look look, Default otherwise) const {
        const std::scoped_lock guard{mutex_};
        return kept_.empty() ? otherwise : look(kept_.back());
    }

    [[nodiscard]] int capacity() const noexcept { return capacity_; }

  private:
    const std::shared_ptr<FakeServer> server_;
    const std::string key_;
    const int capacity_;
    mutable std::mutex mutex_;
    std::vector<lease_type> kept_;
};

class FakeLeasingLock : public FakeLeasing {
  public:
    using FakeLeasing::FakeLeasing;

    void lock() { keep(1, Deadline::never()); }
    bool try_lock() { return keep(1, Deadline::after(std::chrono::seconds{0})); }
    bool try_lock_for(std::chrono::nanoseconds timeout) {
        return keep(1, Deadline::after(timeout));
    }
    bool try_lock_until(std::chrono::steady_clock::time_point time) {
        return keep(1, Deadline::at(time));
    }

    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }
    void unlock(std::error_code& error) noexcept {
        error.clear();
        try {
            if (!release_one()) error = codomyrmex::concurrency::LockErrc::lease_lost;
        } catch (const std::system_error& failure) {
            error = failure.code();
        }
    }

    [[nodiscard]] std::uint64_t fence() const noexcept {
        return observe([](const auto& lease) { return lease.fence(); }, std::uint64_t{0});
    }
    [[nodiscard]] bool valid() const {
        return observe([](const auto& lease) { return lease.valid(); }, false);
    }
    [[nodiscard]] std::chrono::milliseconds remaining() const {
        return observe([](const auto& lease) { return lease.remaining(); },
                       std::chrono::milliseconds{0});
    }
    [[nodiscard]] StopToken stop_token() const {
        return observe([](const auto& lease) { return lease.stop_token(); }, StopToken{});
    }

    lease_type lease() { return take(1, Deadline::never()); }
    lease_type try_lease() { return take(1, Deadline::after(std::chrono::seconds{0})); }
    lease_type try_lease_for(std::chrono::nanoseconds timeout) {
        return take(1, Deadline::after(timeout));
    }
    lease_type try_lease_until(std::chrono::steady_clock::time_point time) {
        return take(1, Deadline::at(time));
    }
};

class FakeLeasingReadWriteLock : public FakeLeasingLock {
  public:
    using FakeLeasingLock::FakeLeasingLock;

    void lock() { keep(capacity(), Deadline::never()); }
    bool try_lock() { return keep(capacity(), now()); }
    bool try_lock_for(std::chrono::nanoseconds timeout) {
        return keep(capacity(), Deadline::after(timeout));
    }
    bool try_lock_until(std::chrono::steady_clock::time_point time) {
        return keep(capacity(), Deadline::at(time));
    }
    void lock_shared() { keep(1, Deadline::never()); }
    bool try_lock_shared() { return keep(1, now()); }
    bool try_lock_shared_for(std::chrono::nanoseconds timeout) {
        return keep(1, Deadline::after(timeout));
    }
    bool try_lock_shared_until(std::chrono::steady_clock::time_point time) {
        return keep(1, Deadline::at(time));
    }
    void unlock_shared() noexcept { unlock(); }

    lease_type read() { return take(1, Deadline::never()); }
    lease_type try_read() { return take(1, now()); }
    lease_type try_read_until(std::chrono::steady_clock::time_point time) {
        return take(1, Deadline::at(time));
    }
    lease_type write() { return take(capacity(), Deadline::never()); }
    lease_type try_write() { return take(capacity(), now()); }
    lease_type try_write_until(std::chrono::steady_clock::time_point time) {
        return take(capacity(), Deadline::at(time));
    }

  private:
    static Deadline now() { return Deadline::after(std::chrono::seconds{0}); }
};

class FakeLeasingSemaphore : public FakeLeasingLock {
  public:
    using FakeLeasingLock::FakeLeasingLock;

    void acquire() { lock(); }
    bool try_acquire() { return try_lock(); }
    bool try_acquire_for(std::chrono::nanoseconds timeout) { return try_lock_for(timeout); }
    bool try_acquire_until(std::chrono::steady_clock::time_point time) {
        return try_lock_until(time);
    }
    void release() { release_one(); }
};

/// Its keys are "lock:", "read_write:" and "semaphore:" with the name.
struct FakeLeasingBackend {
    using lock_type = FakeLeasingLock;
    using read_write_type = FakeLeasingReadWriteLock;
    using semaphore_type = FakeLeasingSemaphore;

    [[nodiscard]] lock_type make_lock(std::string_view name) const {
        return {server, "lock:" + std::string{name}, 1};
    }
    [[nodiscard]] read_write_type make_read_write(std::string_view name) const {
        return {server, "read_write:" + std::string{name}, 1'000};
    }
    [[nodiscard]] semaphore_type make_semaphore(std::string_view name,
                                                std::ptrdiff_t permits) const {
        return {server, "semaphore:" + std::string{name}, static_cast<int>(permits)};
    }

    std::shared_ptr<FakeServer> server = std::make_shared<FakeServer>();
};

static_assert(codomyrmex::concurrency::Leasing<FakeLeasingLock>);
static_assert(codomyrmex::concurrency::Leasing<FakeLeasingSemaphore>);
static_assert(codomyrmex::concurrency::TimedSemaphore<FakeLeasingSemaphore>);
static_assert(codomyrmex::concurrency::TimedSharedLockable<FakeLeasingReadWriteLock>);
static_assert(codomyrmex::concurrency::Backend<FakeLeasingBackend>);

}  // namespace support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_LEASING_BACKEND_HPP
