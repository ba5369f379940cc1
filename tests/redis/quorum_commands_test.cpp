// SPDX-License-Identifier: MIT
//
// Tests of quorum_commands.hpp: keys, and what is read in answers.

#include <codomyrmex/concurrency/redis/quorum_commands.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::replies::array;
using test_support::replies::number;
using test_support::replies::text;

namespace {

const std::string stamp = "1700000000123456000";

}  // namespace

TEST_CASE("A quorum lock has keys of its own, and no name opens their hash tag") {
    const LockIdentity identity = make_quorum_identity("codomyrmex:", "a{b}%", {});
    CHECK(identity.keys.main() == "codomyrmex:quorum:{a%7Bb%7D%25}");
    CHECK(identity.keys.fence() == "codomyrmex:quorum:{a%7Bb%7D%25}:fence");
    CHECK(identity.name == "a{b}%");
    CHECK_THROWS_AS(make_quorum_identity("codomyrmex:", "", {}), LockError);
    CHECK_THROWS_AS(make_quorum_identity("codomyrmex:", "a", {.ttl = 1ms}), LockError);
}

TEST_CASE("What a node answers to an acquisition is read, and nothing else") {
    const auto granted = read_quorum_acquire(array({number(1), text(stamp), text(stamp)}));
    REQUIRE(granted.has_value());
    CHECK(granted->outcome == QuorumAcquireAnswer::Outcome::granted);
    CHECK(granted->fence == 1'700'000'000'123'456'000U);
    const auto held = read_quorum_acquire(array({number(0), text(stamp), number(20)}));
    REQUIRE(held.has_value());
    CHECK(held->outcome == QuorumAcquireAnswer::Outcome::held);
    CHECK(held->left == 20ms);
    const auto late = read_quorum_acquire(array({number(2), text(stamp), number(0)}));
    REQUIRE(late.has_value());
    CHECK(late->outcome == QuorumAcquireAnswer::Outcome::late);
    CHECK_FALSE(read_quorum_acquire(number(1)));
    CHECK_FALSE(read_quorum_acquire(array({number(1), text(stamp)})));
    CHECK_FALSE(read_quorum_acquire(array({number(3), text(stamp), number(0)})));
    CHECK_FALSE(read_quorum_acquire(array({number(1), text("1"), text(stamp)})));
    CHECK_FALSE(read_quorum_acquire(array({number(1), text(stamp), text("12")})));
    CHECK_FALSE(read_quorum_acquire(array({number(0), text(stamp), text("12")})));
}

TEST_CASE("What a node answers to the other questions is read, and nothing else") {
    const auto answer = read_quorum_step(array({number(2), text(stamp)}));
    REQUIRE(answer.has_value());
    CHECK(answer->kind == 2);
    CHECK_FALSE(read_quorum_step(array({number(4), text(stamp)})));
    CHECK_FALSE(read_quorum_step(array({number(-1), text(stamp)})));
    CHECK_FALSE(read_quorum_step(array({number(1), text("now")})));
    CHECK_FALSE(read_quorum_step(text("1")));
    CHECK(read_quorum_release(number(1)) == true);
    CHECK(read_quorum_release(number(0)) == false);
    CHECK_FALSE(read_quorum_release(text("1")).has_value());
}

TEST_CASE("How long a server is up is found in what INFO tells") {
    CHECK(read_uptime("# Server\r\nredis_version:7.0.15\r\nuptime_in_seconds:42\r\nhz:10\r\n") ==
          42s);
    CHECK(read_uptime("uptime_in_seconds:0") == 0s);
    CHECK_FALSE(read_uptime("").has_value());
    CHECK_FALSE(read_uptime("x_uptime_in_seconds:42\r\n").has_value());
    CHECK_FALSE(read_uptime("uptime_in_seconds:\r\n").has_value());
    CHECK_FALSE(read_uptime("uptime_in_seconds:-3\r\n").has_value());
    CHECK_FALSE(read_uptime("uptime_in_seconds:3 days\r\n").has_value());
}

TEST_CASE("A tenure knows which nodes were asked, and takes no request behind its release") {
    const auto identity =
        std::make_shared<const LockIdentity>(make_quorum_identity("codomyrmex:", "a", {}));
    QuorumTenure tenure{identity, "t-1", "host:1:2"};
    tenure.asked(0);
    tenure.asked(63);
    tenure.not_asked(0);
    tenure.mark_doubtful_at(63);
    CHECK_FALSE(tenure.was_asked(0));
    CHECK(tenure.was_asked(63));
    CHECK(tenure.doubtful_at(63));
    CHECK_FALSE(tenure.doubtful_at(62));
    int sent = 0;
    tenure.unless_given_back([&] { ++sent; });
    CHECK(tenure.give_back());
    CHECK_FALSE(tenure.give_back());
    tenure.unless_given_back([&] { ++sent; });
    CHECK(sent == 1);
}
