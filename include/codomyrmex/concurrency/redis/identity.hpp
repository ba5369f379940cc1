// SPDX-License-Identifier: MIT
//
// What a name becomes in the server: its keys, and the options of those who lock it, checked once.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// What all leases of one lock object have in common: its name, its keys, its options.
struct LockIdentity {
    std::string name{};
    std::string lock_key{};
    std::string fence_key{};
    std::string queue_key{};
    LeaseOptions options{};
};

/// Requires: `options` within the documented bounds.
/// Throws: LockError(invalid_argument) that names the member which is not.
inline void validate(const LeaseOptions& options) {
    using namespace std::chrono_literals;
    if (options.ttl < 10ms || options.ttl > 24h) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::ttl must be from 10 ms to 24 h, not " +
                            std::to_string(options.ttl.count()) + " ms");
    }
    if (options.max_hold < 0ms) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_hold must not be negative, but is " +
                            std::to_string(options.max_hold.count()) + " ms");
    }
    if (options.max_local_handovers < 0 || options.max_local_handovers > 1'000'000) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_local_handovers must be from 0 to 1,000,000, not " +
                            std::to_string(options.max_local_handovers));
    }
    if (options.max_local_run < 0ms) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_local_run must not be negative, but is " +
                            std::to_string(options.max_local_run.count()) + " ms");
    }
    if (options.retain < 0ms || options.retain > options.ttl) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::retain must be from 0 to the ttl, not " +
                            std::to_string(options.retain.count()) + " ms");
    }
}

/// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes. Any bytes will do.
inline void validate_name(std::string_view name) {
    if (name.empty() || name.size() > 512) {
        throw LockError(
            LockErrc::invalid_argument,
            "the name of a lock must have 1 to 512 bytes, not " + std::to_string(name.size()));
    }
}

/// `{`, `}` and `%` percent-encoded: a name may not open or close the key's hash tag.
[[nodiscard]] inline std::string encode_name(std::string_view name) {
    std::string encoded;
    encoded.reserve(name.size());
    for (const char byte : name) {
        switch (byte) {
            case '{':
                encoded += "%7B";
                break;
            case '}':
                encoded += "%7D";
                break;
            case '%':
                encoded += "%25";
                break;
            default:
                encoded += byte;
        }
    }
    return encoded;
}

/// What follows from the key of a lock alone.
[[nodiscard]] inline LockIdentity identity_of_key(std::string key) {
    LockIdentity identity;
    identity.fence_key = key + ":fence";
    identity.queue_key = key + ":queue";
    identity.lock_key = std::move(key);
    return identity;
}

/// The identity of the lock `name` under the key prefix `prefix`.
/// Throws: LockError(invalid_argument) for a name or options that break their bounds.
[[nodiscard]] inline LockIdentity make_identity(std::string_view prefix, std::string_view name,
                                                LeaseOptions options) {
    validate_name(name);
    validate(options);
    LockIdentity identity =
        identity_of_key(std::string{prefix} + "lock:{" + encode_name(name) + '}');
    identity.name = name;
    identity.options = std::move(options);
    return identity;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP
