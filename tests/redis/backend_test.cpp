// SPDX-License-Identifier: MIT
//
// LockManager over Redis: managers of different clients hand out the same locks.

#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/backend.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;
using test_support::RedisServer;

TEST_CASE("managers of two clients exclude each other, name by name") {
    RedisServer server;
    LockManager one{RedisBackend{RedisClient{server.url()}}};
    LockManager two{RedisBackend{RedisClient{server.url()}}};
    auto guard = one.lock("a");
    CHECK_FALSE(two.try_lock("a"));
    CHECK_FALSE(two.try_lock_for("a", 20ms));
    CHECK(two.try_lock("b"));
    const auto fence = guard.fence();
    guard.unlock();
    const auto next = two.try_lock_for("a", 5s);
    CHECK(next.fence() > fence);
    CHECK(one.stats().active == 0);
    CHECK(two.stats().active == 1);
    CHECK(two.stats().timeouts == 1);
}

TEST_CASE("several locks are taken all or not at all") {
    RedisServer server;
    LockManager one{RedisBackend{RedisClient{server.url()}}};
    LockManager two{RedisBackend{RedisClient{server.url()}}};
    {
        const auto all = one.lock_all({"c", "a", "b", "a"});
        CHECK(all.size() == 3);
        CHECK_FALSE(two.try_lock("b"));
    }
    const auto b = two.lock("b");
    CHECK_FALSE(one.try_lock_all_for({"a", "b", "c"}, 50ms));
    CHECK(two.try_lock("a"));
    CHECK(two.try_lock("c"));
}

TEST_CASE("threads that lock several in any order do not block each other for good") {
    RedisServer server;
    RedisClient client{server.url()};
    LockManager one{RedisBackend{client}};
    LockManager two{RedisBackend{client}};
    int total = 0;
    std::thread other{[&] {
        for (int i = 0; i < 20; ++i) {
            const auto both = two.lock_all({"a", "b"});
            ++total;
        }
    }};
    for (int i = 0; i < 20; ++i) {
        const auto both = one.lock_all({"b", "a"});
        ++total;
    }
    other.join();
    CHECK(total == 40);
}

TEST_CASE("a lock of the user's own stands beside those of Redis, and the other way round") {
    RedisServer server;
    RedisClient client{server.url()};
    LockManager over_redis{RedisBackend{client}};
    TimedLocalLock mine{"mine"};
    over_redis.register_lock("mine", mine);
    {
        const auto guard = over_redis.lock("mine");
        CHECK(guard.fence() == 0);
        CHECK_FALSE(mine.try_lock());
    }
    LockManager local;
    RedisLock shared{"shared", client};
    local.register_lock("shared", shared);
    {
        const auto guard = local.lock("shared");
        CHECK(server.command({"EXISTS", "codomyrmex:lock:{shared}"}).number == 1);
    }
    // An unlock does not wait for the server.
    const auto begin = std::chrono::steady_clock::now();
    while (server.command({"EXISTS", "codomyrmex:lock:{shared}"}).number != 0 &&
           std::chrono::steady_clock::now() - begin < 10s) {
        std::this_thread::sleep_for(1ms);
    }
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{shared}"}).number == 0);
}

TEST_CASE("a handle is a lock, and a guard tells that its lease was lost") {
    RedisServer server;
    LockManager manager{RedisBackend{RedisClient{server.url()}, {.ttl = 100ms}}};
    auto handle = manager.get_lock("a");
    {
        const std::scoped_lock guard{handle};
        CHECK(server.command({"EXISTS", "codomyrmex:lock:{a}"}).number == 1);
    }
    auto guard = manager.lock("a");
    server.command({"DEL", "codomyrmex:lock:{a}"});
    const auto begin = std::chrono::steady_clock::now();
    while (guard.valid() && std::chrono::steady_clock::now() - begin < 10s)
        std::this_thread::sleep_for(1ms);
    std::error_code code;
    guard.unlock(code);
    CHECK(code == LockErrc::lease_lost);
    guard.unlock(code);
    CHECK(code == LockErrc::not_held);
    CHECK(manager.stats().lost == 1);
}

TEST_CASE("a guard's destructor does not wait for a server that does not answer") {
    RedisServer server;
    LockManager manager{RedisBackend{RedisClient{server.url()}}};
    auto all = manager.lock_all({"a", "b", "c", "d", "e", "f", "g", "h"});
    server.stop();
    const auto begin = std::chrono::steady_clock::now();
    all.unlock();
    CHECK(std::chrono::steady_clock::now() - begin < 500ms);
    server.cont();
}

TEST_CASE("options out of bounds are refused when the backend is made") {
    RedisClient client{"redis://localhost:1"};
    CHECK_THROWS_AS((RedisBackend{client, {.ttl = 1ms}}), LockError);
    LockManager manager{RedisBackend{client}};
    CHECK_THROWS_AS(manager.lock(""), LockError);
    CHECK_THROWS_AS(manager.lock(std::string(513, 'x')), LockError);
}

TEST_CASE("a manager tells hand-overs by another process from those between its threads") {
    RedisServer server;
    RedisClient other{server.url()};
    RedisLock held{"a", other};
    LockManager manager{RedisBackend{RedisClient{server.url()}}};
    held.lock();
    {
        std::vector<std::jthread> threads;
        // The first stands in the server's queue, and asks for one fencing token. So the second
        // asks anew, with the third behind it, to which it hands the lock without a word to the
        // server.
        for (std::size_t i = 1; i <= 3; ++i) {
            threads.emplace_back([&] { const auto guard = manager.lock("a"); });
            REQUIRE(support::eventually([&] { return manager.stats().waiting == i; }));
            REQUIRE(support::eventually([&] { return other.waiters("a").size() == 1; }));
        }
        held.unlock();
    }
    const auto entry = manager.stats("a");
    REQUIRE(entry.has_value());
    CHECK(entry->acquisitions == 3);
    CHECK(entry->contended == 3);
    CHECK(entry->remote_handovers == 1);
    CHECK(entry->local_handovers == 1);
    const LockManagerStats stats = manager.stats();
    CHECK(stats.remote_handovers == 1);
    CHECK(stats.local_handovers == 1);
    CHECK(stats.waits.count() == 3);
    CHECK(stats.holds.count() == 3);
}

TEST_CASE("a lease that was taken away is told to the manager's hook at its release") {
    RedisServer server;
    RedisClient client{server.url()};
    std::vector<std::string> lost;
    LockManager manager{
        RedisBackend{client, {.ttl = 300ms}},
        {.hooks = {.on_lost = [&](const LockEvent& event) {
             lost.push_back(std::string{event.name} + ' ' + std::to_string(event.fence));
         }}}};
    auto guard = manager.lock("a");
    const auto fence = guard.fence();
    CHECK(client.force_release("a", client.holder("a").value()));
    CHECK(support::eventually([&] { return !guard.valid(); }));
    guard.unlock();
    CHECK(lost == std::vector<std::string>{"a " + std::to_string(fence)});
    CHECK(manager.stats().lost == 1);
}

TEST_CASE("Several locks are taken by one request and given back by another") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    LockManager manager{RedisBackend{client, {.ttl = 10s}}};
    LockManager other{RedisBackend{client, {.ttl = 10s}}};
    const auto held = [&] {
        return server
            .command({"EXISTS", "codomyrmex:lock:{a}", "codomyrmex:lock:{b}", "codomyrmex:lock:{c}",
                      "codomyrmex:lock:{d}"})
            .number;
    };
    (void)manager.lock_all({"a", "b", "c", "d"});
    REQUIRE(eventually([&] { return held() == 0 && client.stats().releases_pending == 0; }));
    const auto before = client.stats();
    {
        auto all = manager.lock_all({"d", "b", "a", "c", "a"});
        REQUIRE(all);
        CHECK(all.size() == 4);
        CHECK(held() == 4);
        for (const auto& guard : all) {
            CHECK(guard.valid());
            CHECK(guard.fence() != 0);
        }
        // Of this process, of another manager: nobody gets a part, nor need the server be asked.
        CHECK_FALSE(other.try_lock_all({"x", "a"}));
        CHECK(server.command({"EXISTS", "codomyrmex:lock:{x}"}).number == 0);
        CHECK(client.stats().requests - before.requests == 1);
        CHECK_FALSE(other.try_lock_all_for({"x", "a"}, 20ms));
    }
    CHECK(eventually([&] { return held() == 0 && client.stats().releases_pending == 0; }));
    const auto after = client.stats();
    CHECK(after.requests - before.requests == 2);
    CHECK(after.writes - before.writes == 2);
    CHECK(after.leases_watched == 0);
    CHECK(other.try_lock_all({"x", "a"}));
}

TEST_CASE("Several locks come together also where the server has forgotten the scripts") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    LockManager manager{RedisBackend{client, {.ttl = 10s}}};
    const auto free = [&] {
        return server.command({"EXISTS", "codomyrmex:lock:{a}", "codomyrmex:lock:{b}"}).number == 0;
    };
    for (int i = 0; i < 3; ++i) {
        {
            const auto both = manager.lock_all({"a", "b"});
            CHECK(both.size() == 2);
            server.command({"SCRIPT", "FLUSH"});
        }
        CHECK(eventually(free));
        CHECK(eventually([&] { return client.stats().releases_pending == 0; }));
        server.command({"SCRIPT", "FLUSH"});
    }
    CHECK(client.stats().leases_lost == 0);
}

TEST_CASE("Of several locks, one that is retained here needs no word from the server") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    LockManager manager{RedisBackend{client, {.ttl = 10s, .retain = 10s}}};
    std::uint64_t first = 0;
    {
        const auto one = manager.lock("a");
        first = one.fence();
    }
    REQUIRE(eventually([&] { return client.stats().leases_retained == 1; }));
    const auto before = client.stats();
    {
        const auto both = manager.lock_all({"a", "b"});
        REQUIRE(both.size() == 2);
        for (const auto& guard : both) {
            CHECK(guard.valid());
            if (guard.name() == "a") CHECK(guard.fence() == first + 1);
        }
    }
    CHECK(client.stats().leases_retained == 2);
    CHECK((void(manager.lock_all({"a", "b"})), client.stats().requests - before.requests == 1));
}

TEST_CASE("Several locks, of which one is held elsewhere, are had when that comes free") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient one{server.url()};
    RedisClient two{server.url()};
    LockManager first{RedisBackend{one}};
    LockManager second{RedisBackend{two}};
    auto held = first.lock("b");
    std::jthread waiter{[&] {
        auto all = second.lock_all({"a", "b", "c"});
        CHECK(all);
    }};
    REQUIRE(eventually([&] {
        return server.command({"ZCARD", "codomyrmex:lock:{b}:queue"}).number == 1;
    }));
    // Who waits holds nothing.
    CHECK(first.try_lock_all({"a", "c"}));
    held.unlock();
    waiter.join();
}

TEST_CASE("A server that cannot answer is an error of several locks, too") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.patience = 100ms}};
    LockManager manager{RedisBackend{client}};
    server.command({"SET", "codomyrmex:lock:{b}", "not ours"});
    std::error_code code;
    CHECK_FALSE(manager.try_lock_all({"a", "b"}, code));
    CHECK(code == LockErrc::foreign_key);
    CHECK_FALSE(manager.lock_all({"a", "b"}, code));
    CHECK(code == LockErrc::foreign_key);
    CHECK(eventually([&] {
        return server.command({"EXISTS", "codomyrmex:lock:{a}"}).number == 0;
    }));
    server.kill();
    CHECK_FALSE(manager.lock_all({"a", "c"}, code));
    CHECK(code == LockErrc::backend_unavailable);
}

TEST_CASE("Who waits for several locks has as much patience with the server as for one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.patience = 20s, .response_timeout = 200ms}};
    LockManager manager{RedisBackend{client}};
    (void)manager.lock_all({"a", "b"});
    server.stop();
    std::atomic<bool> tried{false};
    std::jthread waiter{[&] {
        const auto both = manager.lock_all({"a", "b"});
        tried = both.size() == 2;
    }};
    // What it asked for together is to be taken back: it asks for one after the other now.
    CHECK(eventually([&] { return client.stats().releases_pending > 0; }));
    CHECK_FALSE(tried);
    server.cont();
    waiter.join();
    CHECK(tried);
}

TEST_CASE("Several locks that the server says nothing about are an error, not contention") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.response_timeout = 200ms}};
    LockManager manager{RedisBackend{client}};
    (void)manager.lock_all({"a", "b"});
    server.stop();
    std::error_code code;
    CHECK_FALSE(manager.try_lock_all_for({"a", "b"}, 50ms, code));
    CHECK(code == LockErrc::backend_unavailable);
    CHECK_FALSE(manager.try_lock_all({"a", "b"}, code));
    CHECK(code == LockErrc::backend_unavailable);
    server.cont();
    CHECK(manager.lock_all({"a", "b"}).size() == 2);
}

TEST_CASE("A hook that locks while several are given back need not wait for them") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisLock other{"x", client, {.ttl = 30s}};
    std::atomic<int> locked{0};
    LockManagerOptions options;
    options.hooks.on_lost = [&](const LockEvent&) {
        for (int i = 0; i < 2; ++i) {
            if (!other.try_lock_for(5s)) return;
            other.unlock();
            ++locked;
        }
    };
    LockManager manager{RedisBackend{client, {.ttl = 300ms}}, options};
    auto all = manager.lock_all({"a", "b", "c"});
    REQUIRE(all.size() == 3);
    server.command({"DEL", "codomyrmex:lock:{b}"});
    REQUIRE(eventually([&] {
        return std::ranges::any_of(all, [](const auto& guard) { return !guard.valid(); });
    }));
    all.unlock();
    CHECK(locked == 2);
}
