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
        node.ended(start + 400ms);
        CHECK(node.owed() == 1);
        CHECK_FALSE(node.silent(start + 600ms, 200ms));
        CHECK(node.silent(start + 601ms, 200ms));
    }
    SECTION("who owes nothing is not silent") {
        node.ended(start + 400ms);
        node.ended(start + 400ms);
        CHECK_FALSE(node.silent(start + 1h, 200ms));
        node.asked(start + 1h);
        CHECK_FALSE(node.silent(start + 1h, 200ms));
    }
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
