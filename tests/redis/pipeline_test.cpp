// SPDX-License-Identifier: MIT
//
// Tests of pipeline.hpp: that each request gets its own reply or none, whatever happens to the
// connection in between.

#include <codomyrmex/concurrency/redis/pipeline.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <vector>

namespace codomyrmex::concurrency::redis {

std::ostream& operator<<(std::ostream& out, Exchange::Outcome outcome) {
    switch (outcome) {
        case Exchange::Outcome::answered:
            return out << "answered";
        case Exchange::Outcome::not_sent:
            return out << "not_sent";
        case Exchange::Outcome::unknown:
            return out << "unknown";
    }
    return out << "?";
}

}  // namespace codomyrmex::concurrency::redis

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::RedisServer;
using test_support::RedisServerOptions;
using Outcome = Exchange::Outcome;

static_assert(!std::is_copy_constructible_v<Pipeline> && !std::is_move_constructible_v<Pipeline>);

// Nothing but what a test sets ends a wait: a slow machine must not look like a fault.
ClientOptions patient() {
    return {.connect_timeout = 20s, .response_timeout = 20s};
}

/// A pipeline with the endpoint and the options that it refers to.
struct Line {
    Endpoint endpoint;
    ClientOptions options;
    std::atomic<int> attended{0};
    Pipeline pipeline{endpoint, options, [this](std::chrono::nanoseconds) { ++attended; }};

    explicit Line(const std::string& url, ClientOptions client_options = patient())
        : endpoint{Endpoint::parse(url)}, options{std::move(client_options)} {}

    Exchange ask(std::initializer_list<std::string_view> command,
                 Deadline deadline = Deadline::never()) {
        return pipeline.request(encode(command), deadline);
    }

    /// The reply's text; else the outcome's error in brackets.
    std::string text(std::initializer_list<std::string_view> command) {
        const Exchange exchange = ask(command);
        return exchange.outcome == Outcome::answered ? exchange.reply.text
                                                     : "[" + exchange.error + "]";
    }
};

template <class Action>
std::chrono::milliseconds time_of(Action action) {
    const auto begin = std::chrono::steady_clock::now();
    action();
    return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() -
                                                                 begin);
}

/// Lets the time go by for which a connection that was just heard of is not looked at.
void idle() {
    std::this_thread::sleep_for(2 * Pipeline::look_before);
}

}  // namespace

TEST_CASE("The first request connects, the others use the same connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(proxy.connections() == 0);
    CHECK(line.pipeline.connections() == 0);
    for (int i = 0; i < 10; ++i)
        CHECK(line.text({"ECHO", std::to_string(i)}) == std::to_string(i));
    CHECK(proxy.connections() == 1);
    CHECK(line.pipeline.connections() == 1);
    CHECK(line.pipeline.requests() == 10);
}

TEST_CASE("An answer comes with the time before its request went out") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    proxy.delay(50ms);
    const auto before = detail::BootClock::now();
    const Exchange exchange = line.ask({"PING"});
    const auto after = detail::BootClock::now();
    CHECK(exchange.outcome == Outcome::answered);
    CHECK(exchange.error.empty());
    CHECK(exchange.sent >= before);
    CHECK(exchange.sent <= after - 50ms);
}

TEST_CASE("The time that a request was sent does not count from before its connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    proxy.delay(50ms);  // of the login's reply, then of the request's
    Line line{proxy.url()};
    const auto before = detail::BootClock::now();
    const Exchange exchange = line.ask({"PING"});
    CHECK(exchange.outcome == Outcome::answered);
    CHECK(exchange.sent >= before + 50ms);
    CHECK(exchange.sent <= detail::BootClock::now() - 50ms);
}

TEST_CASE("An error of the server is an answer") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    const Exchange exchange = line.ask({"NOSUCH"});
    CHECK(exchange.outcome == Outcome::answered);
    CHECK(exchange.reply.is_error());
    CHECK_THAT(exchange.reply.text, StartsWith("ERR unknown command"));
    CHECK(line.text({"PING"}) == "PONG");
    CHECK(line.pipeline.connections() == 1);
}

TEST_CASE("A refused login is an answer, without the password") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server{RedisServerOptions{.password = "s3cret"}};
    Line line{server.url(":wr0ng")};
    const Exchange exchange = line.ask({"PING"});
    CHECK(exchange.outcome == Outcome::answered);
    CHECK(exchange.reply.is_error());
    CHECK_THAT(exchange.reply.text, StartsWith("WRONGPASS "));
    CHECK(exchange.reply.text.find("wr0ng") == std::string::npos);
    CHECK(line.pipeline.connections() == 0);
    CHECK(line.pipeline.requests() == 0);
}

TEST_CASE("Without a connection a request was surely not sent") {
    FaultProxy proxy{"unix:///nonexistent/redis.sock"};
    Line line{proxy.url(), {.connect_timeout = 100ms}};
    Exchange exchange;
    SECTION("refused") {
        proxy.set(FaultProxy::Mode::refuse);
        exchange = line.ask({"PING"});
        CHECK_THAT(exchange.error, ContainsSubstring("Connection refused"));
    }
    SECTION("cut") {
        proxy.set(FaultProxy::Mode::cut);
        exchange = line.ask({"PING"});
        CHECK_FALSE(exchange.error.empty());
    }
    SECTION("not answered: it ends by connect_timeout") {
        const auto mode = GENERATE(FaultProxy::Mode::unreachable, FaultProxy::Mode::black_hole);
        proxy.set(mode);
        const auto took = time_of([&] { exchange = line.ask({"PING"}); });
        CHECK(took >= 100ms);
        CHECK(took < 2s);
        CHECK_THAT(exchange.error, ContainsSubstring("in time"));
    }
    SECTION("not answered: it ends by the deadline, if that is sooner") {
        line.options.connect_timeout = 20s;
        proxy.set(FaultProxy::Mode::black_hole);
        const auto took = time_of([&] { exchange = line.ask({"PING"}, Deadline::after(100ms)); });
        CHECK(took >= 100ms);
        CHECK(took < 2s);
    }
    CHECK(exchange.outcome == Outcome::not_sent);
    CHECK(line.pipeline.connections() == 0);
    CHECK(line.pipeline.requests() == 0);
}

TEST_CASE("A request whose reply is lost is unknown, and the next gets its own") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    bool executed = true;
    SECTION("after it was executed") {
        proxy.add(Fault::lose_reply().on("INCR"));
    }
    SECTION("before it was executed") {
        proxy.add(Fault::cut().on("INCR"));
        executed = false;
    }
    const Exchange lost = line.ask({"INCR", "n"});
    CHECK(lost.outcome == Outcome::unknown);
    CHECK_THAT(lost.error, ContainsSubstring("closed the connection"));
    CHECK(server.command({"GET", "n"}).is_nil() != executed);
    CHECK(line.text({"ECHO", "mine"}) == "mine");
    CHECK(line.pipeline.connections() == 2);
}

TEST_CASE("A late reply is never taken for another's") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url(), {.connect_timeout = 20s, .response_timeout = 100ms}};
    CHECK(line.text({"PING"}) == "PONG");
    const auto held = proxy.add(Fault::hold_reply().on("late"));
    Exchange late;
    std::uint64_t connections = 1;
    const auto took = time_of([&] {
        SECTION("past the response timeout") {
            late = line.ask({"ECHO", "late"});
            connections = 2;
        }
        SECTION("past the deadline") {
            line.options.response_timeout = 20s;
            late = line.ask({"ECHO", "late"}, Deadline::after(100ms));
        }
    });
    CHECK(took >= 100ms);
    CHECK(took < 2s);
    CHECK(late.outcome == Outcome::unknown);
    CHECK(late.error == "no reply in time");
    CHECK(proxy.hits(held) == 1);
    line.options.response_timeout = 20s;
    proxy.release();
    for (int i = 0; i < 20; ++i)
        CHECK(line.text({"ECHO", std::to_string(i)}) == std::to_string(i));
    // One that was given up by its caller alone keeps its place; its reply is dropped.
    CHECK(line.pipeline.connections() == connections);
}

TEST_CASE("A reply that comes byte by byte ends by the response timeout") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url(), {.connect_timeout = 20s, .response_timeout = 200ms}};
    CHECK(line.text({"PING"}) == "PONG");
    proxy.drip(1, 10ms);
    Exchange exchange;
    const auto took = time_of([&] { exchange = line.ask({"ECHO", std::string(1000, 'x')}); });
    CHECK(exchange.outcome == Outcome::unknown);
    CHECK(took >= 200ms);
    CHECK(took < 2s);
    proxy.drip(0, 0ms);
    line.options.response_timeout = 20s;
    CHECK(line.text({"ECHO", "mine"}) == "mine");
}

TEST_CASE("A reply that makes no sense drops the connection, and the next gets its own") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    SECTION("garbage") {
        proxy.add(Fault::replace_reply("?!\r\n").on("bad"));
    }
    SECTION("surplus") {
        proxy.add(Fault::append("$4\r\nmine\r\n").on("bad"));
    }
    SECTION("the begin of a surplus") {
        proxy.add(Fault::append("$").on("bad"));
    }
    const Exchange bad = line.ask({"ECHO", "bad"});
    CHECK(bad.outcome == Outcome::unknown);
    CHECK_FALSE(bad.error.empty());
    CHECK(line.text({"ECHO", "good"}) == "good");
    CHECK(line.pipeline.connections() == 2);
}

TEST_CASE("What the server sends unasked between two requests is not taken for a reply") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    CHECK(line.ask({"SUBSCRIBE", "channel"}).outcome == Outcome::answered);
    CHECK(server.command({"PUBLISH", "channel", "unasked"}).number == 1);
    server.command({"PING"});  // By now the message has gone out.
    idle();
    CHECK(line.text({"ECHO", "mine"}) == "mine");
    CHECK(line.pipeline.connections() == 2);
}

TEST_CASE("A connection that was closed meanwhile is replaced, and the request not lost") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    CHECK(line.text({"PING"}) == "PONG");
    SECTION("by the server") {
        REQUIRE(server.command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}).number == 1);
    }
    SECTION("by its end and a new start") {
        server.restart();
    }
    SECTION("by its death; no SIGPIPE kills us") {
        server.kill();
        idle();
        CHECK(line.ask({"PING"}).outcome == Outcome::not_sent);
        server.restart();
    }
    SECTION("by disconnect()") {
        line.pipeline.disconnect(1);
    }
    idle();
    CHECK(line.text({"ECHO", "mine"}) == "mine");
    CHECK(line.pipeline.connections() == 2);
}

TEST_CASE("Only the connection that is meant is dropped") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    const Exchange first = line.ask({"PING"});
    CHECK(first.connection == 1);
    line.pipeline.disconnect(first.connection);
    const Exchange second = line.ask({"PING"});
    CHECK(second.connection == 2);
    // Somebody else's news about the first connection come late.
    line.pipeline.disconnect(first.connection);
    CHECK(line.ask({"PING"}).connection == 2);

    const auto held = proxy.add(Fault::hold_reply().on("slow"));
    Exchange slow;
    std::jthread thread{[&] { slow = line.ask({"ECHO", "slow"}); }};
    REQUIRE(proxy.wait_hits(held));
    line.pipeline.disconnect(second.connection);  // It is in use.
    proxy.release();
    thread.join();
    CHECK(slow.reply.text == "slow");
    CHECK(proxy.connections() == 2);
}

TEST_CASE(
    "Who waits behind another's request is sent at once, and waits no longer than its deadline") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    const auto held = proxy.add(Fault::hold_reply().on("slow"));
    Exchange slow;
    std::jthread thread{[&] { slow = line.ask({"ECHO", "slow"}); }};
    REQUIRE(proxy.wait_hits(held));
    Exchange waiting;
    const auto took = time_of([&] { waiting = line.ask({"PING"}, Deadline::after(50ms)); });
    CHECK(waiting.outcome == Outcome::unknown);
    CHECK_THAT(waiting.error, ContainsSubstring("no reply in time"));
    CHECK(line.pipeline.writes() == 3);
    CHECK(took >= 50ms);
    CHECK(took < 2s);
    proxy.release();
    thread.join();
    CHECK(slow.outcome == Outcome::answered);
    CHECK(slow.reply.text == "slow");
}

TEST_CASE("Threads that share a pipeline each get their own replies") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    constexpr int threads = 8;
    constexpr int rounds = 200;
    std::atomic<int> right{0};
    support::run_together(threads, [&](int index) {
        for (int i = 0; i < rounds; ++i) {
            const std::string unique = std::to_string(index) + ":" + std::to_string(i);
            right += line.text({"ECHO", unique}) == unique ? 1 : 0;
        }
    });
    CHECK(right == threads * rounds);
    CHECK(line.pipeline.requests() == threads * rounds);
    CHECK(line.pipeline.connections() == 1);
}

TEST_CASE("Threads get their own replies or none while connections come and go") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    // Every few requests one is cut, lost or answered with nonsense. (A reply too many can only be
    // told when no other is owed; that is tested above.)
    const std::vector<Fault> faults{Fault::cut().on(":7"), Fault::lose_reply().on(":13"),
                                    Fault::replace_reply("?\r\n").on(":31")};
    for (const Fault& fault : faults)
        proxy.add(Fault{fault}.times(20));
    Line line{proxy.url()};
    std::atomic<int> answered{0};
    std::atomic<int> unanswered{0};
    std::atomic<int> wrong{0};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 100; ++i) {
            const std::string unique = std::to_string(index) + ":" + std::to_string(i);
            const Exchange exchange = line.ask({"ECHO", unique});
            if (exchange.outcome != Outcome::answered) {
                ++unanswered;
            } else {
                ++(exchange.reply.text == unique ? answered : wrong);
            }
            if (i % 25 == 24) line.pipeline.disconnect(exchange.connection);
        }
    });
    CHECK(wrong == 0);
    CHECK(answered + unanswered == 400);
    CHECK(unanswered >= 4 * 3);
    CHECK(line.text({"ECHO", "mine"}) == "mine");
}

TEST_CASE("A request that nobody waits for is sent at once, and answered before what comes later") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    CHECK(line.text({"PING"}) == "PONG");
    std::vector<std::string> replies;
    for (int i = 0; i < 3; ++i) {
        line.pipeline.send(
            encode({"INCR", "n"}), Deadline::never(), false,
            [&](Exchange& exchange) { replies.push_back(std::to_string(exchange.reply.integer)); });
    }
    // Somebody has been asked to look after the replies, once.
    CHECK(line.attended == 1);
    CHECK(line.pipeline.writes() == 4);
    CHECK(server.command({"GET", "n"}).text == "3");
    CHECK(line.text({"GET", "n"}) == "3");
    CHECK(replies == std::vector<std::string>{"1", "2", "3"});
    CHECK_FALSE(line.pipeline.pump(Deadline::after(20s), detail::NoTick{}));
}

TEST_CASE("What nobody waits for is sent though threads that share its write go away") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    CHECK(line.text({"PING"}) == "PONG");
    constexpr int threads = 4;
    std::atomic<int> replies{0};
    for (int round = 1; round <= 500; ++round) {
        support::run_together(threads, [&](int) {
            for (int i = 0; i < 3; ++i) {
                (void)line.ask({"PING"});
                line.pipeline.send(encode({"INCR", "sent"}), Deadline::never(), false,
                                   [&](Exchange&) { ++replies; });
            }
        });
        // Nobody asks for anything any more, and nobody attends to the pipeline.
        const std::string expected = std::to_string(round * threads * 3);
        const bool all = support::eventually([&] {
            return server.command({"GET", "sent"}).text == expected;
        });
        CAPTURE(round, expected, server.command({"GET", "sent"}).text);
        REQUIRE(all);
    }
    line.pipeline.drain(Deadline::after(20s));
    CHECK(replies == 500 * threads * 3);
}

TEST_CASE("What is corked goes in one write, and pump() reads what nobody waits for") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    Line line{server.url()};
    std::atomic<int> answered{0};
    for (int i = 0; i < 100; ++i) {
        line.pipeline.send(
            encode({"INCR", "n"}), Deadline::never(), false,
            [&](Exchange& exchange) { answered += exchange.outcome == Outcome::answered ? 1 : 0; },
            true);
    }
    CHECK(line.pipeline.requests() == 0);
    const Deadline limit = Deadline::after(20s);
    while (line.pipeline.pump(limit, detail::NoTick{}) && !limit.expired())
        std::this_thread::yield();
    CHECK(answered == 100);
    CHECK(line.pipeline.writes() == 1);
    CHECK(server.command({"GET", "n"}).text == "100");
}

TEST_CASE("What is to be repeated is sent again before what comes later, the rest is unknown") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    proxy.add(Fault::cut().on("first"));
    std::vector<std::string> told;
    const auto note = [&](Exchange& exchange) {
        told.push_back(exchange.outcome == Outcome::answered
                           ? std::to_string(exchange.reply.integer) +
                                 (exchange.repeated ? " repeated" : "")
                           : "unknown");
    };
    line.pipeline.send(encode({"RPUSH", "list", "first"}), Deadline::never(), true, note, true);
    line.pipeline.send(encode({"RPUSH", "list", "second"}), Deadline::never(), false, note, true);
    const Exchange ping = line.ask({"PING"});
    CHECK(ping.connection == 1);
    CHECK(ping.outcome == Outcome::unknown);
    CHECK(line.text({"RPUSH", "list", "third"}).empty());
    CHECK(told == std::vector<std::string>{"unknown", "1 repeated"});
    CHECK(server.command({"LRANGE", "list", "0", "-1"}).elements.size() == 2);
    CHECK(server.command({"LINDEX", "list", "0"}).text == "first");
}

TEST_CASE("More requests than the bound are refused with the bound's name, and the rest goes on") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    ClientOptions options = patient();
    options.max_pending = 3;
    Line line{server.url(), options};
    std::vector<std::string> errors;
    const auto note = [&](Exchange& exchange) { errors.push_back(exchange.error); };
    for (int i = 0; i < 4; ++i)
        line.pipeline.send(encode({"PING"}), Deadline::never(), false, note, true);
    REQUIRE(errors.size() == 1);
    CHECK_THAT(errors[0], ContainsSubstring("max_pending"));
    const Exchange refused = line.ask({"PING"});
    CHECK(refused.outcome == Outcome::not_sent);
    CHECK_THAT(refused.error, ContainsSubstring("max_pending"));
    line.pipeline.drain(Deadline::after(20s));
    CHECK(errors == std::vector<std::string>{errors[0], "", "", ""});
}

TEST_CASE("A thread whose deadline comes first passes the driving on") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    FaultProxy proxy{server.url()};
    Line line{proxy.url()};
    CHECK(line.text({"PING"}) == "PONG");
    const auto held = proxy.add(Fault::hold_reply().on("slow"));
    Exchange slow;
    std::jthread driver{[&] { slow = line.ask({"ECHO", "slow"}, Deadline::after(200ms)); }};
    REQUIRE(proxy.wait_hits(held));
    std::string next;
    std::jthread waiter{[&] { next = line.text({"ECHO", "next"}); }};
    driver.join();
    CHECK(slow.outcome == Outcome::unknown);
    proxy.release();
    waiter.join();
    CHECK(next == "next");
    CHECK(line.pipeline.connections() == 1);
}
