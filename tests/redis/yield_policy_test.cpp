// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/yield_policy.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstddef>

namespace {

using codomyrmex::concurrency::redis::YieldPolicy;
using namespace std::chrono_literals;

constexpr auto saving = YieldPolicy::saving;

/// How many times it is not worth it before it is tried again.
int skipped(YieldPolicy& policy) {
    int times = 0;
    while (!policy.worth_it()) {
        REQUIRE(++times < 10'000);
    }
    return times;
}

}  // namespace

TEST_CASE("A fresh policy yields, and goes on as long as it pays") {
    YieldPolicy policy;
    CHECK(policy.worth_it());
    for (int i = 0; i < 100; ++i) {
        policy.learn(1, saving);
        CHECK(policy.worth_it());
    }
}

TEST_CASE("A yield pays if it took no longer than twice what the requests save that it brought") {
    for (const std::size_t gained : {std::size_t{1}, std::size_t{2}, std::size_t{60}}) {
        CAPTURE(gained);
        const auto bound = saving * static_cast<int>(gained) * 2;
        YieldPolicy policy;
        policy.learn(gained, bound);
        CHECK(skipped(policy) == 0);
        YieldPolicy other;
        other.learn(gained, bound + 1ns);
        CHECK(skipped(other) > 0);
    }
}

TEST_CASE("A yield that brought nothing is not repeated for a while, which doubles to a bound") {
    YieldPolicy policy;
    int expected = 1;
    for (int round = 0; round < 15; ++round) {
        CAPTURE(round);
        policy.learn(0, 1us);
        CHECK(skipped(policy) == expected);
        if (expected < 1024) expected *= 2;
    }
    CHECK(expected == 1024);
}

TEST_CASE("A whole time slice lost to a thread that computes costs more at once") {
    YieldPolicy policy;
    policy.learn(0, 25 * saving);
    CHECK(skipped(policy) == 1);
    YieldPolicy other;
    other.learn(0, 25 * saving + 1ns);
    CHECK(skipped(other) == 64);
    other.learn(1, 4ms);
    CHECK(skipped(other) == 128);
    // However much it brought, if it took longer than that was worth.
    YieldPolicy third;
    third.learn(10, 20 * saving + 1ns);
    CHECK(skipped(third) == 1);
}

TEST_CASE("That a yield cost a slice is remembered for a while, whether it paid or not") {
    const std::size_t gained = GENERATE(std::size_t{0}, std::size_t{1000});
    CAPTURE(gained);
    YieldPolicy policy;
    CHECK_FALSE(policy.crowded());
    policy.learn(gained, YieldPolicy::slice);
    CHECK_FALSE(policy.crowded());
    policy.learn(gained, YieldPolicy::slice + 1ns);
    for (int i = 0; i < 2047; ++i)
        (void)policy.worth_it();
    CHECK(policy.crowded());
    (void)policy.worth_it();
    CHECK_FALSE(policy.crowded());
}

TEST_CASE("One yield that paid makes up for all that did not") {
    YieldPolicy policy;
    for (int round = 0; round < 8; ++round)
        policy.learn(0, 1us);
    CHECK(skipped(policy) == 128);
    policy.learn(3, 1us);
    CHECK(policy.worth_it());
    policy.learn(0, 3 * saving + 1ns);
    CHECK(skipped(policy) == 1);
}

TEST_CASE("What was saved may be spent on yields that bring nothing, and no more than that") {
    YieldPolicy policy;
    policy.learn(2, 1us);
    for (int i = 0; i < 40; ++i) {
        CAPTURE(i);
        policy.learn(0, 1us);
        CHECK(skipped(policy) == 0);
    }
    policy.learn(0, 1us);
    CHECK(skipped(policy) == 1);
}

TEST_CASE("What was saved is kept up to a bound that a time slice is beyond") {
    YieldPolicy policy;
    for (int i = 0; i < 1000; ++i)
        policy.learn(64, 1us);
    policy.learn(0, YieldPolicy::most_credit);
    CHECK(skipped(policy) == 0);
    policy.learn(0, 1ns);
    CHECK(skipped(policy) == 1);
    for (int i = 0; i < 1000; ++i)
        policy.learn(64, 1us);
    policy.learn(0, 3ms);
    CHECK(skipped(policy) == 64);
}
