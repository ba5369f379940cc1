// SPDX-License-Identifier: MIT
//
// Tests of read_write_lock.hpp against real servers and processes.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/backend.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <hiredis/hiredis.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <mutex>
#include <shared_mutex>
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

const std::string key = "codomyrmex:rw:{config}";

long long holders(RedisServer& server) {
    return server.command({"ZCARD", key}).number;
}
long long waiting(RedisServer& server) {
    return server.command({"ZCARD", key + ":queue"}).number;
}

/// A register that readers and writers leave marks in.
class Store {
  public:
    explicit Store(const std::string& path) : context_{redisConnectUnix(path.c_str()), redisFree} {
        // What the code under test may not do, another user may.
        if (!RedisServer::least_rights()) return;
        freeReplyObject(redisCommand(context_.get(), "AUTH test test"));
    }
    /// What `command` answers, a number; -1 if it does not.
    long long number(const char* command) {
        const std::unique_ptr<redisReply, void (*)(void*)> reply{
            static_cast<redisReply*>(redisCommand(context_.get(), command)), freeReplyObject};
        return reply && reply->type == REDIS_REPLY_INTEGER ? reply->integer : -1;
    }

  private:
    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

}  // namespace

TEST_CASE("Many read or one writes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client, {.ttl = 10s}};
    {
        Lease first = config.read();
        Lease second = config.try_read();
        CHECK(first.valid());
        CHECK(second.valid());
        CHECK(second.fence() > first.fence());
        CHECK_FALSE(config.try_write());
        CHECK_FALSE(config.try_write_for(20ms));
        CHECK(first.release());
        CHECK(second.release());
    }
    Lease writer = config.write();
    CHECK(writer.valid());
    CHECK_FALSE(config.try_read());
    CHECK_FALSE(config.try_read_for(20ms));
    CHECK_FALSE(config.try_write());
    CHECK(writer.release());
    CHECK(config.try_read());
}

TEST_CASE("The guards of the standard work on it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client};
    {
        const std::shared_lock a{config};
        const std::shared_lock b{config, std::try_to_lock};
        CHECK(b.owns_lock());
        const std::unique_lock c{config, 10ms};
        CHECK_FALSE(c.owns_lock());
        CHECK(holders(server) == 2);
    }
    {
        const std::unique_lock writer{config, 5s};
        CHECK(writer.owns_lock());
        CHECK(config.valid());
        CHECK(config.fence() != 0);
        const std::shared_lock reader{config, 10ms};
        CHECK_FALSE(reader.owns_lock());
    }
    const std::shared_lock again{config, 5s};
    CHECK(again.owns_lock());
}

TEST_CASE("A waiting writer holds up later readers, who then come in together") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client};
    Lease reader = config.read();
    std::atomic<std::uint64_t> written{0};
    std::jthread writer{[&] {
        Lease lease = config.write();
        // The readers stand in line until this one is done.
        (void)eventually([&] { return waiting(server) == 3; });
        written = lease.fence();
    }};
    REQUIRE(eventually([&] { return waiting(server) == 1; }));
    CHECK_FALSE(config.try_read());
    std::atomic<int> together{0};
    std::atomic<int> early{0};
    std::vector<std::jthread> readers;
    for (int i = 0; i < 3; ++i) {
        readers.emplace_back([&] {
            Lease lease = config.read();
            if (written == 0 || lease.fence() <= written) ++early;
            ++together;
            (void)eventually([&] { return together == 3; });
        });
    }
    REQUIRE(eventually([&] { return waiting(server) == 4; }));
    const std::uint64_t first = reader.fence();
    CHECK(reader.release());
    writer.join();
    readers.clear();
    CHECK(written > first);
    CHECK(early == 0);
    CHECK(together == 3);
}

TEST_CASE("A writer becomes a reader without a gap, and a lone reader a writer") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client};
    Lease lease = config.write();
    const std::uint64_t written = lease.fence();
    const auto stop = lease.stop_token();
    config.downgrade(lease);
    CHECK(lease.valid());
    CHECK(lease.fence() > written);
    CHECK(lease.stop_token() == stop);
    Lease other = config.try_read();
    REQUIRE(other);
    CHECK_FALSE(config.try_upgrade(lease));
    CHECK(lease.valid());
    CHECK(other.release());
    const std::uint64_t read = lease.fence();
    REQUIRE(config.try_upgrade(lease));
    CHECK(lease.fence() > read);
    CHECK_FALSE(config.try_read());
    CHECK(lease.release());
    CHECK(holders(server) == 0);
}

TEST_CASE("A conversion of what is not held here, or lost, is an error") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client};
    RedisReadWriteLock elsewhere{"other", client};
    RedisLock lock{"config", client};
    Lease none;
    CHECK(error_of([&] { config.downgrade(none); }) == LockErrc::not_held);
    CHECK(error_of([&] { (void)config.try_upgrade(none); }) == LockErrc::not_held);
    Lease of_another = elsewhere.read();
    CHECK(error_of([&] { (void)config.try_upgrade(of_another); }) == LockErrc::invalid_argument);
    Lease of_a_lock = lock.lease();
    CHECK(error_of([&] { config.downgrade(of_a_lock); }) == LockErrc::invalid_argument);
    Lease lost = config.write();
    server.command({"DEL", key, key + ":meta"});
    CHECK(error_of([&] { config.downgrade(lost); }) == LockErrc::lease_lost);
    CHECK_FALSE(lost.valid());
    CHECK(lost.stop_token().stop_requested());
}

TEST_CASE("Readers and writers of many processes never meet") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    std::vector<Process> others;
    for (int process = 0; process < 3; ++process) {
        others.push_back(Process::run([url = server.url(), path = server.socket_path()] {
            RedisClient client{url};
            RedisReadWriteLock config{"config", client, {.ttl = 5s}};
            // A register beside it, in which a writer leaves a mark while it writes.
            Store store{path};
            std::atomic<int> wrong{0};
            for (int i = 0; i < 40; ++i) {
                if (i % 4 == 0) {
                    Lease lease = config.write();
                    if (store.number("INCR writers") != 1) ++wrong;
                    if (store.number("INCRBY readers 0") != 0) ++wrong;
                    (void)store.number("DECR writers");
                    if (!lease.release()) ++wrong;
                } else {
                    Lease lease = config.read();
                    (void)store.number("INCR readers");
                    if (store.number("INCRBY writers 0") != 0) ++wrong;
                    (void)store.number("DECR readers");
                    if (!lease.release()) ++wrong;
                }
            }
            return wrong.load();
        }));
    }
    for (Process& each : others)
        CHECK(each.wait()->code == 0);
    CHECK(holders(server) == 0);
    CHECK(waiting(server) == 0);
}

TEST_CASE("A reader that was killed keeps a writer waiting for its time to live at most") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    auto reader = Process::run([url = server.url()] {
        RedisClient client{url};
        RedisReadWriteLock config{"config", client, {.ttl = 500ms}};
        const Lease lease = config.read();
        std::this_thread::sleep_for(60s);
        return 0;
    });
    REQUIRE(eventually([&] { return holders(server) == 1; }));
    RedisClient client{server.url()};
    RedisReadWriteLock config{"config", client, {.ttl = 500ms}};
    reader.kill();
    CHECK(config.try_write_for(5s));
}

TEST_CASE("An unlock_shared of what is not held is told, and sends nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    std::atomic<int> told{0};
    ClientOptions options;
    options.hooks.on_error = [&](const std::error_code& code, const std::string&) {
        if (code == LockErrc::not_held) ++told;
    };
    RedisClient client{server.url(), options};
    RedisReadWriteLock config{"config", client};
    std::error_code code;
    config.unlock_shared(code);
    CHECK(code == LockErrc::not_held);
    config.unlock_shared();
    CHECK(told == 2);
    CHECK(client.stats().requests == 0);
}

TEST_CASE("A manager over Redis gives reads and writes by name") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    RedisClient client{server.url()};
    LockManager manager{RedisBackend{client, {.ttl = 10s}}};
    {
        auto reader = manager.read("config");
        CHECK(reader.valid());
        CHECK_FALSE(manager.try_write("config"));
        CHECK(manager.try_read("config"));
    }
    auto writer = manager.try_write_for("config", 5s);
    REQUIRE(writer);
    CHECK(writer.fence() != 0);
    CHECK_FALSE(manager.try_read("config"));
}
