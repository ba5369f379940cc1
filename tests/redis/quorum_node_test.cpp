// SPDX-License-Identifier: MIT
//
// Tests of quorum_node.hpp: what is remembered of a node, on a clock made by hand.

#include <codomyrmex/concurrency/redis/quorum_node.hpp>

#include "support/catch2.hpp"

#include <chrono>

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {
constexpr BootTime start{1000s};
}

TEST_CASE("A node is silent when it owes something and gives no sign of life") {
    NodeMemory node;
    CHECK_FALSE(node.silent(start, 200ms));
    node.asked(start);
    CHECK_FALSE(node.silent(start + 200ms, 200ms));
    CHECK(node.silent(start + 201ms, 200ms));
    node.asked(start + 300ms);
    CHECK(node.silent(start + 301ms, 200ms));
    SECTION("an answer is a sign of life, though more are owed") {
        node.ended(start + 400ms, true);
        CHECK(node.owed() == 1);
        CHECK_FALSE(node.silent(start + 600ms, 200ms));
        CHECK(node.silent(start + 601ms, 200ms));
    }
    SECTION("who owes nothing is not silent") {
        node.ended(start + 400ms, true);
        node.ended(start + 400ms, true);
        CHECK_FALSE(node.silent(start + 1h, 200ms));
        node.asked(start + 1h);
        CHECK_FALSE(node.silent(start + 1h, 200ms));
    }
}

TEST_CASE("A node that was not reached is left alone for a while, longer each time") {
    NodeMemory node;
    const auto fail = [&](BootTime now) {
        node.asked(now);
        node.ended(now, false);
    };
    fail(start);
    CHECK(node.silent(start + 9ms, 200ms));
    CHECK_FALSE(node.silent(start + 10ms, 200ms));
    // What failed together with it does not count again.
    fail(start + 1ms);
    CHECK_FALSE(node.silent(start + 10ms, 200ms));
    fail(start + 10ms);
    CHECK(node.silent(start + 29ms, 200ms));
    CHECK_FALSE(node.silent(start + 30ms, 200ms));
    BootTime now = start + 1s;
    for (int i = 0; i < 20; ++i, now += 1s)
        fail(now);
    CHECK_FALSE(node.silent(now - 1s + 160ms, 200ms));
    // An answer makes up for all of it.
    node.asked(now);
    node.ended(now, true);
    CHECK_FALSE(node.silent(now, 200ms));
    fail(now);
    CHECK_FALSE(node.silent(now + 10ms, 200ms));
}

TEST_CASE("How long a node is up is known of one connection, and rather less than it is") {
    NodeMemory node;
    CHECK(node.uptime_unknown(0));
    CHECK_FALSE(node.uptime(0, start).has_value());
    node.learn_uptime(3, 10s, start);
    CHECK_FALSE(node.uptime_unknown(3));
    CHECK(node.uptime_unknown(4));
    CHECK(node.uptime(3, start) == 9s);
    CHECK(node.uptime(3, start - 1ms) == 8999ms);
    CHECK(node.uptime(3, start + 5s) == 14s);
    CHECK_FALSE(node.uptime(4, start).has_value());
    node.learn_uptime(4, 0s, start);
    CHECK(node.uptime(4, start) == 0s);
    CHECK(node.uptime(4, start + 3s) == 2s);
}
