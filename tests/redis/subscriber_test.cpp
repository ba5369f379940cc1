// SPDX-License-Identifier: MIT
//
// Tests of subscriber.hpp against a real server, driven as the keeper does it: by poll.

#include <codomyrmex/concurrency/redis/subscriber.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <poll.h>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;
using State = Subscriber::State;

using Texts = std::vector<std::string>;

const std::string channel = "codomyrmex:wake:me";

/// A server and a subscriber that is not open yet.
struct Bench {
    RedisServer server;
    Subscriber subscriber;

    bool open(std::string_view userinfo = {}) {
        return subscriber.open(Endpoint::parse(server.url(userinfo)), ClientOptions{}, channel,
                               [] { return true; });
    }

    /// The same, where it must succeed.
    void open_now() {
        const bool is_open = open();
        CAPTURE(subscriber.error());
        REQUIRE(is_open);
    }

    long long publish(const std::string& text, const std::string& to = channel) {
        return server.command({"PUBLISH", to, text}).number;
    }

    /// What comes until there are so many texts, the connection is closed, or time is up.
    Texts receive(std::size_t count) {
        Texts texts;
        const auto end = std::chrono::steady_clock::now() + support::patience;
        while (texts.size() < count && std::chrono::steady_clock::now() < end) {
            if (!wait(100ms)) continue;
            if (!subscriber.receive([&](std::string_view text) { texts.emplace_back(text); }))
                break;
        }
        return texts;
    }

    /// Whether something comes within the time.
    bool wait(std::chrono::milliseconds within) const {
        pollfd entry{subscriber.descriptor(), POLLIN, 0};
        return ::poll(&entry, 1, static_cast<int>(within.count())) == 1;
    }

    long long listeners() {
        return server.command({"PUBSUB", "NUMSUB", channel}).elements.at(1).number;
    }
};

}  // namespace

TEST_CASE("A fresh subscriber is closed") {
    const Subscriber subscriber;
    CHECK(subscriber.state() == State::closed);
    CHECK(subscriber.descriptor() == -1);
}

TEST_CASE("An open subscriber is counted by the server and hears what is published") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    CHECK(bench.subscriber.state() == State::open);
    CHECK(bench.subscriber.descriptor() >= 0);
    CHECK(bench.listeners() == 1);
    CHECK(bench.publish("one") == 1);
    CHECK(bench.receive(1) == Texts{"one"});
    CHECK(bench.publish("elsewhere", channel + "x") == 0);
    CHECK(bench.publish("two") == 1);
    CHECK(bench.publish("three") == 1);
    CHECK(bench.receive(2) == Texts{"two", "three"});
}

TEST_CASE("What it published itself to probe its rights is not heard") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    REQUIRE(bench.publish("first") == 1);
    CHECK(bench.receive(1) == Texts{"first"});
}

TEST_CASE("Messages may have any bytes") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    bench.publish(every_byte);
    bench.publish("");
    CHECK(bench.receive(2) == Texts{every_byte, ""});
}

TEST_CASE("To receive when nothing came is no harm, and does not wait") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    Texts texts;
    CHECK(bench.subscriber.receive([&](std::string_view text) { texts.emplace_back(text); }));
    CHECK(texts.empty());
    CHECK(bench.subscriber.state() == State::open);
}

TEST_CASE("What is published the moment it is subscribed does not pass for a wrong answer") {
    if (!RedisServer::available()) SKIP("no redis-server");
    // Whoever subscribes again is alive to the scripts at once, and is granted what it waited for.
    Bench bench;
    FaultProxy proxy{bench.server.url()};
    const std::string message = "*3\r\n$7\r\nmessage\r\n$18\r\n" + channel + "\r\n$5\r\nearly\r\n";
    proxy.add(Fault::append(message).on("\r\nSUBSCRIBE\r\n"));
    const bool is_open = bench.subscriber.open(Endpoint::parse(proxy.url()), ClientOptions{},
                                               channel, [] { return true; });
    CAPTURE(bench.subscriber.error());
    REQUIRE(is_open);
    bench.publish("later");
    // The early one may be lost, as any may that came while there was no subscription.
    Texts texts = bench.receive(1);
    if (texts == Texts{"early"}) texts = bench.receive(1);
    CHECK(texts == Texts{"later"});
}

TEST_CASE("A server that hangs up before it has answered leaves it closed, and says why") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    FaultProxy proxy{bench.server.url()};
    proxy.add(Fault::cut().on("\r\nSUBSCRIBE\r\n"));
    CHECK_FALSE(bench.subscriber.open(Endpoint::parse(proxy.url()), ClientOptions{}, channel,
                                      [] { return true; }));
    CHECK(bench.subscriber.state() == State::closed);
    CHECK_FALSE(bench.subscriber.error().empty());
    CHECK_THAT(bench.subscriber.error(), !Catch::Matchers::ContainsSubstring("in time"));
}

TEST_CASE("A server that is not there leaves it closed, and says so") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.kill();
    CHECK_FALSE(bench.open());
    CHECK(bench.subscriber.state() == State::closed);
    CHECK_THAT(bench.subscriber.error(), Catch::Matchers::ContainsSubstring("cannot connect"));
    CHECK(bench.subscriber.descriptor() == -1);
    // It may be tried again.
    bench.server.restart();
    bench.open_now();
    bench.publish("back");
    CHECK(bench.receive(1) == Texts{"back"});
}

TEST_CASE("A server that does not answer leaves it closed within the time to connect") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.stop();
    const auto begin = std::chrono::steady_clock::now();
    ClientOptions options;
    options.connect_timeout = 50ms;
    CHECK_FALSE(bench.subscriber.open(Endpoint::parse(bench.server.url()), options, channel,
                                      [] { return true; }));
    CHECK(std::chrono::steady_clock::now() - begin < 10s);
    CHECK(bench.subscriber.state() == State::closed);
    CHECK(bench.subscriber.descriptor() == -1);
    bench.server.cont();
}

TEST_CASE("Whoever drives it can stop it while it connects") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.server.stop();
    int ticks = 0;
    ClientOptions options;
    options.connect_timeout = 20s;
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(bench.subscriber.open(Endpoint::parse(bench.server.url()), options, channel,
                                      [&] { return ++ticks < 3; }));
    CHECK(std::chrono::steady_clock::now() - begin < 15s);
    CHECK(ticks == 3);
    CHECK(bench.subscriber.state() == State::closed);
    bench.server.cont();
}

TEST_CASE("A user who may not do what a hand-over needs is told so, in the server's words") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    // The last is the channel; the others are the commands.
    const std::string missing = GENERATE("publish", "pubsub|numsub", "subscribe", "channel");
    CAPTURE(missing);
    std::vector<std::string> user{"ACL", "SETUSER", "locker", "on", ">secret", "~*", "+@all"};
    if (missing == "channel") {
        user.insert(user.end(), {"resetchannels", "&another:*"});
    } else if (missing == "pubsub|numsub") {
        user.insert(user.end(), {"&*", "-pubsub"});
    } else {
        user.insert(user.end(), {"&*", "-" + missing});
    }
    const auto set = bench.server.command(user);
    CAPTURE(set.text);
    REQUIRE(set.text == "OK");
    CHECK_FALSE(bench.open("locker:secret"));
    CHECK(bench.subscriber.state() == State::forbidden);
    CHECK_THAT(bench.subscriber.error(), Catch::Matchers::StartsWith("NOPERM"));
    CHECK(bench.subscriber.descriptor() == -1);
    CHECK(bench.listeners() == 0);
    // Once permitted, it can be opened.
    REQUIRE(bench.server.command({"ACL", "SETUSER", "locker", "+@all", "allchannels"}).text ==
            "OK");
    CHECK(bench.open("locker:secret"));
    CHECK(bench.subscriber.state() == State::open);
}

TEST_CASE("A user with the least rights that the documentation names may listen") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    REQUIRE(bench.server
                .command({"ACL", "SETUSER", "locker", "on", ">secret", "resetchannels",
                          "&codomyrmex:*", "+publish", "+pubsub|numsub", "+subscribe", "+ping"})
                .text == "OK");
    const bool is_open = bench.open("locker:secret");
    CAPTURE(bench.subscriber.error());
    CHECK(is_open);
    bench.publish("hello");
    CHECK(bench.receive(1) == Texts{"hello"});
}

TEST_CASE("A wrong password leaves it closed, for that may be put right") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    CHECK_FALSE(bench.open("locker:wrong"));
    CHECK(bench.subscriber.state() == State::closed);
    CHECK_THAT(bench.subscriber.error(), Catch::Matchers::ContainsSubstring("WRONGPASS"));
}

TEST_CASE("A connection that the server closes is seen as closed") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    bench.publish("the last");
    REQUIRE(bench.server.command({"CLIENT", "KILL", "TYPE", "pubsub"}).number == 1);
    REQUIRE(bench.wait(support::patience));
    // What came before the end is not lost.
    CHECK(bench.receive(2) == Texts{"the last"});
    CHECK(bench.subscriber.state() == State::closed);
    CHECK(bench.subscriber.descriptor() == -1);
    CHECK_FALSE(bench.subscriber.error().empty());
    bench.open_now();
    bench.publish("again");
    CHECK(bench.receive(1) == Texts{"again"});
}

TEST_CASE("To close it ends the subscription") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.open_now();
    bench.subscriber.close("no need");
    CHECK(bench.subscriber.state() == State::closed);
    CHECK(bench.subscriber.error() == "no need");
    CHECK(support::eventually([&] { return bench.listeners() == 0; }));
}

TEST_CASE(
    "After a silence the server is asked for a sign of life, once: an answer suffices, and one "
    "that gives none in time is left") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    Bench stopped;
    bench.open_now();
    stopped.open_now();
    stopped.server.stop();
    const auto opened = Deadline::clock::now();
    const Deadline first = bench.subscriber.look_after(20s);
    CHECK(first.time() <= opened + Subscriber::silence);
    CHECK(first.time() > opened);
    CHECK(bench.server.command_stats("ping").calls == 1);  // the one that waited for the server
    const bool anything = bench.wait(0ms);
    CHECK_FALSE(anything);

    // There is no clock to set: it is waited for, once in this file, for both of them.
    while (!first.expired())
        (void)bench.wait(50ms);
    const auto asked = Deadline::clock::now();
    const Deadline limit = bench.subscriber.look_after(20s);
    CHECK(limit.time() >= asked + 20s);
    CHECK(limit.time() < asked + 40s);
    CHECK(bench.subscriber.look_after(20s) == limit);  // not asked again
    REQUIRE(bench.wait(support::patience));
    CHECK(bench.receive(0).empty());
    CHECK(bench.subscriber.receive([](std::string_view) { FAIL("a pong is no message"); }));
    CHECK(bench.server.command_stats("ping").calls == 2);
    // The answer begins another silence.
    CHECK(bench.subscriber.look_after(20s).time() > asked + Subscriber::silence);
    CHECK(bench.subscriber.state() == State::open);

    Deadline look = stopped.subscriber.look_after(10ms);
    for (int looks = 0; stopped.subscriber.state() == State::open && looks < 10; ++looks) {
        while (!look.expired())
            (void)stopped.wait(std::chrono::ceil<std::chrono::milliseconds>(look.remaining()));
        look = stopped.subscriber.look_after(10ms);
    }
    CHECK(stopped.subscriber.state() == State::closed);
    CHECK(stopped.subscriber.error() == "no answer to a ping");
    stopped.server.cont();
}
