// SPDX-License-Identifier: MIT
//
// Tests of local_turns.hpp: how threads of one process come to a lock behind each other. The line
// itself is local_queue_test.cpp's; several processes are hand_over_test.cpp's.

#include <codomyrmex/concurrency/redis/local_turns.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/keeper_bench.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::error_of;
using support::eventually;

namespace {

const std::string& lock_key = waited_for_key();

}  // namespace

TEST_CASE("fencing tokens are reserved for those in line, for who stood there, and to retain") {
    using redis::LocalQueue;
    using redis::LocalTurns;
    redis::LocalQueues::Line line;
    const LeaseOptions options{.max_local_handovers = 7};
    CHECK(LocalTurns::block_of(line, options, false) == 1);
    // It may be followed by those whom it stood with.
    CHECK(LocalTurns::block_of(line, options, true) == 8);
    CHECK(LocalTurns::block_of(line, {.max_local_handovers = 0}, true) == 1);
    CHECK(LocalTurns::block_of(line, {.retain = 1s}, false) == 10'000);
    const redis::LockIdentity identity = redis::make_identity("p:", "name", options);
    redis::LocalWaiter first{identity};
    redis::LocalWaiter second{identity};
    {
        const std::lock_guard guard{line.mutex};
        const auto now = detail::BootClock::now();
        REQUIRE(line.queue.enter(first, true, now) == LocalQueue::Entry::asks);
        REQUIRE(line.queue.enter(second, true, now) == LocalQueue::Entry::line);
    }
    CHECK(LocalTurns::block_of(line, options, false) == 8);
}

TEST_CASE("threads of one process hand a lock on without the server, each under its own fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::atomic<int> inside{0};
    std::atomic<int> together{0};
    std::atomic<int> fences_back{0};
    std::uint64_t last = 0;
    const auto work = [&](const LeaseOptions& options) {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                RedisLock lock{"name", client, options};
                for (int turn = 0; turn < 200; ++turn) {
                    const Lease lease = lock.lease();
                    together += inside.fetch_add(1);
                    if (lease.fence() <= last) ++fences_back;
                    last = lease.fence();
                    --inside;
                }
            });
        }
    };
    work({});
    CHECK(together == 0);
    CHECK(fences_back == 0);
    const auto stats = client.stats();
    CHECK(stats.local_handovers > 400);
    CHECK(scripts_run(server) < 600);

    work({.max_local_handovers = 0});
    CHECK(together == 0);
    CHECK(fences_back == 0);
    CHECK(client.stats().local_handovers == stats.local_handovers);
}

TEST_CASE("other processes have their turn between bounded runs of hand-overs") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient many{server.url()};
    RedisClient single{server.url()};
    std::atomic<long> of_many{0};
    std::atomic<bool> done{false};
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            RedisLock lock{"name", many, {.max_local_handovers = 4}};
            while (!done) {
                lock.lock();
                ++of_many;
                lock.unlock();
            }
        });
    }
    RedisLock lock{"name", single};
    REQUIRE(support::eventually([&] { return of_many > 100; }));
    of_many = 0;
    long longest = 0;
    for (int turn = 0; turn < 100; ++turn) {
        lock.lock();
        const long at_begin = of_many;
        lock.unlock();
        lock.lock();
        longest = std::max(longest, of_many - at_begin);
        lock.unlock();
    }
    done = true;
    CAPTURE(longest);
    // One run that was passed to before we stood in line again, and one that we waited for, and a
    // few more should this thread have been kept from standing in line.
    CHECK(longest <= 20 * (4 + 1));
    CHECK(of_many >= 100);
}

TEST_CASE("one that stood in line until too little time was left to ask is not told an error") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    KeeperBench keeper{server.url()};
    auto& queues = keeper.state->queues;
    redis::LocalTurns turns{keeper.claimant};
    const auto identity = std::make_shared<const redis::LockIdentity>(
        redis::make_identity("codomyrmex:", waited_for, {.ttl = 10min, .max_local_handovers = 0}));
    const auto hold = turns.acquire(identity, redis::wait_not());
    REQUIRE(hold);
    CHECK_FALSE(turns.acquire(identity, redis::wait_not()));
    std::shared_ptr<redis::Hold> obtained;
    std::error_code error;
    std::jthread other{[&] {
        error = error_of(
            [&] { obtained = turns.acquire(identity, redis::wait_until(Deadline::after(500ms))); });
    }};
    const auto line = queues.find(lock_key);
    REQUIRE(line);
    REQUIRE(eventually([&] {
        const std::lock_guard guard{line->mutex};
        return line->queue.waited_for();
    }));
    server.stop();
    const auto requests = keeper.state->pipeline.requests();
    // As a client gives it back. Now the other asks, and has no answer before its time is over.
    CHECK(hold->end());
    hold->tenure()->used_by(nullptr);
    turns.pass_on(hold->tenure(), hold, true, detail::BootClock::now());
    queues.leave(lock_key);
    other.join();
    CHECK(keeper.state->pipeline.requests() >= requests + 2);
    server.cont();
    CHECK_FALSE(obtained);
    CHECK_FALSE(error);
    // Nobody is left in line; and one that fails leaves it, too.
    CHECK(queues.find(lock_key) == nullptr);
    keeper.state->pipeline.disconnect(1);
    server.command({"SET", lock_key, "foreign"});
    CHECK(error_of([&] { (void)turns.acquire(identity, redis::wait_not()); }) ==
          LockErrc::foreign_key);
    CHECK(queues.find(lock_key) == nullptr);
}

TEST_CASE("a retained lease is locked again without the server, under a larger fence each time") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 20s, .retain = 10s}};
    lock.lock();
    std::uint64_t last = lock.fence();
    lock.unlock();
    CHECK(client.stats().leases_retained == 1);
    CHECK(server.command({"EXISTS", lock_key}).number == 1);
    const auto before = scripts_run(server);
    for (int i = 0; i < 1000; ++i) {
        lock.lock();
        CHECK(lock.fence() > last);
        last = lock.fence();
        lock.unlock();
    }
    CHECK(scripts_run(server) == before);

    // Whoever wants it elsewhere gets it at once, and it is not retained for a while.
    RedisClient other{server.url()};
    RedisLock same{"name", other};
    REQUIRE(same.try_lock_for(5s));
    CHECK(same.fence() > last);
    CHECK(client.stats().leases_retained == 0);
    same.unlock();
    lock.lock();
    lock.unlock();
    CHECK(client.stats().leases_retained == 0);
}

TEST_CASE("a retained lease is given back after its time, and with its client") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    std::optional<RedisClient> client{std::in_place, server.url()};
    {
        RedisLock lock{"name", *client, {.retain = 30ms}};
        lock.lock();
        lock.unlock();
        CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
        CHECK(client->stats().leases_watched == 0);
    }
    {
        RedisLock lock{"name", *client, {.retain = 20s}};
        lock.lock();
        lock.unlock();
        CHECK(client->stats().leases_retained == 1);
    }
    client.reset();
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
}

TEST_CASE("a retained lease that is lost is not used") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"name", client, {.ttl = 150ms, .retain = 150ms}};
    lock.lock();
    const std::uint64_t fence = lock.fence();
    lock.unlock();
    server.command({"SET", lock_key, "somebody else", "PX", "400"});
    CHECK(eventually([&] { return client.stats().leases_retained == 0; }));
    CHECK(client.stats().leases_lost == 0);
    lock.lock();
    CHECK(lock.fence() > fence);
    CHECK(lock.valid());
}

TEST_CASE("no thread in line sleeps on when the server does not answer the one that asks") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.patience = 300ms, .response_timeout = 100ms}};
    client.ping();
    server.stop();
    std::atomic<int> unavailable{0};
    const auto begin = std::chrono::steady_clock::now();
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 6; ++i) {
            threads.emplace_back([&] {
                RedisLock lock{"name", client};
                std::error_code code;
                lock.lock(code);
                if (code == LockErrc::backend_unavailable) ++unavailable;
            });
        }
    }
    const auto took = std::chrono::steady_clock::now() - begin;
    server.cont();
    CHECK(unavailable == 6);
    // One after the other they would take 1.8 s.
    CHECK(took < 1500ms);
}

TEST_CASE("a thread in line gets its turn when the hold of another is lost and never unlocked") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock lost{"name", client, {.ttl = 150ms}};
    lost.lock();
    const std::uint64_t fence = lost.fence();
    RedisLock lock{"name", client};
    std::atomic<bool> holds{false};
    std::uint64_t next = 0;
    std::jthread waiter{[&] {
        holds = lock.try_lock_for(20s);
        next = lock.fence();
    }};
    server.command({"DEL", lock_key});
    waiter.join();
    CHECK(holds);
    CHECK(next > fence);
    std::error_code code;
    lost.unlock(code);
    CHECK(code == LockErrc::lease_lost);
    CHECK(lock.valid());
}
