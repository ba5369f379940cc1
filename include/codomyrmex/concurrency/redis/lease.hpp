// SPDX-License-Identifier: MIT
//
// The guard that knows it is a lease. A hold over a network ends by itself when it is not renewed
// in time, so unlike a std::unique_lock a Lease can be asked whether it still stands, tells the
// moment it is lost, and carries the fencing token by which a store refuses those who missed it.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LEASE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LEASE_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/hand_over.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace codomyrmex::concurrency {

namespace redis {
template <class Client>
struct HoldOfLease;
}  // namespace redis

/// A lease, or none. It is renewed in the background until it is released, destroyed or lost. It
/// needs the lock that gave it no longer, and may end on another thread.
///
///     state      valid()  remaining()  stop_token()      release()
///     held       true     > 0          not stopped       true, or false if lost just then
///     lost       false    0            stopped           false, the new holder untouched
///     released   false    0            empty             throws not_held
///
/// Threads: the const members may be called from any thread while no other member runs.
template <class Client>
class [[nodiscard]] BasicLease {
  public:
    /// No lease.
    BasicLease() noexcept = default;

    /// For locks: a lease on `hold`, which `client` granted.
    BasicLease(Client client, std::shared_ptr<redis::Hold> hold) noexcept
        : client_{std::move(client)}, hold_{std::move(hold)} {}

    BasicLease(BasicLease&& other) noexcept
        : client_{std::move(other.client_)}, hold_{std::exchange(other.hold_, nullptr)} {}

    /// Releases what it holds, then takes over what `other` holds.
    BasicLease& operator=(BasicLease&& other) noexcept {
        if (this == &other) return *this;
        drop();
        client_ = std::move(other.client_);
        hold_ = std::exchange(other.hold_, nullptr);
        return *this;
    }

    /// Releases, and does not wait for the server's word; a loss that its answer shows goes to the
    /// hook `on_lost`. Cost: nothing that is waited for.
    ~BasicLease() { drop(); }

    /// Whether there is a lease to release. A lost one counts until it is released; see valid().
    [[nodiscard]] explicit operator bool() const noexcept { return hold_ != nullptr; }

    /// The name that is locked; empty without a lease.
    [[nodiscard]] std::string_view name() const noexcept {
        return hold_ ? std::string_view{hold_->name()} : std::string_view{};
    }

    /// True while nobody else can hold the lock: judged on this machine, from before the request
    /// was sent, less an allowance for clocks that drift. Once false, always false. It can turn
    /// false right after it was asked: what must not happen twice belongs behind fence().
    [[nodiscard]] bool valid() const noexcept { return hold_ && hold_->valid(); }

    /// How long valid() stays true if no renewal comes through; zero if it is false.
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        return hold_ ? hold_->remaining() : std::chrono::nanoseconds::zero();
    }

    /// The fencing token: larger for each later lease of this name. 0 without a lease. Hand it to
    /// the resource with each write, and let that refuse a smaller one than it has seen.
    [[nodiscard]] std::uint64_t fence() const noexcept { return hold_ ? hold_->fence() : 0; }

    /// Asked to stop the moment the lease is found lost. Callbacks run on the client's background
    /// thread: be brief there. Empty without a lease.
    [[nodiscard]] std::stop_token stop_token() const noexcept {
        return hold_ ? hold_->stop_token() : std::stop_token{};
    }

    /// The owner token, unique to this lease, as it stands in Redis. Empty without a lease.
    [[nodiscard]] std::string_view token() const noexcept {
        return hold_ ? std::string_view{hold_->token()} : std::string_view{};
    }

    /// Whether somebody else held the lock when it was first asked for.
    [[nodiscard]] bool contended() const noexcept { return hold_ && hold_->contended(); }

    /// Whether another passed it on, and who: a thread of this process, or another process.
    [[nodiscard]] HandOver hand_over() const noexcept {
        return hold_ ? hold_->hand_over() : HandOver::none;
    }

    /// Extends the lease to its full time now; it is done in the background anyway.
    /// Returns: false if it is lost.
    /// Throws: LockError(not_held) without a lease; LockError if the server does not answer.
    /// Cost: one round trip.
    bool renew(OnError error = {}) {
        return error.run([this] {
            require_lease("renewal");
            return client_->renew(hold_, Deadline::never());
        });
    }

    /// Gives the lock back as the destructor does, and tells what is known here: not_held, or
    /// lease_lost. Cost: as the destructor.
    void unlock(std::error_code& code) noexcept {
        code.clear();
        if (!hold_) {
            code = LockErrc::not_held;
            return;
        }
        code = redis::error_of(client_->give_back(std::exchange(hold_, nullptr)));
    }

    /// Gives the lock back and waits for the server's word.
    /// Returns: true if it was still ours, false if it had been lost.
    /// Throws: LockError(not_held) without a lease; LockError(unknown_outcome) if the server did
    /// not answer within `patience`, or answered only a repetition: the lock is or will be free.
    /// Cost: one round trip.
    bool release(OnError error = {}) {
        return error.run([this] {
            require_lease("release");
            const auto hold = std::exchange(hold_, nullptr);
            const redis::Released released = client_->release(hold, Deadline::never());
            if (released == redis::Released::unknown) {
                throw LockError(LockErrc::unknown_outcome,
                                "the release of '" + hold->name() +
                                    "' was not answered; it is repeated until the lease is over");
            }
            return released == redis::Released::ours;
        });
    }

    /// For who ends several leases of one client on one thread: while what this gives lives, they
    /// are collected; at its end they go to the server together. Throws: std::bad_alloc.
    [[nodiscard]] auto together() const
        requires requires(Client& client) { client.together(); }
    {
        // The client outlives what collects, though these leases were its last users.
        struct Together {
            Client client;
            decltype(std::declval<Client&>().together()) releases;
        };
        std::optional<Together> together;
        if (hold_ && !hold_->forked()) {
            Client client{*client_};
            auto releases = client.together();
            together = Together{std::move(client), std::move(releases)};
        }
        return together;
    }

    void swap(BasicLease& other) noexcept { std::swap(*this, other); }
    friend void swap(BasicLease& a, BasicLease& b) noexcept { a.swap(b); }

  private:
    // By which the lease of a writer is turned into that of a reader, and back. The lock itself is
    // a constrained template, and as a friend clang 16 takes that for another.
    friend struct redis::HoldOfLease<Client>;

    void require_lease(const char* what) const {
        if (!hold_) {
            throw LockError(
                LockErrc::not_held,
                std::string{what} + " of a lease that is empty, released or moved from");
        }
    }

    void drop() noexcept {
        if (hold_) client_->give_back(std::exchange(hold_, nullptr));
    }

    std::optional<Client> client_;
    std::shared_ptr<redis::Hold> hold_;
};

/// A lease of a RedisLock.
using Lease = BasicLease<RedisClient>;

static_assert(LeaseLike<Lease>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LEASE_HPP
