// SPDX-License-Identifier: MIT
//
// A mutual exclusion lock among processes and machines that share a Redis server. Use it as a
// std::timed_mutex, with the guards of the standard, or take a Lease from it to know more. Within
// one process a LocalLock does the same a thousand times faster.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/kept_holds.hpp>
#include <codomyrmex/concurrency/redis/lease.hpp>
#include <codomyrmex/concurrency/redis/lock_client.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// A lock on a name. All objects of one name and one key prefix on one server exclude each other,
/// in this process and in others, and so do the threads that share an object.
///
///     state                lock()                   unlock()
///     free                 held                     not_held reported, nothing sent
///     held by this object  another thread waits,    free
///                          the same one deadlocks
///     held elsewhere       waits, then held         not_held reported, nothing sent
///     lost                 waits, then held         lease_lost reported, the holder untouched
///
/// A hold is a lease: it is renewed in the background until unlock(), and can be lost, which
/// valid(), stop_token() and fence() tell of. The hold belongs to the object, not to the thread: a
/// guard may be moved to another thread. Two objects of one name in one std::scoped_lock never end.
///
/// Verbs that take an OnError throw LockError, or leave the error in a std::error_code if one is
/// given last: backend_unavailable, backend_refused, foreign_key, validity_exhausted. Contention
/// and time-outs are no errors.
///
/// Threads: all members but the destructor are safe to call concurrently.
template <LockClient Client>
class BasicRedisLock {
  public:
    using lease_type = BasicLease<Client>;

    /// A lock on `name` at the server of `client`. Sends nothing yet.
    /// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes (any bytes) and the
    /// options keep their bounds.
    BasicRedisLock(std::string_view name, Client client, LeaseOptions options = {})
        : client_{std::move(client)}, identity_{client_.identify(name, std::move(options))} {}

    /// For primitives that are made of locks: one of what `identity` names, which `client` gave.
    BasicRedisLock(Client client, std::shared_ptr<const redis::LockIdentity> identity)
        : client_{std::move(client)}, identity_{std::move(identity)} {}

    /// The same with a client of its own. Programs with more than one lock should share a client.
    BasicRedisLock(std::string_view name, std::string_view url, LeaseOptions options = {})
        requires std::constructible_from<Client, std::string_view>
        : BasicRedisLock{name, Client{url}, std::move(options)} {}

    BasicRedisLock(const BasicRedisLock&) = delete;
    BasicRedisLock& operator=(const BasicRedisLock&) = delete;

    /// Releases what it holds inside, as unlock() does. Leases taken from it go on.
    ~BasicRedisLock() {
        while (const auto hold = holds_.take())
            client_.give_back(hold);
    }

    [[nodiscard]] const std::string& name() const noexcept { return identity_->name; }
    [[nodiscard]] const LeaseOptions& options() const noexcept { return identity_->options; }

    /// Waits for the lock: for a holder as long as it takes, for a server that does not answer at
    /// most `patience`.
    /// Throws: LockError if the server cannot answer. Cost: one round trip when free; none when it
    /// is handed over in this process, or was retained.
    void lock(OnError error = {}) {
        error.run([this] { static_cast<void>(hold({})); });
    }

    /// The same until `stop` is asked to stop. Returns: true if acquired.
    [[nodiscard]] bool lock(const std::stop_token& stop, OnError error = {}) {
        return error.run([&] { return hold(redis::wait_until(Deadline::never(), stop)); });
    }

    /// Takes the lock if it is free, without waiting for a holder; for the server at most
    /// `response_timeout`.
    /// Returns: true if acquired; false if another holds it or stands before. Throws, cost: as
    /// lock().
    [[nodiscard]] bool try_lock(OnError error = {}) {
        return error.run([this] { return hold(redis::wait_not()); });
    }

    /// Waits at most `timeout`, or until `stop` is asked to stop. Zero or negative tries once, as
    /// try_lock().
    /// Returns: true if acquired; false only if another was seen to hold it.
    /// Throws, cost: as lock().
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout,
                                    OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout));
        return error.run([&] { return hold(wait); });
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout,
                                    const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout), stop);
        return error.run([&] { return hold(wait); });
    }

    /// Waits until `time`. A time that has passed tries once. As try_lock_for().
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time,
                                      OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time));
        return error.run([&] { return hold(wait); });
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time,
                                      const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time), stop);
        return error.run([&] { return hold(wait); });
    }

    /// Gives the lock back and does not wait for the server's word. Misuse goes to the client's
    /// hooks, and a loss that the server's answer shows.
    /// The release may be left to another thread of the client to write. A process that ends right
    /// after this without destroying the client, by _exit() or exec(), may end before that, and
    /// then the lease runs out. Lease::release() waits.
    /// Cost: nothing that is waited for.
    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }

    /// The same, and tells what is known here: not_held, or lease_lost.
    void unlock(std::error_code& code) noexcept {
        code.clear();
        // The last touch of this object is the taking of the hold: whoever acquires after the
        // release may destroy it.
        Client client{client_};
        const std::shared_ptr<const redis::LockIdentity> identity = identity_;
        const std::shared_ptr<redis::Hold> hold = holds_.take();
        if (!hold) {
            code = LockErrc::not_held;
            client.report(LockErrc::not_held,
                          "unlock of '" + identity->name + "', which is not held");
            return;
        }
        code = redis::error_of(client.give_back(hold));
    }

    /// As lock(), but the hold becomes a Lease, which may outlive the lock. The lock itself does
    /// not hold then: unlock() is `not_held`.
    [[nodiscard]] lease_type lease(OnError error = {}) {
        return error.run([this] { return make_lease({}); });
    }

    /// The same until `stop` is asked to stop; then an empty lease.
    [[nodiscard]] lease_type lease(const std::stop_token& stop, OnError error = {}) {
        return error.run([&] { return make_lease(redis::wait_until(Deadline::never(), stop)); });
    }

    /// As try_lock(), with an empty lease for false.
    [[nodiscard]] lease_type try_lease(OnError error = {}) {
        return error.run([this] { return make_lease(redis::wait_not()); });
    }

    /// As try_lock_for(), with an empty lease for false.
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout));
        return error.run([&] { return make_lease(wait); });
    }
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout), stop);
        return error.run([&] { return make_lease(wait); });
    }

    /// As try_lock_until(), with an empty lease for false.
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_lease_until(const std::chrono::time_point<Clock, Duration>& time,
                                             OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time));
        return error.run([&] { return make_lease(wait); });
    }
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_lease_until(const std::chrono::time_point<Clock, Duration>& time,
                                             const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time), stop);
        return error.run([&] { return make_lease(wait); });
    }

    /// Tries several locks at once, all or none, without waiting for a holder; for the server at
    /// most until `deadline`, unless that has passed already.
    /// Requires: they are of copies of one client, and their names differ.
    /// Returns: a lease for each; or none at all, with the place of one that another holds in
    /// `held`, or nothing there if they must be tried one by one to know what is in the way.
    /// Throws: LockError if there was no answer and `deadline` has passed; std::bad_alloc.
    /// Cost: one round trip for all.
    [[nodiscard]] static std::vector<lease_type> try_lease_all(
        const std::vector<BasicRedisLock*>& locks, Deadline deadline,
        std::optional<std::size_t>& held)
        requires requires(Client& client) { client.together(); }
    {
        held.reset();
        std::vector<lease_type> leases;
        if (locks.empty()) return leases;
        leases.reserve(locks.size());
        std::vector<std::shared_ptr<const redis::LockIdentity>> identities;
        for (const BasicRedisLock* lock : locks)
            identities.push_back(lock->identity_);
        Client& client = locks.front()->client_;
        redis::TriedAll tried = client.try_acquire_all(identities, deadline);
        if (!tried.failure.empty() && deadline.expired()) {
            throw LockError(LockErrc::backend_unavailable, tried.failure + "; " +
                                                               std::to_string(locks.size()) +
                                                               " locks were to be taken together");
        }
        if (tried.outcome == redis::TriedAll::Outcome::held) held = tried.which;
        for (auto& hold : tried.holds)
            leases.emplace_back(client, std::move(hold));
        return leases;
    }

    // Of the hold inside, as the members of BasicLease; as without a lease where there is none.

    [[nodiscard]] std::uint64_t fence() const noexcept {
        const auto hold = current();
        return hold ? hold->fence() : 0;
    }
    [[nodiscard]] bool valid() const noexcept {
        const auto hold = current();
        return hold && hold->valid();
    }
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        const auto hold = current();
        return hold ? hold->remaining() : std::chrono::nanoseconds::zero();
    }
    [[nodiscard]] std::stop_token stop_token() const noexcept {
        const auto hold = current();
        return hold ? hold->stop_token() : std::stop_token{};
    }

  private:
    [[nodiscard]] lease_type make_lease(const redis::Wait& wait) {
        auto hold = client_.acquire(identity_, wait);
        return hold ? lease_type{client_, std::move(hold)} : lease_type{};
    }

    // Acquires and keeps the hold inside. Returns: whether it was acquired.
    [[nodiscard]] bool hold(const redis::Wait& wait) {
        redis::ThreadHolds::Place place;
        std::shared_ptr<redis::Hold> acquired = client_.acquire(identity_, wait);
        if (!acquired) return false;
        holds_.put(std::move(acquired), place);
        return true;
    }

    [[nodiscard]] std::shared_ptr<redis::Hold> current() const noexcept { return holds_.current(); }

    Client client_;
    std::shared_ptr<const redis::LockIdentity> identity_;
    redis::ThreadHolds holds_;
};

/// A lock over one Redis server.
using RedisLock = BasicRedisLock<RedisClient>;

static_assert(TimedLockable<RedisLock>);
static_assert(Leasing<RedisLock>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP
