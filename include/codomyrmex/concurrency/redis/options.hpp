// SPDX-License-Identifier: MIT
//
// What can be set about a client and about a lease, with units and effects. Aggregates: name what
// you change, as in `RedisLock lock{"name", client, {.ttl = 10s}}`, and leave the rest.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_OPTIONS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_OPTIONS_HPP

#include <codomyrmex/concurrency/error.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <system_error>

namespace codomyrmex::concurrency {

/// How long a hold lasts, and what it says of its holder.
struct LeaseOptions {
    /// How long the lease lasts without a renewal: from 10 ms to 24 h. It is renewed at a third of
    /// this, so it bounds how long others wait after the holder's process died, not how long the
    /// holder may work. Longer survives longer outages; shorter frees a dead holder's lock sooner.
    std::chrono::milliseconds ttl{30'000};

    /// For how long after the acquisition the lease is renewed; zero: for as long as it is held.
    /// Set it where a thread could hang in the critical section: the lease then ends at most one
    /// `ttl` after this, and its stop token is asked to stop.
    std::chrono::milliseconds max_hold{0};

    /// A word or two for people, shown with the holder; control characters become '?'.
    std::string label{};

    /// Threads of one process hand a lock to each other without a word to the server, each under a
    /// fencing token of its own, at most this often in a row and for `max_local_run`; then other
    /// processes have their turn. 0: never. At most 1,000,000.
    int max_local_handovers{32};

    /// For how long in a row. Other processes wait no longer for it than this and one section more.
    std::chrono::milliseconds max_local_run{100};

    /// For how long the process keeps the lease after the last unlock when nobody in it waits, so
    /// that locking again costs no word to the server: up to `ttl`; zero: gives it back at once.
    /// It is given back as soon as somebody elsewhere wants it, and not kept for a second after.
    std::chrono::milliseconds retain{0};
};

/// A lease that was lost while it was held, as told to ClientHooks::on_lost.
struct LostLease {
    std::string name{};       ///< what was locked
    std::uint64_t fence = 0;  ///< the fencing token of the lost lease
    std::string reason{};     ///< how it was found to be lost
};

/// Calls back into the program. A hook runs on the client's background thread or on the thread
/// that met the error, with no lock of the library held; it may call the library. What it throws
/// is swallowed and counted in ClientStats::hook_exceptions.
struct ClientHooks {
    /// A lease was lost: it ran out unrenewed, or somebody took it away. Its stop token has been
    /// asked to stop already.
    std::function<void(const LostLease&)> on_lost{};

    /// Something failed that no caller is told of: a renewal that will be tried again, an unlock
    /// in a destructor. The text says what; it holds no credentials.
    std::function<void(const std::error_code&, const std::string&)> on_error{};
};

/// How a client talks to its server. Timeouts in the URL override these.
struct ClientOptions {
    /// For how long a call without a deadline goes on trying to reach a server that does not
    /// answer before it throws `backend_unavailable`. Waiting for a holder is not limited by it.
    std::chrono::nanoseconds patience = std::chrono::seconds{10};

    /// How long one attempt to connect may take, name resolution and login included.
    std::chrono::nanoseconds connect_timeout = std::chrono::seconds{1};

    /// How long one reply may take; past it the connection is dropped and the request tried again
    /// on a new one. Also the limit of `try_lock()`, which does not wait for a holder.
    std::chrono::nanoseconds response_timeout = std::chrono::seconds{1};

    /// For how long a lock is handed to a waiter before the waiter confirms it, the lease's `ttl`
    /// if that is shorter: from 10 ms to 1 h. It bounds how long a waiter that died or stopped
    /// holds up those behind it.
    std::chrono::milliseconds grant_ttl{1'000};

    /// How many requests may be under way at a time; one more is `backend_unavailable`.
    std::size_t max_pending = 65'536;

    /// What every key begins with. Clients must agree on it to exclude each other.
    std::string prefix = "codomyrmex:";

    /// Shown by CLIENT LIST; characters that Redis does not allow become '-'.
    std::string client_name = "codomyrmex-concurrency";

    ClientHooks hooks{};
};

/// What a client did so far.
struct ClientStats {
    std::uint64_t connections = 0;     ///< connections made, the first included
    std::uint64_t requests = 0;        ///< commands sent, repetitions included; a joint call is one
    std::uint64_t renewals = 0;        ///< leases renewed
    std::uint64_t leases_lost = 0;     ///< leases lost while they were held
    std::uint64_t leases_watched = 0;  ///< leases held now
    std::uint64_t leases_retained = 0;   ///< of these, kept though nobody holds them
    std::uint64_t releases_pending = 0;  ///< releases not yet answered, repeated in the background
    std::uint64_t local_handovers = 0;   ///< holds passed between threads, without the server
    std::uint64_t grants = 0;            ///< holds passed on by another process' release
    std::uint64_t writes = 0;            ///< system calls that sent requests
    std::uint64_t hook_exceptions = 0;   ///< exceptions that hooks threw
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_OPTIONS_HPP
