// SPDX-License-Identifier: MIT
//
// Tests of quorum_scripts.hpp: what each script does in a real server.

#include <codomyrmex/concurrency/redis/quorum_scripts.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"

#include <string>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using test_support::RedisReply;
using test_support::RedisServer;

const std::string lock_key = "codomyrmex:quorum:{a}";
const std::string fence_key = lock_key + ":fence";
constexpr long long day = 86'400'000;

class Bench {
  public:
    RedisReply call(const Script& script, const std::vector<std::string>& arguments) {
        std::vector<std::string> words{"EVAL", std::string{script.body}, "2", lock_key, fence_key};
        words.insert(words.end(), arguments.begin(), arguments.end());
        return server.command(words);
    }
    RedisReply acquire(const std::string& token, const std::string& wish = "",
                       const std::string& not_after = "") {
        return call(quorum_acquire_script, {token, "30000", "host:1:2", not_after, wish});
    }
    RedisReply raise(const std::string& token, const std::string& fence,
                     const std::string& not_after = "") {
        return call(quorum_raise_script, {token, fence, not_after});
    }
    RedisReply renew(const std::string& token, const std::string& fence,
                     const std::string& not_after = "") {
        return call(quorum_renew_script, {token, "30000", "host:1:2", not_after, fence});
    }
    long long release(const std::string& token) {
        return call(quorum_release_script, {token}).number;
    }
    RedisReply get(const std::string& key) { return server.command({"GET", key}); }
    long long left(const std::string& key) { return server.command({"PTTL", key}).number; }
    std::string now(long long ahead_ms = 0) {
        const RedisReply time = server.command({"TIME"});
        const long long us = std::stoll(time.elements[0].text) * 1'000'000 +
                             std::stoll(time.elements[1].text) + ahead_ms * 1000;
        return std::to_string(us) + "000";
    }

    RedisServer server;
};

std::string past() {
    return "1000000000000000000";
}

}  // namespace

TEST_CASE("The digests of the quorum's scripts are those of their bodies") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    for (const Script& script :
         {quorum_acquire_script, quorum_raise_script, quorum_renew_script, quorum_release_script}) {
        CAPTURE(std::string{script.name});
        CHECK(server.command({"SCRIPT", "LOAD", std::string{script.body}}).text == script.sha1);
    }
}

TEST_CASE("A vote is given once, readable for people, and taken back by its token alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const RedisReply granted = bench.acquire("alice");
    REQUIRE(granted.elements.size() == 3);
    CHECK(granted.elements[0].number == 1);
    CHECK(granted.elements[2].text == granted.elements[1].text);
    CHECK(bench.get(lock_key).text.starts_with("alice host:1:2 1"));
    CHECK(bench.left(lock_key) > 29'000);
    CHECK(bench.get(fence_key).text == granted.elements[2].text);
    CHECK(bench.left(fence_key) > day - 10'000);

    const RedisReply held = bench.acquire("bob");
    CHECK(held.elements[0].number == 0);
    CHECK(held.elements[2].number > 29'000);
    CHECK(bench.acquire("alic").elements[0].number == 0);
    CHECK(bench.release("bob") == 0);
    CHECK(bench.release("alic") == 0);
    // Again by its own: anew, under a larger fence.
    const RedisReply again = bench.acquire("alice", "", past());
    CHECK(again.elements[0].number == 1);
    CHECK(again.elements[2].text > granted.elements[2].text);
    CHECK(bench.release("alice") == 1);
    CHECK(bench.release("alice") == 0);
    CHECK(bench.get(lock_key).is_nil());
    CHECK_FALSE(bench.get(fence_key).is_nil());
}

TEST_CASE("An acquisition that comes too late does nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.acquire("alice", "", past()).elements[0].number == 2);
    CHECK(bench.get(lock_key).is_nil());
    CHECK(bench.get(fence_key).is_nil());
    CHECK(bench.acquire("alice", "", bench.now(60'000)).elements[0].number == 1);
}

TEST_CASE("A wish is drawn if it is a little ahead of the clock and of the last fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string wish = bench.now(500);
    CHECK(bench.acquire("alice", wish).elements[2].text == wish);
    CHECK(bench.get(fence_key).text == wish);
    bench.release("alice");
    // The last one was just that.
    const std::string next = bench.acquire("bob", wish).elements[2].text;
    CHECK(next == std::to_string(std::stoll(wish) + 1));
    bench.release("bob");
    CHECK(bench.acquire("carol", past()).elements[2].text == std::to_string(std::stoll(next) + 1));
    bench.release("carol");
    bench.server.command({"DEL", fence_key});
    // Not ahead, too far ahead, no fence.
    for (const std::string& no : {past(), bench.now(60'000), std::string{"12"}}) {
        const RedisReply drawn = bench.acquire("dave", no);
        CHECK(drawn.elements[2].text < bench.now(100));
        CHECK(drawn.elements[2].text != no);
        bench.release("dave");
    }
}

TEST_CASE("A fence is written back where the token has the vote and drew no more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string drawn = bench.acquire("alice").elements[2].text;
    CHECK(bench.raise("alice", drawn).elements[0].number == 1);
    const std::string higher = std::to_string(std::stoll(drawn) + 5);
    CHECK(bench.raise("bob", higher).elements[0].number == 0);
    CHECK(bench.get(fence_key).text == drawn);
    CHECK(bench.raise("alice", higher, past()).elements[0].number == 2);
    CHECK(bench.get(fence_key).text == drawn);
    CHECK(bench.raise("alice", higher).elements[0].number == 1);
    CHECK(bench.get(fence_key).text == higher);
    CHECK(bench.left(fence_key) > day - 10'000);
    CHECK(bench.raise("alice", drawn).elements[0].number == 0);
    CHECK(bench.get(fence_key).text == higher);
    bench.release("alice");
    CHECK(bench.raise("alice", std::to_string(std::stoll(higher) + 1)).elements[0].number == 0);
    CHECK(bench.get(fence_key).text == higher);
}

TEST_CASE("A renewal extends its own, sets what is missing, and leaves another's alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.acquire("alice").elements[2].text;
    bench.server.command({"PEXPIRE", lock_key, "1000"});
    CHECK(bench.renew("alice", fence).elements[0].number == 1);
    CHECK(bench.left(lock_key) > 29'000);
    bench.server.command({"PEXPIRE", lock_key, "1000"});
    CHECK(bench.renew("alice", fence, past()).elements[0].number == 3);
    CHECK(bench.left(lock_key) <= 1000);
    CHECK(bench.renew("bob", fence).elements[0].number == 0);
    CHECK(bench.left(lock_key) <= 1000);
    bench.server.command({"FLUSHALL"});
    CHECK(bench.renew("alice", fence, past()).elements[0].number == 3);
    CHECK(bench.get(lock_key).is_nil());
    CHECK(bench.renew("alice", fence).elements[0].number == 2);
    CHECK(bench.get(lock_key).text.starts_with("alice host:1:2 "));
    CHECK(bench.left(lock_key) > 29'000);
    CHECK(bench.get(fence_key).text == fence);
    CHECK(bench.left(fence_key) > day - 10'000);
    // A larger fence stays.
    const std::string higher = std::to_string(std::stoll(fence) + 5);
    bench.raise("alice", higher);
    CHECK(bench.renew("alice", fence).elements[0].number == 1);
    CHECK(bench.get(fence_key).text == higher);
}

TEST_CASE("Keys that are not ours are told apart, and left as they are") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"SET", lock_key, "by somebody"});
    CHECK(bench.acquire("alice").text.find("FOREIGNKEY") != std::string::npos);
    CHECK(bench.get(lock_key).text == "by somebody");
    bench.server.command({"DEL", lock_key});
    bench.server.command({"SET", fence_key, "12"});
    CHECK(bench.acquire("alice").text.find("FOREIGNKEY") != std::string::npos);
    CHECK(bench.renew("alice", past()).text.find("FOREIGNKEY") != std::string::npos);
    CHECK(bench.get(lock_key).is_nil());
    bench.server.command({"DEL", fence_key});
    bench.server.command({"RPUSH", lock_key, "x"});
    CHECK(bench.acquire("alice").text.find("WRONGTYPE") != std::string::npos);
}

TEST_CASE("A replica says what it is, and not what it remembers") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.acquire("alice").elements[2].text;
    bench.server.command({"REPLICAOF", "127.0.0.1", "1"});
    for (const RedisReply& reply :
         {bench.acquire("bob"), bench.raise("bob", fence), bench.renew("bob", fence),
          bench.call(quorum_release_script, {"bob"})}) {
        CHECK(reply.text.find("READONLY") != std::string::npos);
    }
}
