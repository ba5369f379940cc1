// SPDX-License-Identifier: MIT
//
// Tests of semaphore.hpp against real servers and processes.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/permit.hpp>
#include <codomyrmex/concurrency/redis/backend.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::error_of;
using support::eventually;
using test_support::Process;
using test_support::RedisServer;

namespace {

const std::string key = "codomyrmex:sem:{pool}";

long long out(RedisServer& server) {
    return server.command({"ZCARD", key}).number;
}
long long waiting(RedisServer& server) {
    return server.command({"ZCARD", key + ":queue"}).number;
}

}  // namespace

TEST_CASE("A semaphore over Redis has the verbs of the standard's, and gives no more than it has") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 3, {.ttl = 10s}};
    RedisSemaphore other{"pool", client, 3};
    CHECK(pool.permits() == 3);
    pool.acquire();
    other.acquire(2);
    CHECK(pool.held() == 1);
    CHECK(other.held() == 2);
    CHECK_FALSE(pool.try_acquire());
    CHECK_FALSE(pool.try_acquire_for(20ms));
    CHECK_FALSE(pool.try_acquire_until(std::chrono::steady_clock::now() - 1s));
    other.release(2);
    CHECK(pool.try_acquire_for(5s, 2));
    CHECK_FALSE(other.try_acquire());
    pool.release(3);
    CHECK(pool.held() == 0);
    CHECK(other.try_acquire_for(5s, 3));
    other.release(3);
    CHECK(eventually([&] { return out(server) == 0; }));
}

TEST_CASE("What is wrong is said, and nothing is sent for it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    const auto make = [&](std::string_view name, std::ptrdiff_t permits, LeaseOptions options) {
        return error_of([&] { RedisSemaphore{name, client, permits, std::move(options)}; });
    };
    CHECK(make("pool", 0, {}) == LockErrc::invalid_argument);
    CHECK(make("pool", -1, {}) == LockErrc::invalid_argument);
    CHECK(make("pool", RedisSemaphore::max() + 1, {}) == LockErrc::invalid_argument);
    CHECK(make("", 1, {}) == LockErrc::invalid_argument);
    CHECK(make("pool", 1, {.ttl = 1s, .retain = 1s}) == LockErrc::invalid_argument);

    RedisSemaphore pool{"pool", client, 3};
    CHECK(error_of([&] { pool.release(); }) == LockErrc::not_held);
    CHECK(error_of([&] { pool.release(-1); }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { pool.acquire(4); }) == LockErrc::invalid_argument);
    CHECK(error_of([&] { pool.acquire(0); }) == LockErrc::invalid_argument);
    CHECK(client.stats().requests == 0);
    pool.acquire(2);
    CHECK(error_of([&] { pool.release(1); }) == LockErrc::not_held);
    CHECK(pool.held() == 2);
    pool.release(2);
    std::error_code code;
    pool.release(code);
    CHECK(code == LockErrc::not_held);
}

TEST_CASE("A count that differs from the one in use is a mismatch that names both") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore five{"pool", client, 5};
    RedisSemaphore seven{"pool", client, 7};
    five.acquire();
    try {
        (void)seven.try_acquire();
        FAIL("it was acquired");
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::mismatch);
        CHECK(std::string{error.what()}.find("has 5 permits, not 7") != std::string::npos);
    }
    five.resize(7);
    CHECK(five.permits() == 7);
    CHECK(seven.try_acquire_for(5s, 6));
    CHECK_FALSE(five.try_acquire());
    seven.release(6);
    five.release();
}

TEST_CASE("A semaphore that has become smaller than what it holds gives all of that back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    {
        RedisSemaphore pool{"pool", client, 5};
        pool.acquire(4);
        pool.resize(2);
        CHECK(pool.held() == 4);
    }
    CHECK(eventually([&] { return out(server) == 0; }));
    CHECK(client.stats().leases_watched == 0);
}

TEST_CASE("A Permit over it is a lease, and may outlive the semaphore") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::optional<Permit<RedisSemaphore>> kept;
    {
        RedisSemaphore pool{"pool", client, 1};
        Permit permit{pool};
        CHECK(permit.valid());
        CHECK(permit.fence() != 0);
        CHECK(permit.remaining() > 10s);
        CHECK_FALSE(Permit(pool, std::try_to_lock));
        CHECK_FALSE(Permit(pool, 10ms));
        kept.emplace(std::move(permit));
    }
    CHECK(kept->valid());
    CHECK(kept->release());
    CHECK(eventually([&] { return out(server) == 0; }));
}

TEST_CASE("Waiters are served in the order of their arrival, a large request too") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 3};
    pool.acquire(2);
    std::atomic<int> turn{0};
    std::atomic<int> large{0};
    std::atomic<int> small{0};
    std::jthread first{[&] {
        RedisSemaphore mine{"pool", client, 3};
        mine.acquire(3);
        large = ++turn;
        mine.release(3);
    }};
    REQUIRE(eventually([&] { return waiting(server) == 1; }));
    std::jthread second{[&] {
        RedisSemaphore mine{"pool", client, 3};
        mine.acquire();
        small = ++turn;
        mine.release();
    }};
    REQUIRE(eventually([&] { return waiting(server) == 2; }));
    // One is free, and is kept for who came first.
    CHECK_FALSE(pool.try_acquire());
    pool.release(2);
    first.join();
    second.join();
    CHECK(large == 1);
    CHECK(small == 2);
    CHECK(eventually([&] { return out(server) == 0 && waiting(server) == 0; }));
}

TEST_CASE("Threads and processes never hold more permits than there are") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    constexpr std::ptrdiff_t permits = 3;
    std::vector<Process> others;
    for (int process = 0; process < 3; ++process) {
        others.push_back(Process::run([url = server.url()] {
            RedisClient client{url};
            RedisSemaphore pool{"pool", client, permits, {.ttl = 5s}};
            std::atomic<bool> wrong{false};
            std::vector<std::jthread> threads;
            for (int thread = 0; thread < 4; ++thread) {
                threads.emplace_back([&, thread] {
                    for (int i = 0; i < 30; ++i) {
                        Lease lease = pool.lease(1 + (thread + i) % 2);
                        if (!lease.valid() || lease.fence() == 0) wrong = true;
                        if (!lease.release()) wrong = true;
                    }
                });
            }
            threads.clear();
            return wrong ? 1 : 0;
        }));
    }
    long long most = 0;
    while (std::ranges::any_of(others, [](Process& each) { return each.running(); })) {
        const std::string used = server.command({"HGET", key + ":meta", "used"}).text;
        if (!used.empty()) most = std::max(most, std::stoll(used));
    }
    for (Process& each : others)
        CHECK(each.wait()->code == 0);
    CHECK(most <= permits);
    CHECK(most > 0);
    CHECK(out(server) == 0);
    CHECK(waiting(server) == 0);
}

TEST_CASE("The permit of a process that was killed comes back within its time to live") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    auto holder = Process::run([url = server.url()] {
        RedisClient client{url};
        RedisSemaphore pool{"pool", client, 2, {.ttl = 500ms}};
        pool.acquire();
        std::this_thread::sleep_for(60s);
        return 0;
    });
    REQUIRE(eventually([&] { return out(server) == 1; }));
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 2, {.ttl = 500ms}};
    pool.acquire();  // Is renewed, and does not keep the other's alive.
    holder.kill();
    CHECK(pool.try_acquire_for(5s));
    pool.release(2);
}

TEST_CASE("A permit that was lost is told, and given back first") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 2, {.ttl = 300ms}};
    pool.acquire();
    server.command({"DEL", key, key + ":meta"});
    REQUIRE(eventually([&] { return client.stats().leases_lost == 1; }));
    pool.acquire();
    CHECK(pool.held() == 2);
    CHECK(error_of([&] { pool.release(); }) == LockErrc::lease_lost);
    CHECK(pool.held() == 1);
    CHECK(error_of([&] { pool.release(); }) == std::error_code{});
}

TEST_CASE("A wait for a permit ends with its deadline or its stop token, and leaves nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 1};
    pool.acquire();
    CHECK_FALSE(pool.try_lease_for(30ms));
    CHECK(eventually([&] { return waiting(server) == 0; }));
    std::stop_source stop;
    std::jthread waiter{[&] { CHECK_FALSE(pool.acquire(stop.get_token())); }};
    REQUIRE(eventually([&] { return waiting(server) == 1; }));
    stop.request_stop();
    waiter.join();
    CHECK(eventually([&] { return waiting(server) == 0; }));
    pool.release();
}

TEST_CASE("An uncontended cycle costs two requests") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 1};
    // Before the connection stands nobody knows what the server has of our scripts.
    for (int i = 0; i < 2; ++i)
        CHECK(pool.lease().release());
    server.command({"CONFIG", "RESETSTAT"});
    for (int i = 0; i < 10; ++i) {
        Lease lease = pool.lease();
        CHECK(lease.release());
    }
    CHECK(server.command_stats("evalsha").calls == 20);
    CHECK(server.command_stats("eval").calls == 0);
}

TEST_CASE("A manager over Redis gives permits by name") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    LockManager manager{RedisBackend{client, {.ttl = 10s, .retain = 1s}}};
    {
        auto permit = manager.permit("pool", 1);
        CHECK(permit.valid());
        CHECK_FALSE(manager.try_permit("pool", 1));
        CHECK(error_of([&] { (void)manager.permit("pool", 2); }) == LockErrc::mismatch);
    }
    CHECK(manager.try_permit_for("pool", 1, 5s));
}
