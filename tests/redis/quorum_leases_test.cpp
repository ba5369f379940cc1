// SPDX-License-Identifier: MIT
//
// Tests of what becomes of a quorum's lease: renewals, repairs, losses, fences, nodes that forget.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

#include "support/catch2.hpp"
#include "support/quorum_nodes.hpp"
#include "support/threads.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::eventually;

TEST_CASE("A renewal gives its key to a node that lost it, and takes none of another's") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client, {.ttl = 3s}};
    QuorumLease lease = lock.lease();
    REQUIRE(nodes.await_held("ledger", 5) == 5);
    const std::string key = QuorumNodes::key("ledger");
    nodes.server(0).command({"FLUSHALL"});
    nodes.give_to_other(1, "ledger");
    const bool renewed = lease.renew();
    CHECK(renewed);
    CHECK(eventually([&] { return nodes.holder(0, "ledger") == lease.token(); }));
    CHECK(nodes.fence(0, "ledger") == std::to_string(lease.fence()));
    CHECK(nodes.holder(1, "ledger") == QuorumNodes::other);
    CHECK(nodes.server(1).command({"PTTL", key}).number > 50'000);
    CHECK(eventually([&] { return client.stats().repairs == 1; }));
    // The background does the same.
    nodes.forget(2, "ledger");
    CHECK(eventually([&] { return nodes.holder(2, "ledger") == lease.token(); }));
    CHECK(lease.valid());
    CHECK(lease.release());
    CHECK(nodes.await_held("ledger", 1) == 1);
    CHECK(nodes.holder(1, "ledger") == QuorumNodes::other);
}

TEST_CASE("A lease is renewed for as long as it is held, also with a minority down") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    QuorumClient client = nodes.quorum({.node_timeout = 50ms});
    QuorumLock lock{"ledger", client, {.ttl = 600ms}};
    QuorumLease lease = lock.lease();
    nodes.server(0).kill();
    nodes.server(3).stop();
    const std::uint64_t before = client.stats().renewals;
    CHECK(eventually([&] { return client.stats().renewals >= before + 6; }));
    CHECK(lease.valid());
    CHECK(lease.release());
    nodes.server(3).cont();
}

TEST_CASE("A lease that a majority gave to another is lost, and its holder is told") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    std::atomic<int> told{0};
    QuorumOptions options;
    options.hooks.on_lost = [&](const LostLease&) { ++told; };
    QuorumClient client = nodes.quorum(options);
    QuorumLock lock{"ledger", client, {.ttl = 900ms}};
    SECTION("by the renewal") {
        QuorumLease lease = lock.lease();
        for (const std::size_t node : {0U, 1U, 2U})
            nodes.give_to_other(node, "ledger");
        CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
        CHECK_FALSE(lease.valid());
        CHECK_FALSE(lease.release());
        for (const std::size_t node : {0U, 1U, 2U})
            CHECK(nodes.holder(node, "ledger") == QuorumNodes::other);
    }
    SECTION("by the release") {
        QuorumLease lease = lock.lease();
        REQUIRE(nodes.await_held("ledger", 5) == 5);
        for (const std::size_t node : {0U, 1U, 2U})
            nodes.forget(node, "ledger");
        CHECK_FALSE(lease.release());
    }
    SECTION("by the answers to an unlock that nobody waits for") {
        lock.lock();
        REQUIRE(nodes.await_held("ledger", 5) == 5);
        for (const std::size_t node : {0U, 1U, 2U})
            nodes.forget(node, "ledger");
        lock.unlock();
    }
    SECTION("by the time, when no majority can be reached") {
        QuorumLease lease = lock.lease();
        for (const std::size_t node : {0U, 1U, 2U})
            nodes.server(node).stop();
        CHECK(eventually([&] { return lease.stop_token().stop_requested(); }));
        CHECK_FALSE(lease.valid());
        for (const std::size_t node : {0U, 1U, 2U})
            nodes.server(node).cont();
    }
    CHECK(eventually([&] { return told == 1; }));
}

TEST_CASE("Fences increase whatever majority answers, and need a second trip only at first") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    std::uint64_t last = 0;
    std::uint64_t write_backs = 0;
    std::uint64_t rounds = 0;
    // Two clients in turns, and two nodes down at a time: others each time.
    std::vector<QuorumClient> clients{nodes.quorum(), nodes.quorum()};
    int turn = 0;
    for (const auto& [a, b] : pairs_of_five()) {
        for (const std::size_t node : {a, b})
            nodes.server(node).kill();
        for (int i = 0; i < 10; ++i, ++turn) {
            QuorumLock lock{"ledger", clients[static_cast<std::size_t>(turn) % 2]};
            QuorumLease lease = lock.lease();
            if (lease.fence() <= last) FAIL("fence " << lease.fence() << " after " << last);
            last = lease.fence();
        }
        for (const std::size_t node : {a, b})
            nodes.server(node).restart();
    }
    for (const QuorumClient& client : clients) {
        write_backs += client.stats().write_backs;
        rounds += client.stats().rounds;
    }
    CAPTURE(write_backs, rounds);
    CHECK(rounds >= 100);
    CHECK(write_backs >= 1);
    CHECK(write_backs < rounds / 2);
}

TEST_CASE("Where the nodes' fences are apart, the highest is written back to a majority") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    const std::string fence_key = QuorumNodes::key("ledger") + ":fence";
    // What an earlier lease wrote to a majority, far ahead of the clock, so that no clock helps.
    const std::uint64_t ahead = 8'000'000'000'000'000'000U;
    for (const std::size_t node : {0U, 1U, 2U})
        nodes.server(node).command({"SET", fence_key, std::to_string(ahead)});
    nodes.server(1).kill();
    nodes.server(2).kill();
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client};
    CHECK(lock.lease().fence() == ahead + 1);
    CHECK(client.stats().write_backs == 1);
    for (const std::size_t node : {0U, 3U, 4U})
        CHECK(nodes.fence(node, "ledger") == std::to_string(ahead + 1));
    for (const std::size_t node : {0U, 3U, 4U})
        REQUIRE(eventually([&] { return nodes.holder(node, "ledger").empty(); }));
    // Those who saw none of the first are now enough, with one that knows nothing.
    nodes.server(0).kill();
    nodes.server(1).restart();
    // One that has no connection to wait for, which would cost a round and its token.
    QuorumClient other = nodes.quorum();
    CHECK(QuorumLock{"ledger", other}.lease().fence() == ahead + 2);
}

TEST_CASE("A node that has been up for too short a time has no vote") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    QuorumClient client =
        nodes.quorum({.node_timeout = 100ms, .patience = 300ms, .min_uptime = 1h});
    QuorumLock lock{"ledger", client};
    std::string what;
    try {
        lock.lock();
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::backend_unavailable);
        what = error.what();
    }
    CAPTURE(what);
    CHECK(what.find("may have forgotten") != std::string::npos);
    CHECK(nodes.await_held("ledger", 0) == 0);
    // The default is the lease's time: one that is over since the start cannot have been forgotten.
    QuorumClient usual{nodes.clients()};
    QuorumLock brief{"brief", usual, {.ttl = 500ms}};
    CHECK(brief.try_lock_for(10s));
    brief.unlock();
    // One that restarts is asked anew, and has none again.
    nodes.server(0).restart();
    QuorumLock shared{"brief", usual, {.ttl = 500ms}};
    CHECK(shared.try_lock_for(10s));
}

TEST_CASE("A node that forgot a lease gives no other its majority") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    nodes.server(2).kill();
    // To the first the nodes' start does not count: it does not wait for them to be old enough.
    QuorumClient first = nodes.quorum({.node_timeout = 100ms});
    QuorumClient second = nodes.quorum({.node_timeout = 100ms, .min_uptime = 1s});
    QuorumLock lock{"ledger", first, {.ttl = 1s, .max_hold = 1ms}};
    QuorumLease lease = lock.lease();
    REQUIRE(lease.valid());
    // The third comes back, the second forgets: one that holds, two that would grant.
    nodes.server(1).restart();
    nodes.server(2).restart();
    QuorumLock rival{"ledger", second, {.ttl = 1s}};
    QuorumLease other;
    std::error_code code;
    while (!other) {
        other = rival.try_lease_for(50ms, code);
        if (other) CHECK_FALSE(lease.valid());
    }
}
