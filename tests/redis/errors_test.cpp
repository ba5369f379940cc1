// SPDX-License-Identifier: MIT
//
// What a user sees when the server refuses, cannot, or talks nonsense: the table of errors, one
// case a row, on a real server where it can be brought about, else by a proxy that says the words.

#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <fstream>
#include <functional>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;

namespace {

struct Failure {
    std::error_code code{};
    std::string what{};
    std::chrono::steady_clock::duration took{};
};

/// Locks and unlocks "name" at `url` within `limit`. Returns: how that failed, or nothing.
std::optional<Failure> failure_of(const std::string& url, std::chrono::milliseconds limit = 300ms) {
    const auto begin = std::chrono::steady_clock::now();
    try {
        RedisClient client{url};
        RedisLock lock{"name", client};
        const Lease lease = lock.try_lease_for(limit);
        if (!lease) throw std::logic_error("contention");
        return std::nullopt;
    } catch (const LockError& error) {
        return Failure{error.code(), error.what(), std::chrono::steady_clock::now() - begin};
    }
}

/// It is tried until the deadline, then says what stood in the way.
void check_retried(const std::string& url, const std::string& words) {
    const auto failure = failure_of(url);
    REQUIRE(failure);
    CAPTURE(failure->what);
    CHECK(failure->code == LockErrc::backend_unavailable);
    CHECK(failure->what.find(words) != std::string::npos);
    CHECK(failure->took > 150ms);
    CHECK(failure->took < 3s);
}

/// It ends at once, in the server's words.
void check_final(const std::string& url, LockErrc errc, const std::string& words) {
    const auto failure = failure_of(url, 30s);
    REQUIRE(failure);
    CAPTURE(failure->what);
    CHECK(failure->code == errc);
    CHECK(failure->what.find(words) != std::string::npos);
    CHECK(failure->took < 5s);
}

/// The rights that README.md lists.
std::vector<std::string> documented_rights() {
    std::ifstream file{CODOMYRMEX_README};
    const std::string text{std::istreambuf_iterator<char>{file}, {}};
    const auto begin = text.find("An ACL user needs");
    REQUIRE(begin != std::string::npos);
    std::string paragraph = text.substr(begin, text.find("\n\n", begin) - begin);
    std::ranges::replace_if(
        paragraph, [](char c) { return c == '`' || c == ',' || c == ';'; }, ' ');
    std::istringstream words{paragraph};
    std::vector<std::string> rights;
    for (std::string word; words >> word;) {
        if (word.starts_with('+') || word.starts_with('&')) rights.push_back(word);
    }
    REQUIRE(rights.size() > 20);
    return rights;
}

bool for_hand_over(const std::string& right) {
    return right.starts_with('&') || right == "+publish" || right == "+subscribe" ||
           right == "+pubsub|numsub";
}

/// A user with those of the documented rights that are `wanted`, on our keys alone.
template <class Wanted>
void set_user(RedisServer& server, const std::string& name, Wanted wanted) {
    std::vector<std::string> words{"ACL", "SETUSER", name, "reset", "on", ">pw", "~codomyrmex:*"};
    std::ranges::copy_if(documented_rights(), std::back_inserter(words), wanted);
    const auto reply = server.command(words);
    CAPTURE(reply.text);
    REQUIRE(reply.text == "OK");
}

}  // namespace

TEST_CASE("replies that pass are tried again until the deadline") {
    RedisServer server;
    FaultProxy proxy{server.url()};
    for (const std::string words :
         {"LOADING Redis is loading the dataset in memory", "BUSY Redis is busy running a script",
          "CLUSTERDOWN The cluster is down", "TRYAGAIN Multiple keys request during rehashing",
          "NOREPLICAS Not enough good replicas to write.", "MASTERDOWN Link with MASTER is down",
          "OOM command not allowed when used memory > 'maxmemory'.",
          "MISCONF Redis is configured to save RDB snapshots",
          "ERR max number of clients reached"}) {
        CAPTURE(words);
        proxy.clear();
        proxy.add(Fault::reply('-' + words + "\r\n").on("EVAL").always());
        check_retried(proxy.url(), words.substr(0, words.find(' ')));
        // And passes with them.
        proxy.clear();
        proxy.add(Fault::reply('-' + words + "\r\n").on("EVAL").times(2));
        CHECK_FALSE(failure_of(proxy.url(), 10s));
    }
}

TEST_CASE("a replica is no place to lock") {
    RedisServer server;
    server.command({"REPLICAOF", "127.0.0.1", "1"});
    check_retried(server.url(), "READONLY");
    server.command({"REPLICAOF", "NO", "ONE"});
    CHECK_FALSE(failure_of(server.url(), 10s));
}

TEST_CASE("a holder that a replica remembers is not taken for contention") {
    RedisServer server;
    server.command({"SET", "codomyrmex:lock:{name}", "somebody", "PX", "600000"});
    server.command({"REPLICAOF", "127.0.0.1", "1"});
    check_retried(server.url(), "READONLY");
}

TEST_CASE("a server without memory is waited for, and no lock is left") {
    RedisServer server{test_support::RedisServerOptions{
        .args = {"--maxmemory", "1", "--maxmemory-policy", "noeviction"}}};
    check_retried(server.url(), "OOM");
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{name}"}).number == 0);
}

TEST_CASE("a server that takes no more clients is waited for") {
    RedisServer server;
    (void)server.command({"PING"});  // the test's own connection stays
    server.command({"CONFIG", "SET", "maxclients", "1"});
    check_retried(server.url(), "max number of clients");
    server.command({"CONFIG", "SET", "maxclients", "100"});
    CHECK_FALSE(failure_of(server.url(), 10s));
}

TEST_CASE("a missing or wrong password ends it at once, and is not quoted") {
    RedisServer server{test_support::RedisServerOptions{.tcp = true, .password = "right"}};
    check_final(server.url(), LockErrc::backend_refused, "NOAUTH");
    const auto failure = failure_of(server.url(":hunter2"), 30s);
    REQUIRE(failure);
    CHECK(failure->code == LockErrc::backend_refused);
    CHECK(failure->what.find("WRONGPASS") != std::string::npos);
    CHECK(failure->what.find("hunter2") == std::string::npos);
    CHECK_FALSE(failure_of(server.url(":right"), 10s));
    RedisServer renamed{test_support::RedisServerOptions{.args = {"--rename-command", "AUTH", ""}}};
    const auto quoted = failure_of(renamed.url(":hunter2"), 30s);
    REQUIRE(quoted);
    CAPTURE(quoted->what);
    CHECK(quoted->what.find("hunter2") == std::string::npos);
}

TEST_CASE("a user without the rights is told so; the documented rights suffice") {
    RedisServer server;
    server.command({"ACL", "SETUSER", "poor", "on", ">pw", "~codomyrmex:*", "+evalsha", "+eval",
                    "+client|setname"});
    check_final(server.url("poor:pw"), LockErrc::backend_refused, "can't run this command");
    server.command({"ACL", "SETUSER", "poorer", "on", ">pw", "~codomyrmex:*", "+ping"});
    check_final(server.url("poorer:pw"), LockErrc::backend_refused, "NOPERM");
    const bool may_publish = GENERATE(true, false);
    set_user(server, "least",
             [&](const std::string& right) { return may_publish || !for_hand_over(right); });
    RedisClient client{server.url("least:pw")};
    client.ping();
    RedisLock lock{"name", client, {.ttl = 600ms}};
    Lease lease = lock.lease();
    CHECK_FALSE(lock.try_lock());
    // Without the right to publish, waiting is asking again and again.
    RedisClient other{server.url("least:pw")};
    RedisLock same{"name", other, {.ttl = 600ms}};
    CHECK_FALSE(same.try_lock_for(30ms));
    std::jthread waiter{[&] {
        same.lock();
        same.unlock();
    }};
    const auto renewals = client.stats().renewals;
    const Deadline deadline = Deadline::after(10s);
    while (client.stats().renewals < renewals + 3 && !deadline.expired()) {
        std::this_thread::sleep_for(1ms);
    }
    // Only who may publish and listen stands in the server's line.
    const auto in_line = [&] {
        return server.command({"ZCARD", "codomyrmex:lock:{name}:queue"}).number;
    };
    while (may_publish && in_line() != 1 && !deadline.expired())
        std::this_thread::sleep_for(1ms);
    CHECK(in_line() == (may_publish ? 1 : 0));
    CHECK(lease.valid());
    CHECK(lease.release());
    waiter.join();
    if (!may_publish) CHECK(other.stats().grants == 0);
}

TEST_CASE("the documented rights suffice for permits and for reads and writes, and none can go") {
    RedisServer server;
    const bool may_publish = GENERATE(true, false);
    CAPTURE(may_publish);
    set_user(server, "least",
             [&](const std::string& right) { return may_publish || !for_hand_over(right); });
    RedisClient client{server.url("least:pw")};
    RedisClient other{server.url("least:pw")};
    RedisSemaphore pool{"pool", client, 3, {.ttl = 10s}};
    RedisSemaphore same{"pool", other, 3, {.ttl = 10s}};
    Lease lease = pool.lease(2);
    CHECK(lease.renew());
    CHECK_FALSE(same.try_acquire_for(30ms, 2));
    std::atomic<bool> waited{false};
    std::jthread waiter{[&] {
        const Lease mine = same.lease(2);
        waited = mine.valid();
    }};
    CHECK(lease.release());
    waiter.join();
    CHECK(waited);
    pool.resize(5);
    CHECK(pool.try_lease_for(5s, 5));
    // The time of one is over while another holds on.
    RedisSemaphore hurried{"pool", client, 5, {.ttl = 10ms, .max_hold = 1ms}};
    Lease kept = pool.lease();
    Lease over = hurried.lease();
    std::this_thread::sleep_for(20ms);
    CHECK(pool.try_lease(4));
    CHECK(kept.release());

    RedisReadWriteLock config{"config", client, {.ttl = 10s}};
    Lease writer = config.write();
    config.downgrade(writer);
    CHECK(config.try_upgrade(writer));
    CHECK(writer.renew());
    CHECK(writer.release());
    CHECK(config.read().release());

    for (const std::string missing :
         {"+hget", "+hset", "+hdel", "+hincrby", "+zrangebyscore", "+pexpireat"}) {
        CAPTURE(missing);
        set_user(server, "less", [&](const std::string& right) { return right != missing; });
        RedisClient less{server.url("less:pw")};
        std::error_code error;
        RedisSemaphore needs{"needs" + missing, less, 1};
        Lease all = needs.lease(error);
        if (!error) (void)all.release(error);
        CHECK(error);
    }
}

TEST_CASE("a server without the command ends it at once") {
    RedisServer server{test_support::RedisServerOptions{
        .args = {"--rename-command", "EVALSHA", "", "--rename-command", "EVAL", ""}}};
    check_final(server.url(), LockErrc::backend_refused, "unknown command");
}

TEST_CASE("redirections need a cluster client, which this is not") {
    RedisServer server;
    FaultProxy proxy{server.url()};
    for (const std::string words : {"MOVED 1 127.0.0.1:2", "ASK 1 127.0.0.1:2"}) {
        proxy.clear();
        proxy.add(Fault::reply('-' + words + "\r\n").on("EVAL").always());
        check_final(proxy.url(), LockErrc::unsupported, words.substr(0, 3));
    }
    proxy.clear();
    proxy.add(Fault::reply("-CROSSSLOT Keys in request don't hash to the same slot\r\n")
                  .on("EVAL")
                  .always());
    check_final(proxy.url(), LockErrc::backend_refused, "CROSSSLOT");
}

TEST_CASE("a script that the server does not know is sent once more, whole") {
    RedisServer server;
    CHECK_FALSE(failure_of(server.url()));
    server.command({"SCRIPT", "FLUSH"});
    CHECK_FALSE(failure_of(server.url()));
}

TEST_CASE("a key that we did not write is no endless wait") {
    RedisServer server;
    server.command({"SET", "codomyrmex:lock:{name}", "for ever"});
    check_final(server.url(), LockErrc::foreign_key, "no expiry");
    server.command({"DEL", "codomyrmex:lock:{name}"});
    server.command({"RPUSH", "codomyrmex:lock:{name}", "a list"});
    check_final(server.url(), LockErrc::foreign_key, "WRONGTYPE");
    server.command({"DEL", "codomyrmex:lock:{name}"});
    server.command({"SET", "codomyrmex:lock:{name}:fence", "no number"});
    check_final(server.url(), LockErrc::foreign_key, "fence");
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{name}"}).number == 0);
}

TEST_CASE("nobody there: tried until the deadline") {
    check_retried("unix:///no/such/socket", "cannot connect");
    check_retried("redis://127.0.0.1:1", "refused");
}

TEST_CASE("connections that break in mid-request are resolved by the token") {
    RedisServer server;
    FaultProxy proxy{server.url()};
    proxy.add(Fault::lose_reply().on("EVAL").times(2));
    CHECK_FALSE(failure_of(proxy.url(), 10s));
    proxy.clear();
    proxy.add(Fault::cut().on("EVAL").times(2));
    CHECK_FALSE(failure_of(proxy.url(), 10s));
}

TEST_CASE("nonsense in place of a reply drops the connection, and the lock is had on the next") {
    RedisServer server;
    FaultProxy proxy{server.url()};
    for (const std::string bytes :
         {"nonsense\r\n", "+OK\r\n", ":7\r\n", "*0\r\n", "*3\r\n:1\r\n$1\r\nx\r\n$1\r\ny\r\n",
          "$9\r\n1 2 3 4 5\r\n", "$99999999999999\r\n", "*-7\r\n", "$-1\r\n"}) {
        CAPTURE(bytes);
        proxy.clear();
        proxy.add(Fault::replace_reply(bytes).on("EVAL"));
        CHECK_FALSE(failure_of(proxy.url(), 10s));
    }
    proxy.clear();
    proxy.add(Fault::append("+surplus\r\n").on("EVAL"));
    CHECK_FALSE(failure_of(proxy.url(), 10s));
    CHECK(server.command({"EXISTS", "codomyrmex:lock:{name}"}).number == 0);
}

TEST_CASE("a busy script is waited for") {
    RedisServer server{test_support::RedisServerOptions{.args = {"--busy-reply-threshold", "1"}}};
    std::thread busy{[&] {
        (void)server.command({"EVAL",
                              "local t = redis.call('TIME') repeat local n = redis.call('TIME') "
                              "until n[1] - t[1] + (n[2] - t[2]) / 1000000 > 0.4 return 1",
                              "0"});
    }};
    std::this_thread::sleep_for(50ms);
    CHECK_FALSE(failure_of(server.url(), 20s));
    busy.join();
}

TEST_CASE("a server that cannot save says so until it can") {
    RedisServer server{
        test_support::RedisServerOptions{.args = {"--enable-protected-configs", "yes"}}};
    if (server.command({"CONFIG", "SET", "dir", "/proc"}).is_error()) {
        SKIP("this server has no configuration to break");
    }
    server.command({"CONFIG", "SET", "save", "1 1"});
    server.command({"SET", "x", "1"});
    (void)server.command({"BGSAVE"});
    const Deadline deadline = Deadline::after(10s);
    while (!server.command({"SET", "x", "1"}).is_error() && !deadline.expired()) {
        std::this_thread::sleep_for(10ms);
    }
    if (!server.command({"SET", "x", "1"}).is_error()) {
        SKIP("this server can save where it should not");
    }
    check_retried(server.url(), "MISCONF");
    server.command({"CONFIG", "SET", "save", ""});
    CHECK_FALSE(failure_of(server.url(), 10s));
}

TEST_CASE("malformed URLs are refused, naming the part and never the password") {
    for (const std::string url :
         {"", "nonsense", "http://host", "redis://:hunter2@host:99999", "redis://:hunter2@host/x",
          "redis://:hunter2@host?speed=fast", "redis://:hunter%2@host"}) {
        CAPTURE(url);
        try {
            const RedisClient client{url};
            FAIL("accepted");
        } catch (const LockError& error) {
            CHECK(error.code() == LockErrc::invalid_argument);
            CHECK(std::string{error.what()}.find("hunter") == std::string::npos);
        }
    }
    try {
        const RedisClient client{"rediss://:hunter2@host"};
        FAIL("accepted");
    } catch (const LockError& error) {
        CHECK(error.code() == LockErrc::unsupported);
        CHECK(std::string{error.what()}.find("hunter") == std::string::npos);
    }
}
