// SPDX-License-Identifier: MIT
//
// Tests of kept_holds.hpp, without a server.

#include <codomyrmex/concurrency/redis/kept_holds.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {

std::shared_ptr<Hold> hold_of(std::ptrdiff_t weight, std::chrono::nanoseconds left = 30s) {
    auto tenure = std::make_shared<Tenure>(
        std::make_shared<const LockIdentity>(make_permit_identity("p:", "pool", 10, weight, {})),
        "token");
    Grant grant;
    grant.fence = 1;
    grant.since = detail::BootClock::now();
    grant.ttl = left;
    REQUIRE(tenure->granted(grant, grant.since));
    auto hold = std::make_shared<Hold>(tenure, false);
    return hold;
}

/// What is given back for so many permits, if it is one hold.
std::shared_ptr<Hold> one_of(PooledHolds& pool, std::uint64_t weight) {
    const auto taken = pool.take(weight);
    return taken && taken->size() == 1 ? taken->front() : nullptr;
}

void put(PooledHolds& pool, const std::shared_ptr<Hold>& hold) {
    pool.reserve();
    pool.put(hold);
}

}  // namespace

TEST_CASE("An unlock means the hold of its own thread, a lost one that stepped aside too") {
    ThreadHolds holds;
    CHECK(holds.take() == nullptr);
    CHECK(holds.current() == nullptr);
    const auto first = hold_of(1);
    const auto second = hold_of(1);
    {
        ThreadHolds::Place place;
        holds.put(first, place);
    }
    std::thread{[&] {
        ThreadHolds::Place place;
        holds.put(second, place);
    }}.join();
    CHECK(holds.current() == second);
    CHECK(holds.take() == first);
    CHECK(holds.take() == second);
    CHECK(holds.take() == nullptr);
}

TEST_CASE("Of permits that are alike the lost one goes first, then the one that ends soonest") {
    PooledHolds pool;
    const auto late = hold_of(1, 30s);
    const auto soon = hold_of(1, 20s);
    const auto lost = hold_of(1, 40s);
    for (const auto& hold : {late, lost, soon})
        put(pool, hold);
    CHECK(pool.weight() == 3);
    REQUIRE(lost->lose());
    CHECK(one_of(pool, 1) == lost);
    CHECK(one_of(pool, 1) == soon);
    CHECK(one_of(pool, 1) == late);
    CHECK_FALSE(pool.take(1).has_value());
    CHECK(pool.weight() == 0);
}

TEST_CASE("Permits that were taken together go together, the most that fit first") {
    PooledHolds pool;
    const auto one = hold_of(1);
    const auto three = hold_of(3);
    put(pool, one);
    put(pool, three);
    CHECK(pool.weight() == 4);
    CHECK_FALSE(pool.take(2).has_value());
    CHECK(pool.weight() == 4);
    const auto both = pool.take(4);
    REQUIRE(both.has_value());
    CHECK(*both == std::vector{three, one});
    CHECK(pool.take(0)->empty());
    put(pool, one);
    put(pool, three);
    CHECK(one_of(pool, 1) == one);
    CHECK(pool.take_all() == std::vector{three});
}

TEST_CASE("A place that was reserved and not used can be given up") {
    PooledHolds pool;
    pool.reserve();
    pool.unreserve();
    put(pool, hold_of(1));
    CHECK(pool.weight() == 1);
}
