// SPDX-License-Identifier: MIT
//
// The texts are those of real servers: 7.0.15 where nothing else is said.

#include <codomyrmex/concurrency/redis/server_error.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"

#include <hiredis/hiredis.h>

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace {

using codomyrmex::concurrency::redis::classify;
using codomyrmex::concurrency::redis::ServerError;
using codomyrmex::concurrency::redis::ServerErrorKind;
using test_support::Process;
using test_support::RedisServer;
using enum ServerErrorKind;

struct Case {
    ServerErrorKind kind;
    std::string_view word;
    std::string_view text;
};

void check(const Case& expected) {
    CAPTURE(std::string{expected.text});
    const ServerError error = classify(expected.text);
    CHECK(static_cast<int>(error.kind) == static_cast<int>(expected.kind));
    CHECK(error.word == expected.word);
}

}  // namespace

TEST_CASE("The first word of an error says what to do") {
    for (const Case& expected : {
             Case{retry, "LOADING", "LOADING Redis is loading the dataset in memory"},
             Case{retry, "BUSY",
                  "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN "
                  "NOSAVE."},
             Case{retry, "CLUSTERDOWN", "CLUSTERDOWN Hash slot not served"},
             Case{retry, "TRYAGAIN", "TRYAGAIN Multiple keys request during rehashing of slot"},
             Case{retry, "NOREPLICAS", "NOREPLICAS Not enough good replicas to write."},
             Case{retry, "MASTERDOWN",
                  "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to "
                  "'no'."},
             Case{retry, "OOM", "OOM command not allowed when used memory > 'maxmemory'."},
             Case{retry, "MISCONF",
                  "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to "
                  "persist to disk. Commands that may modify the data set are disabled, because "
                  "this instance is configured to report errors during writes if RDB snapshotting "
                  "fails (stop-writes-on-bgsave-error option). Please check the Redis logs for "
                  "details about the RDB error."},
             Case{retry, "ERR", "ERR max number of clients reached"},
             Case{retry, "ERR", "ERR max number of clients + cluster connections reached"},
             Case{rediscover, "READONLY", "READONLY You can't write against a read only replica."},
             Case{redirect, "MOVED", "MOVED 3999 127.0.0.1:6381"},
             Case{redirect, "ASK", "ASK 3999 127.0.0.1:6381"},
             Case{load_script, "NOSCRIPT", "NOSCRIPT No matching script. Please use EVAL."},
             Case{foreign_key, "WRONGTYPE",
                  "WRONGTYPE Operation against a key holding the wrong kind of value"},
             Case{refused, "NOAUTH", "NOAUTH Authentication required."},
             Case{refused, "WRONGPASS",
                  "WRONGPASS invalid username-password pair or user is disabled."},
             Case{refused, "NOPERM",
                  "NOPERM this user has no permissions to run the 'config|get' command"},
             Case{refused, "NOPERM",
                  "NOPERM this user has no permissions to access one of the keys used as "
                  "arguments"},
             Case{refused, "CROSSSLOT", "CROSSSLOT Keys in request don't hash to the same slot"},
             Case{refused, "ERR",
                  "ERR unknown command 'NOSUCH', with args beginning with: 'a' 'b' "},
             Case{refused, "ERR", "ERR wrong number of arguments for 'get' command"},
             Case{refused, "ERR", "ERR value is not an integer or out of range"},
             Case{refused, "ERR", "ERR DB index is out of range"},
             Case{refused, "ERR",
                  "ERR AUTH <password> called without any password configured for the default "
                  "user. Are you sure your configuration is correct?"},
         }) {
        check(expected);
    }
}

TEST_CASE("What Redis 7 adds to an error inside Lua changes nothing") {
    const std::string tail =
        " script: a94ea23bc16bbab0a3643fd91cb7769443713c02, on @user_script:1.";
    for (const Case& expected : {
             Case{foreign_key, "WRONGTYPE",
                  "WRONGTYPE Operation against a key holding the wrong kind of value"},
             Case{retry, "OOM", "OOM command not allowed when used memory > 'maxmemory'."},
             Case{retry, "NOREPLICAS", "NOREPLICAS Not enough good replicas to write."},
             Case{rediscover, "READONLY", "READONLY You can't write against a read only replica."},
             Case{retry, "ERR",
                  "ERR Script attempted to execute a command while the cluster is down"},
             Case{refused, "ERR",
                  "ERR Script attempted to access a non local key in a cluster node"},
             Case{refused, "ERR",
                  "ERR The user executing the script can't run this command or subcommand"},
             Case{refused, "ERR",
                  "ERR The user executing the script can't access at least one of the keys "
                  "mentioned in the command arguments"},
             Case{refused, "ERR",
                  "ERR The user executing the script can't publish to the channel mentioned in the "
                  "command"},
             Case{refused, "ERR", "ERR Unknown Redis command called from script"},
             Case{refused, "ERR", "ERR This Redis command is not allowed from script"},
             Case{refused, "ERR", "ERR user_script:1: boom"},
             Case{unknown_outcome, "ERR", "ERR Script killed by user with SCRIPT KILL..."},
         }) {
        check(expected);
        const std::string text = std::string{expected.text} + tail;
        check({expected.kind, expected.word, text});
        CHECK(classify(text).message == classify(expected.text).message);
    }
}

TEST_CASE("What Redis 6.2 puts before an error inside Lua changes nothing") {
    const std::string head =
        "ERR Error running script (call to f_a94ea23bc16bbab0a3643fd91cb7769443713c02): ";
    for (const Case& expected : {
             Case{retry, "OOM",
                  "@user_script:1: @user_script: 1: -OOM command not allowed when used memory > "
                  "'maxmemory'."},
             Case{retry, "MISCONF",
                  "@user_script:12: @user_script: 12: -MISCONF Redis is configured to save RDB "
                  "snapshots, but it is currently not able to persist on disk."},
             Case{rediscover, "READONLY",
                  "@user_script:1: @user_script: 1: -READONLY You can't write against a read only "
                  "replica."},
             Case{foreign_key, "WRONGTYPE",
                  "@user_script:1: WRONGTYPE Operation against a key holding the wrong kind of "
                  "value "},
             Case{foreign_key, "WRONGTYPE",
                  "WRONGTYPE Operation against a key holding the wrong kind of value "},
             Case{refused, "ERR",
                  "@user_script:1: @user_script: 1: The user executing the script can't run this "
                  "command or subcommand"},
             Case{refused, "ERR",
                  "@user_script:1: @user_script: 1: Unknown Redis command called from script"},
             Case{refused, "ERR", "@user_script:1: ERR value is not an integer or out of range"},
             Case{unknown_outcome, "ERR",
                  "@user_script:1: Script killed by user with SCRIPT KILL... "},
         }) {
        check({expected.kind, expected.word, head + std::string{expected.text}});
    }
    CHECK(classify(head + "@user_script:1: @user_script: 1: -OOM full.").message == "full.");
}

TEST_CASE("An error is told by its first word alone, and words are whole") {
    check({refused, "ERR", "ERR something about OOM and READONLY and WRONGTYPE"});
    check({refused, "ERR", "ERR something; max number of clients reached"});
    check({refused, "BUSYKEY", "BUSYKEY Target key name already exists."});
    check({refused, "BUSYGROUP", "BUSYGROUP Consumer Group name already exists"});
    check({refused, "ASKING", "ASKING"});
    check({refused, "OO", "OO"});
    check({refused, "UNKILLABLE", "UNKILLABLE Sorry the script already executed write commands"});
    check({refused, "NEVERHEARD", "NEVERHEARD of"});
    check({refused, "NEVERHEARD", "NEVERHEARD Script killed by user with SCRIPT KILL..."});
    check({retry, "OOM", "OOM"});
}

TEST_CASE("Text that no server writes is refused and harms nobody") {
    for (const std::string_view text :
         {"", " ", "  OOM", "oom", "Oom", "-OOM x", "ERR", "ERR ", "\n", "\xFF\xFE",
          "ERR Error running script (call to ", "ERR Error running script (call to f_): ",
          "ERR Error running script (call to f_): @user_script:",
          "ERR Error running script (call to f_): @user_script:1",
          "ERR Error running script (call to f_): @user_script: : : -",
          " script: , on @user_script:", "ERR x script: "}) {
        CAPTURE(std::string{text});
        const ServerError error = classify(text);
        CHECK(error.kind == refused);
        CHECK(error.word == "ERR");
    }
}

TEST_CASE("A real server's errors are classified, bare and inside Lua") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{{.args = {"--lua-time-limit", "20"}, .password = "pw", .debug = true}};
    const auto kind = [&](const std::vector<std::string>& words) {
        const auto reply = server.command(words);
        UNSCOPED_INFO(words.at(0) << ": " << reply.text);
        REQUIRE(reply.is_error());
        return classify(reply.text).kind;
    };
    const std::vector<std::string> set{"SET", "k", "v"};
    const std::vector<std::string> lua_set{"EVAL", "return redis.call('SET', KEYS[1], 'v')", "1",
                                           "k"};

    SECTION("of keys, commands and scripts") {
        server.command({"LPUSH", "list", "x"});
        CHECK(kind({"GET", "list"}) == foreign_key);
        CHECK(kind({"EVAL", "return redis.call('GET', KEYS[1])", "1", "list"}) == foreign_key);
        CHECK(kind({"EVAL", "return redis.pcall('GET', KEYS[1])", "1", "list"}) == foreign_key);
        CHECK(kind({"NOSUCH", "x"}) == refused);
        CHECK(kind({"EVAL", "return redis.call('NOSUCH')", "0"}) == refused);
        CHECK(kind({"EVALSHA", std::string(40, 'f'), "0"}) == load_script);
    }
    SECTION("of a full memory") {
        server.command({"CONFIG", "SET", "maxmemory", "1"});
        CHECK(kind(set) == retry);
        CHECK(kind(lua_set) == retry);
    }
    SECTION("of too few replicas") {
        server.command({"CONFIG", "SET", "min-replicas-to-write", "1"});
        CHECK(kind(set) == retry);
        CHECK(kind(lua_set) == retry);
    }
    SECTION("of a replica, also one that lost its master") {
        server.command({"REPLICAOF", "127.0.0.1", "1"});
        CHECK(kind(set) == rediscover);
        CHECK(kind(lua_set) == rediscover);
        server.command({"CONFIG", "SET", "replica-serve-stale-data", "no"});
        CHECK(kind({"GET", "k"}) == retry);
    }
    SECTION("of users") {
        CHECK(kind({"AUTH", "wrong"}) == refused);
        server.command({"ACL", "SETUSER", "bob", "on", ">b", "+eval", "~k*"});
        REQUIRE(server.command({"AUTH", "bob", "b"}).text == "OK");
        CHECK(kind(set) == refused);
        CHECK(kind(lua_set) == refused);
    }
    SECTION("of a script that takes long and is killed") {
        test_support::Pipe pipe;
        // A second client, for the first one waits while the script runs.
        Process child = Process::run([&] {
            redisContext* context = redisConnectUnix(server.socket_path().c_str());
            freeReplyObject(redisCommand(context, "AUTH pw"));
            auto* reply =
                static_cast<redisReply*>(redisCommand(context, "EVAL %s 0", "while true do end"));
            pipe.send(std::string(reply->str, static_cast<std::size_t>(reply->len)));
            return 0;
        });
        pipe.close_write();
        // PING waits while the script is young, then it is told BUSY.
        std::string busy;
        for (int i = 0; i < 100'000 && !busy.starts_with("BUSY"); ++i) {
            busy = server.command({"PING"}).text;
        }
        CHECK(classify(busy).kind == retry);
        CHECK(server.command({"SCRIPT", "KILL"}).text == "OK");
        const std::string killed = pipe.receive().value_or("");
        CAPTURE(killed);
        CHECK(classify(killed).kind == unknown_outcome);
        CHECK(child.wait() == test_support::ExitStatus{0, 0});
    }
}
