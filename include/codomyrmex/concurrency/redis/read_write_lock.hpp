// SPDX-License-Identifier: MIT
//
// A read-write lock among processes and machines that share a Redis server: many readers or one
// writer. Use it where reads are long and far more frequent than writes; a read costs as many round
// trips as a RedisLock.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_READ_WRITE_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_READ_WRITE_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/lease.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/lock_client.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace codomyrmex::concurrency {

/// The hold of a lease and who speaks for it, for the lock to convert.
template <class Client>
struct redis::HoldOfLease {
    [[nodiscard]] static std::shared_ptr<Hold>& get(BasicLease<Client>& lease) noexcept {
        return lease.hold_;
    }
    [[nodiscard]] static Client& client(BasicLease<Client>& lease) noexcept {
        return *lease.client_;
    }
};

/// Many readers or one writer of a name, among all objects of that name and one key prefix on one
/// server. First come, first served: readers that stand in line together are let in together, a
/// waiting writer holds up the readers that come after it, and these the writers after them.
///
/// Each hold is a lease of its own, renewed in the background. Fencing tokens come from one source:
/// a writer's is larger than that of every writer and reader before it. A store may reject by a
/// writer's token; a reader's only tells who read before which write, for readers are together.
///
/// read() and write() give leases. std::shared_lock and std::unique_lock work as on a
/// std::shared_timed_mutex; shared holds that are taken so are alike, and any thread may give one
/// back. A thread that writes while it reads waits for itself: see try_upgrade().
///
/// Verbs that take an OnError throw LockError, or leave the error in a std::error_code if one is
/// given last: backend_unavailable, backend_refused, foreign_key, validity_exhausted. Contention
/// and time-outs are no errors.
///
/// Threads: all members but the destructor are safe to call concurrently.
template <PermitClient Client>
class BasicRedisReadWriteLock {
  public:
    using lease_type = BasicLease<Client>;

    /// A read-write lock on `name` at the server of `client`. Sends nothing yet.
    /// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes (any bytes), and the
    /// options keep their bounds and retain nothing.
    BasicRedisReadWriteLock(std::string_view name, Client client, const LeaseOptions& options = {})
        : client_{client},
          identity_{client_.identify_read_write(name, true, options)},
          reader_{client, client_.identify_read_write(name, false, options)},
          writer_{std::move(client), identity_} {}

    /// The same with a client of its own.
    BasicRedisReadWriteLock(std::string_view name, std::string_view url,
                            const LeaseOptions& options = {})
        requires std::constructible_from<Client, std::string_view>
        : BasicRedisReadWriteLock{name, Client{url}, options} {}

    BasicRedisReadWriteLock(const BasicRedisReadWriteLock&) = delete;
    BasicRedisReadWriteLock& operator=(const BasicRedisReadWriteLock&) = delete;

    /// Gives back what it holds inside. Leases taken from it go on.
    ~BasicRedisReadWriteLock() = default;

    [[nodiscard]] const std::string& name() const noexcept { return writer_.name(); }
    [[nodiscard]] const LeaseOptions& options() const noexcept { return writer_.options(); }

    // Leases to read under. As the lease() verbs of a RedisLock; cost: one round trip when nobody
    // writes or waits to.

    [[nodiscard]] lease_type read(OnError error = {}) { return reader_.lease(error); }
    [[nodiscard]] lease_type read(const std::stop_token& stop, OnError error = {}) {
        return reader_.lease(stop, error);
    }
    [[nodiscard]] lease_type try_read(OnError error = {}) { return reader_.try_lease(error); }
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_read_for(const std::chrono::duration<Rep, Period>& timeout,
                                          OnError error = {}) {
        return reader_.try_lease_for(timeout, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_read_until(const std::chrono::time_point<Clock, Duration>& time,
                                            OnError error = {}) {
        return reader_.try_lease_until(time, error);
    }

    // Leases to write under. The same; cost: one round trip when nobody reads, writes or waits to.

    [[nodiscard]] lease_type write(OnError error = {}) { return writer_.lease(error); }
    [[nodiscard]] lease_type write(const std::stop_token& stop, OnError error = {}) {
        return writer_.lease(stop, error);
    }
    [[nodiscard]] lease_type try_write(OnError error = {}) { return writer_.try_lease(error); }
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_write_for(const std::chrono::duration<Rep, Period>& timeout,
                                           OnError error = {}) {
        return writer_.try_lease_for(timeout, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_write_until(const std::chrono::time_point<Clock, Duration>& time,
                                             OnError error = {}) {
        return writer_.try_lease_until(time, error);
    }

    /// Makes the writer `lease` a reader without a gap: no other writer comes between, and readers
    /// that stand first in line are let in. Should the server not answer, `lease` still is to be
    /// used as a reader only; it then keeps the others out until it is released, which the hook
    /// `on_error` is told.
    /// Throws: LockError(not_held) for an empty lease; LockError(invalid_argument) for one of
    /// another lock; LockError(lease_lost).
    /// Cost: one round trip.
    void downgrade(lease_type& lease, OnError error = {}) {
        error.run([&] {
            require_ours(lease);
            try {
                auto& hold = redis::HoldOfLease<Client>::get(lease);
                auto reader =
                    redis::HoldOfLease<Client>::client(lease).reweigh(hold, 1, Deadline::never());
                if (reader) hold = std::move(reader);
            } catch (const LockError& failure) {
                if (failure.code() == LockErrc::lease_lost) throw;
                client_.report(LockErrc::unknown_outcome, failure.what());
            }
        });
    }

    /// Makes the reader `lease` a writer if nobody else reads; it does not wait, for two readers
    /// that waited for each other to end would wait for ever. Goes before those who wait in line.
    /// Returns: true if it is a writer now, under a new fencing token; false if it still reads.
    /// Throws: as downgrade(); LockError if the server does not answer: it still is to be used as a
    /// reader, but may keep the others out until it is released.
    /// Cost: one round trip.
    [[nodiscard]] bool try_upgrade(lease_type& lease, OnError error = {}) {
        return error.run([&] {
            require_ours(lease);
            auto& hold = redis::HoldOfLease<Client>::get(lease);
            auto writer = redis::HoldOfLease<Client>::client(lease).reweigh(
                hold, static_cast<std::uint64_t>(redis::most_permits), Deadline::never());
            if (!writer) return false;
            hold = std::move(writer);
            return true;
        });
    }

    // What std::unique_lock and std::shared_lock need. As the members of a RedisLock.

    void lock(OnError error = {}) { writer_.lock(error); }
    [[nodiscard]] bool try_lock(OnError error = {}) { return writer_.try_lock(error); }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout,
                                    OnError error = {}) {
        return writer_.try_lock_for(timeout, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time,
                                      OnError error = {}) {
        return writer_.try_lock_until(time, error);
    }
    void unlock() noexcept { writer_.unlock(); }
    void unlock(std::error_code& code) noexcept { writer_.unlock(code); }

    void lock_shared(OnError error = {}) { reader_.acquire(error); }
    [[nodiscard]] bool try_lock_shared(OnError error = {}) { return reader_.try_acquire(error); }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_shared_for(const std::chrono::duration<Rep, Period>& timeout,
                                           OnError error = {}) {
        return reader_.try_acquire_for(timeout, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_shared_until(const std::chrono::time_point<Clock, Duration>& time,
                                             OnError error = {}) {
        return reader_.try_acquire_until(time, error);
    }

    /// Gives a shared hold back and does not wait for the server's word: one that was lost first,
    /// then the one that ends soonest. Misuse and a loss go to the client's hooks.
    void unlock_shared() noexcept {
        std::error_code ignored;
        unlock_shared(ignored);
    }
    /// The same, and tells what is known here: not_held, or lease_lost.
    void unlock_shared(std::error_code& code) noexcept {
        Client client{client_};
        try {
            code.clear();
            reader_.release(code);
            if (code == LockErrc::not_held) {
                client.report(LockErrc::not_held, "unlock_shared of what is not held");
            }
        } catch (...) {
            // Out of memory, and nothing was given back.
            code = LockErrc::unknown_outcome;
        }
    }

    // Of the exclusive hold inside, as the members of BasicLease.

    [[nodiscard]] std::uint64_t fence() const noexcept { return writer_.fence(); }
    [[nodiscard]] bool valid() const noexcept { return writer_.valid(); }
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        return writer_.remaining();
    }
    [[nodiscard]] std::stop_token stop_token() const noexcept { return writer_.stop_token(); }

  private:
    void require_ours(lease_type& lease) const {
        if (!lease) {
            throw LockError(LockErrc::not_held, "conversion of a lease that is empty");
        }
        const redis::LockIdentity& identity =
            redis::HoldOfLease<Client>::get(lease)->tenure()->identity();
        if (identity.keys.main() != identity_->keys.main()) {
            throw LockError(LockErrc::invalid_argument,
                            "conversion of a lease of '" + identity.name +
                                "', which is not one of the read-write lock '" + name() + '\'');
        }
    }

    Client client_;
    const std::shared_ptr<const redis::LockIdentity> identity_;
    BasicRedisSemaphore<Client> reader_;
    BasicRedisLock<Client> writer_;
};

/// A read-write lock over one Redis server.
using RedisReadWriteLock = BasicRedisReadWriteLock<RedisClient>;

static_assert(TimedSharedLockable<RedisReadWriteLock>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_READ_WRITE_LOCK_HPP
