// SPDX-License-Identifier: MIT
//
// Tests of caller.hpp: how a request is repeated until it is answered, through a proxy that says
// what is answered. What is to be done after each error is retry_test.cpp's.

#include <codomyrmex/concurrency/redis/caller.hpp>

#include "support/catch2.hpp"
#include "support/fault_proxy.hpp"
#include "support/keeper_bench.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstddef>
#include <stop_token>
#include <string>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Catch::Matchers::ContainsSubstring;
using Catch::Matchers::StartsWith;
using test_support::Fault;
using test_support::FaultProxy;
using test_support::KeeperBench;
using test_support::patient;
using test_support::RedisServer;

/// A caller with a server behind a proxy. Its requests are PINGs, which the server sends back.
struct Bench {
    RedisServer server;
    FaultProxy proxy{server.url()};
    KeeperBench keeper{proxy.url()};
    Caller caller{*keeper.state};

    // Of each copy of the last request.
    std::vector<std::string> numbers;

    /// `at_copy(n)` is called before copy number n, from 1, is sent.
    template <class AtCopy, class Check>
    Answer ask(Deadline deadline, AtCopy at_copy, Check check, const std::stop_token& stop = {}) {
        numbers.clear();
        return caller.run(
            deadline,
            [&](BootTime, RequestNumber number) {
                numbers.emplace_back(number.text());
                at_copy(numbers.size());
                return encode({"PING", number.text()});
            },
            check, stop);
    }
    Answer ask(Deadline deadline = Deadline::never()) {
        return ask(
            deadline, [](std::size_t) {}, [](const Reply&) { return true; });
    }
};

}  // namespace

TEST_CASE("By when a request must be answered follows from the caller's deadline") {
    const KeeperBench keeper{"unix:///no/such.sock", {.patience = 1h, .response_timeout = 1min}};
    const Caller caller{*keeper.state};
    const Deadline some = Deadline::after(7min);
    CHECK(caller.limit(some) == some);
    const auto without = caller.limit(Deadline::never()).remaining();
    CHECK(without <= 1h);
    CHECK(without > 59min);
    // Who does not wait for a holder has the time of one reply.
    const auto at_once = caller.limit(Deadline::after(0s)).remaining();
    CHECK(at_once <= 1min);
    CHECK(at_once > 50s);
}

TEST_CASE("A request is repeated until it is answered, each copy under a number of its own") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::reply("-LOADING the data\r\n").on("PING").times(3));
    const BootTime before = detail::BootClock::now();
    const Answer answer = bench.ask();
    REQUIRE(answer.ok);
    REQUIRE(bench.numbers.size() == 4);
    for (std::size_t i = 1; i < 4; ++i)
        CHECK(bench.numbers[i] != bench.numbers[i - 1]);
    // The number is taken off, which leaves nothing.
    CHECK(answer.reply.text.empty());
    CHECK(answer.connection == 1);
    CHECK(answer.sent > before);
    CHECK_FALSE(answer.retry.maybe_executed());
    CHECK(answer.retry.reason() == "LOADING the data");
}

TEST_CASE("What may have been executed and had no answer is repeated, and that is remembered") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::lose_reply().on("PING"));
    const Answer answer = bench.ask();
    CHECK(answer.ok);
    CHECK(bench.numbers.size() == 2);
    CHECK(answer.retry.maybe_executed());
    CHECK(answer.connection == 2);
}

TEST_CASE("What calls a script that the server does not know is repeated at once, and then later") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::reply("-NOSCRIPT No matching script.\r\n").on("PING").times(2));
    const Answer answer = bench.ask();
    CHECK(answer.ok);
    CHECK(bench.numbers.size() == 3);
    // Surely not executed.
    CHECK_FALSE(answer.retry.maybe_executed());
}

TEST_CASE("An answer of another request, or that will not do, costs the connection") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::replace_reply("$5\r\n1 7fe\r\n").on("PING"));
    std::vector<std::string> seen;
    const Answer answer = bench.ask(
        Deadline::never(), [](std::size_t) {},
        [&](const Reply& reply) {
            seen.push_back(reply.text);
            return seen.size() == 2;
        });
    REQUIRE(answer.ok);
    CHECK(bench.numbers.size() == 3);
    // The one of another was not shown.
    CHECK(seen == std::vector<std::string>(2));
    CHECK(answer.connection == 3);
    CHECK(bench.proxy.connections() == 3);
    // It was answered, but what was done for it is not known.
    CHECK(answer.retry.maybe_executed());
    CHECK_THAT(answer.retry.reason(), StartsWith("the server answered with"));
}

TEST_CASE("An error that no repetition mends ends it at once, and is told with its place") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::reply("-NOPERM this user may not\r\n").on("PING").always());
    const Answer answer = bench.ask();
    CHECK_FALSE(answer.ok);
    CHECK(bench.numbers.size() == 1);
    const LockError error = bench.caller.failure(answer, "cannot do it");
    CHECK(error.code() == LockErrc::backend_refused);
    CHECK_THAT(error.what(), ContainsSubstring(bench.keeper.state->endpoint.to_string() +
                                               ": cannot do it: NOPERM this user may not"));
}

TEST_CASE("A copy that the deadline cuts off does not hide why there was no answer before") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::reply("-LOADING the data\r\n").on("PING"));
    bench.proxy.add(Fault::hold_reply().on("PING"));
    const Answer answer = bench.ask(Deadline::after(400ms));
    CHECK_FALSE(answer.ok);
    CHECK(bench.numbers.size() == 2);
    CHECK(answer.retry.reason() == "LOADING the data");
    CHECK(answer.retry.error() == LockErrc::backend_unavailable);
    CHECK(answer.retry.maybe_executed());
}

TEST_CASE("Asked to stop, it sends no further copy, whatever time is left") {
    if (!RedisServer::available()) SKIP("no redis-server");
    Bench bench;
    bench.proxy.add(Fault::reply("-LOADING the data\r\n").on("PING").always());
    std::stop_source source;
    const auto stop_at_third = [&](std::size_t copy) {
        if (copy == 3) source.request_stop();
    };
    const Answer answer = bench.ask(
        Deadline::after(20s), stop_at_third, [](const Reply&) { return true; }, source.get_token());
    CHECK_FALSE(answer.ok);
    CHECK(bench.numbers.size() == 3);
    CHECK(answer.retry.error() == LockErrc::backend_unavailable);
}
