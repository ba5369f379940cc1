// SPDX-License-Identifier: MIT
//
// What a program creates once: a RedisClient stands for one server and everything this process has
// to do with it. Copies share one connection and one background thread, so a thousand locks need
// no more. The lock types talk to the server only through the second half of its members.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/client_core.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency {

/// A cheap handle to a shared client: copying it shares the connection. Locks and leases keep a
/// copy, so it may go before them. Destroying the last one ends the background thread, after at
/// most 120 ms for releases that are still unanswered; that may happen inside a hook.
///
/// The child of a fork() gets a fresh connection, thread and identity at its first use; what the
/// parent holds stays the parent's.
///
/// Threads: safe.
class RedisClient {
  public:
    /// A client of the server at `url`, for example "redis://user:password@host:6379/0" or
    /// "unix:///run/redis.sock" (endpoint.hpp has the grammar). Does not connect: the first call
    /// does. Throws: LockError(invalid_argument) for a malformed URL or option;
    /// LockError(unsupported) for one that asks for TLS.
    explicit RedisClient(std::string_view url, ClientOptions options = {})
        : RedisClient{Endpoint::parse(url), std::move(options)} {}

    /// The same for an endpoint.
    explicit RedisClient(Endpoint endpoint, ClientOptions options = {})
        : root_{std::make_shared<Root>(std::move(endpoint), std::move(options))} {}

    /// Where it connects to.
    [[nodiscard]] const Endpoint& endpoint() const noexcept { return root_->endpoint; }

    /// Its options, with the URL's timeouts in place.
    [[nodiscard]] const ClientOptions& options() const noexcept { return root_->options; }

    /// What it did so far.
    [[nodiscard]] ClientStats stats() const { return root_->core().stats(); }

    /// Asks the server for a sign of life.
    /// Throws: LockError(backend_unavailable) after `patience`; LockError(backend_refused).
    /// Cost: one round trip, and the connecting.
    void ping() { root_->core().ping(Deadline::after(options().patience)); }

    // --- for the primitives; what a LockClient needs (lock.hpp) ---

    /// The keys and checked options of the lock `name`.
    /// Throws: LockError(invalid_argument).
    [[nodiscard]] std::shared_ptr<const redis::LockIdentity> identify(std::string_view name,
                                                                      LeaseOptions options) const {
        return std::make_shared<const redis::LockIdentity>(
            redis::make_identity(root_->options.prefix, name, std::move(options)));
    }

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained.
    /// Throws: LockError; whatever the server may have done is undone in the background.
    /// Cost: one round trip when free.
    [[nodiscard]] std::shared_ptr<redis::Hold> acquire(
        const std::shared_ptr<const redis::LockIdentity>& identity, const redis::Wait& wait) {
        return root_->core().acquire(identity, wait);
    }

    /// Gives a hold back and tells what became of it. An answer that does not come by the deadline
    /// is `unknown`; the release is then repeated in the background.
    /// Cost: one round trip; none if the lease was lost before.
    [[nodiscard]] redis::Released release(const std::shared_ptr<redis::Hold>& hold,
                                          Deadline deadline) {
        if (hold->forked()) return redis::Released::lost;
        return root_->core().release(hold, deadline);
    }

    /// Gives a hold back without waiting for the server, which is told now, or later if there is
    /// no connection. Returns: lost if that is known here already; else ours.
    redis::Released give_back(const std::shared_ptr<redis::Hold>& hold) noexcept {
        // In a forked child even asking for the core could fail, and there is nothing to do.
        if (hold->forked()) return redis::Released::lost;
        return root_->core().give_back(hold);
    }

    /// Renews a lease now. Returns: false if it was lost.
    /// Throws: LockError if the outcome is not known by the deadline.
    /// Cost: one round trip.
    bool renew(const std::shared_ptr<redis::Hold>& hold, Deadline deadline) {
        if (hold->forked()) return false;
        return root_->core().renew(hold, deadline);
    }

    /// The connection of this process, for a quorum, which asks many at once.
    /// Requires of the caller: that it uses it in this process only, and no longer than this
    /// client.
    [[nodiscard]] std::shared_ptr<redis::KeeperState> link() { return root_->core().link(); }

    /// Tells the hook `on_error` of a misuse that nobody else can be told of.
    void report(LockErrc errc, const std::string& what) noexcept {
        root_->core().report(errc, what);
    }

  private:
    // What outlives a fork: after it the child makes a core of its own. The parent's, of which the
    // child has a copy with threads missing and mutexes in any state, is never touched there.
    struct Root {
        Root(Endpoint to, ClientOptions with)
            : endpoint{std::move(to)},
              options{redis::effective_options(endpoint, std::move(with))},
              core_{new redis::ClientCore{endpoint, options}} {}
        Root(const Root&) = delete;
        Root& operator=(const Root&) = delete;
        ~Root() {
            const redis::ClientCore* const last = core_.load(std::memory_order_acquire);
            if (last->process() == detail::process_id()) delete last;
        }

        [[nodiscard]] redis::ClientCore& core() {
            redis::ClientCore* current = core_.load(std::memory_order_acquire);
            if (current->process() == detail::process_id()) return *current;
            auto fresh = std::make_unique<redis::ClientCore>(endpoint, options);
            if (core_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel)) {
                // So that the server sees the parent's connections end when the parent does.
                current->close_in_child();
                return *fresh.release();
            }
            return *current;
        }

        const Endpoint endpoint;
        const ClientOptions options;

      private:
        std::atomic<redis::ClientCore*> core_;
    };

    std::shared_ptr<Root> root_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP
