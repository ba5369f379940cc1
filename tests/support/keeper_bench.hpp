// SPDX-License-Identifier: MIT
//
// The engine of a RedisClient without the client: a keeper's state with its events, and who asks by
// it, for tests of the parts that are made on them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_KEEPER_BENCH_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_KEEPER_BENCH_HPP

#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <chrono>
#include <memory>
#include <string>

namespace test_support {

/// Options under which nothing but what a test sets ends a wait: a slow machine must not look like
/// a fault.
[[nodiscard]] inline codomyrmex::concurrency::ClientOptions patient() {
    using std::chrono::seconds;
    return {
        .patience = seconds{20}, .connect_timeout = seconds{20}, .response_timeout = seconds{20}};
}

/// Connects at its first request, as a client does.
class KeeperBench {
  public:
    explicit KeeperBench(const std::string& url,
                         const codomyrmex::concurrency::ClientOptions& options = patient())
        : events{std::make_shared<codomyrmex::concurrency::redis::Events>(options.hooks)},
          state{std::make_shared<codomyrmex::concurrency::redis::KeeperState>(
              codomyrmex::concurrency::Endpoint::parse(url), options,
              codomyrmex::concurrency::redis::make_process_name(options.prefix), events)} {}
    KeeperBench(const KeeperBench&) = delete;
    KeeperBench& operator=(const KeeperBench&) = delete;
    ~KeeperBench() { state->stop(); }

    const std::shared_ptr<codomyrmex::concurrency::redis::Events> events;
    const std::shared_ptr<codomyrmex::concurrency::redis::KeeperState> state;
    codomyrmex::concurrency::redis::Claimant claimant{*state};
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_KEEPER_BENCH_HPP
