// SPDX-License-Identifier: MIT
//
// What can be set about a quorum: a lock over several independent masters. What a lease of it is
// like is LeaseOptions' subject, and how each server is talked to ClientOptions'.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_OPTIONS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_OPTIONS_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

namespace codomyrmex::concurrency {

/// How a quorum asks its nodes.
struct QuorumOptions {
    /// How long one node's answer is waited for while it could decide the matter. A node that is
    /// silent for longer is not asked again until it answers, so it delays an acquisition once.
    std::chrono::nanoseconds node_timeout = std::chrono::milliseconds{200};

    /// For how long a call without a deadline goes on trying while a majority cannot be reached,
    /// before it throws `backend_unavailable`. Waiting for a holder is not limited by it.
    std::chrono::nanoseconds patience = std::chrono::seconds{10};

    /// While others hold it, it is asked for again after a random pause; pauses grow up to this.
    std::chrono::milliseconds max_retry_delay{50};

    /// A node that has been up for less has no vote, for it may have forgotten a lease that it had
    /// granted before it restarted. Not set: the ttl of the lease. Set it to the longest ttl that
    /// anybody uses for a name; to zero only where the nodes write every change to disk before they
    /// answer (`appendfsync always`). Unless zero, INFO is asked once a connection.
    std::optional<std::chrono::milliseconds> min_uptime{};

    /// Told of the quorum's leases. A hook that is not set is the first client's.
    ClientHooks hooks{};
};

/// What a quorum did so far.
struct QuorumStats {
    std::uint64_t rounds = 0;            ///< attempts to acquire, of all nodes each
    std::uint64_t write_backs = 0;       ///< of these, with a fence to be written back: two trips
    std::uint64_t renewals = 0;          ///< leases renewed in the background
    std::uint64_t repairs = 0;           ///< nodes that were given a lease's key by a renewal
    std::uint64_t leases_lost = 0;       ///< leases lost while they were held
    std::uint64_t leases_watched = 0;    ///< leases held now
    std::uint64_t releases_pending = 0;  ///< nodes that have not answered a release yet
    std::uint64_t hook_exceptions = 0;   ///< exceptions that hooks threw
};

namespace redis {

/// Throws: LockError(invalid_argument) that names the member which breaks its bounds.
inline void validate(const QuorumOptions& options) {
    const auto require = [](bool kept, const char* what) {
        if (!kept) {
            throw LockError(LockErrc::invalid_argument, std::string{"QuorumOptions::"} + what);
        }
    };
    using std::chrono::nanoseconds;
    require(options.node_timeout > nanoseconds::zero(), "node_timeout must be positive");
    require(options.patience > nanoseconds::zero(), "patience must be positive");
    require(options.max_retry_delay >= std::chrono::milliseconds{1},
            "max_retry_delay must be at least 1 ms");
    require(!options.min_uptime ||
                (options.min_uptime->count() >= 0 && *options.min_uptime <= std::chrono::hours{24}),
            "min_uptime must be from 0 to 24 h");
}

}  // namespace redis
}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_OPTIONS_HPP
