// SPDX-License-Identifier: MIT
//
// Tests of semaphore_bed.hpp.

#include <codomyrmex/concurrency/semaphore_bed.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <thread>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

struct WaitsWithoutLimit {
    void post(std::ptrdiff_t);
    void wait();
};
static_assert(!SemaphoreBed<WaitsWithoutLimit>);

}  // namespace

TEMPLATE_TEST_CASE("each post ends one wait, though it come first", "", ConditionVariableBed,
                   CountingSemaphoreBed) {
    TestType bed;
    bed.post(3);
    bed.wait();
    bed.wait();
    CHECK(bed.wait_until(Deadline::never()));
    CHECK_FALSE(bed.wait_until(Deadline::after(0s)));
}

TEMPLATE_TEST_CASE("a wait whose deadline has passed still takes a post that is there", "",
                   ConditionVariableBed, CountingSemaphoreBed) {
    TestType bed;
    bed.post(1);
    CHECK(bed.wait_until(Deadline::after(-1h)));
    CHECK_FALSE(bed.wait_until(Deadline::after(-1h)));
}

TEMPLATE_TEST_CASE("a wait ends at its deadline and not before", "", ConditionVariableBed,
                   CountingSemaphoreBed) {
    TestType bed;
    const auto deadline = Deadline::after(30ms);
    CHECK_FALSE(bed.wait_until(deadline));
    CHECK(deadline.expired());
}

TEMPLATE_TEST_CASE("posts wake as many sleepers as they are, at once or one by one", "",
                   ConditionVariableBed, CountingSemaphoreBed) {
    constexpr int sleepers = 4;
    constexpr int rounds = 50;
    TestType bed;
    std::atomic<int> woken{0};
    std::atomic<int> unwoken_round{0};
    support::run_together(sleepers + 1, [&](int index) {
        for (int round = 1; round <= rounds; ++round) {
            if (index < sleepers) {
                bed.wait();
                ++woken;
            } else {
                // Nothing tells that they are asleep; mostly they are after so long.
                std::this_thread::sleep_for(500us);
                bed.post(1);
                bed.post(sleepers - 1);
            }
            // Nobody goes on before all have been woken, else one might take another's post.
            if (!support::eventually([&] { return woken >= round * sleepers; }, 5s)) {
                if (index < sleepers) return;
                unwoken_round = round;
                for (int i = 0; i < sleepers; ++i)
                    bed.post(1);
                return;
            }
        }
    });
    CHECK(unwoken_round == 0);
    CHECK(woken == rounds * sleepers);
    CHECK_FALSE(bed.wait_until(Deadline::after(0s)));
}
