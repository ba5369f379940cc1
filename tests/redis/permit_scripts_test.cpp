// SPDX-License-Identifier: MIT
//
// Tests of permit_scripts.hpp: what each script does in a real server, asked by a client that is
// not ours.

#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/inspect_scripts.hpp>
#include <codomyrmex/concurrency/redis/permit_scripts.hpp>

#include "support/catch2.hpp"
#include "support/listener.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::Listener;
using test_support::RedisReply;
using test_support::RedisServer;
using Strings = std::vector<std::string>;

const std::string prefix = "codomyrmex:";
const std::string alice = "a11ce-1";
const std::string bob = "b0b-1";
const std::string carol = "ca401-1";
const std::string dave = "da5e-1";

/// What the process listens to whose token this is.
std::string channel_of(const std::string& token) {
    return prefix + "wake:" + token.substr(0, token.find('-'));
}

/// The keys of a semaphore, as commands take them, and how many permits it has.
struct Keys {
    explicit Keys(const PrimitiveKeys& keys)
        : lock_key{keys.main()},
          fence_key{keys.fence()},
          queue_key{keys.queue()},
          meta_key{keys.meta()} {}

    std::string lock_key;
    std::string fence_key;
    std::string queue_key;
    std::string meta_key;
    int capacity = 3;
};

/// A server and the scripts as they are called for one name.
struct Bench {
    RedisServer server{};
    Keys keys{keys_of(prefix, codomyrmex::concurrency::PrimitiveKind::semaphore, "pool")};

    RedisReply eval(const Script& script, const Strings& arguments) {
        Strings words{"EVAL",         std::string{script.body}, "4",          keys.lock_key,
                      keys.fence_key, keys.queue_key,           keys.meta_key};
        words.insert(words.end(), arguments.begin(), arguments.end());
        return server.command(words);
    }
    RedisReply run(const Script& script, Strings arguments) {
        arguments.emplace_back("number");
        return eval(script, arguments).answer_to("number");
    }

    static std::string waiter_of(const std::string& token, int weight, long long ms = 1000) {
        return token + ' ' + std::to_string(ms) + ' ' + std::to_string(weight) + " host:2:main";
    }

    RedisReply acquire(const std::string& token, int weight = 1, long long ms = 30'000,
                       const std::string& waiter = {}, const std::string& not_after = {}) {
        return run(acquire_permits_script,
                   {token, std::to_string(ms), "host:1:main", not_after, std::to_string(weight),
                    prefix, waiter, std::to_string(keys.capacity)});
    }
    RedisReply wait(const std::string& token, int weight = 1) {
        return acquire(token, weight, 30'000, waiter_of(token, weight));
    }
    /// What an acquire answers first: 1 granted, 0 not enough.
    long long tried(const std::string& token, int weight = 1, long long ms = 30'000) {
        const auto reply = acquire(token, weight, ms);
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 4);
        return reply.elements[0].number;
    }
    long long release(const std::string& token, const std::string& waiter = {}) {
        const auto reply = run(release_permits_script, {token, prefix, waiter});
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 1);
        return reply.elements[0].number;
    }
    long long renew(const std::string& token, long long ms = 30'000,
                    const std::string& not_after = {}) {
        const auto reply = run(renew_permits_script, {token, std::to_string(ms), not_after});
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 2);
        return reply.elements[0].number;
    }
    RedisReply reweigh(const std::string& token, int weight, int order = 1) {
        return run(reweigh_script, {token, std::to_string(weight), prefix, std::to_string(order)});
    }
    RedisReply resize(int capacity, const std::string& not_after = {}) {
        return run(resize_script, {std::to_string(capacity), prefix, not_after});
    }

    RedisReply force_release(const std::string& token) {
        return eval(force_release_permits_script, {token, prefix});
    }
    /// What the server keeps: who holds until when, the hash, the queue and the fence.
    Strings everything() {
        Strings all{server.command({"GET", keys.fence_key}).text};
        for (const Strings& command : {Strings{"ZRANGE", keys.lock_key, "0", "-1", "WITHSCORES"},
                                       Strings{"ZRANGE", keys.queue_key, "0", "-1", "WITHSCORES"},
                                       Strings{"HGETALL", keys.meta_key}}) {
            for (const auto& each : server.command(command).elements)
                all.push_back(each.text);
        }
        return all;
    }

    std::string used() { return server.command({"HGET", keys.meta_key, "used"}).text; }
    std::size_t holders() {
        return static_cast<std::size_t>(server.command({"ZCARD", keys.lock_key}).number);
    }
    long long pttl(const std::string& key) { return server.command({"PTTL", key}).number; }
    /// Lets the server's clock go past `ms` from now.
    static void pass(long long ms) { std::this_thread::sleep_for(std::chrono::milliseconds{ms}); }
};

}  // namespace

TEST_CASE("The SHA-1 of each script of permits is what the server makes of its body") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    for (const Script& script : {acquire_permits_script, release_permits_script,
                                 renew_permits_script, reweigh_script, resize_script}) {
        CAPTURE(std::string{script.name});
        CHECK(server.command({"SCRIPT", "LOAD", std::string{script.body}}).text == script.sha1);
    }
}

TEST_CASE("No more permits are given than there are, and what comes back is given again") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.tried(bob) == 1);
    CHECK(bench.used() == "3");
    CHECK(bench.tried(carol) == 0);
    CHECK(bench.release(alice) == 1);
    CHECK(bench.release(alice) == 0);
    CHECK(bench.used() == "1");
    CHECK(bench.tried(carol, 3) == 0);
    CHECK(bench.tried(carol, 2) == 1);
    CHECK(bench.release(bob) == 1);
    CHECK(bench.release(carol) == 1);
    CHECK(bench.used() == "0");
    CHECK(bench.holders() == 0);
    for (const auto& key : bench.server.command({"KEYS", "*"}).elements) {
        CAPTURE(key.text);
        CHECK(bench.pttl(key.text) > 0);
    }
}

TEST_CASE("Fences increase from holder to holder, and a repeated acquire gets a new one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    std::string last;
    for (const std::string& token : {alice, bob, alice, carol, bob}) {
        const auto reply = bench.acquire(token);
        REQUIRE(reply.elements.size() == 4);
        CHECK(reply.elements[0].number == 1);
        CHECK(reply.elements[2].text.size() == 19);
        CHECK(reply.elements[2].text > last);
        last = reply.elements[2].text;
    }
    CHECK(bench.used() == "3");
}

TEST_CASE("Each permit runs out by itself, whatever is renewed beside it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 1, 60) == 1);
    CHECK(bench.tried(bob, 2, 60) == 1);
    CHECK(bench.renew(bob) == 1);
    CHECK(bench.pttl(bench.keys.lock_key) > 20'000);
    Bench::pass(80);
    CHECK(bench.renew(alice) == 0);  // Never brought back.
    CHECK(bench.renew(bob) == 1);
    CHECK(bench.tried(carol) == 1);
    CHECK(bench.release(alice) == 0);
    CHECK(bench.used() == "3");
    CHECK(bench.holders() == 2);
}

TEST_CASE("When all have run out the count begins anew, though the key is gone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 3, 20) == 1);
    Bench::pass(40);
    CHECK(bench.server.command({"EXISTS", bench.keys.lock_key}).number == 0);
    CHECK(bench.used() == "3");
    CHECK(bench.tried(bob, 3) == 1);
    CHECK(bench.used() == "3");
    CHECK(bench.holders() == 1);
}

TEST_CASE("What is known of a semaphore goes by itself, whoever comes after all have run out") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 3, 20) == 1);
    Bench::pass(40);
    SECTION("one that gives back what it lost") {
        CHECK(bench.release(alice) == 0);
    }
    SECTION("one that says another number") {
        bench.keys.capacity = 4;
        CHECK(bench.acquire(bob).text == "MISMATCH 3");
    }
    SECTION("one that is too late") {
        CHECK(bench.acquire(bob, 1, 30'000, {}, "1700000000000000000").elements.at(0).number == 2);
    }
    SECTION("one that wants to convert what it lost") {
        CHECK(bench.reweigh(alice, 1).elements.at(0).number == 0);
    }
    CHECK(bench.used().empty());
    CHECK(bench.pttl(bench.keys.meta_key) > 0);
}

TEST_CASE("Who stands first is served first, though others behind would fit") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(bob)};
    Listener listens_too{bench.server, channel_of(carol)};
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.wait(bob, 3).elements.at(2).number == 0);
    CHECK(bench.wait(carol, 1).elements.at(2).number == 1);
    CHECK(bench.tried(dave) == 0);
    CHECK(bench.used() == "2");
    CHECK(bench.release(alice) == 1);
    CHECK(listens.next().starts_with("grant " + bob + ' '));
    CHECK(bench.used() == "3");
    CHECK(bench.release(bob, Bench::waiter_of(bob, 3)) == 1);
    CHECK(listens_too.next().starts_with("grant " + carol + ' '));
    CHECK(bench.tried(dave, 2) == 1);
}

TEST_CASE("All who fit are served by one release, in their order") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener b{bench.server, channel_of(bob)};
    Listener c{bench.server, channel_of(carol)};
    Listener d{bench.server, channel_of(dave)};
    CHECK(bench.tried(alice, 3) == 1);
    for (const std::string& token : {bob, carol, dave})
        CHECK(bench.wait(token).elements.at(0).number == 0);
    CHECK(bench.release(alice) == 1);
    std::string last;
    for (Listener* listener : {&b, &c, &d}) {
        const std::string text = listener->next();
        const auto message = read_message(text);  // has views of it
        REQUIRE(message.has_value());
        CHECK(message->key == bench.keys.lock_key);
        const std::string fence = std::to_string(message->fence);
        CHECK(fence > last);
        last = fence;
    }
    CHECK(bench.holders() == 3);
}

TEST_CASE("A dead waiter is dropped, also one that asks for more than is free") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(carol)};
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.wait(bob, 3).elements.at(0).number == 0);
    SECTION("by who asks") {
        CHECK(bench.tried(carol) == 1);
    }
    SECTION("by who gives back") {
        (void)bench.server.command(
            {"ZADD", bench.keys.queue_key, "9e15", Bench::waiter_of(carol, 1)});
        CHECK(bench.release(dave) == 0);
        CHECK(listens.next().starts_with("grant " + carol + ' '));
    }
    CHECK(bench.server.command({"ZCARD", bench.keys.queue_key}).number == 0);
}

TEST_CASE("Another number of permits than the stored one is an error that says it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice) == 1);
    CHECK(bench.release(alice) == 1);
    bench.keys.capacity = 4;
    CHECK(bench.acquire(bob).text == "MISMATCH 3");
    const auto resized = bench.resize(4);
    REQUIRE(resized.elements.size() == 2);  // and the time
    CHECK(resized.elements[0].number == 3);
    CHECK(bench.tried(bob, 4) == 1);
    // Fewer than are out: nothing is taken away.
    (void)bench.resize(2);
    bench.keys.capacity = 2;
    CHECK(bench.renew(bob) == 1);
    CHECK(bench.tried(alice) == 0);
    CHECK(bench.release(bob) == 1);
    CHECK(bench.tried(alice, 2) == 1);
}

TEST_CASE("More permits in all serve at once those who wait") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(bob)};
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.wait(bob, 2).elements.at(0).number == 0);
    (void)bench.resize(5);
    CHECK(listens.next().starts_with("grant " + bob + ' '));
}

TEST_CASE("Who waits for more than there are since a resize holds up nobody") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener b{bench.server, channel_of(bob)};
    Listener c{bench.server, channel_of(carol)};
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.wait(bob, 3).elements.at(0).number == 0);
    CHECK(bench.wait(carol, 1).elements.at(0).number == 0);
    (void)bench.resize(2);
    CHECK(bench.release(alice) == 1);
    CHECK(c.next().starts_with("grant " + carol + ' '));
    CHECK(bench.used() == "1");
    CHECK(bench.wait(bob, 3).text == "MISMATCH 2");
    CHECK(bench.server.command({"ZCARD", bench.keys.queue_key}).number == 0);
}

TEST_CASE("A writer that becomes a reader lets the readers in, and no other writer") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener b{bench.server, channel_of(bob)};
    Listener c{bench.server, channel_of(carol)};
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.wait(bob, 1).elements.at(0).number == 0);
    CHECK(bench.wait(carol, 3).elements.at(0).number == 0);
    const auto fence = bench.server.command({"GET", bench.keys.fence_key}).text;
    const auto reply = bench.reweigh(alice, 1);
    REQUIRE(reply.elements.size() == 4);
    CHECK(reply.elements[0].number == 1);
    CHECK(reply.elements[2].text > fence);
    CHECK(b.next().starts_with("grant " + bob + ' '));
    CHECK(bench.used() == "2");
    CHECK(bench.release(bob, Bench::waiter_of(bob, 1)) == 1);
    CHECK(bench.release(alice) == 1);
    CHECK(c.next().starts_with("grant " + carol + ' '));
}

TEST_CASE("A reader becomes a writer only if it is alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice) == 1);
    CHECK(bench.tried(bob) == 1);
    CHECK(bench.reweigh(alice, 3).elements.at(0).number == 3);
    CHECK(bench.used() == "2");
    CHECK(bench.release(bob) == 1);
    CHECK(bench.reweigh(alice, 3).elements.at(0).number == 1);
    CHECK(bench.reweigh(alice, 3).elements.at(0).number == 1);  // Repeated, it does no harm.
    CHECK(bench.used() == "3");
    CHECK(bench.tried(bob) == 0);
    CHECK(bench.reweigh(carol, 1).elements.at(0).number == 0);
    CHECK(bench.release(alice) == 1);
    CHECK(bench.used() == "0");
}

TEST_CASE("A command that its sender gave up on does nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string past = "1700000000000000000";
    CHECK(bench.acquire(alice, 1, 30'000, {}, past).elements.at(0).number == 2);
    CHECK(bench.holders() == 0);
    CHECK(bench.tried(alice, 1, 1'000) == 1);
    const Strings before = bench.everything();
    CHECK(bench.renew(alice, 30'000, past) == 3);
    CHECK(bench.everything() == before);
    CHECK(bench.pttl(bench.keys.lock_key) < 2'000);
}

TEST_CASE("Holders that nobody of ours wrote are left alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    SECTION("a set without an expiry") {
        bench.server.command({"ZADD", bench.keys.lock_key, "1", "mine"});
        CHECK(bench.acquire(alice).text.starts_with("FOREIGNKEY "));
        CHECK(bench.release(alice) == 0);
        CHECK(bench.reweigh(alice, 1).elements.at(0).number == 0);
        CHECK(bench.resize(4).text.starts_with("FOREIGNKEY "));
        CHECK(bench.holders() == 1);
    }
    SECTION("another type") {
        bench.server.command({"SET", bench.keys.lock_key, "mine", "PX", "100000"});
        CHECK(bench.acquire(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.server.command({"GET", bench.keys.lock_key}).text == "mine");
    }
    SECTION("a fence that is none") {
        bench.server.command({"SET", bench.keys.fence_key, "mine", "PX", "100000"});
        CHECK(bench.acquire(alice).text.starts_with("FOREIGNKEY "));
        CHECK(bench.holders() == 0);
    }
}

TEST_CASE("A replica answers READONLY to each script of permits") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice) == 1);
    REQUIRE(bench.server.command({"REPLICAOF", "127.0.0.1", "1"}).text == "OK");
    for (const std::string& token : {alice, bob}) {
        CHECK(bench.acquire(token).text.find("READONLY") != std::string::npos);
        CHECK(bench.acquire(token, 3).text.find("READONLY") != std::string::npos);
        CHECK(bench.run(release_permits_script, {token, prefix, ""}).text.find("READONLY") !=
              std::string::npos);
        CHECK(bench.run(renew_permits_script, {token, "30000", ""}).text.find("READONLY") !=
              std::string::npos);
        CHECK(bench.reweigh(token, 2).text.find("READONLY") != std::string::npos);
    }
}

TEST_CASE("A conversion that comes after a later one changes nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.reweigh(alice, 1, 1).elements.at(0).number == 1);
    CHECK(bench.reweigh(alice, 3, 2).elements.at(0).number == 1);
    CHECK(bench.reweigh(alice, 1, 1).elements.at(0).number == 3);
    CHECK(bench.used() == "3");
    CHECK(bench.tried(bob) == 0);
    CHECK(bench.release(alice) == 1);
    CHECK(bench.server.command({"HLEN", bench.keys.meta_key}).number == 2);
}

TEST_CASE("A late resize does nothing") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice) == 1);
    CHECK(bench.resize(9, "1700000000000000000").elements.at(0).number == -1);
    CHECK(bench.tried(bob) == 1);
}

TEST_CASE("The count outlives the holders, and not for ever") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 3, 20) == 1);
    Bench::pass(40);
    SECTION("after a release that comes late") {
        CHECK(bench.release(alice) == 0);
    }
    SECTION("after one who is wrong about it") {
        bench.keys.capacity = 4;
        CHECK(bench.acquire(bob).text == "MISMATCH 3");
    }
    SECTION("after a conversion that comes late") {
        CHECK(bench.reweigh(alice, 1).elements.at(0).number == 0);
    }
    CHECK(bench.pttl(bench.keys.meta_key) > 0);
}

TEST_CASE("Who asks for more than there are since a resize stands in nobody's way") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const Listener listens{bench.server, channel_of(bob)};
    CHECK(bench.tried(alice) == 1);
    CHECK(bench.wait(bob, 3).elements.at(0).number == 0);
    (void)bench.resize(2);
    bench.keys.capacity = 2;
    CHECK(bench.release(alice) == 1);
    CHECK(bench.tried(carol, 2) == 1);
    bench.keys.capacity = 3;
    CHECK(bench.wait(bob, 3).text == "MISMATCH 2");
}

TEST_CASE("Who stood in line before a resize keeps its place") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const Listener listens{bench.server, channel_of(bob)};
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.wait(bob, 2).elements.at(0).number == 0);
    (void)bench.resize(2);
    CHECK(bench.wait(bob, 2).elements.at(2).number == 0);
    CHECK(bench.release(alice) == 1);
    CHECK(bench.wait(bob, 2).elements.at(0).number == 1);
}

TEST_CASE("A token that has its permits by another way is not counted twice") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const Listener listens{bench.server, channel_of(bob)};
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.wait(bob, 1).elements.at(0).number == 0);
    // As if alice's time had run out, unseen by those who wait.
    bench.server.command({"ZADD", bench.keys.lock_key, "1", alice});
    CHECK(bench.tried(bob) == 1);  // an early copy, of before it stood in line
    CHECK(bench.used() == "1");
    CHECK(bench.release(bob, Bench::waiter_of(bob, 1)) == 1);
    CHECK(bench.used() == "0");
}

TEST_CASE("A forced release takes one holder's permits, and tells it, once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(alice)};
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.tried(bob) == 1);
    const Strings before = bench.everything();
    for (const char* other : {"a11ce-2", "a11ce-", "a11ce-11", "a11ce", ""}) {
        CAPTURE(other);
        CHECK(bench.force_release(other).number == 0);
    }
    CHECK(bench.everything() == before);
    CHECK(bench.force_release(alice).number == 1);
    CHECK(bench.used() == "1");
    CHECK(bench.holders() == 1);
    CHECK(bench.renew(alice) == 0);
    CHECK(bench.renew(bob) == 1);
    // The first that it hears: to the others nothing was said.
    CHECK(listens.next() == "revoked " + alice + ' ' + bench.keys.lock_key);
    const Strings after = bench.everything();
    CHECK(bench.force_release(alice).number == 0);
    CHECK(bench.release(alice) == 0);
    CHECK(bench.everything() == after);
    CHECK(bench.server.command_stats("publish").calls == 1);
    CHECK(bench.tried(carol, 2) == 1);
}

TEST_CASE("After the last holder was forced out only the count is left, and not for ever") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.force_release(alice).number == 1);
    CHECK(bench.used() == "0");
    CHECK(bench.holders() == 0);
    CHECK(bench.server.command({"HLEN", bench.keys.meta_key}).number == 2);
    CHECK(bench.pttl(bench.keys.meta_key) > 0);
    CHECK(bench.acquire(bob).elements.at(0).number == 1);
}

TEST_CASE("What expires last is forced out, and the key ends with those that are left") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 1, 600'000) == 1);
    CHECK(bench.tried(bob, 1, 30'000) == 1);
    CHECK(bench.force_release(alice).number == 1);
    CHECK(bench.pttl(bench.keys.lock_key) < 60'000);
    CHECK(bench.renew(bob) == 1);
}

TEST_CASE("A forced release serves all who fit then, in their order") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener b{bench.server, channel_of(bob)};
    Listener c{bench.server, channel_of(carol)};
    Listener d{bench.server, channel_of(dave)};
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.tried("e0e-1") == 1);
    for (const std::string& token : {bob, carol, dave})
        CHECK(bench.wait(token).elements.at(0).number == 0);
    CHECK(bench.force_release(alice).number == 1);
    CHECK(b.next().starts_with("grant " + bob + ' '));
    CHECK(c.next().starts_with("grant " + carol + ' '));
    CHECK(bench.used() == "3");
    CHECK(bench.server.command({"ZCARD", bench.keys.queue_key}).number == 1);
    // Of the next one that gives back, the next in line has it.
    CHECK(bench.force_release(bob).number == 1);
    CHECK(d.next().starts_with("grant " + dave + ' '));
    CHECK(b.next() == "revoked " + bob + ' ' + bench.keys.lock_key);
}

TEST_CASE("Whose time has run out is not forced out, and not told") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.tried(alice, 2) == 1);
    CHECK(bench.tried(bob) == 1);
    SECTION("though it was not yet seen") {
        bench.server.command({"ZADD", bench.keys.lock_key, "1", alice});
    }
    SECTION("nor among more than are removed at once") {
        bench.server.command({"EVAL",
                              "for i = 1, 1000 do redis.call('ZADD', KEYS[1], 1, 'dead-' .. i) "
                              "end redis.call('ZADD', KEYS[1], 2, ARGV[1])",
                              "1", bench.keys.lock_key, alice});
        CHECK(bench.force_release(alice).number == 2);
        CHECK(bench.holders() == 2);
    }
    CHECK(bench.force_release(alice).number == 0);
    CHECK(bench.used() == "1");
    CHECK(bench.holders() == 1);
    CHECK(bench.server.command_stats("publish").calls == 0);
}

TEST_CASE("A forced release drops waiters that are dead, and says when there are more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(carol)};
    CHECK(bench.tried(alice, 3) == 1);
    bench.server.command({"EVAL",
                          "for i = 1, 40 do redis.call('ZADD', KEYS[1], i, 'dead-' .. i .. "
                          "' 1000 1 x') end",
                          "1", bench.keys.queue_key});
    CHECK(bench.wait(carol).elements.at(0).number == 0);
    bench.server.command({"EVAL",
                          "for i = 1, 40 do redis.call('ZADD', KEYS[1], i, 'dead-' .. i .. "
                          "' 1000 1 x') end",
                          "1", bench.keys.queue_key});
    CHECK(bench.force_release(alice).number == 3);
    CHECK(bench.force_release(alice).number == 0);
    CHECK(listens.next().starts_with("grant " + carol + ' '));
    CHECK(bench.used() == "1");
}

TEST_CASE("Nothing is forced out of holders that are not ours") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"ZADD", bench.keys.lock_key, "4000000000000001", alice});
    CHECK(bench.force_release(alice).text.starts_with("FOREIGNKEY"));
    CHECK(bench.holders() == 1);
    bench.server.command({"DEL", bench.keys.lock_key});
    bench.server.command({"LPUSH", bench.keys.lock_key, alice});
    CHECK(bench.force_release(alice).text.starts_with("FOREIGNKEY"));
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "600000"});
    CHECK(bench.force_release(alice).text.find("WRONGTYPE") != std::string::npos);
    CHECK(bench.server.command({"LLEN", bench.keys.lock_key}).number == 1);
    CHECK(bench.server.command_stats("publish").calls == 0);
}

TEST_CASE("A fence that is not ours keeps no holder in, and lets nobody in") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Listener listens{bench.server, channel_of(alice)};
    const Listener alive{bench.server, channel_of(bob)};
    CHECK(bench.tried(alice, 3) == 1);
    CHECK(bench.wait(bob).elements.at(0).number == 0);
    bench.server.command({"SET", bench.keys.fence_key, "nonsense"});
    CHECK(bench.force_release(alice).number == 1);
    CHECK(listens.next() == "revoked " + alice + ' ' + bench.keys.lock_key);
    CHECK(bench.used() == "0");
    CHECK(bench.server.command({"ZCARD", bench.keys.queue_key}).number == 1);
}
