// SPDX-License-Identifier: MIT
//
// Tests of quorum_waiters.hpp: who is woken by an unlock in the same process.

#include <codomyrmex/concurrency/redis/quorum_waiters.hpp>

#include "support/catch2.hpp"

#include <atomic>
#include <chrono>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {

const std::string ledger = "ledger";
const std::string other = "other";

bool was_woken(QuorumWaiters::Place& place) {
    return place.sleep(0s, Deadline::never());
}

}  // namespace

TEST_CASE("The first that waits for a key is woken, for one sleep") {
    QuorumWaiters waiters;
    QuorumWaiters::Place before{waiters, other};
    std::optional<QuorumWaiters::Place> first;
    first.emplace(waiters, ledger);
    QuorumWaiters::Place second{waiters, ledger};
    waiters.wake_first(ledger);
    CHECK_FALSE(was_woken(before));
    CHECK_FALSE(was_woken(second));
    CHECK(was_woken(*first));
    CHECK_FALSE(was_woken(*first));
    // Who has left is passed over.
    first.reset();
    waiters.wake_first(ledger);
    CHECK(was_woken(second));
    waiters.wake_first("nobody's");
    CHECK_FALSE(was_woken(before));
    CHECK_FALSE(was_woken(second));
}

TEST_CASE("A sleep ends after its pause, and by its deadline") {
    QuorumWaiters waiters;
    QuorumWaiters::Place place{waiters, ledger};
    const auto start = std::chrono::steady_clock::now();
    CHECK_FALSE(place.sleep(2ms, Deadline::never()));
    CHECK_FALSE(place.sleep(1h, Deadline::after(2ms)));
    const auto took = std::chrono::steady_clock::now() - start;
    CHECK(took >= 4ms);
    CHECK(took < 1min);
}

TEST_CASE("A thread that sleeps is woken by an unlock and by a stop token") {
    QuorumWaiters waiters;
    std::atomic<bool> entered{false};
    std::atomic<bool> woken{false};
    std::stop_source stop;
    {
        const std::jthread sleeper{[&] {
            QuorumWaiters::Place place{waiters, ledger};
            entered = true;
            entered.notify_one();
            woken = place.sleep(1min, Deadline::never(), stop.get_token());
        }};
        entered.wait(false);
        SECTION("an unlock") {
            waiters.wake_first(ledger);
        }
        SECTION("a stop token") {
            stop.request_stop();
        }
    }
    CHECK(woken);
}
