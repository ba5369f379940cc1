// SPDX-License-Identifier: MIT
//
// Tests of inspect_scripts.hpp in a real server, beside the scripts that acquire and release.

#include <codomyrmex/concurrency/redis/inspect_scripts.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <string>
#include <vector>

using namespace codomyrmex::concurrency::redis;
using test_support::RedisReply;
using test_support::RedisServer;

namespace {

const std::string main_key = "p:lock:{n}";

RedisReply eval(RedisServer& server, const Script& script, const std::vector<std::string>& keys,
                const std::vector<std::string>& arguments) {
    std::vector<std::string> words{"EVAL", std::string{script.body}, std::to_string(keys.size())};
    words.insert(words.end(), keys.begin(), keys.end());
    words.insert(words.end(), arguments.begin(), arguments.end());
    return server.command(words);
}

const std::vector<std::string> keys{main_key, main_key + ":fence", main_key + ":queue"};

RedisReply acquire(RedisServer& server, const std::string& token) {
    return eval(server, acquire_script, keys,
                {token, "", "host:1:2", "30000", "1", "p:", "", "number"})
        .answer_to("number");
}

}  // namespace

TEST_CASE("each script's digest is that of its body") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    for (const Script& script :
         {look_script, look_many_script, force_release_script, force_release_permits_script}) {
        CAPTURE(std::string{script.name});
        CHECK(server.command({"SCRIPT", "LOAD", std::string{script.body}}).text == script.sha1);
    }
}

TEST_CASE("a look tells who holds, for how long, under which fence, and how many wait") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    auto look = eval(server, look_script, keys, {});
    REQUIRE(look.elements.size() == 5);
    CHECK(look.elements[0].text.size() == 19);
    CHECK(look.elements[1].text.empty());
    CHECK(look.elements[3].text.empty());
    CHECK(look.elements[4].number == 0);

    const auto granted = acquire(server, "a1-1");
    server.command({"ZADD", main_key + ":queue", "1", "b1-1 1000 1 x"});
    look = eval(server, look_script, keys, {});
    REQUIRE(look.elements.size() == 5);
    CHECK(look.elements[1].text.starts_with("a1-1 host:1:2 "));
    CHECK(look.elements[2].number > 20'000);
    CHECK(look.elements[3].text == granted.elements.at(2).text);
    CHECK(look.elements[4].number == 1);
}

TEST_CASE("a look writes nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    acquire(server, "a1-1");
    // A replica refuses every script that writes.
    server.command({"REPLICAOF", "127.0.0.1", "1"});
    CHECK(eval(server, look_script, keys, {}).elements.size() == 5);
    CHECK(
        eval(server, look_many_script, {"p:sem:{n}", "f", "q", "m"}, {"0", "9"}).elements.size() ==
        5);
}

TEST_CASE("a replica takes nothing away, not even from one that it does not know") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    server.command({"REPLICAOF", "127.0.0.1", "1"});
    CHECK(eval(server, force_release_script, keys, {"a1-1", "p:"}).text.find("READONLY") !=
          std::string::npos);
    CHECK(eval(server, force_release_permits_script, {"p:sem:{n}", "f", "q", "m"}, {"a1-1", "p:"})
              .text.find("READONLY") != std::string::npos);
}

TEST_CASE("what is not ours is foreign") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    server.command({"SET", main_key, "x"});
    CHECK(eval(server, look_script, keys, {}).text.starts_with("FOREIGNKEY"));
    server.command({"DEL", main_key});
    server.command({"LPUSH", main_key, "x"});
    CHECK(eval(server, look_script, keys, {}).text.starts_with("FOREIGNKEY"));
    CHECK(eval(server, look_many_script, {main_key, "f", "q", "m"}, {"0", "9"})
              .text.starts_with("FOREIGNKEY"));
}

TEST_CASE("holders that have run out are not shown, the others in order of their ends") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const std::string set = "p:sem:{n}";
    server.command(
        {"ZADD", set, "1000", "dead", "4000000000000002", "second", "4000000000000001", "first"});
    server.command({"HSET", set + ":meta", "capacity", "5", "first", "2 h:1:2 1700000000"});
    const std::vector<std::string> all{set, set + ":fence", set + ":queue", set + ":meta"};
    auto look = eval(server, look_many_script, all, {"0", "9"});
    REQUIRE(look.elements.size() == 11);
    CHECK(look.elements[1].text == "5");
    CHECK(look.elements[4].number == 2);
    CHECK(look.elements[5].text == "first");
    CHECK(look.elements[6].text == "4000000000000001");
    CHECK(look.elements[7].text == "2 h:1:2 1700000000");
    CHECK(look.elements[8].text == "second");
    CHECK(look.elements[10].text.empty());
    look = eval(server, look_many_script, all, {"1", "1"});
    REQUIRE(look.elements.size() == 8);
    CHECK(look.elements[5].text == "second");
}

TEST_CASE("a forced release frees only what is held under that token, once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    acquire(server, "a1-1");
    for (const char* other : {"a1-2", "a1-11", "a1-", "a1", "b1-1"}) {
        CAPTURE(other);
        CHECK(eval(server, force_release_script, keys, {other, "p:"}).number == 0);
        CHECK(server.command({"EXISTS", main_key}).number == 1);
    }
    CHECK(eval(server, force_release_script, keys, {"a1-1", "p:"}).number == 1);
    CHECK(server.command({"EXISTS", main_key}).number == 0);
    CHECK(eval(server, force_release_script, keys, {"a1-1", "p:"}).number == 0);
    // It says so to a process that may listen; once.
    CHECK(server.command_stats("publish").calls == 1);
}
