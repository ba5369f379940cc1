// SPDX-License-Identifier: MIT
//
// What the engine promises of waiting, against real servers and processes: first come first served,
// in two commands a hand-over; nobody waits longer for a holder that died than its time to live,
// nor for a waiter that died or stopped than a grant's. How threads of one process hand the lock to
// each other is local_turns_test.cpp's.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::eventually;

namespace {

const std::string& lock_key = waited_for_key();

}  // namespace

TEST_CASE("processes are served in the order of their arrival, for two commands each") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr int processes = 12;
    RedisServer server;
    WaitingLine line{server, processes};
    line.open();
    CHECK(line.all_end_well());
    CHECK(line.holder().wait()->code == 0);
    const auto served = line.served();
    REQUIRE(served.size() == processes);
    std::uint64_t last = 0;
    for (int i = 0; const Served& each : served) {
        CHECK(each.who == std::to_string(i++));
        CHECK(each.fence > last);
        last = each.fence;
    }
    // One to find it held, one to stand in line once grants can be heard, one to give it back;
    // who waits for more than a second asks once more.
    CHECK(scripts_run(server) <= 2 + processes * 5);
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
    CHECK(waiting(server) == 0);
}

TEST_CASE("a hand-over costs an acquire and a release, however many wait") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    CHECK(take_turns(server, 6, 100));
    const auto calls = scripts_run(server);
    CAPTURE(calls);
    CHECK(calls >= 1200);
    CHECK(calls <= 1320);
}

TEST_CASE("a holder that is killed delays the next by no more than its time to live") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    auto holder = Process::run([&] {
        RedisClient client{server.url()};
        RedisLock lock{"name", client, {.ttl = 700ms}};
        const Lease lease = lock.lease();
        std::this_thread::sleep_for(1h);
        return 0;
    });
    REQUIRE(eventually([&] { return server.command({"EXISTS", lock_key}).number == 1; }));
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    std::jthread waiter{[&] { lock.lock(); }};
    REQUIRE(eventually([&] { return waiting(server) == 1; }));
    const auto killed = std::chrono::steady_clock::now();
    holder.signal(SIGKILL);
    waiter.join();
    // The machine may be busy; without the rule it would take ten seconds.
    CHECK(std::chrono::steady_clock::now() - killed < 700ms + 1s);
    CHECK(lock.valid());
}

TEST_CASE("a waiter that is killed is passed over, one that is stopped after its grant's time") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const TempDir directory;
    const std::string path = directory.file("fences");
    const ClientOptions options{.grant_ttl = 300ms};
    auto first = waiter(server.url(), path, "first", options);
    REQUIRE(first.wait()->code == 0);  // so that the lock is free, and a fence was drawn

    std::optional<RedisClient> client{std::in_place, server.url(), options};
    RedisLock lock{"name", *client};
    auto holder = Process::run([&] {
        RedisClient own{server.url(), options};
        RedisLock mine{"name", own};
        const Lease lease = mine.lease();
        write_line(directory.file("held"), "held");
        return eventually([&] { return !lines_of(directory.file("go")).empty(); }) ? 0 : 1;
    });
    REQUIRE(eventually([&] { return !lines_of(directory.file("held")).empty(); }));
    auto second = waiter(server.url(), path, "second", options);
    REQUIRE(eventually([&] { return waiting(server) == 1; }));
    std::jthread third{[&] { lock.lock(); }};
    REQUIRE(eventually([&] { return waiting(server) == 2; }));
    const bool killed = GENERATE(true, false);
    second.signal(killed ? SIGKILL : SIGSTOP);
    const auto begin = std::chrono::steady_clock::now();
    write_line(directory.file("go"), "go");
    third.join();
    CHECK(std::chrono::steady_clock::now() - begin < 300ms + 1s);
    CHECK(lock.valid());
    const std::uint64_t fence = lock.fence();
    if (!killed) {
        second.cont();
        // It stands in line again, behind us: a grant that ran out meanwhile was not taken.
        CHECK(eventually([&] { return waiting(server) == 1; }));
        CHECK(lines_of(path).size() == 1);
        CHECK(lock.valid());
        lock.unlock();
        REQUIRE(second.wait()->code == 0);
        const auto lines = lines_of(path);
        REQUIRE(lines.size() == 2);
        CHECK(Served::from(lines[1]).fence > fence);
    }
    CHECK(holder.wait()->code == 0);
}

TEST_CASE(
    "a holder that is stopped past its time finds its lease lost, and leaves the next alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const TempDir directory;
    auto stopped = Process::run([&] {
        RedisClient client{server.url()};
        RedisLock lock{"name", client, {.ttl = 300ms}};
        Lease lease = lock.lease();
        write_line(directory.file("held"), std::to_string(lease.fence()));
        if (!eventually([&] { return !lines_of(directory.file("go")).empty(); })) return 1;
        if (lease.valid()) return 2;
        if (!eventually([&] { return lease.stop_token().stop_requested(); })) return 3;
        return lease.release() ? 4 : 0;
    });
    REQUIRE(eventually([&] { return !lines_of(directory.file("held")).empty(); }));
    stopped.signal(SIGSTOP);
    RedisClient client{server.url()};
    RedisLock lock{"name", client};
    REQUIRE(lock.try_lock_for(20s));
    CHECK(lock.fence() > std::stoull(lines_of(directory.file("held"))[0]));
    write_line(directory.file("go"), "go");
    stopped.cont();
    CHECK(stopped.wait()->code == 0);
    CHECK(lock.valid());
    CHECK(server.command({"EXISTS", lock_key}).number == 1);
}

TEST_CASE("time-outs, stop requests and destruction leave no waiter and no lock behind") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient one{server.url()};
    RedisLock held{"name", one};
    held.lock();
    {
        RedisClient two{server.url()};
        RedisLock lock{"name", two};
        CHECK_FALSE(lock.try_lock_for(50ms));
        CHECK(eventually([&] { return waiting(server) == 0; }));
        std::stop_source source;
        std::atomic<int> obtained{0};
        // One of them stands in the server's line, the others in the process'.
        std::vector<std::jthread> threads;
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] { obtained += lock.lock(source.get_token()) ? 1 : 0; });
        }
        CHECK(eventually([&] { return waiting(server) == 1; }));
        source.request_stop();
        threads.clear();
        CHECK(obtained == 0);
        CHECK_FALSE(lock.lock(source.get_token()));
    }
    CHECK(eventually([&] { return waiting(server) == 0; }));
    CHECK(held.valid());
    held.unlock();
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }));
}

TEST_CASE("hundreds of leases are renewed together, in few writes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::vector<Lease> leases;
    for (int i = 0; i < 300; ++i)
        leases.push_back(RedisLock{std::to_string(i), client, {.ttl = 3s}}.lease());
    const auto before = client.stats();
    CHECK(eventually([&] { return client.stats().renewals >= 900; }));
    const auto after = client.stats();
    CAPTURE(after.writes - before.writes);
    CHECK(after.writes - before.writes < 150);
    for (const Lease& lease : leases)
        CHECK(lease.valid());
    CHECK(after.leases_lost == 0);
}

TEST_CASE("connections that are killed again and again cost no lock and no waiter") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient one{server.url()};
    RedisClient two{server.url()};
    std::atomic<int> inside{0};
    std::atomic<int> together{0};
    std::atomic<int> failed{0};
    std::atomic<long> total{0};
    std::atomic<bool> done{false};
    std::vector<std::jthread> threads;
    for (int i = 0; i < 8; ++i) {
        threads.emplace_back([&, i] {
            RedisLock lock{"name", i % 2 == 0 ? one : two};
            while (!done) {
                std::error_code code;
                const auto lease = lock.try_lease_for(20s, code);
                if (!lease) {
                    ++failed;
                    continue;
                }
                together += inside.fetch_add(1);
                ++total;
                --inside;
            }
        });
    }
    for (int i = 0; i < 40; ++i) {
        std::this_thread::sleep_for(25ms);
        server.command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
        server.command({"CLIENT", "KILL", "TYPE", "pubsub"});
    }
    done = true;
    threads.clear();
    CHECK(together == 0);
    CHECK(failed == 0);
    CHECK(total > 100);
    CHECK(eventually([&] { return server.command({"EXISTS", lock_key}).number == 0; }, 60s));
}
