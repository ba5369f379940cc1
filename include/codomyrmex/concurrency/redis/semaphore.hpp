// SPDX-License-Identifier: MIT
//
// A semaphore among processes and machines that share a Redis server: at most so many holders at a
// time, as for a pool of connections or a limit on work under way. Each permit is a lease of its
// own: that of a process which died comes back by itself. For a rate, hold each permit for the time
// that it stands for.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SEMAPHORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SEMAPHORE_HPP

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
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// A number of permits under a name, for all objects of that name and one key prefix on one server.
/// Who came first is served first: who asks for many is not starved by those who ask for few.
///
///     state              acquire()           release()
///     permits are free   takes one           gives one back; not_held if none was taken here
///     all are out        waits in line       the same
///     one of ours lost   as before           gives that back first: lease_lost
///
/// A permit is a lease, renewed in the background, that may be lost; use lease() or a Permit, which
/// know theirs, to be told. Those that acquire() took stand in the object, alike, and any thread
/// may give one back. Fencing tokens of permits only tell them apart: they increase, but several
/// are valid together, so a store must not reject by them.
///
/// Threads of one process do not hand permits to each other, but stand in the server's line each
/// for itself: max_local_handovers means nothing here, and retain is refused.
///
/// The number of permits is stored with the first use, and as long as the semaphore is used at
/// least every other day; another number is `mismatch`. resize() changes it.
///
/// Verbs that take an OnError throw LockError, or leave the error in a std::error_code if one is
/// given last: mismatch, backend_unavailable, backend_refused, foreign_key, validity_exhausted.
/// Contention and time-outs are no errors.
///
/// Threads: all members but the destructor are safe to call concurrently.
template <PermitClient Client>
class BasicRedisSemaphore {
  public:
    using lease_type = BasicLease<Client>;

    /// A semaphore of `permits` permits under `name`. Sends nothing yet.
    /// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes, `permits` is from 1 to
    /// max(), the options keep their bounds and retain nothing.
    BasicRedisSemaphore(std::string_view name, Client client, std::ptrdiff_t permits,
                        LeaseOptions options = {})
        : client_{std::move(client)},
          identity_{client_.identify_permits(name, permits, 1, std::move(options))} {}

    /// The same with a client of its own.
    BasicRedisSemaphore(std::string_view name, std::string_view url, std::ptrdiff_t permits,
                        LeaseOptions options = {})
        requires std::constructible_from<Client, std::string_view>
        : BasicRedisSemaphore{name, Client{url}, permits, std::move(options)} {}

    /// For primitives that are made of semaphores: of what `identity` names, which `client` gave.
    BasicRedisSemaphore(Client client, std::shared_ptr<const redis::LockIdentity> identity)
        : client_{std::move(client)}, identity_{std::move(identity)} {}

    BasicRedisSemaphore(const BasicRedisSemaphore&) = delete;
    BasicRedisSemaphore& operator=(const BasicRedisSemaphore&) = delete;

    /// Gives back what it holds inside. Leases taken from it go on.
    ~BasicRedisSemaphore() {
        for (const auto& hold : holds_.take_all())
            client_.give_back(hold);
    }

    /// The largest number of permits that a semaphore can have.
    [[nodiscard]] static constexpr std::ptrdiff_t max() noexcept { return redis::most_permits; }

    [[nodiscard]] std::string name() const { return identity()->name; }
    [[nodiscard]] LeaseOptions options() const { return identity()->options; }
    /// How many permits there are, free or not.
    [[nodiscard]] std::ptrdiff_t permits() const noexcept {
        return static_cast<std::ptrdiff_t>(identity()->capacity);
    }
    /// How many of them acquire() took and are not given back.
    [[nodiscard]] std::ptrdiff_t held() const noexcept {
        return static_cast<std::ptrdiff_t>(holds_.weight());
    }

    /// Waits for a permit: for holders as long as it takes, for a server that does not answer at
    /// most `patience`. Cost: one round trip when one is free.
    void acquire(OnError error = {}) { acquire(1, error); }

    /// The same for `count` permits at once, which release(count) gives back together: their lease
    /// is one. Throws: also LockError(invalid_argument) for fewer than one or more than there are.
    void acquire(std::ptrdiff_t count, OnError error = {}) {
        error.run([&] { static_cast<void>(hold(count, {})); });
    }

    /// The same until `stop` is asked to stop. Returns: true if acquired.
    [[nodiscard]] bool acquire(const std::stop_token& stop, OnError error = {}) {
        return error.run([&] { return hold(1, redis::wait_until(Deadline::never(), stop)); });
    }

    /// Takes permits if they are free and nobody waits for them, without waiting for holders; for
    /// the server at most `response_timeout`. Returns: true if acquired.
    [[nodiscard]] bool try_acquire(OnError error = {}) { return try_acquire(1, error); }
    [[nodiscard]] bool try_acquire(std::ptrdiff_t count, OnError error = {}) {
        return error.run([&] { return hold(count, redis::wait_not()); });
    }

    /// Waits at most `timeout`. Zero or negative tries once.
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& timeout,
                                       OnError error = {}) {
        return try_acquire_for(timeout, 1, error);
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& timeout,
                                       std::ptrdiff_t count, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout));
        return error.run([&] { return hold(count, wait); });
    }
    template <class Rep, class Period>
    [[nodiscard]] bool try_acquire_for(const std::chrono::duration<Rep, Period>& timeout,
                                       const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout), stop);
        return error.run([&] { return hold(1, wait); });
    }

    /// Waits until `time`. A time that has passed tries once.
    template <class Clock, class Duration>
    [[nodiscard]] bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& time,
                                         OnError error = {}) {
        return try_acquire_until(time, 1, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] bool try_acquire_until(const std::chrono::time_point<Clock, Duration>& time,
                                         std::ptrdiff_t count, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time));
        return error.run([&] { return hold(count, wait); });
    }

    /// Gives back `count` permits that acquire() took, and does not wait for the server's word:
    /// those first that were acquired together with most others, then lost ones, then the one that
    /// ends soonest. A loss that only its answer shows goes to the hook `on_lost`.
    /// Throws: LockError(not_held) if it holds fewer, or those first ones do not add up to `count`,
    /// for permits that were acquired together go together; and LockError(invalid_argument) for a
    /// negative count; then nothing has changed. LockError(lease_lost) if one of them had been
    /// lost; all of them are given back. Cost: nothing that is waited for.
    void release(OnError error = {}) { release(1, error); }
    void release(std::ptrdiff_t count, OnError error = {}) {
        error.run([&] { give_back(count); });
    }

    /// As acquire(), but the permits become a Lease, which may outlive the semaphore.
    [[nodiscard]] lease_type lease(OnError error = {}) { return lease(1, error); }
    [[nodiscard]] lease_type lease(std::ptrdiff_t count, OnError error = {}) {
        return error.run([&] { return make_lease(count, {}); });
    }
    /// The same until `stop` is asked to stop; then an empty lease.
    [[nodiscard]] lease_type lease(const std::stop_token& stop, OnError error = {}) {
        return error.run([&] { return make_lease(1, redis::wait_until(Deadline::never(), stop)); });
    }

    /// As try_acquire(), with an empty lease for false.
    [[nodiscard]] lease_type try_lease(OnError error = {}) { return try_lease(1, error); }
    [[nodiscard]] lease_type try_lease(std::ptrdiff_t count, OnError error = {}) {
        return error.run([&] { return make_lease(count, redis::wait_not()); });
    }

    /// As try_acquire_for(), with an empty lease for false.
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           OnError error = {}) {
        return try_lease_for(timeout, 1, error);
    }
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           std::ptrdiff_t count, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout));
        return error.run([&] { return make_lease(count, wait); });
    }
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           const std::stop_token& stop, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::after(timeout), stop);
        return error.run([&] { return make_lease(1, wait); });
    }

    /// As try_acquire_until(), with an empty lease for false.
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_lease_until(const std::chrono::time_point<Clock, Duration>& time,
                                             OnError error = {}) {
        return try_lease_until(time, 1, error);
    }
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_lease_until(const std::chrono::time_point<Clock, Duration>& time,
                                             std::ptrdiff_t count, OnError error = {}) {
        const redis::Wait wait = redis::wait_until(Deadline::at(time));
        return error.run([&] { return make_lease(count, wait); });
    }

    /// Changes how many permits there are, in the server and in this object; who asks with another
    /// number from then on gets `mismatch`, but for who stands in line already (and calls on this
    /// object until resize() has returned). With fewer than are out nothing is taken away; none is
    /// given until enough have come back.
    /// Throws: LockError(invalid_argument) unless from 1 to max(). Cost: one round trip.
    void resize(std::ptrdiff_t permits, OnError error = {}) {
        error.run([&] {
            const std::lock_guard one_at_a_time{resizing_};
            const auto old = identity();
            auto next = client_.identify_permits(old->name, permits, 1, old->options);
            client_.resize(*old, next->capacity, Deadline::never());
            const std::lock_guard guard{mutex_};
            identity_ = std::move(next);
        });
    }

  private:
    [[nodiscard]] std::shared_ptr<const redis::LockIdentity> identity() const noexcept {
        const std::lock_guard guard{mutex_};
        return identity_;
    }

    [[nodiscard]] std::shared_ptr<redis::Hold> ask(std::ptrdiff_t count, const redis::Wait& wait) {
        auto wanted = identity();
        if (count != 1) {
            wanted = client_.identify_permits(wanted->name,
                                              static_cast<std::ptrdiff_t>(wanted->capacity), count,
                                              wanted->options);
        }
        return client_.acquire(wanted, wait);
    }

    [[nodiscard]] bool hold(std::ptrdiff_t count, const redis::Wait& wait) {
        holds_.reserve();
        try {
            if (auto hold = ask(count, wait)) {
                holds_.put(std::move(hold));
                return true;
            }
        } catch (...) {
            holds_.unreserve();
            throw;
        }
        holds_.unreserve();
        return false;
    }

    [[nodiscard]] lease_type make_lease(std::ptrdiff_t count, const redis::Wait& wait) {
        auto hold = ask(count, wait);
        return hold ? lease_type{client_, std::move(hold)} : lease_type{};
    }

    void give_back(std::ptrdiff_t count) {
        if (count < 0) {
            throw LockError(LockErrc::invalid_argument,
                            "release of " + std::to_string(count) + " permits");
        }
        const auto holds = holds_.take(static_cast<std::uint64_t>(count));
        if (!holds) {
            throw LockError(LockErrc::not_held,
                            "release of " + std::to_string(count) + " permits of '" + name() +
                                "', of which fewer are held here, or only such as were acquired "
                                "together with more");
        }
        // The last touch of this object was above: whoever acquires after the release may destroy
        // it.
        Client client{client_};
        bool lost = false;
        for (const auto& hold : *holds) {
            if (client.give_back(hold) == redis::Released::lost) lost = true;
        }
        if (lost) {
            throw LockError(LockErrc::lease_lost,
                            "a permit of '" + holds->front()->name() + "' was lost");
        }
    }

    Client client_;
    std::mutex resizing_;
    mutable std::mutex mutex_;  // guards the next
    std::shared_ptr<const redis::LockIdentity> identity_;
    redis::PooledHolds holds_;
};

/// A semaphore over one Redis server.
using RedisSemaphore = BasicRedisSemaphore<RedisClient>;

static_assert(TimedSemaphore<RedisSemaphore>);
static_assert(Leasing<RedisSemaphore>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SEMAPHORE_HPP
