// SPDX-License-Identifier: MIT
//
// What the registry does for a LockManager is tested with that. Here: what only its insides show.

#include <codomyrmex/concurrency/detail/registry.hpp>

#include "support/catch2.hpp"
#include "support/dice.hpp"
#include "support/registry_crowd.hpp"
#include "support/threads.hpp"

#include <string>

using namespace codomyrmex::concurrency;

TEST_CASE("Whatever threads do to a registry, who uses one name at a time uses one primitive") {
    constexpr int threads = 4;
    constexpr int steps = 10'000;
    support::RegistryCrowd crowd;
    support::run_together(threads, [&](int thread) {
        support::Dice dice{thread};
        for (int i = 0; i < steps; ++i)
            crowd.step(dice);
    });
    CAPTURE(crowd.uses(), crowd.made());
    CHECK(crowd.made() > threads * steps / 100);
    CHECK(crowd.verdict().empty());
}
