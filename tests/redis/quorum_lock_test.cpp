// SPDX-License-Identifier: MIT
//
// Tests of quorum_lock.hpp and quorum_client.hpp over real servers that all serve.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/quorum_nodes.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <mutex>
#include <span>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::error_of;

namespace {

using Clock = std::chrono::steady_clock;

}  // namespace

TEST_CASE("A free quorum lock is held at every node, and nothing but fences is left after it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    const QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client, {.ttl = 10s}};
    QuorumLease lease = lock.lease();
    CHECK(lease.valid());
    CHECK(lease.remaining() > 9s);
    CHECK(lease.fence() > 1'000'000'000'000'000'000U);
    CHECK_FALSE(lease.contended());
    REQUIRE(nodes.await_held("ledger", 5) == 5);
    for (std::size_t node = 0; node < 5; ++node)
        CHECK(nodes.holder(node, "ledger") == lease.token());
    CHECK(lease.renew());
    CHECK(lease.release());
    REQUIRE(nodes.await_held("ledger", 0) == 0);
    for (std::size_t node = 0; node < 5; ++node) {
        CHECK(nodes.server(node).command({"KEYS", "*"}).elements.size() == 1);
        CHECK(nodes.server(node).command({"PTTL", QuorumNodes::key("ledger") + ":fence"}).number >
              0);
    }
    CHECK(error_of([&] { lease.release(); }) == LockErrc::not_held);
}

TEST_CASE("A quorum lock is a mutex of the standard, and a registry serves it by name") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    const std::vector<RedisClient> clients = nodes.clients();
    QuorumLock ledger{"ledger", {clients[0], clients[1], clients[2]}};
    CHECK(ledger.name() == "ledger");

    const QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client};
    QuorumLock other{"ledger", nodes.quorum()};
    {
        const std::scoped_lock guard{lock};
        CHECK(lock.valid());
        CHECK_FALSE(other.try_lock());
        CHECK_FALSE(other.try_lock_for(20ms));
    }
    CHECK(other.try_lock_for(5s));
    other.unlock();

    LockManager manager{QuorumBackend{client, {.ttl = 10s}}};
    {
        auto guard = manager.lock("one");
        CHECK(guard.valid());
        CHECK(guard.fence() != 0);
        CHECK_FALSE(manager.try_lock("one"));
        CHECK_FALSE(manager.try_lock_for("one", 10ms));
        CHECK(nodes.held("one") >= 2);
    }
    { auto both = manager.lock_all({"b", "a"}); }
    CHECK(manager.try_lock_all_for({"a", "b"}, 5s));
    CHECK(manager.stats().active == 0);
}

TEST_CASE("A quorum refuses what is no quorum") {
    RedisClient a{"unix:///nowhere/a"};
    RedisClient b{"unix:///nowhere/b"};
    CHECK(error_of([] { QuorumClient{std::vector<RedisClient>{}}; }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { QuorumClient{a, b, a}; }) == LockErrc::invalid_argument);
    CHECK(error_of([&] {
              QuorumClient{a, RedisClient{"unix:///nowhere/a?db=1"}};
          }) == LockErrc::invalid_argument);
    CHECK(error_of([&] {
              QuorumClient{a, RedisClient{"unix:///nowhere/c", {.prefix = "other:"}}};
          }) == LockErrc::invalid_argument);
    CHECK(error_of([&] {
              QuorumClient({a, b}, {.node_timeout = 0ms});
          }) == LockErrc::invalid_argument);
    CHECK(error_of([&] {
              QuorumClient({a, b}, {.min_uptime = -1ms});
          }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { QuorumLock("", {a, b}); }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { QuorumLock("x", {a, b}, {.ttl = 1ms}); }) == LockErrc::invalid_argument);
    CHECK(QuorumClient{std::span<const RedisClient>{&a, 1}}.clients().size() == 1);
}

TEST_CASE("A quorum of one, and one of an even number, serve") {
    if (!RedisServer::available()) SKIP("no redis-server");
    for (const std::size_t count : {1U, 2U, 4U}) {
        QuorumNodes nodes{count};
        QuorumLock lock{"ledger", nodes.quorum()};
        QuorumLock other{"ledger", nodes.quorum()};
        CHECK(lock.try_lock());
        CHECK_FALSE(other.try_lock());
        lock.unlock();
        CHECK(other.try_lock_for(5s));
        // No node may be missing of two, one of four.
        if (count == 1) continue;
        nodes.server(0).kill();
        QuorumLock last{"last", nodes.quorum({.node_timeout = 50ms, .patience = 3s})};
        CHECK(error_of([&] { last.lock(); }) ==
              (count == 2 ? LockErrc::backend_unavailable : std::error_code{}));
    }
}

TEST_CASE("Votes that are split between two who ask at once come together again") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{5};
    std::atomic<int> inside{0};
    std::atomic<int> overlaps{0};
    std::atomic<int> served{0};
    {
        std::vector<std::jthread> rivals;
        for (int i = 0; i < 4; ++i) {
            rivals.emplace_back([&] {
                const QuorumClient client = nodes.quorum();
                QuorumLock lock{"ledger", client};
                for (int turn = 0; turn < 25; ++turn) {
                    if (!lock.try_lock_for(30s)) continue;
                    if (inside.fetch_add(1) != 0) ++overlaps;
                    std::this_thread::yield();
                    inside.fetch_sub(1);
                    lock.unlock();
                    ++served;
                }
            });
        }
    }
    CHECK(overlaps == 0);
    CHECK(served == 100);
    CHECK(nodes.await_held("ledger", 0) == 0);
}

TEST_CASE("A child of fork is inert, and makes connections of its own") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    QuorumClient client = nodes.quorum();
    QuorumLock lock{"ledger", client};
    QuorumLease lease = lock.lease();
    QuorumLock mine{"mine", client};
    mine.lock();
    Process child = Process::run([&] {
        if (lease.valid() || lease.release() || mine.valid()) return 1;
        if (lock.try_lock()) return 2;
        mine.unlock();
        QuorumLock own{"own", client};
        if (!own.try_lock_for(5s)) return 3;
        own.unlock();
        return 0;
    });
    CHECK(child.wait(10s) == ExitStatus{0, 0});
    CHECK(lease.valid());
    CHECK(mine.valid());
    CHECK(nodes.held("mine") >= 2);
    CHECK(lease.release());
}

TEST_CASE("A wait for a quorum lock ends by a stop token") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    QuorumLock lock{"ledger", nodes.quorum()};
    QuorumLock other{"ledger", nodes.quorum()};
    lock.lock();
    std::stop_source stop;
    std::atomic<bool> got{true};
    std::jthread waiter{[&] { got = other.lock(stop.get_token()); }};
    std::this_thread::sleep_for(20ms);
    stop.request_stop();
    waiter.join();
    CHECK_FALSE(got);
}

TEST_CASE("Threads of a process are served one after another, and the last handle goes quickly") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    int counted = 0;
    {
        QuorumClient client = nodes.quorum();
        QuorumLock lock{"ledger", client};
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                for (int turn = 0; turn < 20; ++turn) {
                    const std::scoped_lock guard{lock};
                    ++counted;
                }
            });
        }
    }
    CHECK(counted == 80);
    CHECK(nodes.held("ledger") == 0);
    Clock::time_point start{};
    {
        QuorumLock lock{"ledger", nodes.quorum()};
        lock.lock();
        for (std::size_t node = 0; node < 3; ++node)
            nodes.server(node).stop();
        start = Clock::now();
    }
    CHECK(Clock::now() - start < 1s);
}

TEST_CASE("Who waits for a holder asks now and then, in pauses that grow") {
    if (!RedisServer::available()) SKIP("no redis-server");
    QuorumNodes nodes{3};
    QuorumLock lock{"ledger", nodes.quorum()};
    QuorumClient client = nodes.quorum();
    QuorumLock other{"ledger", client};
    lock.lock();
    CHECK_FALSE(other.try_lock_for(400ms));
    CHECK(client.stats().rounds > 1);
    CHECK(client.stats().rounds < 80);
}
