// SPDX-License-Identifier: MIT
//
// The commands that speak of a tenure, in the server's wire format: what the scripts' arguments are
// made of stands here and nowhere else. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP

#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <array>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// How a script is called: by its digest, or with its body, which also loads it.
enum class Call : std::uint8_t { digest, body };

/// What a process calls itself, and where it listens.
struct ProcessName {
    std::string prefix{};   ///< of keys and channels
    std::string id{};       ///< 128 random bits in hexadecimal; its tokens begin with them
    std::string holder{};   ///< "host:pid:", for people
    std::string channel{};  ///< what it is subscribed to
};

/// The request for a lock. `waiter`: as in make_waiter(), or empty to try only.
[[nodiscard]] inline std::string acquire_command(Call call, const Tenure& tenure,
                                                 std::string_view prefix, std::string_view text,
                                                 std::string_view not_after, std::uint64_t block,
                                                 std::string_view waiter) {
    const LockIdentity& identity = tenure.identity();
    const std::string ttl = std::to_string(identity.options.ttl.count());
    const std::string fences = std::to_string(block);
    return encode({call == Call::body ? "EVAL" : "EVALSHA",
                   call == Call::body ? acquire_script.body : acquire_script.sha1, "3",
                   identity.lock_key, identity.fence_key, identity.queue_key, tenure.token(), ttl,
                   text, not_after, fences, prefix, waiter});
}

/// How a waiter stands in the queue: with all that whoever makes it the holder must know.
[[nodiscard]] inline std::string make_waiter(const Tenure& tenure,
                                             std::chrono::milliseconds grant_ttl,
                                             std::uint64_t block, std::string_view text) {
    std::string waiter = tenure.token();
    waiter += ' ';
    waiter += std::to_string(std::min(grant_ttl, tenure.identity().options.ttl).count());
    waiter += ' ';
    waiter += std::to_string(block);
    waiter += ' ';
    waiter += text;
    return waiter;
}

[[nodiscard]] inline std::string release_command(Call call, const Tenure& tenure,
                                                 std::string_view prefix) {
    const LockIdentity& identity = tenure.identity();
    return encode({call == Call::body ? "EVAL" : "EVALSHA",
                   call == Call::body ? release_script.body : release_script.sha1, "3",
                   identity.lock_key, identity.fence_key, identity.queue_key, tenure.token(),
                   prefix, tenure.waiter()});
}

[[nodiscard]] inline std::string renew_command(Call call, const Tenure& tenure,
                                               std::string_view not_after) {
    const LockIdentity& identity = tenure.identity();
    const std::string ttl = std::to_string(identity.options.ttl.count());
    return encode({call == Call::body ? "EVAL" : "EVALSHA",
                   call == Call::body ? renew_script.body : renew_script.sha1, "3",
                   identity.lock_key, identity.fence_key, identity.queue_key, tenure.token(), ttl,
                   not_after});
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_COMMANDS_HPP
