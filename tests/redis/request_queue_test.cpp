// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/request_queue.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Outcome = Exchange::Outcome;

constexpr BootTime boot{1h};
constexpr Deadline::time_point steady{2h};

RequestPtr request(std::string bytes, bool repeat = false) {
    auto made = std::make_shared<Request>();
    made->bytes = std::move(bytes);
    made->repeat = repeat;
    return made;
}

Reply text(std::string bytes) {
    Reply reply;
    reply.type = Reply::Type::status;
    reply.text = std::move(bytes);
    return reply;
}

/// What is sent when `queue` is asked for all that is unsent.
std::string take(RequestQueue& queue, BootTime now = boot, std::uint64_t connection = 1) {
    std::string output;
    queue.take(output, now, steady, connection);
    return output;
}

}  // namespace

TEST_CASE("An empty queue has nothing to send and nobody to answer") {
    RequestQueue queue{10};
    CHECK(queue.size() == 0);
    CHECK(take(queue) == "");
    CHECK(queue.answer(text("OK")) == nullptr);
    CHECK(queue.first_waiting() == nullptr);
    CHECK(queue.disconnect("why").empty());
    CHECK(queue.not_connected("why").empty());
}

TEST_CASE("Requests are sent in their order, and replies belong to them in that order") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    const auto c = request("c");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    CHECK(queue.unsent() == 2);
    CHECK(queue.unanswered() == 0);
    CHECK(take(queue, boot, 7) == "ab");
    CHECK(queue.unsent() == 0);
    CHECK(queue.unanswered() == 2);
    REQUIRE(queue.add(c));
    CHECK(queue.size() == 3);
    CHECK(take(queue, boot + 1s, 7) == "c");

    CHECK(queue.answer(text("1")) == a);
    CHECK(queue.answer(text("2")) == b);
    CHECK(queue.answer(text("3")) == c);
    CHECK(queue.answer(text("4")) == nullptr);
    CHECK(queue.size() == 0);
    for (const auto& [each, reply] : {std::pair{a, "1"}, std::pair{b, "2"}, std::pair{c, "3"}}) {
        CHECK(each->exchange.outcome == Outcome::answered);
        CHECK(each->exchange.reply.text == reply);
        CHECK(each->exchange.connection == 7);
        CHECK_FALSE(each->exchange.repeated);
    }
    CHECK(a->exchange.sent == boot);
    CHECK(c->exchange.sent == boot + 1s);
}

TEST_CASE("What is sent is appended to what is to be sent already") {
    RequestQueue queue{10};
    REQUIRE(queue.add(request("b")));
    std::string output = "a";
    queue.take(output, boot, steady, 1);
    CHECK(output == "ab");
}

TEST_CASE("The oldest that is unanswered is known by when it was sent") {
    RequestQueue queue{10};
    REQUIRE(queue.add(request("a")));
    std::string output;
    queue.take(output, boot, steady, 1);
    REQUIRE(queue.add(request("b")));
    queue.take(output, boot, steady + 1s, 1);
    CHECK(queue.oldest() == steady);
    (void)queue.answer(text("OK"));
    CHECK(queue.oldest() == steady + 1s);
}

TEST_CASE("No more requests are taken than the bound, those under way included") {
    RequestQueue queue{3};
    REQUIRE(queue.add(request("a")));
    (void)take(queue);
    REQUIRE(queue.add(request("b")));
    REQUIRE(queue.add(request("c")));
    const auto surplus = request("d");
    CHECK_FALSE(queue.add(surplus));
    CHECK(queue.size() == 3);
    CHECK(surplus.use_count() == 1);
    (void)queue.answer(text("OK"));
    CHECK(queue.add(surplus));
    CHECK(take(queue) == "bcd");
}

TEST_CASE("A request whose caller gave up keeps its place once it was sent, and drops its reply") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    (void)take(queue);
    queue.give_up(a);
    CHECK(queue.unanswered() == 2);
    // The late reply is not b's.
    CHECK(queue.answer(text("late")) == a);
    CHECK(a->exchange.outcome == Outcome::unknown);
    CHECK(a->exchange.reply.type == Reply::Type::nil);
    CHECK(queue.answer(text("OK")) == b);
    CHECK(b->exchange.reply.text == "OK");
}

TEST_CASE("A request whose caller gave up before it was sent never is") {
    RequestQueue queue{10};
    const auto a = request("a");
    const auto b = request("b");
    REQUIRE(queue.add(a));
    REQUIRE(queue.add(b));
    queue.give_up(a);
    CHECK(queue.unsent() == 1);
    CHECK(a->exchange.outcome == Outcome::not_sent);
    CHECK(take(queue) == "b");
    queue.give_up(a);  // again: it is not there
    CHECK(queue.unanswered() == 1);
}

TEST_CASE("When the connection breaks, what was sent is unknown and what was not stays") {
    RequestQueue queue{10};
    const auto sent = request("a");
    const auto unsent = request("b");
    REQUIRE(queue.add(sent));
    (void)take(queue);
    REQUIRE(queue.add(unsent));
    const auto ended = queue.disconnect("it broke");
    CHECK(ended == std::vector{sent});
    CHECK(sent->exchange.outcome == Outcome::unknown);
    CHECK(sent->exchange.error == "it broke");
    CHECK(queue.unanswered() == 0);
    CHECK(unsent->exchange.outcome == Outcome::not_sent);
    CHECK(unsent->exchange.error.empty());
    CHECK(take(queue, boot, 2) == "b");
    CHECK(queue.answer(text("OK")) == unsent);
    CHECK_FALSE(unsent->exchange.repeated);
}

TEST_CASE("What is to be repeated is sent again, before what comes later, and says so") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    const auto b = request("b");
    const auto c = request("c", true);
    const auto d = request("d");
    for (const auto& each : {a, b, c})
        REQUIRE(queue.add(each));
    (void)take(queue, boot, 1);
    REQUIRE(queue.add(d));
    CHECK(queue.disconnect("it broke") == std::vector{b});
    CHECK(take(queue, boot + 5s, 2) == "acd");
    CHECK(a->exchange.repeated);
    CHECK(c->exchange.repeated);
    CHECK_FALSE(d->exchange.repeated);
    // The answer is of the second copy, and counts from when that went out.
    CHECK(queue.answer(text("OK")) == a);
    CHECK(a->exchange.outcome == Outcome::answered);
    CHECK(a->exchange.sent == boot + 5s);
    CHECK(a->exchange.connection == 2);
}

TEST_CASE("What nobody is interested in any more is not sent again") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    REQUIRE(queue.add(a));
    (void)take(queue);
    queue.give_up(a);
    CHECK(queue.disconnect("it broke").empty());
    CHECK(queue.size() == 0);
    CHECK(a.use_count() == 1);
    CHECK(take(queue) == "");
}

TEST_CASE("Without a connection, what was to be sent for the first time ends as not sent") {
    RequestQueue queue{10};
    const auto once = request("a");
    const auto again = request("b", true);
    const auto late = request("c", true);
    late->deadline = Deadline::after(0ns);
    for (const auto& each : {once, again, late})
        REQUIRE(queue.add(each));
    CHECK(queue.not_connected("refused") == std::vector{once, late});
    CHECK(once->exchange.outcome == Outcome::not_sent);
    CHECK(once->exchange.error == "refused");
    CHECK(late->exchange.error == "refused");
    CHECK(queue.unsent() == 1);
    CHECK(take(queue) == "b");
    CHECK_FALSE(again->exchange.repeated);  // the first that went out
}

TEST_CASE("What was sent once stays unknown though its next connection cannot be had") {
    RequestQueue queue{10};
    const auto a = request("a", true);
    a->deadline = Deadline::after(0ns);
    REQUIRE(queue.add(a));
    (void)take(queue);
    CHECK(queue.disconnect("it broke").empty());
    CHECK(queue.not_connected("refused") == std::vector{a});
    // It may have been executed, so it must not end as surely not executed.
    CHECK(a->exchange.outcome == Outcome::unknown);
}

TEST_CASE("The next to drive is the first whose thread waits, the sent ones first") {
    RequestQueue queue{10};
    const auto called = request("a");
    called->then = [](Exchange&) {};
    const auto gone = request("b");
    const auto first = request("c");
    const auto second = request("d");
    for (const auto& each : {called, gone, first})
        REQUIRE(queue.add(each));
    (void)take(queue);
    queue.give_up(gone);
    CHECK(queue.first_waiting() == first);
    REQUIRE(queue.add(second));
    CHECK(queue.first_waiting() == first);
    queue.give_up(first);
    CHECK(queue.first_waiting() == second);
    queue.give_up(second);
    CHECK(queue.first_waiting() == nullptr);
    CHECK(queue.size() == 3);
}
