// SPDX-License-Identifier: MIT
//
// Tests of scripts.hpp: what each script does in a real server, asked by a client that is not ours.

#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using test_support::RedisReply;
using test_support::RedisServer;
using Kind = RedisReply::Kind;

constexpr long long day = 86'400'000;
constexpr long long ttl = 30'000;

/// A server and the scripts as they are called for one name.
struct Bench {
    RedisServer server;
    LockIdentity keys;

    explicit Bench(std::string_view name = "job") : keys{make_identity("codomyrmex:", name, {})} {}

    RedisReply run(const Script& script, std::vector<std::string> arguments) {
        std::vector<std::string> words{"EVAL", std::string{script.body}};
        words.insert(words.end(), arguments.begin(), arguments.end());
        return server.command(words);
    }
    RedisReply acquire(const std::string& token, long long ms = ttl,
                       const std::string& text = "host:1:main") {
        return run(acquire_script, {"3", keys.lock_key, keys.fence_key, keys.queue_key, token,
                                    std::to_string(ms), text});
    }
    RedisReply release(const std::string& token) {
        return run(release_script, {"2", keys.lock_key, keys.queue_key, token});
    }
    RedisReply renew(const std::string& token, long long ms = ttl) {
        return run(renew_script, {"2", keys.lock_key, keys.fence_key, token, std::to_string(ms)});
    }

    std::string get(const std::string& key) { return server.command({"GET", key}).text; }
    long long pttl(const std::string& key) { return server.command({"PTTL", key}).number; }
    bool exists(const std::string& key) { return server.command({"EXISTS", key}).number == 1; }

    /// The server's clock in nanoseconds, as the scripts write it.
    std::string time() {
        const auto reply = server.command({"TIME"});
        std::string micros = reply.elements.at(1).text;
        micros.insert(0, 6 - micros.size(), '0');
        return reply.elements.at(0).text + micros + "000";
    }

    /// The fence of an acquire that must succeed.
    std::string fence_of(const std::string& token) {
        const auto reply = acquire(token);
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 3);
        REQUIRE(reply.elements[0].number == 1);
        return reply.elements[1].text;
    }

    /// How many keys there are, and that each has an expiry.
    std::size_t keys_with_expiry() {
        const auto all = server.command({"KEYS", "*"});
        for (const auto& key : all.elements) {
            CAPTURE(key.text);
            CHECK(pttl(key.text) > 0);
        }
        return all.elements.size();
    }
};

bool is_fence(const std::string& text) {
    return text.size() == 19 &&
           std::ranges::all_of(text, [](char c) { return c >= '0' && c <= '9'; });
}

/// The fence after this one, in decimal.
std::string plus_one(const std::string& fence) {
    return std::to_string(std::stoll(fence) + 1);
}

}  // namespace

TEST_CASE("The SHA-1 of each script is what the server makes of its body") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    for (const Script& script : {acquire_script, release_script, renew_script}) {
        CAPTURE(std::string{script.name});
        CHECK(server.command({"SCRIPT", "LOAD", std::string{script.body}}).text == script.sha1);
    }
}

TEST_CASE("A free lock is taken") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string before = bench.time();
    const auto reply = bench.acquire("token");
    const std::string after = bench.time();
    REQUIRE(reply.kind == Kind::array);
    REQUIRE(reply.elements.size() == 3);
    CHECK(reply.elements[0].kind == Kind::integer);
    CHECK(reply.elements[0].number == 1);
    CHECK(reply.elements[1].kind == Kind::string);
    CHECK(reply.elements[2].kind == Kind::string);
    const std::string fence = reply.elements[1].text;
    const std::string now = reply.elements[2].text;

    CAPTURE(before, fence, now, after);
    CHECK(is_fence(fence));
    CHECK(is_fence(now));
    CHECK(before <= now);
    CHECK(now <= after);
    CHECK(fence == now);  // the clock, where there is no fence yet
    CHECK(bench.get(bench.keys.fence_key) == fence);
    CHECK(bench.pttl(bench.keys.lock_key) <= ttl);
    CHECK(bench.pttl(bench.keys.lock_key) > ttl - 10'000);
    CHECK(bench.pttl(bench.keys.fence_key) <= day);
    CHECK(bench.pttl(bench.keys.fence_key) > day - 60'000);
    CHECK(bench.keys_with_expiry() == 2);
}

TEST_CASE("Who holds the lock and since when can be read by people") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto reply = bench.acquire("token", ttl, "host:12:main label");
    const std::string seconds = reply.elements.at(2).text.substr(0, 10);
    CHECK(bench.get(bench.keys.lock_key) == "token host:12:main label " + seconds);
}

TEST_CASE("A lock that another holds is left as it is") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.fence_of("mine");
    const std::string value = bench.get(bench.keys.lock_key);
    const auto other = GENERATE(as<std::string>{}, "yours", "min", "mine2", "MINE", "");
    CAPTURE(other);
    const auto reply = bench.acquire(other, 60'000);
    REQUIRE(reply.elements.size() == 3);
    CHECK(reply.elements[0].number == 0);
    CHECK(reply.elements[1].kind == Kind::integer);
    CHECK(reply.elements[1].number <= ttl);
    CHECK(reply.elements[1].number > ttl - 10'000);
    CHECK(is_fence(reply.elements[2].text));
    CHECK(reply.elements[2].text > fence);
    CHECK(bench.get(bench.keys.lock_key) == value);
    CHECK(bench.get(bench.keys.fence_key) == fence);
    CHECK(bench.pttl(bench.keys.lock_key) <= ttl);
}

TEST_CASE("The same token takes it again, for the full time and under a larger fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string first = bench.fence_of("token");
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    const std::string second = bench.fence_of("token");
    CAPTURE(first, second);
    CHECK(second > first);
    CHECK(is_fence(second));
    CHECK(bench.get(bench.keys.fence_key) == second);
    CHECK(bench.pttl(bench.keys.lock_key) > 5000);
    CHECK(bench.keys_with_expiry() == 2);
}

TEST_CASE("A holder that is the token alone, without text, is the same token") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"SET", bench.keys.lock_key, "token", "PX", "5000"});
    CHECK(bench.acquire("toke").elements.at(0).number == 0);
    CHECK(bench.renew("toke").number == 0);
    CHECK(bench.release("toke").number == 0);
    CHECK(bench.acquire("token").elements.at(0).number == 1);
    CHECK(bench.renew("token").number == 1);
    CHECK(bench.release("token").number == 1);
}

TEST_CASE("Fences strictly increase across releases and expiries") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    std::string last;
    for (int i = 0; i < 200; ++i) {
        const std::string token = "token" + std::to_string(i);
        const std::string fence = bench.fence_of(token);
        REQUIRE(is_fence(fence));
        REQUIRE(fence > last);
        last = fence;
        REQUIRE(bench.release(token).number == 1);
    }
    (void)bench.acquire("short", 1);
    REQUIRE(support::eventually([&] { return !bench.exists(bench.keys.lock_key); }));
    CHECK(bench.fence_of("next") > last);
}

TEST_CASE("Fences increase though the data be lost, by the clock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string before = bench.fence_of("a");
    bench.server.command({"FLUSHALL"});
    CHECK(bench.fence_of("b") > before);

    const std::string early = bench.fence_of("b");
    bench.server.kill();
    bench.server.restart();
    REQUIRE_FALSE(bench.exists(bench.keys.fence_key));
    CHECK(bench.fence_of("c") > early);
}

TEST_CASE("Where the clock is behind the last fence, the next is the last plus one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    // Numbers that a double cannot tell from their neighbours.
    std::string last = GENERATE(as<std::string>{}, "4102444800000000001", "9007199254740992999",
                                "9223372036854775000");
    bench.server.command({"SET", bench.keys.fence_key, last});  // without an expiry, even
    for (int i = 0; i < 3; ++i) {
        const std::string fence = bench.fence_of("t" + std::to_string(i));
        CHECK(fence == plus_one(last));
        CHECK(bench.get(bench.keys.fence_key) == fence);
        CHECK(bench.pttl(bench.keys.fence_key) > day - 60'000);
        last = fence;
        REQUIRE(bench.release("t" + std::to_string(i)).number == 1);
    }
}

TEST_CASE("A fence behind the clock gives way to the clock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"SET", bench.keys.fence_key, "1000000000000000000"});
    const std::string now = bench.time();
    CHECK(bench.fence_of("token") >= now);
    CHECK(bench.pttl(bench.keys.fence_key) > 0);
}

TEST_CASE("A fence that cannot grow any more fails and leaves no lock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string last =
        GENERATE(as<std::string>{}, "9223372036854775807", "9999999999999999999");
    bench.server.command({"SET", bench.keys.fence_key, last});
    CHECK(bench.acquire("token").is_error());
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
}

TEST_CASE("What this library did not write is told as foreign, and nothing is left behind") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;

    SECTION("a lock key without an expiry") {
        bench.server.command({"SET", bench.keys.lock_key, "somebody"});
        CHECK(bench.acquire("token").text.starts_with("FOREIGNKEY "));
        CHECK(bench.get(bench.keys.lock_key) == "somebody");
        CHECK(bench.release("token").number == 0);
        CHECK(bench.renew("token").number == 0);
        CHECK(bench.pttl(bench.keys.lock_key) == -1);
    }
    SECTION("a lock key of another type") {
        bench.server.command({"LPUSH", bench.keys.lock_key, "somebody"});
        CHECK(bench.acquire("token").text.starts_with("WRONGTYPE "));
        CHECK(bench.renew("token").text.starts_with("WRONGTYPE "));
        CHECK(bench.release("token").text.starts_with("WRONGTYPE "));
        CHECK(bench.server.command({"LLEN", bench.keys.lock_key}).number == 1);
        CHECK_FALSE(bench.exists(bench.keys.fence_key));
    }
    SECTION("a fence key of another type") {
        bench.server.command({"LPUSH", bench.keys.fence_key, "somebody"});
        CHECK(bench.acquire("token").text.starts_with("WRONGTYPE "));
        CHECK_FALSE(bench.exists(bench.keys.lock_key));
    }
    SECTION("a fence key that holds something else") {
        for (const char* text :
             {"", "x", "12", "123456789012345678", "12345678901234567890", "123456789012345678x",
              "-234567890123456789", " 234567890123456789", "1234567890123456.89"}) {
            CAPTURE(text);
            bench.server.command({"SET", bench.keys.fence_key, text});
            CHECK(bench.acquire("token").text.starts_with("FOREIGNKEY "));
            CHECK(bench.get(bench.keys.fence_key) == text);
            CHECK_FALSE(bench.exists(bench.keys.lock_key));
        }
    }
}

TEST_CASE("A release gives back its own lock, once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.release("token").number == 0);
    (void)bench.fence_of("token");
    CHECK(bench.release("other").number == 0);
    CHECK(bench.release("toke").number == 0);
    CHECK(bench.release("token2").number == 0);
    CHECK(bench.get(bench.keys.lock_key).starts_with("token "));
    CHECK(bench.release("token").number == 1);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.exists(bench.keys.fence_key));
    CHECK(bench.release("token").number == 0);
    CHECK(bench.keys_with_expiry() == 1);
}

TEST_CASE("A renewal extends its own lease and the life of the fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.fence_of("token");
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    bench.server.command({"PEXPIRE", bench.keys.fence_key, "5000"});
    CHECK(bench.renew("token", 60'000).number == 1);
    CHECK(bench.pttl(bench.keys.lock_key) > 50'000);
    CHECK(bench.pttl(bench.keys.lock_key) <= 60'000);
    CHECK(bench.pttl(bench.keys.fence_key) > day - 60'000);
    CHECK(bench.get(bench.keys.fence_key) == fence);
}

TEST_CASE("A renewal neither extends another's lease nor brings one back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.renew("token").number == 0);
    CHECK(bench.keys_with_expiry() == 0);

    (void)bench.fence_of("mine");
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    for (const char* other : {"yours", "min", "mine2"}) {
        CHECK(bench.renew(other, 60'000).number == 0);
        CHECK(bench.pttl(bench.keys.lock_key) <= 5000);
    }
    bench.server.command({"DEL", bench.keys.lock_key});
    CHECK(bench.renew("mine").number == 0);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
}

TEST_CASE("Names, tokens and texts may have any bytes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    const std::string name =
        GENERATE_COPY(std::string{"a\r\nb"}, std::string{"\0", 1}, std::string{"\0x\0", 3},
                      std::string{"{x}%"}, every_byte, every_byte + every_byte);
    Bench bench{name};
    const auto reply = bench.acquire("token", ttl, every_byte);
    REQUIRE(reply.elements.size() == 3);
    CHECK(reply.elements[0].number == 1);
    CHECK(bench.get(bench.keys.lock_key).starts_with("token " + every_byte + " "));
    CHECK(bench.acquire("other").elements.at(0).number == 0);
    CHECK(bench.renew("token").number == 1);
    CHECK(bench.release("token").number == 1);
    CHECK(bench.keys_with_expiry() == 1);
}

TEST_CASE("Names that differ have locks that differ") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    for (const std::string_view name :
         {std::string_view{"a"}, std::string_view{"a\0", 2}, std::string_view{"A"},
          std::string_view{"{a}"}, std::string_view{"%7Ba%7D"}, std::string_view{"a}:fence"}}) {
        bench.keys = make_identity("codomyrmex:", name, {});
        CHECK(bench.acquire("token of " + std::string{name}).elements.at(0).number == 1);
    }
}

TEST_CASE("A replica answers READONLY to each script, whatever it remembers") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string state = GENERATE("free", "held");
    CAPTURE(state);
    if (state == "held") (void)bench.fence_of("token");
    REQUIRE(bench.server.command({"REPLICAOF", "127.0.0.1", "1"}).text == "OK");
    for (const char* token : {"token", "other"}) {
        CAPTURE(token);
        for (const auto& reply : {bench.acquire(token), bench.renew(token), bench.release(token)}) {
            CAPTURE(reply.text, reply.number);
            CHECK(reply.is_error());
            CHECK(reply.text.find("READONLY") != std::string::npos);
        }
    }
    REQUIRE(bench.server.command({"REPLICAOF", "NO", "ONE"}).text == "OK");
    CHECK(bench.exists(bench.keys.lock_key) == (state == "held"));
}

TEST_CASE("With its memory full the server refuses to acquire, and still renews and releases") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = GENERATE(as<std::string>{}, "", "4102444800000000001");
    bench.keys = make_identity("codomyrmex:", "free", {});
    const LockIdentity free = bench.keys;
    if (!fence.empty()) bench.server.command({"SET", free.fence_key, fence, "PX", "100000"});
    bench.keys = make_identity("codomyrmex:", "held", {});
    const LockIdentity held = bench.keys;
    (void)bench.fence_of("token");
    bench.server.command({"PEXPIRE", held.lock_key, "5000"});
    REQUIRE(bench.server.command({"CONFIG", "SET", "maxmemory", "1"}).text == "OK");

    bench.keys = free;
    const auto refused = bench.acquire("token");
    CAPTURE(refused.text);
    CHECK(refused.is_error());
    CHECK(refused.text.find("OOM") != std::string::npos);
    CHECK_FALSE(bench.exists(free.lock_key));

    bench.keys = held;
    CHECK(bench.acquire("other").elements.at(0).number == 0);
    CHECK(bench.renew("token").number == 1);
    CHECK(bench.pttl(held.lock_key) > 5000);
    CHECK(bench.release("token").number == 1);
    CHECK_FALSE(bench.exists(held.lock_key));
}
