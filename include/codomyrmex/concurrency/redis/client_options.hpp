// SPDX-License-Identifier: MIT
//
// What a client goes by: its options with the URL's timeouts in their place, checked once.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_OPTIONS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_OPTIONS_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <chrono>
#include <string>

namespace codomyrmex::concurrency::redis {

/// `options` with the timeouts that the URL gives.
/// Throws: LockError(invalid_argument) for timeouts that are not positive or an empty prefix;
/// LockError(unsupported) for an endpoint with TLS.
[[nodiscard]] inline ClientOptions effective_options(const Endpoint& endpoint,
                                                     ClientOptions options) {
    options.patience = endpoint.patience.value_or(options.patience);
    options.connect_timeout = endpoint.connect_timeout.value_or(options.connect_timeout);
    options.response_timeout = endpoint.response_timeout.value_or(options.response_timeout);
    const auto require_positive = [](std::chrono::nanoseconds value, const char* what) {
        if (value <= std::chrono::nanoseconds::zero()) {
            throw LockError(LockErrc::invalid_argument,
                            std::string{"ClientOptions::"} + what + " must be positive");
        }
    };
    require_positive(options.patience, "patience");
    require_positive(options.connect_timeout, "connect_timeout");
    require_positive(options.response_timeout, "response_timeout");
    if (options.grant_ttl < std::chrono::milliseconds{10} ||
        options.grant_ttl > std::chrono::hours{1}) {
        throw LockError(LockErrc::invalid_argument,
                        "ClientOptions::grant_ttl must be from 10 ms to 1 h, not " +
                            std::to_string(options.grant_ttl.count()) + " ms");
    }
    if (options.max_pending == 0) {
        throw LockError(LockErrc::invalid_argument, "ClientOptions::max_pending must not be 0");
    }
    if (options.prefix.empty() || options.prefix.find_first_of("{}") != std::string::npos) {
        throw LockError(LockErrc::invalid_argument,
                        "ClientOptions::prefix must not be empty and have no braces");
    }
    if (endpoint.transport == Transport::tls) {
        throw LockError(LockErrc::unsupported,
                        endpoint.to_string() +
                            ": this build has no TLS; use redis:// on a trusted network, unix://, "
                            "or a TLS proxy such as stunnel");
    }
    return options;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_OPTIONS_HPP
