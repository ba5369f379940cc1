// SPDX-License-Identifier: MIT
//
// Tests of scripts.hpp and batch_scripts.hpp: what each script does in a real server, asked by a
// client that is not ours.

#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "support/catch2.hpp"
#include "support/listener.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::Listener;
using test_support::RedisReply;
using test_support::RedisServer;
using Kind = RedisReply::Kind;
using Strings = std::vector<std::string>;

constexpr long long day = 86'400'000;
constexpr long long ttl = 30'000;
constexpr long long grant_ttl = 1'000;

const std::string prefix = "codomyrmex:";

// A process's number is hexadecimal, and a token's begins with it. The mark r says that its lease
// is retained when nobody uses it.
const std::string alice = "a11ce-1";
const std::string bob = "b0b-1";
const std::string carol = "ca401-1";

std::string process_of(const std::string& token) {
    return token.substr(0, token.find('-'));
}

std::string wake_channel(const std::string& process) {
    return prefix + "wake:" + process;
}

std::string waiter_of(const std::string& token, long long ms = grant_ttl, int block = 1,
                      const std::string& text = "host:2:main") {
    return token + ' ' + std::to_string(ms) + ' ' + std::to_string(block) + ' ' + text;
}

/// The keys of a lock, as commands take them.
struct Keys {
    explicit Keys(std::string_view name)
        : Keys{keys_of(prefix, codomyrmex::concurrency::PrimitiveKind::lock, name)} {}
    explicit Keys(const PrimitiveKeys& keys)
        : lock_key{keys.main()}, fence_key{keys.fence()}, queue_key{keys.queue()} {}

    std::string lock_key;
    std::string fence_key;
    std::string queue_key;
};

/// A server and the scripts as they are called for one name.
struct Bench {
    RedisServer server;
    Keys keys;

    explicit Bench(std::string_view name = "job") : keys{name} {}

    RedisReply run(const Script& script, Strings arguments) {
        Strings words{"EVAL",        std::string{script.body}, "3",
                      keys.lock_key, keys.fence_key,           keys.queue_key};
        words.insert(words.end(), arguments.begin(), arguments.end());
        words.emplace_back("number");
        return server.command(words).answer_to("number");
    }

    struct Acquire {
        std::string token{};
        long long ms = ttl;
        std::string text = "host:1:main";
        std::string not_after{};
        int block = 1;
        std::string waiter{};
    };
    RedisReply acquire_as(const Acquire& with) {
        return run(acquire_script, {with.token, with.waiter, with.text, std::to_string(with.ms),
                                    std::to_string(with.block), prefix, with.not_after});
    }
    /// Tries only.
    RedisReply acquire(const std::string& token) { return acquire_as({.token = token}); }
    /// Waits if it must.
    RedisReply wait(const std::string& token) {
        return acquire_as({.token = token, .waiter = waiter_of(token)});
    }
    RedisReply release(const std::string& token, const std::string& waiter = {}) {
        // The first of what it answers, or the error.
        const RedisReply reply = run(release_script, {token, prefix, waiter});
        return reply.elements.size() == 1 ? reply.elements[0] : reply;
    }
    RedisReply renew(const std::string& token, long long ms = ttl,
                     const std::string& not_after = {}) {
        return run(renew_script, {token, std::to_string(ms), not_after});
    }
    /// The first of what a renewal answers.
    long long renewed(const std::string& token, long long ms = ttl) {
        const auto reply = renew(token, ms);
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 2);
        return reply.elements[0].number;
    }

    std::string get(const std::string& key) { return server.command({"GET", key}).text; }
    long long pttl(const std::string& key) { return server.command({"PTTL", key}).number; }
    bool exists(const std::string& key) { return server.command({"EXISTS", key}).number == 1; }
    /// The token that holds the lock; empty if it is free.
    std::string holder() {
        const std::string value = get(keys.lock_key);
        return value.substr(0, value.find(' '));
    }
    /// The tokens of those who wait, in their order.
    Strings queue() {
        Strings tokens;
        for (const auto& waiter : server.command({"ZRANGE", keys.queue_key, "0", "-1"}).elements)
            tokens.push_back(waiter.text.substr(0, waiter.text.find(' ')));
        return tokens;
    }

    /// The server's clock in nanoseconds, as the scripts write it.
    std::string time() {
        const auto reply = server.command({"TIME"});
        std::string micros = reply.elements.at(1).text;
        micros.insert(0, 6 - micros.size(), '0');
        return reply.elements.at(0).text + micros + "000";
    }

    /// The fence of an acquire that must succeed.
    std::string fence_of(const std::string& token, int block = 1) {
        const auto reply = acquire_as({.token = token, .block = block});
        CAPTURE(reply.text);
        REQUIRE(reply.elements.size() == 4);
        REQUIRE(reply.elements[0].number == 1);
        return reply.elements[2].text;
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

/// The fence so many after this one, in decimal.
std::string plus(const std::string& fence, long long count = 1) {
    return std::to_string(std::stoll(fence) + count);
}

/// What the library's own reader makes of a script's answer.
Reply to_reply(const RedisReply& from) {
    Reply reply;
    reply.type = from.is_error() ? Reply::Type::error : Reply::Type::string;
    reply.text = from.text;
    return reply;
}

}  // namespace

TEST_CASE("The SHA-1 of each script is what the server makes of its body") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    for (const Script& script : {acquire_script, release_script, renew_script, acquire_all_script,
                                 acquire_each_script, release_all_script, renew_all_script}) {
        CAPTURE(std::string{script.name});
        CHECK(server.command({"SCRIPT", "LOAD", std::string{script.body}}).text == script.sha1);
    }
}

TEST_CASE("What the scripts answer is what the library reads") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto granted = read_acquire(to_reply(bench.acquire(alice)));
    REQUIRE(granted.has_value());
    CHECK(granted->outcome == AcquireAnswer::Outcome::granted);
    CHECK(granted->fences == 1);
    CHECK(to_server_time(granted->fence) == granted->time);
    const auto held = read_acquire(to_reply(bench.wait(bob)));
    REQUIRE(held.has_value());
    CHECK(held->outcome == AcquireAnswer::Outcome::held);
    CHECK(held->rank == 0);
    CHECK(held->left > 20s);
    const auto late = read_acquire(
        to_reply(bench.acquire_as({.token = carol, .not_after = "1000000000000000000"})));
    REQUIRE(late.has_value());
    CHECK(late->outcome == AcquireAnswer::Outcome::late);
    const auto wanted = read_renew(to_reply(bench.renew(alice)));
    REQUIRE(wanted.has_value());
    CHECK(wanted->outcome == RenewAnswer::Outcome::wanted);
    const auto lost = read_renew(to_reply(bench.renew(carol)));
    REQUIRE(lost.has_value());
    CHECK(lost->outcome == RenewAnswer::Outcome::lost);
}

// --- To take it.

TEST_CASE("A free lock is taken") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string before = bench.time();
    const auto reply = GENERATE(true, false) ? bench.acquire(alice) : bench.wait(alice);
    const std::string after = bench.time();
    REQUIRE(reply.kind == Kind::string);
    REQUIRE(reply.elements.size() == 4);
    CHECK(reply.elements[0].number == 1);
    CHECK(reply.elements[3].number == 1);
    const std::string now = reply.elements[1].text;
    const std::string fence = reply.elements[2].text;

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
    CHECK(bench.keys_with_expiry() == 2);  // nobody queues for what is free
}

TEST_CASE("Who holds the lock and since when can be read by people") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto reply = bench.acquire_as({.token = alice, .text = "host:12:main label"});
    const std::string seconds = reply.elements.at(1).text.substr(0, 10);
    CHECK(bench.get(bench.keys.lock_key) == alice + " host:12:main label " + seconds);
}

TEST_CASE("A lock that another holds is left as it is by one who tries") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.fence_of("mine");
    const std::string value = bench.get(bench.keys.lock_key);
    const auto other = GENERATE(as<std::string>{}, "yours", "min", "mine2", "MINE", "");
    CAPTURE(other);
    const auto reply = bench.acquire_as({.token = other, .ms = 60'000});
    REQUIRE(reply.elements.size() == 4);
    CHECK(reply.elements[0].number == 0);
    CHECK(is_fence(reply.elements[1].text));
    CHECK(reply.elements[1].text > fence);
    CHECK(reply.elements[2].number == -1);  // It does not wait.
    CHECK(reply.elements[3].number <= ttl);
    CHECK(reply.elements[3].number > ttl - 10'000);
    CHECK(bench.get(bench.keys.lock_key) == value);
    CHECK(bench.get(bench.keys.fence_key) == fence);
    CHECK(bench.pttl(bench.keys.lock_key) <= ttl);
    CHECK(bench.keys_with_expiry() == 2);
}

TEST_CASE("The same token takes it again, for the full time and under a larger fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string first = bench.fence_of(alice);
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    const std::string second = bench.fence_of(alice);
    CAPTURE(first, second);
    CHECK(second > first);
    CHECK(is_fence(second));
    CHECK(bench.get(bench.keys.fence_key) == second);
    CHECK(bench.pttl(bench.keys.lock_key) > 5000);
    CHECK(bench.keys_with_expiry() == 2);
    // Also when it comes late: what it asked for it has already.
    const auto late = bench.acquire_as({.token = alice, .not_after = "1000000000000000000"});
    CHECK(late.elements.at(0).number == 1);
    CHECK(late.elements.at(2).text > second);
}

TEST_CASE("A holder that is the token alone, without text, is the same token") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"SET", bench.keys.lock_key, "token", "PX", "5000"});
    CHECK(bench.acquire("toke").elements.at(0).number == 0);
    CHECK(bench.renewed("toke") == 0);
    CHECK(bench.release("toke").number == 0);
    CHECK(bench.acquire("token").elements.at(0).number == 1);
    CHECK(bench.renewed("token") == 1);
    CHECK(bench.release("token").number == 1);
}

TEST_CASE("A request that its sender gave up on does nothing, and shows the server's time") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const bool held = GENERATE(false, true);
    CAPTURE(held);
    if (held) (void)bench.fence_of(alice);
    const std::string before = bench.time();
    const auto late =
        bench.acquire_as({.token = bob, .not_after = before, .waiter = waiter_of(bob)});
    REQUIRE(late.elements.size() == 2);
    CHECK(late.elements[0].number == 2);
    CHECK(late.elements[1].text >= before);
    CHECK(bench.holder() == (held ? alice : ""));
    CHECK(bench.queue().empty());

    const auto in_time = bench.acquire_as(
        {.token = bob, .not_after = plus(before, 60'000'000'000), .waiter = waiter_of(bob)});
    CHECK(in_time.elements.at(0).number == (held ? 0 : 1));
}

// --- Fencing tokens.

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
    (void)bench.acquire_as({.token = "short", .ms = 1});
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
        CHECK(fence == plus(last));
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
    CHECK(bench.fence_of(alice) >= now);
    CHECK(bench.pttl(bench.keys.fence_key) > 0);
}

TEST_CASE("A block of fences is reserved: the next holder's is above all of it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const auto reply = bench.acquire_as({.token = alice, .block = 33});
    CHECK(reply.elements.at(3).number == 33);
    const std::string first = reply.elements.at(2).text;
    CHECK(first == reply.elements.at(1).text);
    CHECK(bench.get(bench.keys.fence_key) == plus(first, 32));
    REQUIRE(bench.release(alice).number == 1);
    CHECK(bench.fence_of(bob) > plus(first, 32));
}

TEST_CASE(
    "A block begins with the clock: where the last fence is ahead of that, there is but one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string last = plus(bench.time(), 30'000'000'000);
    bench.server.command({"SET", bench.keys.fence_key, last});
    const auto reply = bench.acquire_as({.token = alice, .block = 33});
    CHECK(reply.elements.at(2).text == plus(last));
    CHECK(reply.elements.at(3).number == 1);
    CHECK(bench.get(bench.keys.fence_key) == plus(last));
}

TEST_CASE("However many blocks are taken in a row, the fence leads the clock by no more than one") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    constexpr int block = 1'000'000;
    std::string highest;
    for (int i = 0; i < 2000; ++i) {
        (void)bench.acquire_as({.token = alice, .block = block});
        highest = bench.get(bench.keys.fence_key);
    }
    CHECK(highest < plus(bench.time(), block + 2000));
}

TEST_CASE("A fence that cannot grow any more fails and leaves no lock") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string last =
        GENERATE(as<std::string>{}, "9223372036854775807", "9999999999999999999");
    bench.server.command({"SET", bench.keys.fence_key, last});
    CHECK(bench.acquire(alice).is_error());
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
}

TEST_CASE("What this library did not write is told as foreign, and nothing is left behind") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;

    SECTION("a lock key without an expiry") {
        bench.server.command({"SET", bench.keys.lock_key, "somebody"});
        CHECK(bench.acquire(alice).text.starts_with("FOREIGNKEY "));
        CHECK(bench.wait(alice).text.starts_with("FOREIGNKEY "));
        CHECK(bench.get(bench.keys.lock_key) == "somebody");
        CHECK(bench.release(alice).number == 0);
        CHECK(bench.renewed(alice) == 0);
        CHECK(bench.pttl(bench.keys.lock_key) == -1);
        CHECK(bench.queue().empty());
    }
    SECTION("a lock key of another type") {
        bench.server.command({"LPUSH", bench.keys.lock_key, "somebody"});
        CHECK(bench.acquire(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.renew(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.release(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.server.command({"LLEN", bench.keys.lock_key}).number == 1);
        CHECK_FALSE(bench.exists(bench.keys.fence_key));
    }
    SECTION("a fence key of another type") {
        bench.server.command({"LPUSH", bench.keys.fence_key, "somebody"});
        CHECK(bench.acquire(alice).text.starts_with("WRONGTYPE "));
        CHECK_FALSE(bench.exists(bench.keys.lock_key));
    }
    SECTION("a queue of another type") {
        bench.server.command({"SET", bench.keys.queue_key, "somebody"});
        CHECK(bench.acquire(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.wait(alice).text.starts_with("WRONGTYPE "));
        CHECK(bench.release(alice, waiter_of(alice)).text.starts_with("WRONGTYPE "));
        CHECK_FALSE(bench.exists(bench.keys.lock_key));
        CHECK(bench.get(bench.keys.queue_key) == "somebody");
    }
    SECTION("a fence key that holds something else") {
        for (const char* text :
             {"", "x", "12", "123456789012345678", "12345678901234567890", "123456789012345678x",
              "-234567890123456789", " 234567890123456789", "1234567890123456.89"}) {
            CAPTURE(text);
            bench.server.command({"SET", bench.keys.fence_key, text});
            CHECK(bench.acquire(alice).text.starts_with("FOREIGNKEY "));
            CHECK(bench.wait(alice).text.starts_with("FOREIGNKEY "));
            CHECK(bench.get(bench.keys.fence_key) == text);
            CHECK_FALSE(bench.exists(bench.keys.lock_key));
            CHECK(bench.queue().empty());
        }
    }
    SECTION("a fence that turns foreign while it is held and others wait") {
        (void)bench.fence_of(alice);
        (void)bench.wait(bob);
        const Listener listener{bench.server, wake_channel(process_of(bob))};
        bench.server.command({"SET", bench.keys.fence_key, "x"});
        CHECK(bench.acquire(alice).text.starts_with("FOREIGNKEY "));
        CHECK(bench.release(alice).number == 1);  // It can be given back, if not passed on.
        CHECK_FALSE(bench.exists(bench.keys.lock_key));
        CHECK(bench.acquire(carol).text.starts_with("FOREIGNKEY "));
        CHECK(bench.wait(bob).text.starts_with("FOREIGNKEY "));
    }
}

// --- The queue.

TEST_CASE("Who waits for a lock that is held stands in the queue, in the order of their coming") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    for (int i = 0; i < 20; ++i) {
        const auto reply = bench.wait("beef-" + std::to_string(i));
        REQUIRE(reply.elements.size() == 4);
        CHECK(reply.elements[0].number == 0);
        CHECK(reply.elements[2].number == i);
        CHECK(reply.elements[3].number <= ttl);
        CHECK(reply.elements[3].number > ttl - 10'000);
    }
    const Strings queue = bench.queue();
    REQUIRE(queue.size() == 20);
    for (std::size_t i = 0; i < queue.size(); ++i)
        CHECK(queue[i] == "beef-" + std::to_string(i));
    CHECK(bench.holder() == alice);
    CHECK(bench.keys_with_expiry() == 3);
    CHECK(bench.pttl(bench.keys.queue_key) > 50'000);
}

TEST_CASE("Who asks again keeps its place, and the queue its life") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    (void)bench.wait(carol);
    bench.server.command({"PEXPIRE", bench.keys.queue_key, "5000"});
    CHECK(bench.wait(bob).elements.at(2).number == 0);
    CHECK(bench.wait(carol).elements.at(2).number == 1);
    CHECK(bench.queue() == Strings{bob, carol});
    CHECK(bench.pttl(bench.keys.queue_key) > 50'000);
}

TEST_CASE("Nobody overtakes in the queue though the server's clock was set back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    // One that came when the clock was ahead by years.
    bench.server.command({"ZADD", bench.keys.queue_key, "4102444800000000", waiter_of(bob)});
    CHECK(bench.wait(carol).elements.at(2).number == 1);
    CHECK(bench.wait("dead-1").elements.at(2).number == 2);
    CHECK(bench.queue() == Strings{bob, carol, "dead-1"});
}

TEST_CASE("One that tries does not take a free lock that others wait for") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    Listener listener{bench.server, wake_channel(process_of(bob))};
    // Its holder's lease ran out.
    bench.server.command({"DEL", bench.keys.lock_key});
    const auto reply = bench.acquire(carol);
    CHECK(reply.elements.at(0).number == 0);
    CHECK(reply.elements.at(2).number == -1);
    CHECK(reply.elements.at(3).number == grant_ttl);
    CHECK(bench.holder() == bob);
    CHECK(listener.next().starts_with("grant " + bob + ' '));
    CHECK(bench.queue().empty());
}

TEST_CASE("One that waits queues behind those who waited before the lock was free") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    bench.server.command({"DEL", bench.keys.lock_key});
    const auto reply = bench.wait(carol);
    CHECK(reply.elements.at(0).number == 0);
    CHECK(reply.elements.at(2).number == 0);
    CHECK(reply.elements.at(3).number == grant_ttl);
    CHECK(bench.holder() == bob);
    CHECK(bench.queue() == Strings{carol});
}

TEST_CASE(
    "One that waits takes a free lock itself when it is the first, or all before it are dead") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    const bool behind_dead = GENERATE(false, true);
    CAPTURE(behind_dead);
    if (behind_dead) (void)bench.wait("dead-1");
    (void)bench.wait(bob);
    (void)bench.wait(carol);
    bench.server.command({"DEL", bench.keys.lock_key});
    const auto reply = bench.wait(bob);
    CHECK(reply.elements.at(0).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.pttl(bench.keys.lock_key) > grant_ttl);  // It has it for its full time at once.
    CHECK(bench.queue() == Strings{carol});
}

TEST_CASE("One that tries takes a free lock when all who waited are dead") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait("dead-1");
    (void)bench.wait("dead-2");
    bench.server.command({"DEL", bench.keys.lock_key});
    CHECK(bench.acquire(bob).elements.at(0).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.queue().empty());
}

TEST_CASE("A waiter that stands in the queue and finds itself the holder takes it anew") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    Listener listener{bench.server, wake_channel(process_of(bob))};
    CHECK(bench.release(alice).number == 1);
    const auto message = read_message(listener.next());
    REQUIRE(message.has_value());
    // Its message was missed, perhaps, and it asks again.
    const auto reply = bench.wait(bob);
    CHECK(reply.elements.at(0).number == 1);
    CHECK(reply.elements.at(2).text > std::to_string(message->fence));
    CHECK(bench.pttl(bench.keys.lock_key) > grant_ttl);
    CHECK(bench.queue().empty());
}

// --- To give it back, and pass it on.

TEST_CASE("A release gives back its own lock, once") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.release("token").number == 0);
    (void)bench.fence_of("token");
    CHECK(bench.release("other").number == 0);
    CHECK(bench.release("toke").number == 0);
    CHECK(bench.release("token2").number == 0);
    CHECK(bench.holder() == "token");
    CHECK(bench.release("token").number == 1);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.exists(bench.keys.fence_key));
    CHECK(bench.release("token").number == 0);
    CHECK(bench.keys_with_expiry() == 1);
}

TEST_CASE("A release makes the first waiter the holder and tells its process") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string before = bench.fence_of(alice);
    Listener listener{bench.server, wake_channel(process_of(bob))};
    (void)bench.acquire_as(
        {.token = bob, .waiter = waiter_of(bob, 700, 33, "host:2:main my label")});
    (void)bench.wait(carol);
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.pttl(bench.keys.lock_key) <= 700);
    CHECK(bench.pttl(bench.keys.lock_key) > 0);
    CHECK(bench.queue() == Strings{carol});

    const std::string text = listener.next();
    CAPTURE(text);
    const auto message = read_message(text);
    REQUIRE(message.has_value());
    CHECK(message->verb == "grant");
    CHECK(message->token == bob);
    CHECK(message->key == bench.keys.lock_key);
    CHECK(message->fences == 33);
    CHECK(message->ttl == 700ms);
    const std::string fence = std::to_string(message->fence);
    CHECK(fence > before);
    CHECK(bench.get(bench.keys.fence_key) == plus(fence, 32));
    const auto now = std::to_string(message->time.time_since_epoch().count());
    CHECK(now > before);
    CHECK(now <= bench.time());
    CHECK(bench.get(bench.keys.lock_key) == bob + " host:2:main my label " + now.substr(0, 10));
    // A second release of the old holder harms nobody.
    CHECK(bench.release(alice).number == 0);
    CHECK(bench.holder() == bob);
}

TEST_CASE("A lock goes through the queue in its order, each holder under a larger fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    std::string fence = bench.fence_of(alice, 5);
    Listener listener{bench.server, wake_channel("beef")};
    for (int i = 0; i < 10; ++i)
        (void)bench.wait("beef-" + std::to_string(i));
    std::string holder = alice;
    fence = plus(fence, 4);
    for (int i = 0; i < 10; ++i) {
        CHECK(bench.release(holder).number == 1);
        holder = "beef-" + std::to_string(i);
        CHECK(bench.holder() == holder);
        const std::string text = listener.next();
        const auto message = read_message(text);
        REQUIRE(message.has_value());
        CHECK(message->token == holder);
        CHECK(std::to_string(message->fence) > fence);
        fence = std::to_string(message->fence);
    }
    CHECK(bench.release(holder).number == 1);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.keys_with_expiry() == 1);
}

TEST_CASE("A waiter whose process does not listen is dropped, and a monitor does not listen") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait("dead-1");
    (void)bench.wait(bob);
    // By the count that PUBLISH returns every waiter would be alive.
    const Listener monitor{bench.server, "*", "PSUBSCRIBE"};
    const bool somebody_lives = GENERATE(true, false);
    CAPTURE(somebody_lives);
    std::optional<Listener> listener;
    if (somebody_lives) listener.emplace(bench.server, wake_channel(process_of(bob)));
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.holder() == (somebody_lives ? bob : ""));
    CHECK(bench.queue().empty());
}

TEST_CASE("What stands in the queue and is no waiter of ours is dropped") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    for (const char* junk : {"", "x", "x y z", "x 1 y text", "x -1 1 text"})
        bench.server.command({"ZADD", bench.keys.queue_key, "1", junk});
    (void)bench.wait(bob);
    const Listener everybody{bench.server, wake_channel("x")};
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.queue().empty());
}

TEST_CASE("Of many dead waiters 32 are dropped a call, and the caller is told to call again") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    for (int i = 0; i < 70; ++i)
        (void)bench.wait("dead-" + std::to_string(i));
    (void)bench.wait(bob);
    Listener listener{bench.server, wake_channel(process_of(bob))};
    CHECK(bench.release(alice).number == 3);  // ours, and more to look at
    CHECK(bench.queue().size() == 39);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.release(alice).number == 2);  // not ours any more
    CHECK(bench.queue().size() == 7);
    CHECK(bench.release(alice).number == 0);
    CHECK(bench.holder() == bob);
    CHECK(bench.queue().empty());
    CHECK(listener.next().starts_with("grant " + bob + ' '));
}

TEST_CASE(
    "Exactly as many dead waiters as a call looks at are no reason to call again for one more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    for (int i = 0; i < 31; ++i)
        (void)bench.wait("dead-" + std::to_string(i));
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.queue().empty());
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
}

TEST_CASE("One that asks behind many dead waiters is not served yet, and keeps its place") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    for (int i = 0; i < 40; ++i)
        (void)bench.wait("dead-" + std::to_string(i));
    bench.server.command({"DEL", bench.keys.lock_key});
    const auto first = bench.wait(bob);
    CHECK(first.elements.at(0).number == 0);
    CHECK(first.elements.at(2).number == 8);
    CHECK(first.elements.at(3).number == 0);  // It may ask again at once.
    const auto second = bench.wait(bob);
    CHECK(second.elements.at(0).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.queue().empty());
}

TEST_CASE("A release gives up a place in the queue, and leaves the lock to its holder") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    (void)bench.wait(carol);
    CHECK(bench.release(bob, waiter_of(bob)).number == 0);
    CHECK(bench.queue() == Strings{carol});
    CHECK(bench.holder() == alice);
    CHECK(bench.release(bob, waiter_of(bob)).number == 0);
}

TEST_CASE("A release of one that was made the holder just then passes on to the next") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    (void)bench.wait(carol);
    const Listener listens{bench.server, wake_channel(process_of(bob))};
    Listener next{bench.server, wake_channel(process_of(carol))};
    REQUIRE(bench.release(alice).number == 1);
    REQUIRE(bench.holder() == bob);
    CHECK(bench.release(bob, waiter_of(bob)).number == 1);
    CHECK(bench.holder() == carol);
    CHECK(next.next().starts_with("grant " + carol + ' '));
}

TEST_CASE("A release that finds the lock free and others waiting passes it on") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    bench.server.command({"DEL", bench.keys.lock_key});
    CHECK(bench.release(alice).number == 0);  // It was lost, and is nobody's.
    CHECK(bench.holder() == bob);
}

TEST_CASE("Without the right to ask who listens, nobody is made the holder, and nobody dropped") {
    if (!RedisServer::available()) SKIP("no redis-server");
    if (std::getenv("CODOMYRMEX_LEAST_RIGHTS") != nullptr) SKIP("command() is another user's");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    // The scripts run with the rights of who calls them.
    REQUIRE(bench.server.command({"ACL", "SETUSER", "default", "-pubsub"}).text == "OK");
    CHECK(bench.release(alice).number == 1);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.queue() == Strings{bob});
    // So it is first come, first served among those who ask.
    CHECK(bench.wait(carol).elements.at(0).number == 1);
    CHECK(bench.holder() == carol);
}

TEST_CASE(
    "Without the right to publish the first waiter is made the holder, and finds out itself") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    REQUIRE(bench.server.command({"ACL", "SETUSER", "default", "-publish"}).text == "OK");
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.holder() == bob);
    CHECK(bench.pttl(bench.keys.lock_key) <= grant_ttl);
    CHECK(bench.wait(bob).elements.at(0).number == 1);
}

TEST_CASE("A holder with all the time in the world is a holder") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.command({"SET", bench.keys.lock_key, "text", "PX", "200000000000000"});
    const auto answer = read_acquire(to_reply(bench.wait(bob)));
    REQUIRE(answer.has_value());
    CHECK(answer->outcome == AcquireAnswer::Outcome::held);
    CHECK(answer->left > 24h);
}

// --- Several at once.

namespace {

/// Three locks, asked for together.
struct Several {
    RedisServer server;
    std::vector<Keys> keys;

    Several() {
        for (const char* name : {"a", "b", "c"})
            keys.emplace_back(name);
    }

    Reply run(const Script& script, const Strings& arguments) {
        Strings words{"EVAL", std::string{script.body}, std::to_string(3 * keys.size())};
        for (const Keys& each : keys)
            words.insert(words.end(), {each.lock_key, each.fence_key, each.queue_key});
        words.insert(words.end(), arguments.begin(), arguments.end());
        return to_reply(server.command(words));
    }
    std::optional<AcquireAllAnswer> acquire(const Strings& tokens, const std::string& block = "1",
                                            const std::string& not_after = "") {
        Strings words{std::to_string(ttl), "host:1:main", not_after, block, "17"};
        words.insert(words.end(), tokens.begin(), tokens.end());
        Reply reply = run(acquire_all_script, words);
        CAPTURE(reply.text);
        REQUIRE(RequestNumber{0x17}.take_from(reply));
        return read_acquire_all(reply, keys.size());
    }
    /// What it answers for each.
    std::string release(const Strings& tokens) {
        Strings words{"17", prefix};
        words.insert(words.end(), tokens.begin(), tokens.end());
        const Reply reply = run(release_all_script, words);
        CHECK(read_release_all(reply, keys.size(), "17").size() == keys.size());
        std::string all;
        for (const std::string_view each : split_joint(reply, keys.size(), "17"))
            all += each;
        return all;
    }
    /// What comes of asking for each by itself; as the acquire script answers, and empty for what
    /// is to be asked for again. Each of `waits` waits if it must.
    std::vector<std::string> acquire_each(const Strings& tokens, const Strings& waits = {},
                                          const std::string& block = "1",
                                          const std::string& not_after = "") {
        Strings words{"17", not_after, std::to_string(ttl), block, prefix};
        for (const std::string& token : tokens) {
            const bool waits_too = std::ranges::find(waits, token) != waits.end();
            words.insert(words.end(), {token, waits_too ? waiter_of(token) : "", "host:1:main"});
        }
        const Reply reply = run(acquire_each_script, words);
        CAPTURE(reply.text);
        const auto answers = split_joint(reply, keys.size(), "17");
        CHECK(answers.size() == keys.size());
        return {answers.begin(), answers.end()};
    }
    std::vector<RenewAnswer> renew(const Strings& tokens, const std::string& not_after = "") {
        Strings words{std::to_string(ttl), not_after, "17"};
        words.insert(words.end(), tokens.begin(), tokens.end());
        Reply reply = run(renew_all_script, words);
        CAPTURE(reply.text);
        REQUIRE(RequestNumber{0x17}.take_from(reply));
        return read_renew_all(reply, keys.size());
    }
    std::string get(const std::string& key) { return server.command({"GET", key}).text; }
    long long pttl(const std::string& key) { return server.command({"PTTL", key}).number; }
    /// All keys, in order.
    Strings all() {
        Strings names;
        for (const auto& key : server.command({"KEYS", "*"}).elements)
            names.push_back(key.text);
        std::ranges::sort(names);
        return names;
    }
};

using All = AcquireAllAnswer::Outcome;
const Strings mine{"a11ce-1", "a11ce-2", "a11ce-3"};

}  // namespace

TEST_CASE("Several free locks are taken, each under its own token and for the full time") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    const auto answer = bench.acquire(mine);
    REQUIRE(answer.has_value());
    CHECK(answer->outcome == All::granted);
    CHECK(to_server_time(answer->fence) == answer->time);
    const std::string fence = std::to_string(answer->fence);
    for (std::size_t i = 0; i < 3; ++i) {
        CAPTURE(i);
        CHECK(bench.get(bench.keys[i].lock_key) == mine[i] + " host:1:main " + fence.substr(0, 10));
        CHECK(bench.get(bench.keys[i].fence_key) == fence);
        CHECK(bench.pttl(bench.keys[i].lock_key) > ttl - 10'000);
        CHECK(bench.pttl(bench.keys[i].lock_key) <= ttl);
        CHECK(bench.pttl(bench.keys[i].fence_key) > day - 60'000);
    }
    CHECK(bench.all().size() == 6);
    // Again, for the answer was lost: for the full time, under larger fences.
    bench.server.command({"PEXPIRE", bench.keys[1].lock_key, "5000"});
    const auto again = bench.acquire(mine, "10");
    REQUIRE(again.has_value());
    CHECK(again->outcome == All::granted);
    CHECK(again->fence > answer->fence);
    CHECK(bench.pttl(bench.keys[1].lock_key) > 5000);
    for (const Keys& each : bench.keys)
        CHECK(bench.get(each.fence_key) == plus(std::to_string(again->fence), 9));
}

TEST_CASE("None of several locks is taken when one cannot be had, and it is said which") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    const auto nothing_but = [&](Strings keys) {
        std::ranges::sort(keys);
        CHECK(bench.all() == keys);
    };
    const Keys& second = bench.keys[1];
    const std::string value = "b0b-1 text 1";

    SECTION("held by another") {
        bench.server.command({"SET", second.lock_key, value, "PX", "30000"});
        const auto answer = bench.acquire(mine);
        REQUIRE(answer.has_value());
        CHECK(answer->outcome == All::held);
        CHECK(answer->which == 1);
        CHECK(bench.get(second.lock_key) == value);
        nothing_but({second.lock_key});
    }
    SECTION("held by a token that begins alike") {
        bench.server.command({"SET", second.lock_key, "a11ce-22 text 1", "PX", "30000"});
        CHECK(bench.acquire(mine)->outcome == All::held);
    }
    SECTION("held by what is not ours, which the acquire script tells") {
        bench.server.command({"SET", second.lock_key, "text"});
        CHECK(bench.acquire(mine)->outcome == All::apart);
        nothing_but({second.lock_key});
    }
    SECTION("free, but waited for") {
        bench.server.command({"ZADD", second.queue_key, "1", waiter_of(bob)});
        CHECK(bench.acquire(mine)->outcome == All::apart);
        nothing_but({second.queue_key});
    }
    SECTION("held by itself, and waited for") {
        bench.server.command({"SET", second.lock_key, mine[1] + " text 1", "PX", "30000"});
        bench.server.command({"ZADD", second.queue_key, "1", waiter_of(bob)});
        CHECK(bench.acquire(mine)->outcome == All::apart);
        nothing_but({second.lock_key, second.queue_key});
    }
    SECTION("a fence that is ahead of the clock, and one that is none") {
        const auto fence =
            GENERATE(as<std::string>{}, "4000000000000000000", "text", "170000000000 000000");
        bench.server.command({"SET", second.fence_key, fence});
        CHECK(bench.acquire(mine)->outcome == All::apart);
        CHECK(bench.get(second.fence_key) == fence);
        // Ours, it has an expiry again; what is not stays without one.
        CHECK((bench.pttl(second.fence_key) > day - 60'000) == fence.starts_with("4"));
        // A fencing token of the first was skipped.
        nothing_but({bench.keys[0].fence_key, second.fence_key});
    }
    SECTION("a fence of another type, which the acquire script tells") {
        bench.server.command({"RPUSH", second.fence_key, "text"});
        Strings words{std::to_string(ttl), "host:1:main", "", "1", "17"};
        words.insert(words.end(), mine.begin(), mine.end());
        const Reply reply = bench.run(acquire_all_script, words);
        CHECK(reply.is_error());
        CHECK(bench.server.command({"LRANGE", second.fence_key, "0", "-1"}).elements.size() == 1);
        for (const Keys& each : bench.keys)
            CHECK(bench.pttl(each.lock_key) == -2);
    }
    SECTION("too late") {
        const auto answer = bench.acquire(mine, "1", "1000000000000000000");
        REQUIRE(answer.has_value());
        CHECK(answer->outcome == All::late);
        nothing_but({});
    }
}

TEST_CASE("Several leases are extended, each by its own token only") {
    if (!RedisServer::available()) SKIP("no redis-server");
    using Outcome = RenewAnswer::Outcome;
    Several bench;
    REQUIRE(bench.acquire(mine)->outcome == All::granted);
    for (const Keys& each : bench.keys) {
        bench.server.command({"PEXPIRE", each.lock_key, "5000"});
        bench.server.command({"PEXPIRE", each.fence_key, "5000"});
    }
    const Keys& second = bench.keys[1];
    Outcome expected = Outcome::lost;
    Outcome rest = Outcome::renewed;
    std::string not_after;

    SECTION("all of them") {
        expected = Outcome::renewed;
    }
    SECTION("one is waited for") {
        bench.server.command({"ZADD", second.queue_key, "1", waiter_of(bob)});
        expected = Outcome::wanted;
    }
    SECTION("one is another's by now") {
        bench.server.command({"SET", second.lock_key, "a11ce-22 text 1", "PX", "5000"});
    }
    SECTION("one has run out, and does not come back") {
        bench.server.command({"DEL", second.lock_key});
    }
    SECTION("one is no lock of ours any more") {
        bench.server.command({"DEL", second.lock_key});
        bench.server.command({"RPUSH", second.lock_key, "text"});
        bench.server.command({"PEXPIRE", second.lock_key, "5000"});
    }
    SECTION("too late") {
        not_after = "1000000000000000000";
        expected = rest = Outcome::late;
    }
    const auto answers = bench.renew(mine, not_after);
    REQUIRE(answers.size() == 3);
    CHECK(answers[0].outcome == rest);
    CHECK(answers[1].outcome == expected);
    CHECK(answers[2].outcome == rest);
    CHECK(answers[0].time > to_server_time(1'700'000'000'000'000'000));
    const auto extended = [&](std::size_t i) {
        return bench.pttl(bench.keys[i].lock_key) > ttl - 10'000;
    };
    CHECK(extended(0) == (rest == Outcome::renewed));
    CHECK(extended(1) == (expected == Outcome::renewed || expected == Outcome::wanted));
    CHECK(extended(2) == (rest == Outcome::renewed));
    for (const Keys& each : bench.keys)
        CHECK(bench.pttl(each.fence_key) > day - 60'000);
}

namespace {

AcquireAnswer read_each(const std::string& text) {
    CAPTURE(text);
    Reply reply;
    reply.type = Reply::Type::string;
    reply.text = text;
    const auto answer = read_acquire(reply);
    REQUIRE(answer.has_value());
    return *answer;
}

}  // namespace

TEST_CASE("Locks that are asked for at the same time are taken as if each were alone") {
    if (!RedisServer::available()) SKIP("no redis-server");
    using Outcome = AcquireAnswer::Outcome;
    Several bench;
    const Keys& second = bench.keys[1];
    const auto granted = [&](const std::vector<std::string>& answers, std::size_t i) {
        const AcquireAnswer answer = read_each(answers.at(i));
        CHECK(answer.outcome == Outcome::granted);
        CHECK(bench.get(bench.keys[i].lock_key).starts_with(mine[i] + " host:1:main "));
        CHECK(bench.pttl(bench.keys[i].lock_key) > ttl - 10'000);
        CHECK(bench.pttl(bench.keys[i].lock_key) <= ttl);
        CHECK(bench.pttl(bench.keys[i].fence_key) > day - 60'000);
        CHECK(answer.fence <= std::stoull(bench.get(bench.keys[i].fence_key)));
        return answer;
    };

    SECTION("all are free") {
        const std::string before = bench.get(second.fence_key);
        const auto first = bench.acquire_each(mine);
        for (std::size_t i = 0; i < 3; ++i)
            CHECK(to_server_time(granted(first, i).fence) == granted(first, i).time);
        CHECK(bench.all().size() == 6);
        // Again, for the answers were lost: under larger fences.
        const auto again = bench.acquire_each(mine, mine);
        for (std::size_t i = 0; i < 3; ++i)
            CHECK(granted(again, i).fence > granted(first, i).fence);
        CHECK(bench.all().size() == 6);
    }
    SECTION("with blocks of fencing tokens") {
        const auto answers = bench.acquire_each(mine, {}, "10");
        for (std::size_t i = 0; i < 3; ++i) {
            CHECK(granted(answers, i).fences == 10);
            CHECK(bench.get(bench.keys[i].fence_key) ==
                  plus(std::to_string(granted(answers, i).fence), 9));
        }
    }
    SECTION("one is held by another, and tried only") {
        bench.server.command({"SET", second.lock_key, bob + " text 1", "PX", "30000"});
        const auto answers = bench.acquire_each(mine);
        (void)granted(answers, 0);
        (void)granted(answers, 2);
        CHECK(read_each(answers[1]).outcome == Outcome::held);
        CHECK(read_each(answers[1]).left > 20s);
        CHECK(bench.all().size() == 5);
    }
    SECTION("one is held by another, and waited for") {
        bench.server.command({"SET", second.lock_key, bob + " text 1", "PX", "30000"});
        const auto answers = bench.acquire_each(mine, {mine[1]});
        (void)granted(answers, 0);
        (void)granted(answers, 2);
        CHECK(read_each(answers[1]).outcome == Outcome::held);
        CHECK(read_each(answers[1]).rank == 0);
        const auto queue = bench.server.command({"ZRANGE", second.queue_key, "0", "-1"});
        REQUIRE(queue.elements.size() == 1);
        CHECK(queue.elements[0].text == waiter_of(mine[1]));
    }
    SECTION("one is free, but another waits longer, who gets it") {
        Listener listener{bench.server, wake_channel(process_of(bob))};
        bench.server.command({"ZADD", second.queue_key, "1", waiter_of(bob)});
        const auto answers = bench.acquire_each(mine, {mine[1]});
        (void)granted(answers, 0);
        (void)granted(answers, 2);
        CHECK(read_each(answers[1]).outcome == Outcome::held);
        CHECK(bench.get(second.lock_key).starts_with(bob + ' '));
        CHECK(listener.next().starts_with("grant " + bob + ' '));
    }
    SECTION("one has a fence that is ahead of the clock") {
        bench.server.command({"SET", second.fence_key, "4000000000000000000"});
        const auto answers = bench.acquire_each(mine);
        (void)granted(answers, 0);
        CHECK(granted(answers, 1).fence == 4'000'000'000'000'000'001);
        (void)granted(answers, 2);
    }
    SECTION("one is asked for twice, and only the first has it") {
        bench.keys[2] = bench.keys[1];
        const auto answers = bench.acquire_each(mine);
        CHECK(read_each(answers[1]).outcome == Outcome::granted);
        CHECK(read_each(answers[2]).outcome == Outcome::held);
        CHECK(bench.get(second.lock_key).starts_with(mine[1] + ' '));
        CHECK(bench.get(second.fence_key) == std::to_string(read_each(answers[1]).fence));
        CHECK(bench.pttl(second.fence_key) > day - 60'000);
    }
}

TEST_CASE("What stands in the way of one lock does not of another, and is asked for by itself") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    const Keys& second = bench.keys[1];
    SECTION("a holder without an expiry") {
        bench.server.command({"SET", second.lock_key, "text"});
    }
    SECTION("a holder of another type") {
        bench.server.command({"RPUSH", second.lock_key, "text"});
    }
    SECTION("a queue of another type") {
        bench.server.command({"SET", second.queue_key, "text"});
    }
    SECTION("a fence that is none") {
        const auto fence = GENERATE(as<std::string>{}, "text", "170000000000 000000");
        bench.server.command({"SET", second.fence_key, fence});
    }
    SECTION("a fence of another type") {
        bench.server.command({"RPUSH", second.fence_key, "text"});
    }
    const auto kept = bench.all();
    const auto answers = bench.acquire_each(mine, {mine[1]});
    CHECK(answers.at(1).empty());
    CHECK_FALSE(bench.get(second.lock_key).starts_with(mine[1]));
    for (const std::size_t i : {0U, 2U}) {
        CHECK(read_each(answers.at(i)).outcome == AcquireAnswer::Outcome::granted);
        CHECK(bench.get(bench.keys[i].lock_key).starts_with(mine[i] + ' '));
    }
    CHECK(bench.all().size() == kept.size() + 4);
}

TEST_CASE("Nothing is taken, and nobody joins a queue, of what is asked for together too late") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    const auto answers = bench.acquire_each(mine, mine, "1", "1000000000000000000");
    CHECK(answers == std::vector<std::string>(3));
    CHECK(bench.all().empty());
}

TEST_CASE("A server without room gives back together what it does not take") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    REQUIRE(bench.acquire(mine)->outcome == All::granted);
    bench.server.command({"CONFIG", "SET", "maxmemory", "1"});
    CHECK(bench.release(mine) == "1 1 1 ");
    CHECK(bench.acquire_each(mine) == std::vector<std::string>(3));
    bench.server.command({"CONFIG", "SET", "maxmemory", "0"});
    CHECK(read_each(bench.acquire_each(mine).at(1)).outcome == AcquireAnswer::Outcome::granted);
}

TEST_CASE("Several locks are given back, each by its own token only") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Several bench;
    REQUIRE(bench.acquire(mine)->outcome == All::granted);

    SECTION("all of them") {
        CHECK(bench.release(mine) == "1 1 1 ");
        CHECK(bench.all().size() == 3);  // the fences
        CHECK(bench.release(mine) == "0 0 0 ");
    }
    SECTION("one is another's by now") {
        bench.server.command({"SET", bench.keys[1].lock_key, "a11ce-22 text 1", "PX", "30000"});
        CHECK(bench.release(mine) == "1 0 1 ");
        CHECK(bench.get(bench.keys[1].lock_key) == "a11ce-22 text 1");
        CHECK(bench.all().size() == 4);
    }
    SECTION("one has run out") {
        bench.server.command({"DEL", bench.keys[2].lock_key});
        CHECK(bench.release(mine) == "1 1 0 ");
        CHECK(bench.all().size() == 3);
    }
    SECTION("one is no lock of ours any more") {
        bench.server.command({"DEL", bench.keys[1].lock_key});
        bench.server.command({"RPUSH", bench.keys[1].lock_key, "text"});
        CHECK(bench.release(mine) == "1 1 ");  // nothing is said of the second
        CHECK(bench.all().size() == 4);
    }
    SECTION("one is waited for, and passed on") {
        Listener listener{bench.server, wake_channel(process_of(bob))};
        bench.server.command({"ZADD", bench.keys[1].queue_key, "1", waiter_of(bob)});
        const std::string before = bench.get(bench.keys[1].fence_key);
        CHECK(bench.release(mine) == "1 1 1 ");
        CHECK(bench.get(bench.keys[1].lock_key).starts_with(bob + ' '));
        CHECK(bench.get(bench.keys[1].fence_key) > before);
        CHECK(listener.next().starts_with("grant " + bob + ' '));
        CHECK(bench.pttl(bench.keys[1].lock_key) <= grant_ttl);
        CHECK(bench.all().size() == 4);
    }
}

TEST_CASE("A user with no more rights than the scripts need can do all of it") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const Listener listener{bench.server, wake_channel(process_of(bob))};
    REQUIRE(bench.server
                .command({"ACL",           "SETUSER",    "locker",         "on",
                          ">secret",       "resetkeys",  "~codomyrmex:*",  "resetchannels",
                          "&codomyrmex:*", "nocommands", "+eval",          "+evalsha",
                          "+time",         "+get",       "+set",           "+del",
                          "+incrby",       "+pexpire",   "+pttl",          "+zadd",
                          "+zrem",         "+zrange",    "+zrank",         "+zcard",
                          "+exists",       "+publish",   "+pubsub|numsub", "+auth",
                          "+command"})
                .text == "OK");
    REQUIRE(bench.server.command({"AUTH", "locker", "secret"}).text == "OK");
    CHECK(bench.acquire(alice).elements.at(0).number == 1);
    CHECK(bench.wait(bob).elements.at(0).number == 0);
    CHECK(bench.wait(carol).elements.at(2).number == 1);
    CHECK(bench.renewed(alice) == 2);
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.renewed(bob) == 2);
    CHECK(bench.release(bob, waiter_of(bob)).number == 1);
    CHECK(bench.acquire_as({.token = alice, .block = 33}).elements.at(0).number == 1);
}

// --- What is retained.

TEST_CASE("Whoever queues for what is retained tells its holder that it is wanted") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench{std::string_view{"a b\0c", 5}};
    const std::string keeps = "a11ce-1fr";
    (void)bench.fence_of(keeps);
    Listener listener{bench.server, wake_channel("a11ce")};
    (void)bench.acquire(carol);  // One that tries only does not want it enough.
    (void)bench.wait(bob);
    CHECK(listener.next() == "wanted " + bench.keys.lock_key);
    bench.server.command({"PUBLISH", wake_channel("a11ce"), "nothing in between"});
    CHECK(listener.next() == "nothing in between");
    (void)bench.wait(bob);  // Again, for the first may have been missed.
    CHECK(listener.next() == "wanted " + bench.keys.lock_key);
}

TEST_CASE("The holder of what is not retained is not disturbed") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    Listener listener{bench.server, wake_channel(process_of(alice))};
    (void)bench.wait(bob);
    bench.server.command({"PUBLISH", wake_channel(process_of(alice)), "the first"});
    CHECK(listener.next() == "the first");
}

// --- To renew it.

TEST_CASE("A renewal extends its own lease and the life of the fence") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = bench.fence_of(alice);
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    bench.server.command({"PEXPIRE", bench.keys.fence_key, "5000"});
    const std::string before = bench.time();
    const auto reply = bench.renew(alice, 60'000);
    REQUIRE(reply.elements.size() == 2);
    CHECK(reply.elements[0].number == 1);
    CHECK(reply.elements[1].text >= before);
    CHECK(reply.elements[1].text <= bench.time());
    CHECK(bench.pttl(bench.keys.lock_key) > 50'000);
    CHECK(bench.pttl(bench.keys.lock_key) <= 60'000);
    CHECK(bench.pttl(bench.keys.fence_key) > day - 60'000);
    CHECK(bench.get(bench.keys.fence_key) == fence);
}

TEST_CASE("A renewal says whether somebody waits") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    CHECK(bench.renewed(alice) == 1);
    (void)bench.acquire(carol);
    CHECK(bench.renewed(alice) == 1);
    (void)bench.wait(bob);
    CHECK(bench.renewed(alice) == 2);
    (void)bench.release(bob, waiter_of(bob));
    CHECK(bench.renewed(alice) == 1);
}

TEST_CASE("A renewal neither extends another's lease nor brings one back") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK(bench.renewed("token") == 0);
    CHECK(bench.keys_with_expiry() == 0);

    (void)bench.fence_of("mine");
    (void)bench.wait(bob);
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    for (const char* other : {"yours", "min", "mine2"}) {
        CHECK(bench.renewed(other, 60'000) == 0);
        CHECK(bench.pttl(bench.keys.lock_key) <= 5000);
    }
    bench.server.command({"DEL", bench.keys.lock_key});
    CHECK(bench.renewed("mine") == 0);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
    CHECK(bench.queue() == Strings{bob});
}

TEST_CASE("A renewal that comes after the end of its lease extends nothing, and says so") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    bench.server.command({"PEXPIRE", bench.keys.lock_key, "5000"});
    const std::string before = bench.time();
    const auto late = bench.renew(alice, 60'000, before);
    REQUIRE(late.elements.size() == 2);
    CHECK(late.elements[0].number == 3);
    CHECK(late.elements[1].text >= before);
    CHECK(bench.pttl(bench.keys.lock_key) <= 5000);
    CHECK(bench.renew(alice, 60'000, plus(before, 60'000'000'000)).elements.at(0).number == 1);
    CHECK(bench.pttl(bench.keys.lock_key) > 50'000);
    // What is not its own is said to be so, however late.
    CHECK(bench.renew(bob, 60'000, before).elements.at(0).number == 0);
}

// --- Whatever the server is.

TEST_CASE("Names and texts may have any bytes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    const std::string name =
        GENERATE_COPY(std::string{"a\r\nb"}, std::string{"\0", 1}, std::string{"\0x\0", 3},
                      std::string{"{x}%"}, every_byte, every_byte + every_byte);
    Bench bench{name};
    const auto reply = bench.acquire_as({.token = alice, .text = every_byte});
    REQUIRE(reply.elements.size() == 4);
    CHECK(reply.elements[0].number == 1);
    CHECK(bench.get(bench.keys.lock_key).starts_with(alice + ' ' + every_byte + ' '));
    Listener listener{bench.server, wake_channel(process_of(bob))};
    const std::string waiter = waiter_of(bob, grant_ttl, 1, every_byte);
    CHECK(bench.acquire_as({.token = bob, .waiter = waiter}).elements.at(2).number == 0);
    CHECK(bench.renewed(alice) == 2);
    CHECK(bench.release(alice).number == 1);
    CHECK(bench.get(bench.keys.lock_key).starts_with(bob + ' ' + every_byte + ' '));
    const std::string text = listener.next();
    const auto message = read_message(text);
    REQUIRE(message.has_value());
    CHECK(message->key == bench.keys.lock_key);
    CHECK(bench.release(bob, waiter).number == 1);
    CHECK(bench.keys_with_expiry() == 1);
}

TEST_CASE("Names that differ have locks that differ") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    for (const std::string_view name :
         {std::string_view{"a"}, std::string_view{"a\0", 2}, std::string_view{"A"},
          std::string_view{"{a}"}, std::string_view{"%7Ba%7D"}, std::string_view{"a}:fence"}}) {
        bench.keys = Keys{name};
        CHECK(bench.acquire("token of " + std::string{name}).elements.at(0).number == 1);
    }
}

TEST_CASE("A replica answers READONLY to each script, whatever it remembers") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string state = GENERATE("free", "held", "waited for");
    CAPTURE(state);
    if (state != "free") (void)bench.fence_of(alice);
    if (state == "waited for") (void)bench.wait(bob);
    REQUIRE(bench.server.command({"REPLICAOF", "127.0.0.1", "1"}).text == "OK");
    for (const std::string& token : {alice, bob, carol}) {
        CAPTURE(token);
        for (const auto& reply : {bench.acquire(token), bench.wait(token), bench.renew(token),
                                  bench.release(token), bench.release(token, waiter_of(token))}) {
            CAPTURE(reply.text, reply.number);
            CHECK(reply.is_error());
            CHECK(reply.text.find("READONLY") != std::string::npos);
        }
    }
    REQUIRE(bench.server.command({"REPLICAOF", "NO", "ONE"}).text == "OK");
    CHECK(bench.exists(bench.keys.lock_key) == (state != "free"));
}

TEST_CASE("With its memory full the server refuses to acquire, and still renews and releases") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    const std::string fence = GENERATE(as<std::string>{}, "", "4102444800000000001");
    const Keys free{"free"};
    const Keys held{"held"};
    if (!fence.empty()) bench.server.command({"SET", free.fence_key, fence, "PX", "100000"});
    bench.keys = held;
    (void)bench.fence_of(alice);
    bench.server.command({"PEXPIRE", held.lock_key, "5000"});
    REQUIRE(bench.server.command({"CONFIG", "SET", "maxmemory", "1"}).text == "OK");

    bench.keys = free;
    for (const auto& refused : {bench.acquire(alice), bench.wait(alice)}) {
        CAPTURE(refused.text);
        CHECK(refused.is_error());
        CHECK(refused.text.find("OOM") != std::string::npos);
        CHECK_FALSE(bench.exists(free.lock_key));
    }

    bench.keys = held;
    CHECK(bench.acquire(bob).elements.at(0).number == 0);
    CHECK(bench.renewed(alice) == 1);
    CHECK(bench.pttl(held.lock_key) > 5000);
    CHECK(bench.release(alice).number == 1);
    CHECK_FALSE(bench.exists(held.lock_key));
}

TEST_CASE(
    "With its memory full the server still answers who stands in line, and takes nobody new") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    CHECK(bench.wait(bob).elements.at(2).number == 0);
    REQUIRE(bench.server.command({"CONFIG", "SET", "maxmemory", "1"}).text == "OK");
    const auto again = bench.wait(bob);
    CAPTURE(again.text);
    REQUIRE(again.elements.size() == 4);
    CHECK(again.elements[0].number == 0);
    CHECK(again.elements[2].number == 0);
    CHECK(bench.wait(carol).text.find("OOM") != std::string::npos);
    CHECK(bench.queue() == Strings{bob});
}

TEST_CASE("With its memory full the server still passes on") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    (void)bench.fence_of(alice);
    (void)bench.wait(bob);
    Listener listener{bench.server, wake_channel(process_of(bob))};
    REQUIRE(bench.server.command({"CONFIG", "SET", "maxmemory", "1"}).text == "OK");
    const auto reply = bench.release(alice);
    CAPTURE(reply.text);
    CHECK(reply.number == 1);
    CHECK(bench.holder() == bob);
    CHECK(listener.next().starts_with("grant " + bob + ' '));
    // And gives up a place.
    CHECK(bench.release(bob, waiter_of(bob)).number == 1);
    CHECK_FALSE(bench.exists(bench.keys.lock_key));
}
