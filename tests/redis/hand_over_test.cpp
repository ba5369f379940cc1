// SPDX-License-Identifier: MIT
//
// What the engine promises of waiting, against real servers and processes: first come first served,
// in two commands a hand-over; nobody waits longer for a holder that died than its time to live,
// nor for a waiter that died or stopped than a grant's; threads of one process hand the lock to
// each other; what is retained is given up to whoever wants it.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
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
    const LeaseOptions options{.max_local_handovers = 0};
    bool told_none = false;
    // Only a thread that came to stand in line in time tells anything; a busy machine may be slow.
    for (int attempt = 0; attempt < 20 && !told_none; ++attempt) {
        RedisClient client{server.url(), {.response_timeout = 20s}};
        RedisLock lock{"name", client, options};
        lock.lock();
        std::optional<bool> obtained;
        std::error_code error;
        std::thread other{[&] {
            RedisLock same{"name", client, options};
            obtained = same.try_lock_for(300ms, error);
        }};
        std::this_thread::sleep_for(50ms);
        server.stop();
        lock.unlock();  // Now the other asks, and has no answer before its time is over.
        other.join();
        server.cont();
        told_none = obtained == false && !error;
    }
    CHECK(told_none);
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
