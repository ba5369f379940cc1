// SPDX-License-Identifier: MIT
//
// What befalls those who hold permits of a RedisSemaphore or a RedisReadWriteLock, or wait for
// them: each fault by itself, against a real server and real processes.

#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::error_of;
using support::eventually;
using test_support::ExitStatus;
using test_support::lines_of;
using test_support::Pipe;
using test_support::Process;
using test_support::RedisServer;
using test_support::Served;
using test_support::TempDir;
using test_support::write_line;

namespace {

const std::string pool_key = "codomyrmex:sem:{pool}";
const std::string config_key = "codomyrmex:rw:{config}";

long long out(RedisServer& server, const std::string& key) {
    return server.command({"ZCARD", key}).number;
}
long long waiting(RedisServer& server, const std::string& key) {
    return server.command({"ZCARD", key + ":queue"}).number;
}

/// Lets threads take `small` turns again and again while another, ten times, takes a `large` one:
/// labelled "large", and kept from it by what `block` gives until those behind it wait, too.
/// Returns: how often one was served before the large one that asked when that stood in line.
template <class Small, class Large, class Block>
int times_overtaken(RedisServer& server, const std::string& key, Small small, Large large,
                    Block block) {
    std::atomic<int> standing{0};  // the turn of the large one that stands in line, or stood
    std::atomic<int> served{0};
    std::atomic<int> overtaken{0};
    std::atomic<bool> done{false};
    std::vector<std::jthread> stream;
    for (int i = 0; i < 3; ++i) {
        stream.emplace_back([&] {
            while (!done) {
                const int turn = standing;
                const Lease lease = small();
                if (turn > served) ++overtaken;
            }
        });
    }
    const auto large_stands = [&] {
        const auto line = server.command({"ZRANGE", key + ":queue", "0", "-1"}).elements;
        return std::ranges::any_of(
            line, [](const auto& waiter) { return waiter.text.ends_with(" large"); });
    };
    for (int turn = 1; turn <= 10; ++turn) {
        Lease blocker = block();
        std::jthread waiter{[&] {
            const Lease lease = large();
            served = turn;
        }};
        CHECK(eventually(large_stands));
        standing = turn;
        CHECK(eventually([&] { return waiting(server, key) == 4; }));
        CHECK(blocker.release());
    }
    done = true;
    return overtaken;
}

/// A process that takes two permits when its turn comes, says so, and gives them back.
Process pool_waiter(const std::string& url, const std::string& path, const std::string& who) {
    return Process::run([=] {
        RedisClient client{url};
        const Lease lease = RedisSemaphore{"pool", client, 5}.lease(2);
        write_line(path, who + ' ' + std::to_string(lease.fence()) + " 0");
        return lease.valid() ? 0 : 1;
    });
}

}  // namespace

TEST_CASE(
    "Of a line of thirty-two processes and its five holders a third is killed; the rest are "
    "served in order") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr int count = 32;
    constexpr std::chrono::milliseconds ttl{1000};
    RedisServer server;
    const TempDir directory;
    const std::string go = directory.file("go");
    const std::string order = directory.file("order");
    std::vector<Process> holders;
    for (int i = 0; i < 5; ++i) {
        holders.push_back(Process::run([&] {
            RedisClient client{server.url()};
            const Lease lease = RedisSemaphore{"pool", client, 5, {.ttl = ttl}}.lease();
            return eventually([&] { return !lines_of(go).empty(); }, 60s) && lease.valid() ? 0 : 1;
        }));
    }
    REQUIRE(eventually([&] { return out(server, pool_key) == 5; }));
    std::vector<Process> waiters;
    for (int i = 0; i < count; ++i) {
        waiters.push_back(pool_waiter(server.url(), order, std::to_string(i)));
        REQUIRE(eventually([&] { return waiting(server, pool_key) == i + 1; }));
    }
    std::vector<std::string> expected;
    for (int i = 0; i < count; ++i) {
        if (i % 3 == 0) {
            waiters[static_cast<std::size_t>(i)].kill();
        } else {
            expected.push_back(std::to_string(i));
        }
    }
    // Their two permits come back by themselves. Those who wait want two each, so that they are
    // served one after another and their fences tell the order.
    holders[0].kill();
    holders[1].kill();
    for (int i = 0; i < count; ++i) {
        if (i % 3 != 0) CHECK(waiters[static_cast<std::size_t>(i)].wait() == ExitStatus{0, 0});
    }
    std::vector<Served> served;
    for (const std::string& line : lines_of(order))
        served.push_back(Served::from(line));
    std::ranges::sort(served, {}, &Served::fence);
    std::vector<std::string> seen;
    for (const Served& each : served)
        seen.push_back(each.who);
    CHECK(seen == expected);

    CHECK(out(server, pool_key) == 3);
    write_line(go, "go");
    for (std::size_t i = 2; i < holders.size(); ++i)
        CHECK(holders[i].wait() == ExitStatus{0, 0});
    RedisClient client{server.url()};
    CHECK(RedisSemaphore{"pool", client, 5}.try_lease_for(5s, 5));
    CHECK(waiting(server, pool_key) == 0);
}

TEST_CASE("A holder that was stopped past its time has lost its permit, and others keep theirs") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Pipe pipe;
    Process stopped = Process::run([&] {
        RedisClient client{server.url()};
        RedisSemaphore pool{"pool", client, 2, {.ttl = 500ms}};
        Lease lease = pool.lease();
        pipe.send("held");
        const bool told = eventually([&] { return lease.stop_token().stop_requested(); }, 60s);
        return told && !lease.valid() && !lease.release() ? 0 : 1;
    });
    REQUIRE(pipe.receive() == "held");
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 2};
    Lease first = pool.lease();
    stopped.stop();
    Lease second = pool.try_lease_for(20s);
    REQUIRE(second);
    stopped.cont();
    CHECK(stopped.wait() == ExitStatus{0, 0});
    CHECK(first.release());
    CHECK(second.release());
    CHECK(out(server, pool_key) == 0);
}

TEST_CASE("A permit that was granted to a process that does not take it up goes on to the next") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    // Far less than the lease would last.
    const ClientOptions options{.grant_ttl = 300ms};
    const LeaseOptions lease_options{.ttl = 5min};
    Pipe go;
    Process waiter = Process::run([&] {
        RedisClient client{server.url(), options};
        RedisSemaphore pool{"pool", client, 2, lease_options};
        if (!go.receive()) return 1;
        const Lease lease = pool.lease();
        return 0;
    });
    RedisClient client{server.url(), options};
    RedisSemaphore pool{"pool", client, 2, lease_options};
    pool.acquire(2);
    go.send("go");
    REQUIRE(eventually([&] { return waiting(server, pool_key) == 1; }));
    waiter.stop();
    pool.release(2);
    REQUIRE(eventually([&] { return out(server, pool_key) == 1; }));
    SECTION("it was killed") {
        waiter.kill();
    }
    SECTION("it is stopped still") {}
    CHECK(pool.try_lease_for(60s, 2));
}

TEST_CASE("A large request is not overtaken by a stream of small ones") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.grant_ttl = 10s}};
    RedisSemaphore pool{"pool", client, 3};
    RedisSemaphore large{"pool", client, 3, {.label = "large"}};
    CHECK(times_overtaken(
              server, pool_key, [&] { return pool.lease(); }, [&] { return large.lease(3); },
              [&] { return pool.lease(); }) == 0);
    CHECK(client.stats().local_handovers == 0);
}

TEST_CASE("A reader is not overtaken by a stream of writers, nor a writer by one of readers") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url(), {.grant_ttl = 10s}};
    RedisReadWriteLock config{"config", client};
    RedisReadWriteLock large{"config", client, {.label = "large"}};
    const auto read = [&] { return config.read(); };
    const auto write = [&] { return config.write(); };
    CHECK(times_overtaken(
              server, config_key, write, [&] { return large.read(); }, write) == 0);
    CHECK(times_overtaken(
              server, config_key, read, [&] { return large.write(); }, read) == 0);
}

TEST_CASE("No writer comes between a writer and the reader that it becomes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisClient elsewhere{server.url()};
    RedisReadWriteLock config{"config", client};
    RedisReadWriteLock same{"config", elsewhere};
    std::atomic<int> value{0};  // guarded by the lock
    for (int turn = 1; turn <= 20; ++turn) {
        Lease lease = config.write();
        std::atomic<std::uint64_t> next_fence{0};
        std::jthread next{[&] {
            const Lease writer = same.write();
            next_fence = writer.fence();
            value = -1;
        }};
        REQUIRE(eventually([&] { return waiting(server, config_key) == 1; }));
        value = turn;
        config.downgrade(lease);
        const std::uint64_t fence = lease.fence();
        client.ping();  // whatever was granted with it has been granted by now
        CHECK(waiting(server, config_key) == 1);
        CHECK(value == turn);
        CHECK(lease.release());
        next.join();
        CHECK(next_fence > fence);
    }
}

TEST_CASE("The child of a fork has no part in its parent's permits") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisSemaphore pool{"pool", client, 2};
    pool.acquire();
    Lease lease = pool.lease();
    Process child = Process::run([&] {
        if (lease.valid() || lease.remaining() != 0ns || lease.release()) return 1;
        std::error_code error;
        pool.release(error);
        if (error != LockErrc::lease_lost) return 2;
        return pool.try_acquire() ? 3 : 0;
    });
    CHECK(child.wait() == ExitStatus{0, 0});
    CHECK(lease.valid());
    CHECK(out(server, pool_key) == 2);
    CHECK(lease.release());
    pool.release();
    CHECK(pool.try_lease_for(5s, 2));
}

TEST_CASE("The child of a fork converts none of its parent's leases, and sends nothing for it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    // Renewals of the parent's would be counted as well.
    RedisReadWriteLock config{"config", client, {.ttl = 10min}};
    RedisReadWriteLock other{"other", client, {.ttl = 10min}};
    Lease writer = config.write();
    Lease reader = other.read();
    const std::uint64_t written = writer.fence();
    const std::uint64_t read = reader.fence();
    const auto seen = [&] {
        std::vector<std::string> all;
        for (const std::string key : {"codomyrmex:rw:{config}", "codomyrmex:rw:{other}"}) {
            for (const auto& reply : {server.command({"ZRANGE", key, "0", "-1", "WITHSCORES"}),
                                      server.command({"HGETALL", key + ":meta"}),
                                      server.command({"GET", key + ":fence"})}) {
                all.push_back(reply.text);
                for (const auto& each : reply.elements)
                    all.push_back(each.text);
            }
        }
        return all;
    };
    const auto before = seen();
    const std::string connections = server.info("total_connections_received");
    const auto commands = std::stoull(server.info("total_commands_processed"));
    Process child = Process::run([&] {
        if (error_of([&] { config.downgrade(writer); }) != LockErrc::lease_lost) return 1;
        if (error_of([&] { (void)other.try_upgrade(reader); }) != LockErrc::lease_lost) return 2;
        std::error_code error;
        config.downgrade(writer, error);
        if (error != LockErrc::lease_lost) return 3;
        if (other.try_upgrade(reader, error) || error != LockErrc::lease_lost) return 4;
        if (writer.fence() != written || reader.fence() != read) return 5;
        // Nor do they by their ends.
        writer = {};
        reader = {};
        return 0;
    });
    CHECK(child.wait() == ExitStatus{0, 0});
    // But the question for it.
    CHECK(std::stoull(server.info("total_commands_processed")) == commands + 1);
    CHECK(server.info("total_connections_received") == connections);
    CHECK(seen() == before);

    CHECK(writer.valid());
    CHECK(reader.valid());
    CHECK_FALSE(config.try_read());
    config.downgrade(writer);
    CHECK(writer.valid());
    CHECK(writer.fence() > written);
    CHECK(config.try_read());
    REQUIRE(other.try_upgrade(reader));
    CHECK(reader.fence() > read);
    CHECK_FALSE(other.try_read());
    CHECK(writer.release());
    CHECK(reader.release());
}

TEST_CASE("Permits and shared holds of a server that was flushed are told to be lost") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    std::atomic<int> told{0};
    ClientOptions options;
    options.hooks.on_lost = [&](const LostLease& lost) {
        if (lost.fence != 0) ++told;
    };
    RedisClient client{server.url(), options};
    RedisSemaphore pool{"pool", client, 3, {.ttl = 300ms}};
    RedisReadWriteLock config{"config", client, {.ttl = 300ms}};
    Lease permits = pool.lease(2);
    Lease reader = config.read();
    server.command({"FLUSHALL"});
    CHECK(eventually([&] { return told == 2; }));
    for (Lease* lease : {&permits, &reader}) {
        CHECK(lease->stop_token().stop_requested());
        CHECK_FALSE(lease->valid());
        CHECK_FALSE(lease->release());
    }
    CHECK(pool.try_lease(3));
    CHECK(config.try_write());
}
