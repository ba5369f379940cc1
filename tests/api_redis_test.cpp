// SPDX-License-Identifier: MIT
//
// The code that users are shown for the Redis half, as they are shown it, with the server's URL in
// place of localhost. What a snippet's comments say is checked.

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstdint>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

// The reader's own.
struct Store {
    std::uint64_t newest = 0;
    bool accepted = false;
    void write(int, std::uint64_t fence) {
        accepted = fence > newest;
        newest = fence;
    }
};

}  // namespace

TEST_CASE("a lock by URL, a lock by client, and the standard's guards") {
    test_support::RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    const std::string url = server.tcp_url();
    int updates = 0;
    const auto update_shared_state = [&] { ++updates; };

    RedisLock quick{"shared_resource", url};  // a client of its own
    RedisClient client{url};                  // or one for the whole process
    RedisLock lock{"shared_resource", client, {.ttl = 10s}};

    {
        std::scoped_lock guard{lock};
        update_shared_state();
    }  // renewed while held
    {
        std::scoped_lock guard{quick};
        update_shared_state();
    }
    CHECK(updates == 2);
    CHECK_FALSE(lock.valid());
}

TEST_CASE("the guard that knows it is a lease") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"shared_resource", client, {.ttl = 10s}};
    Store store;
    const int row = 1;
    bool worked = false;
    const auto work = [&](std::stop_token token) { worked = !token.stop_requested(); };

    if (auto lease = lock.try_lease_for(2s)) {  // the guard that knows it is a lease
        store.write(row, lease.fence());        // strictly increasing for this name
        CHECK(lease.valid());
        CHECK((lease.remaining() > 9s && lease.remaining() < 10s));
        work(lease.stop_token());  // stop is requested the moment it is lost
        CHECK(lease.release());    // says whether it was still ours
    }
    CHECK(store.accepted);
    CHECK(worked);
    const auto first = store.newest;
    if (auto lease = lock.try_lease_for(2s)) store.write(row, lease.fence());
    CHECK(store.accepted);
    CHECK(store.newest > first);
}

TEST_CASE("the registry over Redis") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    LockManager redis_manager{RedisBackend{client, {.ttl = 10s}}};  // the same registry over Redis
    auto guard = redis_manager.lock("resource_a");  // guard.fence(), guard.stop_token() here too
    CHECK(guard.owns_lock());
    CHECK(guard.valid());
    CHECK(guard.fence() > 0);
    CHECK_FALSE(guard.stop_token().stop_requested());
    CHECK(guard.name() == "resource_a");
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{resource_a}"}).number == 1);
}

TEST_CASE("re-entrance for the thread that holds it") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    Recursive<RedisLock> tree{"tree", client};  // reentrant for the thread that holds it
    {
        std::scoped_lock outer{tree};
        std::scoped_lock inner{tree};
        CHECK(tree.depth() == 2);
    }
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{tree}"}).number == 0);
}

TEST_CASE("who holds it, what there is, and taking it away") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    RedisLock lock{"shared_resource", client};
    const Lease lease = lock.lease();

    auto who = client.holder("shared_resource");  // optional: host, pid, thread, label, since, ...
    REQUIRE(who.has_value());
    CHECK(who->fence == lease.fence());
    CHECK(client.list("shared_*").size() == 1);  // SCAN, never KEYS
    if (auto seen = client.holder("shared_resource")) {
        client.force_release("shared_resource", *seen);  // only if it is still the one seen
    }
    CHECK_FALSE(client.holder("shared_resource").has_value());

    RedisSemaphore pool{"pool", client, 5, {.label = "stuck"}};
    RedisSemaphore others{"pool", client, 5};
    const Lease stuck = pool.lease(3);
    const Lease well = others.lease();
    for (const Holder& each : client.holders("pool", PrimitiveKind::semaphore)) {
        if (each.label == "stuck") client.force_release("pool", each);  // and no others' permits
    }
    const auto left = client.holders("pool", PrimitiveKind::semaphore);
    REQUIRE(left.size() == 1);
    CHECK(left[0].token == well.token());
}

TEST_CASE("a semaphore among processes") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 5};  // a permit whose holder dies comes back by itself
    {
        Permit permit{pool, 2s};  // the same Permit as over LocalSemaphore
        CHECK(permit.valid());
        CHECK(server.command({"ZCARD", "codomyrmex:sem:{pool}"}).number == 1);
        CHECK_FALSE(pool.try_acquire(5));
    }
    CHECK(pool.try_lease_for(5s, 5));
}

TEST_CASE("a read-write lock among processes") {
    test_support::RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client};  // read(), write(): leases
    {
        auto a = config.read();
        auto b = config.try_read_for(2s);
        CHECK((a.valid() && b.valid()));
        CHECK_FALSE(config.try_write());
    }
    auto w = config.write();
    CHECK(w.valid());
    CHECK_FALSE(config.try_read());
    CHECK(w.release());
}
