// SPDX-License-Identifier: MIT
//
// Tests of a quorum lock while nodes are killed, stopped, slow, refuse, or lose what they were
// asked.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

#include "support/catch2.hpp"
#include "support/quorum_nodes.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::error_of;
using support::eventually;

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

TEST_CASE("A quorum lock goes on while any two of five are dead") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    QuorumLock lock{"ledger", nodes.quorum()};
    std::uint64_t last = 0;
    for (const auto& [a, b] : pairs_of_five()) {
        CAPTURE(a, b);
        nodes.server(a).kill();
        nodes.server(b).kill();
        for (int i = 0; i < 5; ++i) {
            QuorumLease lease = lock.lease();
            CHECK(lease.fence() > last);
            last = lease.fence();
            CHECK(lease.release());
        }
        nodes.server(a).restart();
        nodes.server(b).restart();
    }
}

TEST_CASE("A quorum lock goes on while any two of five are stopped") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    QuorumClient client = nodes.quorum({.node_timeout = 100ms}, {.response_timeout = 30s});
    QuorumLock lock{"ledger", client};
    { const std::scoped_lock guard{lock}; }
    std::uint64_t last = 0;
    Clock::duration longest{0};
    for (const auto& [a, b] : pairs_of_five()) {
        CAPTURE(a, b);
        nodes.server(a).stop();
        nodes.server(b).stop();
        for (int i = 0; i < 5; ++i) {
            const auto start = Clock::now();
            QuorumLease lease = lock.lease();
            longest = std::max(longest, Clock::now() - start);
            CHECK(lease.fence() > last);
            last = lease.fence();
            CHECK(lease.release());
        }
        nodes.server(a).cont();
        nodes.server(b).cont();
    }
    // Who waited for one of those would have waited for half a minute.
    CHECK(longest < 10s);
    CHECK(nodes.await_held("ledger", 0) == 0);
}

TEST_CASE("Two nodes that answer a second late delay nobody, and their late votes are given back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5, true};
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client, {.ttl = 2s}};
    { const std::scoped_lock guard{lock}; }
    nodes.proxy(1).delay(1s);
    nodes.proxy(3).delay(1s);
    const auto start = Clock::now();
    for (int i = 0; i < 20; ++i) {
        QuorumLease lease = lock.lease();
        CHECK(lease.valid());
        CHECK(lease.release());
    }
    CHECK(Clock::now() - start < 10s);
    CHECK(nodes.await_held("ledger", 0) == 0);
    // What cannot be known to be undone is released until its time is over.
    nodes.proxy(1).delay(0s);
    nodes.proxy(3).delay(0s);
    CHECK(eventually([&] { return client.stats().releases_pending == 0; }));
}

TEST_CASE("With three of five down, the error names each and comes after patience") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    QuorumClient client = nodes.quorum({.node_timeout = 50ms, .patience = 300ms});
    QuorumLock lock{"ledger", client};
    for (const std::size_t node : {0U, 2U, 4U})
        nodes.server(node).kill();
    const auto start = Clock::now();
    std::string what;
    try {
        lock.lock();
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::backend_unavailable);
        what = error.what();
    }
    const auto took = Clock::now() - start;
    CHECK(took >= 300ms);
    CHECK(took < 8s);
    CAPTURE(what);
    for (const std::size_t node : {0U, 2U, 4U})
        CHECK(what.find(nodes.server(node).socket_path()) != std::string::npos);
    for (const std::size_t node : {1U, 3U})
        CHECK(what.find(nodes.server(node).socket_path()) == std::string::npos);
    // What the two that are left had granted is gone.
    const auto free = [&] {
        return nodes.holder(1, "ledger").empty() && nodes.holder(3, "ledger").empty();
    };
    CHECK(eventually(free));
    std::error_code code;
    CHECK_FALSE(lock.try_lock_for(50ms, code));
    CHECK(code == LockErrc::backend_unavailable);
    // One comes back, and that is enough.
    nodes.server(2).restart();
    CHECK(lock.try_lock_for(5s));
}

TEST_CASE("A majority that refuses for good is an error at once, a minority is none") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    const auto forbid = [&](std::size_t node) {
        nodes.server(node).command({"ACL", "SETUSER", "default", "-evalsha", "-eval"});
    };
    forbid(0);
    QuorumLock lock{"ledger", nodes.quorum()};
    CHECK(lock.try_lock());
    lock.unlock();
    forbid(1);
    const auto start = Clock::now();
    CHECK(error_of([&] { lock.lock(); }) == LockErrc::backend_refused);
    CHECK(Clock::now() - start < 5s);
    nodes.server(0).command({"ACL", "SETUSER", "default", "+@all"});
    nodes.server(1).command({"ACL", "SETUSER", "default", "+@all"});
    nodes.server(0).command({"SET", QuorumNodes::key("foreign"), "by somebody"});
    nodes.server(1).command({"RPUSH", QuorumNodes::key("foreign"), "by somebody"});
    QuorumLock foreign{"foreign", nodes.quorum()};
    CHECK(error_of([&] { foreign.lock(); }) == LockErrc::foreign_key);
    CHECK(eventually([&] { return nodes.holder(2, "foreign").empty(); }));
}

TEST_CASE("A failed round leaves no key behind, and its holder's stay") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    // Others have three votes for good; two are free.
    for (const std::size_t node : {0U, 1U, 2U})
        nodes.give_to_other(node, "ledger");
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client};
    CHECK_FALSE(lock.try_lock());
    CHECK_FALSE(lock.try_lock_for(50ms));
    CHECK(nodes.await_held("ledger", 3) == 3);
    CHECK(eventually([&] { return client.stats().releases_pending == 0; }));
    for (const std::size_t node : {0U, 1U, 2U})
        CHECK(nodes.holder(node, "ledger") == QuorumNodes::other);
}

TEST_CASE("A vote that comes after the round failed is given back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3, true};
    QuorumClient client = nodes.quorum({.node_timeout = 100ms});
    QuorumLock lock{"ledger", client};
    { const std::scoped_lock guard{lock}; }
    REQUIRE(nodes.await_held("ledger", 0) == 0);
    // One is another's, two answer too late: no majority. By then they have granted it.
    nodes.give_to_other(0, "ledger");
    SECTION("the answers are late") {
        nodes.proxy(1).add(Fault::hold_reply());
        nodes.proxy(2).add(Fault::hold_reply());
    }
    SECTION("the requests are executed late") {
        nodes.proxy(1).add(Fault::hold_request());
        nodes.proxy(2).add(Fault::hold_request());
    }
    std::error_code code;
    bool won_later = false;
    SECTION("the answers are lost with the connection") {
        nodes.proxy(1).add(Fault::lose_reply());
        nodes.proxy(2).add(Fault::lose_reply());
        // The next round has them both, on new connections.
        won_later = true;
    }
    const bool won = lock.try_lock_for(50ms, code);
    CHECK((won_later || !won));
    if (won) lock.unlock();
    nodes.proxy(1).release();
    nodes.proxy(2).release();
    CHECK(nodes.await_held("ledger", 1) == 1);
    nodes.forget(0, "ledger");
    CHECK(lock.try_lock_for(5s));
}

TEST_CASE("A script cache that was flushed costs a retry, nothing else") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client};
    { const std::scoped_lock guard{lock}; }
    REQUIRE(nodes.await_held("ledger", 0) == 0);
    for (std::size_t node = 0; node < 3; ++node)
        nodes.server(node).command({"SCRIPT", "FLUSH"});
    QuorumLease lease = lock.lease();
    for (std::size_t node = 0; node < 3; ++node)
        nodes.server(node).command({"SCRIPT", "FLUSH"});
    CHECK(lease.release());
    CHECK(nodes.await_held("ledger", 0) == 0);
}

TEST_CASE("A time to live that the answers outlast is refused, and nothing is left") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3, true};
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client, {.ttl = 40ms}};
    for (std::size_t node = 0; node < 3; ++node)
        nodes.proxy(node).delay(80ms);
    CHECK(error_of([&] { (void)lock.try_lock(); }) == LockErrc::validity_exhausted);
    CHECK(nodes.await_held("ledger", 0) == 0);
}
