// SPDX-License-Identifier: MIT
//
// What a program creates once: a RedisClient stands for one server and everything this process has
// to do with it. Copies share one connection and one background thread, so a thousand locks need
// no more. The lock types talk to the server only through the second half of its members.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/per_process.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/batch.hpp>
#include <codomyrmex/concurrency/redis/client_core.hpp>
#include <codomyrmex/concurrency/redis/client_options.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/inspect.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

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

    // --- for operators: what stands in the server, whoever put it there
    //
    // A name has 1 to 512 bytes. Throws, all: LockError(invalid_argument) for a name or a pattern
    // that will not do; LockError(backend_unavailable) after `patience`;
    // LockError(backend_refused). With a std::error_code last, the error goes there and the result
    // is empty or false.

    /// Who holds the lock `name`, or another primitive; of several holders the one whose lease ends
    /// first.
    /// Returns: nothing if nobody does.
    /// Throws: also LockError(foreign_key) if what stands there was not written by this library.
    /// Cost: one round trip.
    [[nodiscard]] std::optional<Holder> holder(std::string_view name, OnError error = {}) {
        return holder(name, PrimitiveKind::lock, error);
    }
    [[nodiscard]] std::optional<Holder> holder(std::string_view name, PrimitiveKind kind,
                                               OnError error = {}) {
        return error.run([&]() -> std::optional<Holder> {
            auto holders = inspector().look(name, kind, 1).holders;
            if (holders.empty()) return std::nullopt;
            return std::move(holders.front());
        });
    }

    /// All who hold it, those first whose leases end first. Throws: as holder().
    /// Cost: one round trip for each 1,000 of them; holders that come and go meanwhile may be
    /// missed.
    [[nodiscard]] std::vector<Holder> holders(std::string_view name,
                                              PrimitiveKind kind = PrimitiveKind::lock,
                                              OnError error = {}) {
        return error.run([&] {
            return inspector().look(name, kind, std::numeric_limits<std::size_t>::max()).holders;
        });
    }

    /// Who stands in the queue, in the order in which they will be served. Threads that wait behind
    /// one of their own process do not stand there.
    /// Cost: one round trip for each 1,000 of them; who comes and goes meanwhile may be missed.
    [[nodiscard]] std::vector<Waiter> waiters(std::string_view name,
                                              PrimitiveKind kind = PrimitiveKind::lock,
                                              OnError error = {}) {
        return error.run([&] { return inspector().waiters(name, kind); });
    }

    /// What is held, of all kinds, sorted by name. `pattern`: of names of any bytes; `*` any bytes,
    /// `?` one, `[a-z]` and `[^a-z]` sets, `\x` the byte x itself; at most 1,024 bytes.
    /// What is held throughout is in the list; at most 100,000 entries.
    /// Cost: by SCAN, so it holds the server up for no longer than a millisecond at a time: two
    /// round trips for each 1,000 keys of the server, and a look at each that matches.
    [[nodiscard]] std::vector<RedisEntry> list(std::string_view pattern = "*", OnError error = {}) {
        return error.run([&] { return inspector().list(pattern); });
    }

    /// Takes from `seen`, as holder() or holders() returned it, what it holds of `name`: the lock,
    /// its permits, its read or write. That goes to those who wait, as after a release. The former
    /// holder is told, and its lease is lost at once if its process listens (it does once it has
    /// waited); else at its next renewal. That does not stop it: only a resource that checks
    /// fencing tokens is safe from what it does until then. Of a quorum, this server's vote alone.
    /// Returns: false if `seen` does not hold it any more; nothing is then taken from anybody.
    /// Throws: also LockError(foreign_key) for permits, or a read-write lock, that this library
    /// did not write; LockError(unknown_outcome) if an answer was lost and `seen` does not hold it
    /// now.
    /// Cost: one round trip; another for each 32 waiters that are no longer there.
    bool force_release(std::string_view name, const Holder& seen, OnError error = {}) {
        return error.run([&] { return inspector().force_release(name, seen); });
    }

    // --- for the primitives; what a LockClient needs (lock_client.hpp) ---

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

    /// Tries several locks at once, all or none, without waiting for a holder; for the server at
    /// most until `deadline`, unless that has passed already. Requires: they differ.
    /// Throws: std::bad_alloc; what was obtained until then is given back.
    /// Cost: one round trip for all.
    [[nodiscard]] redis::TriedAll try_acquire_all(
        const std::vector<std::shared_ptr<const redis::LockIdentity>>& identities,
        Deadline deadline) {
        return root_->core().try_acquire_all(identities, deadline);
    }

    /// While what this gives lives, the locks that this thread gives back go to the server in one
    /// request.
    /// Requires: it does not outlive this client, ends on the thread that asked for it, and does
    /// not go to another process.
    [[nodiscard]] std::unique_ptr<redis::ReleasesTogether> together() {
        return root_->core().together();
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

    // --- the same for primitives with more than one holder; what a PermitClient needs

    /// The keys and checked options of `weight` permits of the `capacity` of a semaphore.
    /// Throws: LockError(invalid_argument).
    [[nodiscard]] std::shared_ptr<const redis::LockIdentity> identify_permits(
        std::string_view name, std::ptrdiff_t capacity, std::ptrdiff_t weight,
        LeaseOptions options) const {
        return std::make_shared<const redis::LockIdentity>(redis::make_permit_identity(
            root_->options.prefix, name, capacity, weight, std::move(options)));
    }

    /// The keys and checked options of a read-write lock's readers, or writers.
    /// Throws: LockError(invalid_argument).
    [[nodiscard]] std::shared_ptr<const redis::LockIdentity> identify_read_write(
        std::string_view name, bool writes, LeaseOptions options) const {
        return std::make_shared<const redis::LockIdentity>(redis::make_read_write_identity(
            root_->options.prefix, name, writes, std::move(options)));
    }

    /// Changes how many permits a hold has, without a gap. Returns: the hold that takes its place;
    /// null if there is no room, and then `hold` stands as it did.
    /// Throws: LockError(lease_lost); LockError if the outcome is not known by the deadline.
    /// Cost: one round trip.
    [[nodiscard]] std::shared_ptr<redis::Hold> reweigh(const std::shared_ptr<redis::Hold>& hold,
                                                       std::uint64_t weight, Deadline deadline) {
        if (hold->forked()) {
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' is the parent's, not this process'");
        }
        return root_->core().permits().reweigh(hold, weight, deadline);
    }

    /// Changes how many permits the semaphore has. Returns: how many it had; 0 if not known.
    /// Throws: LockError. Cost: one round trip.
    std::uint64_t resize(const redis::LockIdentity& identity, std::uint64_t capacity,
                         Deadline deadline) {
        return root_->core().permits().resize(identity, capacity, deadline);
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
    // What outlives a fork.
    struct Root {
        Root(Endpoint to, ClientOptions with)
            : endpoint{std::move(to)},
              options{redis::effective_options(endpoint, std::move(with))},
              core_{make_core()} {}

        [[nodiscard]] redis::ClientCore& core() {
            return core_.get([this] { return make_core(); });
        }

        const Endpoint endpoint;
        const ClientOptions options;

      private:
        [[nodiscard]] std::unique_ptr<redis::ClientCore> make_core() const {
            return std::make_unique<redis::ClientCore>(endpoint, options);
        }

        detail::PerProcess<redis::ClientCore> core_;
    };

    [[nodiscard]] redis::Inspector inspector() const {
        return redis::Inspector{root_->core().keeper()};
    }

    std::shared_ptr<Root> root_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_HPP
