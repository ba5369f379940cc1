// SPDX-License-Identifier: MIT
//
// What each operation over Redis costs: the requests that the documentation promises are the ones
// that the server counts.

#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;
using test_support::RedisServer;
using test_support::scripts_run;

namespace {

/// A server and two clients that know its scripts and listen, as after a while.
struct Bench {
    RedisServer server{};
    RedisClient client{server.url()};
    RedisClient other{server.url()};

    /// How many requests `action` makes. A ping comes after them on the same connection, so all of
    /// them have been executed.
    template <class Action>
    std::uint64_t requests(Action action) {
        client.ping();
        other.ping();
        const std::uint64_t before = scripts_run(server);
        action();
        client.ping();
        other.ping();
        return scripts_run(server) - before;
    }
};

/// What all primitives promise alike. `take(client)`, `try_take(client)` and
/// `take_for(client, time)` give leases that exclude each other; `queue` is the key of those who
/// wait.
template <class Take, class TryTake, class TakeFor>
void check_leases(Bench& bench, const std::string& queue, Take take, TryTake try_take,
                  TakeFor take_for) {
    // The first wait of a client begins to listen; the first use of a script loads it.
    for (RedisClient* first : {&bench.client, &bench.other}) {
        RedisClient& second = first == &bench.client ? bench.other : bench.client;
        Lease lease = take(*first);
        CHECK(lease.renew());
        const auto wait = [&] { CHECK_FALSE(take_for(second, 20ms)); };
        CHECK(eventually([&] { return bench.requests(wait) == 2; }));
        CHECK(lease.release());
    }

    Lease lease;
    CHECK(bench.requests([&] { lease = take(bench.client); }) == 1);
    CHECK(bench.requests([&] { CHECK_FALSE(try_take(bench.other)); }) == 1);
    CHECK(bench.requests([&] { CHECK(lease.renew()); }) == 1);
    // It asks, stands in line, and gives up.
    const auto wait = [&] { CHECK_FALSE(take_for(bench.other, 20ms)); };
    CHECK(bench.requests(wait) == 2);
    CHECK(bench.requests([&] { CHECK(lease.release()); }) == 1);
    CHECK(bench.requests([&] { CHECK_THROWS(lease.release()); }) == 0);
    CHECK(bench.requests([&] { CHECK(try_take(bench.client)); }) == 2);  // and gives it back

    // A hand-over: one asks and waits; the release of the other makes it the holder.
    const std::uint64_t grants = bench.other.stats().grants;
    lease = take(bench.client);
    CHECK(bench.requests([&] {
        std::jthread waiter{[&] { lease = take(bench.other); }};
        REQUIRE(eventually([&] { return bench.server.command({"ZCARD", queue}).number == 1; }));
        Lease mine = std::move(lease);
        CHECK(mine.release());
    }) == 2);
    CHECK(lease.valid());
    CHECK(bench.other.stats().grants == grants + 1);

    // The destructor sends one, and does not wait for the answer.
    CHECK(bench.requests([&] {
        bench.server.stop();
        const auto begin = std::chrono::steady_clock::now();
        lease = Lease{};
        CHECK(std::chrono::steady_clock::now() - begin < 5s);
        bench.server.cont();
    }) == 1);
}

}  // namespace

TEST_CASE("A RedisLock costs what its documentation says") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto lock = [](const RedisClient& client) { return RedisLock{"name", client}; };
    check_leases(
        bench, "codomyrmex:lock:{name}:queue",
        [&](const RedisClient& client) { return lock(client).lease(); },
        [&](const RedisClient& client) { return lock(client).try_lease(); },
        [&](const RedisClient& client, auto time) { return lock(client).try_lease_for(time); });
    RedisLock mine{"name", bench.client};
    CHECK(bench.requests([&] { mine.lock(); }) == 1);
    CHECK(bench.requests([&] { mine.unlock(); }) == 1);
    CHECK(bench.requests([&] { mine.unlock(); }) == 0);
}

TEST_CASE("A RedisLock that is retained, or handed over in its process, costs nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    RedisLock kept{"kept", bench.client, {.retain = 10s}};
    kept.lock();
    kept.unlock();
    CHECK(bench.requests([&] {
        kept.lock();
        kept.unlock();
    }) == 0);
    // Four stand in line when the first lets go; the one that asks for them all reserves a fencing
    // token for each.
    RedisLock shared{"shared", bench.client};
    shared.lock();
    std::vector<std::jthread> threads;
    const std::uint64_t sent = bench.requests([&] {
        const std::uint64_t before = bench.client.stats().local_handovers;
        std::atomic<int> here{0};
        for (int i = 0; i < 4; ++i) {
            threads.emplace_back([&] {
                ++here;
                shared.lock();
                // Time for the others to stand in line.
                std::this_thread::sleep_for(20ms);
                shared.unlock();
            });
        }
        REQUIRE(eventually([&] { return here == 4; }));
        shared.unlock();
        threads.clear();
        CHECK(bench.client.stats().local_handovers >= before + 2);
    });
    // Five holds would be eight requests from here on: the first was asked for before.
    CHECK(sent <= 5);
}

TEST_CASE("A RedisSemaphore costs what its documentation says") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto pool = [](const RedisClient& client) { return RedisSemaphore{"name", client, 3}; };
    // All three at a time, so that leases exclude each other.
    check_leases(
        bench, "codomyrmex:sem:{name}:queue",
        [&](const RedisClient& client) { return pool(client).lease(3); },
        [&](const RedisClient& client) { return pool(client).try_lease(3); },
        [&](const RedisClient& client, auto time) { return pool(client).try_lease_for(time, 3); });
    RedisSemaphore mine{"name", bench.client, 3};
    CHECK(bench.requests([&] { mine.acquire(2); }) == 1);
    CHECK(bench.requests([&] { CHECK(mine.try_acquire()); }) == 1);
    CHECK(bench.requests([&] { mine.release(3); }) == 2);  // one for each acquisition
    std::error_code error;
    CHECK(bench.requests([&] { mine.release(error); }) == 0);
    CHECK(error == LockErrc::not_held);
    CHECK(bench.requests([&] { mine.resize(4); }) == 1);
}

TEST_CASE("A RedisReadWriteLock costs what its documentation says") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto lock = [](const RedisClient& client) { return RedisReadWriteLock{"name", client}; };
    const std::string queue = "codomyrmex:rw:{name}:queue";
    check_leases(
        bench, queue, [&](const RedisClient& client) { return lock(client).write(); },
        [&](const RedisClient& client) { return lock(client).try_write(); },
        [&](const RedisClient& client, auto time) { return lock(client).try_write_for(time); });
    RedisReadWriteLock mine{"name", bench.client};
    Lease reader;
    Lease second;
    CHECK(bench.requests([&] { reader = mine.read(); }) == 1);
    CHECK(bench.requests([&] { second = mine.try_read(); }) == 1);
    CHECK(bench.requests([&] { CHECK_FALSE(mine.try_upgrade(reader)); }) == 1);
    CHECK(bench.requests([&] { CHECK(second.release()); }) == 1);
    CHECK(bench.requests([&] { CHECK(mine.try_upgrade(reader)); }) == 1);
    CHECK(bench.requests([&] { mine.downgrade(reader); }) == 1);
    CHECK(bench.requests([&] { CHECK(reader.release()); }) == 1);
    CHECK(bench.requests([&] { mine.lock_shared(); }) == 1);
    CHECK(bench.requests([&] { mine.unlock_shared(); }) == 1);
    CHECK(bench.requests([&] { mine.unlock_shared(); }) == 0);
}
