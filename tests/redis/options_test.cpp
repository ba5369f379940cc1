// SPDX-License-Identifier: MIT
//
// The defaults are part of the contract: they stand in the documentation of each member.

#include <codomyrmex/concurrency/redis/options.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <type_traits>

namespace {

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

static_assert(std::is_aggregate_v<LeaseOptions>);
static_assert(std::is_aggregate_v<ClientOptions>);
static_assert(std::is_aggregate_v<ClientHooks>);
static_assert(std::is_aggregate_v<ClientStats>);
static_assert(std::is_aggregate_v<LostLease>);

}  // namespace

TEST_CASE("A lease lasts 30 s, is renewed for as long as it is held, and has no label") {
    const LeaseOptions options;
    CHECK(options.ttl == 30s);
    CHECK(options.max_hold == 0ms);
    CHECK(options.label.empty());
}

TEST_CASE("A client is patient for 10 s, and waits 1 s for a connection and for a reply") {
    const ClientOptions options;
    CHECK(options.patience == 10s);
    CHECK(options.connect_timeout == 1s);
    CHECK(options.response_timeout == 1s);
    CHECK(options.prefix == "codomyrmex:");
    CHECK(options.client_name == "codomyrmex-concurrency");
    CHECK_FALSE(options.hooks.on_lost);
    CHECK_FALSE(options.hooks.on_error);
}

TEST_CASE("What is not named keeps its default") {
    const LeaseOptions lease{.ttl = 10s};
    CHECK(lease.ttl == 10s);
    CHECK(lease.max_hold == 0ms);
    const ClientOptions client{.response_timeout = 200ms, .prefix = "app:"};
    CHECK(client.response_timeout == 200ms);
    CHECK(client.prefix == "app:");
    CHECK(client.patience == 10s);
}

TEST_CASE("Statistics begin at zero") {
    const ClientStats stats;
    CHECK(stats.connections == 0);
    CHECK(stats.requests == 0);
    CHECK(stats.renewals == 0);
    CHECK(stats.leases_lost == 0);
    CHECK(stats.leases_watched == 0);
    CHECK(stats.releases_pending == 0);
    CHECK(stats.hook_exceptions == 0);
}
