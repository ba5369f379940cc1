// SPDX-License-Identifier: MIT
//
// Threads that take and give back locks of one client at the same time share calls of scripts.
// Nothing else may be different for them, whatever the server makes of such a call.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/redis_cluster.hpp"
#include "support/redis_server.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <stop_token>
#include <string>
#include <system_error>
#include <thread>

namespace {

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::eventually;
using support::run_together;
using test_support::RedisServer;

constexpr int threads = 8;
constexpr int cycles = 100;

enum class Take { at_once, wait };

/// Each thread takes a lock of its own so often, and gives it back. Returns: how often it was not
/// there at once, if it was to be, or its token not larger than the one before.
int cycle_together(RedisClient& client, Take take) {
    std::atomic<int> wrong{0};
    run_together(threads, [&](int thread) {
        RedisLock lock{"lock" + std::to_string(thread), client, {.ttl = 30s}};
        std::uint64_t last = 0;
        for (int i = 0; i < cycles; ++i) {
            if (take == Take::wait || !lock.try_lock()) {
                if (take == Take::at_once) ++wrong;
                lock.lock();
            }
            if (lock.fence() <= last || !lock.valid()) ++wrong;
            last = lock.fence();
            lock.unlock();
        }
    });
    return wrong;
}

/// Whether all is given back, within a while.
bool all_free(RedisServer& server) {
    return eventually([&] {
        for (const auto& key : server.command({"KEYS", "*"}).elements) {
            if (!key.text.ends_with(":fence")) return false;
        }
        return true;
    });
}

/// How many calls of scripts the server had.
std::string calls(RedisServer& server) {
    return server.command({"INFO", "commandstats"}).text;
}

}  // namespace

TEST_CASE("Threads that ask at the same time share requests") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    CHECK(cycle_together(client, Take::at_once) == 0);
    CAPTURE(client.stats().requests, calls(server));
    CHECK(client.stats().requests < 2 * threads * cycles);
    CHECK(client.stats().connections == 1);
    CHECK(all_free(server));
}

TEST_CASE("Threads go on where keys of several locks may not be in one call") {
    if (!RedisServer::available()) SKIP("no redis-server");
    test_support::RedisCluster server;
    RedisClient client{server.url()};
    CHECK(cycle_together(client, Take::at_once) == 0);
    CHECK(client.stats().connections == 1);
    CHECK(all_free(server));
}

TEST_CASE("Threads go on where the server does not permit what several at once need") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    server.command({"ACL", "SETUSER", "poor", "on", ">word", "~*", "&*", "+@all", "-mget"});
    RedisClient client{"redis://poor:word@127.0.0.1:" + std::to_string(server.port())};
    CHECK(cycle_together(client, Take::at_once) == 0);
    CHECK(client.stats().connections == 1);
    CHECK(all_free(server));
}

TEST_CASE("Threads go on while the server forgets the scripts") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::atomic<bool> over{false};
    support::Thread forgets{[&] {
        while (!over)
            server.command({"SCRIPT", "FLUSH"});
    }};
    CHECK(cycle_together(client, Take::wait) == 0);
    over = true;
    forgets.join();
    CHECK(all_free(server));
}

TEST_CASE("Threads go on while connections are killed") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::atomic<bool> over{false};
    support::Thread kills{[&] {
        while (!over) {
            server.command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"});
            std::this_thread::sleep_for(2ms);
        }
    }};
    CHECK(cycle_together(client, Take::wait) == 0);
    over = true;
    kills.join();
    CAPTURE(client.stats().connections);
    CHECK(all_free(server));
}

TEST_CASE("A key that is none of ours harms nobody but whose lock it was") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    std::atomic<int> wrong{0};
    run_together(threads, [&](int thread) {
        const std::string name = "lock" + std::to_string(thread);
        RedisLock lock{name, client, {.ttl = 30s}};
        for (int i = 0; i < cycles; ++i) {
            Lease lease = lock.lease();
            const std::stop_token stop = lease.stop_token();
            if (thread == 0) {
                const std::string key = "codomyrmex:lock:{" + name + "}";
                server.command({"DEL", key});
                server.command({"RPUSH", key, "text"});
                std::error_code error;
                (void)lease.release(error);
                server.command({"DEL", key});
            } else if (!lease.release() || stop.stop_requested()) {
                ++wrong;
            }
        }
    });
    CHECK(wrong == 0);
    CHECK(all_free(server));
}

TEST_CASE("Threads of several clients that share calls exclude each other, lock by lock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient one{server.url()};
    RedisClient other{server.url()};
    constexpr int names = 3;
    std::array<support::Occupancy, names> inside;
    std::array<std::atomic<std::uint64_t>, names> last{};
    std::atomic<int> wrong{0};
    run_together(threads, [&](int thread) {
        std::list<RedisLock> locks;
        for (int name = 0; name < names; ++name) {
            locks.emplace_back("lock" + std::to_string(name), thread % 2 == 0 ? one : other,
                               LeaseOptions{.ttl = 30s});
        }
        for (int i = 0; i < cycles; ++i) {
            auto lock = locks.begin();
            std::advance(lock, (i + thread) % names);
            const auto name = static_cast<std::size_t>((i + thread) % names);
            lock->lock();
            inside[name].enter();
            if (last[name].exchange(lock->fence()) >= lock->fence()) ++wrong;
            inside[name].leave();
            lock->unlock();
        }
    });
    CHECK(wrong == 0);
    for (const auto& each : inside)
        CHECK(each.most() == 1);
    CHECK(all_free(server));
}
