// SPDX-License-Identifier: MIT
//
// Tests of hold.hpp. Time is injected wherever the state machine takes it: a test's clock is an
// hour after boot and moves when the test says so.

#include <codomyrmex/concurrency/redis/hold.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

static_assert(!std::is_copy_constructible_v<Tenure> && !std::is_move_constructible_v<Tenure>);
static_assert(!std::is_copy_constructible_v<Hold> && !std::is_move_constructible_v<Hold>);

constexpr BootTime start{1h};

// A lease of 1 s ends 988 ms after its request was sent: drift takes 10 ms and 2 ms.
constexpr auto valid_for = 988ms;
static_assert(1s - drift_allowance(1s) == valid_for);

std::shared_ptr<const LockIdentity> identity(LeaseOptions options = {.ttl = 1s}) {
    return std::make_shared<const LockIdentity>(make_identity("p:", "name", std::move(options)));
}

/// What the server gives for a request sent at `since`: fence 7 and, of a block, those after it.
Grant grant_at(BootTime since, std::chrono::nanoseconds ttl = 1s, std::uint64_t fences = 1) {
    Grant grant;
    grant.fence = 7;
    grant.fences = fences;
    grant.since = since;
    grant.ttl = ttl;
    return grant;
}

/// A tenure whose request was sent at `start` and answered 3 ms later.
std::shared_ptr<Tenure> live(LeaseOptions options = {.ttl = 1s}, std::uint64_t fences = 1) {
    auto tenure = std::make_shared<Tenure>(identity(std::move(options)), "token");
    REQUIRE(tenure->granted(grant_at(start, tenure->ttl(), fences), start + 3ms));
    return tenure;
}

/// A hold of a tenure that runs now, for an hour.
std::shared_ptr<Hold> held_now() {
    auto tenure = std::make_shared<Tenure>(identity({.ttl = 1h}), "token");
    const BootTime now = detail::BootClock::now();
    REQUIRE(tenure->granted(grant_at(now, 1h), now));
    return std::make_shared<Hold>(std::move(tenure), false);
}

}  // namespace

// --- Tenure: what the server knows.

TEST_CASE("The first hold of a tenure came from the server, the next ones from threads") {
    const auto given = live({.ttl = 1s}, 3);
    CHECK(Hold{given, true}.hand_over() == HandOver::none);
    CHECK(Hold{given, true}.hand_over() == HandOver::local);
    // Kept in the process, and found free.
    CHECK(Hold{given, false}.hand_over() == HandOver::none);
    const auto passed_on = live({.ttl = 1s}, 2);
    passed_on->mark_handed_over();
    CHECK(Hold{passed_on, true}.hand_over() == HandOver::remote);
    CHECK(Hold{passed_on, true}.hand_over() == HandOver::local);
}

TEST_CASE("A pending tenure holds nothing") {
    Tenure tenure{identity(), "token"};
    CHECK(tenure.name() == "name");
    CHECK(tenure.identity().keys.main() == "p:lock:{name}");
    CHECK(tenure.token() == "token");
    CHECK(tenure.ttl() == 1s);
    CHECK_FALSE(tenure.has_fence());
    CHECK(tenure.take_fence() == 0);
    CHECK_FALSE(tenure.valid_at(start));
    CHECK(tenure.deadline() == BootTime{});
    CHECK_FALSE(tenure.doubtful());
    CHECK(tenure.waiter().empty());
    CHECK(tenure.user() == nullptr);
}

TEST_CASE("Validity counts from before the request was sent, less drift") {
    const auto tenure = live();
    CHECK(tenure->deadline() == start + valid_for);
    CHECK(tenure->valid_at(start + 3ms));
    CHECK(tenure->valid_at(start + valid_for - 1ns));
    CHECK_FALSE(tenure->valid_at(start + valid_for));
}

TEST_CASE("A grant whose answer took longer than the lease lasts is none") {
    Tenure tenure{identity(), "token"};
    CHECK_FALSE(tenure.granted(grant_at(start), start + valid_for));
    CHECK_FALSE(tenure.has_fence());
    CHECK_FALSE(tenure.valid_at(start));
    CHECK(tenure.deadline() == BootTime{});
    // It is still pending: a later attempt with the same token may do better.
    CHECK(tenure.granted(grant_at(start + 2s), start + 2s + valid_for - 1ns));
    CHECK(tenure.has_fence());
    CHECK(tenure.valid_at(start + 2s + valid_for - 1ns));
}

TEST_CASE("A lease that was granted for a short time is valid for no longer") {
    Tenure tenure{identity({.ttl = 30s}), "token"};
    REQUIRE(tenure.granted(grant_at(start, 1s), start));
    CHECK(tenure.deadline() == start + valid_for);
    CHECK(tenure.term() == 1s);
    CHECK(tenure.renewal_due(start) == start + std::chrono::nanoseconds{1s} / 3);
    CHECK(tenure.retry_due(start) == start + 100ms);
    // The first renewal takes it to its full time.
    REQUIRE(tenure.renewed(start + 300ms, start + 310ms));
    CHECK(tenure.deadline() == start + 300ms + 30s - drift_allowance(30s));
    CHECK(tenure.term() == 30s);
    CHECK(tenure.renewal_due(start) == start + 10s);
}

TEST_CASE("Fencing tokens of a block are given out once each, in order, and then there are none") {
    const auto tenure = live({.ttl = 1s}, 3);
    CHECK(tenure->has_fence());
    CHECK(tenure->take_fence() == 7);
    CHECK(tenure->take_fence() == 8);
    CHECK(tenure->has_fence());
    CHECK(tenure->take_fence() == 9);
    CHECK_FALSE(tenure->has_fence());
    CHECK(tenure->take_fence() == 0);
    CHECK(tenure->take_fence() == 0);
}

TEST_CASE("Once it was seen to be invalid it never is valid again") {
    const auto tenure = live();
    CHECK_FALSE(tenure->valid_at(start + valid_for));
    CHECK_FALSE(tenure->valid_at(start + 3ms));  // not even for an earlier time
    CHECK_FALSE(tenure->renewed(start + 500ms, start + 510ms));
    CHECK_FALSE(tenure->valid_at(start + 3ms));
    CHECK(tenure->deadline() == BootTime{});
}

TEST_CASE("What was closed is over at once and for good") {
    const auto tenure = live();
    tenure->close();
    CHECK_FALSE(tenure->valid_at(start + 3ms));
    CHECK_FALSE(tenure->renewed(start + 5ms, start + 6ms));
    CHECK(tenure->deadline() == BootTime{});
}

TEST_CASE("A renewal moves the deadline, from before it was sent") {
    const auto tenure = live();
    CHECK(tenure->renewed(start + 300ms, start + 400ms));
    CHECK(tenure->deadline() == start + 300ms + valid_for);
    CHECK(tenure->valid_at(start + 300ms + valid_for - 1ns));

    SECTION("and an answer that comes out of order never moves it back") {
        CHECK(tenure->renewed(start + 100ms, start + 410ms));
        CHECK(tenure->deadline() == start + 300ms + valid_for);
    }
    SECTION("up to the last moment") {
        const BootTime end = tenure->deadline();
        CHECK(tenure->renewed(end - 2ns, end - 1ns));
        CHECK(tenure->valid_at(end));
    }
    SECTION("but not when the answer comes at the deadline or past it") {
        const BootTime end = tenure->deadline();
        CHECK_FALSE(tenure->renewed(end - 1ms, end));
        CHECK_FALSE(tenure->valid_at(start + 3ms));
        CHECK_FALSE(tenure->renewed(end - 1ms, end - 1ms));
    }
}

TEST_CASE("A renewal does not bring to life what is pending") {
    Tenure tenure{identity(), "token"};
    CHECK_FALSE(tenure.renewed(start, start + 1ms));
    CHECK_FALSE(tenure.valid_at(start));
    CHECK(tenure.deadline() == BootTime{});
}

TEST_CASE("Of a renewal and an observer that race at the deadline, one wins for good") {
    // If the observer saw it over, the renewal must not have extended it, and the other way round.
    int won_by_renewal = 0;
    for (int round = 0; round < 300; ++round) {
        const auto tenure = live();
        const BootTime end = tenure->deadline();
        bool extended = false;
        bool seen_valid = false;
        support::run_together(2, [&](int index) {
            if (index == 0) {
                extended = tenure->renewed(end - 10ms, end - 1ns);
            } else {
                seen_valid = tenure->valid_at(end);
            }
        });
        if (extended != seen_valid) FAIL("round " << round << ": extended is " << extended);
        if (tenure->valid_at(end) != extended) FAIL("round " << round << ": it changed its mind");
        won_by_renewal += extended ? 1 : 0;
    }
    INFO("won by the renewal: " << won_by_renewal << " of 300");
    SUCCEED();
}

TEST_CASE("A renewal is due at a third, and again at a tenth within bounds") {
    const auto tenure = live({.ttl = 3s});
    CHECK(tenure->renewal_due(start) == start + 1s);
    CHECK(tenure->retry_due(start) == start + 300ms);
    CHECK(live({.ttl = 24h})->retry_due(start) == start + 1s);
    // Before it was granted, at once almost.
    CHECK(Tenure{identity(), "t"}.retry_due(start) == start + 1ms);
}

TEST_CASE("max_hold limits for how long it is renewed, not how long it is valid") {
    const auto tenure = live({.ttl = 1s, .max_hold = 2s});
    // The acquisition was at start + 3 ms.
    CHECK(tenure->renewable_at(start + 2s + 3ms - 1ns));
    CHECK_FALSE(tenure->renewable_at(start + 2s + 3ms));
    CHECK(tenure->valid_at(start + valid_for - 1ns));

    SECTION("and begins anew for the holder to whom it is passed on") {
        tenure->passed_on(start + 1s);
        CHECK(tenure->renewable_at(start + 3s - 1ns));
        CHECK_FALSE(tenure->renewable_at(start + 3s));
    }
    SECTION("or not at all") {
        CHECK(live({.ttl = 1s, .max_hold = 0ms})->renewable_at(start + 24h * 365));
        const auto for_ever = live({.ttl = 1s, .max_hold = std::chrono::milliseconds::max()});
        CHECK(for_ever->renewable_at(start + 24h * 365));
    }
}

TEST_CASE("The key is gone one time to live and the drift after the last request") {
    CHECK(live()->key_gone_by(start) == start + 1s + 12ms);
    // Also where it was granted for a shorter time: a renewal may have extended it.
    Tenure handed{identity({.ttl = 30s}), "token"};
    REQUIRE(handed.granted(grant_at(start, 1s), start));
    CHECK(handed.key_gone_by(start) == start + 30s + 302ms);
}

TEST_CASE("A tenure remembers its doubts and how it stood in the queue") {
    Tenure tenure{identity(), "token"};
    tenure.mark_doubtful();
    tenure.stand_as("token 1000 1 text");
    CHECK(tenure.doubtful());
    CHECK(tenure.waiter() == "token 1000 1 text");
}

TEST_CASE("A tenure knows its user until it is told that there is none, and no longer keeps it") {
    const auto tenure = live();
    auto hold = std::make_shared<Hold>(tenure, false);
    const std::weak_ptr<Hold> watch = hold;
    tenure->used_by(hold);
    CHECK(tenure->user() == hold);
    hold.reset();
    CHECK_FALSE(watch.expired());
    tenure->used_by(nullptr);
    CHECK(tenure->user() == nullptr);
    CHECK(watch.expired());
}

// --- Hold: one holder's use of it.

TEST_CASE("A hold has the next fencing token of its tenure, and its name and token") {
    const auto tenure = live({.ttl = 1s}, 2);
    Hold first{tenure, true};
    CHECK(first.tenure() == tenure);
    CHECK(first.name() == "name");
    CHECK(first.token() == "token");
    CHECK(first.fence() == 7);
    CHECK(first.contended());
    CHECK(first.held());
    CHECK(first.valid_at(start + 3ms));
    CHECK(first.end());

    const Hold second{tenure, false};
    CHECK(second.fence() == 8);
    CHECK_FALSE(second.contended());
    CHECK_FALSE(tenure->has_fence());
}

TEST_CASE("A hold is valid as long as its tenure, and not a moment longer") {
    const auto tenure = live();
    const Hold hold{tenure, false};
    CHECK(hold.valid_at(start + valid_for - 1ns));
    REQUIRE(tenure->renewed(start + 300ms, start + 301ms));
    CHECK(hold.valid_at(start + 300ms + valid_for - 1ns));
    CHECK_FALSE(hold.valid_at(start + 300ms + valid_for));
    CHECK_FALSE(hold.valid_at(start));
    CHECK_FALSE(tenure->valid_at(start));
    CHECK(hold.held());  // until somebody says that it is lost
}

TEST_CASE("A hold that ended leaves its tenure to the next one") {
    const auto tenure = live({.ttl = 1s}, 2);
    Hold first{tenure, false};
    CHECK(first.end());
    CHECK_FALSE(first.end());
    CHECK_FALSE(first.held());
    CHECK_FALSE(first.valid_at(start + 5ms));
    CHECK(tenure->valid_at(start + 5ms));
    Hold second{tenure, false};
    CHECK(second.valid_at(start + 5ms));
    // The first has nothing to do with it any more.
    CHECK_FALSE(first.lose());
    CHECK(second.valid_at(start + 5ms));
    CHECK_FALSE(first.stop_token().stop_requested());
}

TEST_CASE("Loss is told once, through the stop token") {
    const auto tenure = live();
    Hold hold{tenure, false};
    const std::stop_token token = hold.stop_token();
    int calls = 0;
    const std::stop_callback callback{token, [&] {
                                          // Whoever is called sees that it is over.
                                          calls += hold.held() || hold.valid_at(start) ? 100 : 1;
                                      }};
    CHECK_FALSE(token.stop_requested());
    CHECK(hold.lose());
    CHECK(token.stop_requested());
    CHECK(calls == 1);
    CHECK_FALSE(hold.held());
    CHECK_FALSE(hold.valid_at(start));
    CHECK_FALSE(tenure->valid_at(start));  // nor is there anything left to hand on
    CHECK_FALSE(hold.lose());
    CHECK_FALSE(hold.end());  // What is lost stays lost,
    CHECK(calls == 1);        // and is not told twice.
}

TEST_CASE("The stop token stops on loss only") {
    const auto tenure = live();
    Hold hold{tenure, false};
    SECTION("not at the end") {
        CHECK(hold.end());
        CHECK_FALSE(hold.lose());  // too late: the holder gave it up itself
    }
    SECTION("not because time has passed: somebody must look") {
        CHECK_FALSE(hold.valid_at(start + 1h));
    }
    SECTION("not because its tenure was closed: somebody must tell") {
        tenure->close();
        CHECK_FALSE(hold.valid_at(start + 5ms));
    }
    CHECK_FALSE(hold.stop_token().stop_requested());
}

TEST_CASE("A renewal does not revive a hold that is lost or ended") {
    const std::string state = GENERATE("lost", "ended");
    CAPTURE(state);
    const auto tenure = live();
    Hold hold{tenure, false};
    if (state == "lost") REQUIRE(hold.lose());
    if (state == "ended") REQUIRE(hold.end());
    CHECK(tenure->renewed(start + 5ms, start + 6ms) == (state == "ended"));
    CHECK_FALSE(hold.valid_at(start + 7ms));
    CHECK_FALSE(hold.held());
}

TEST_CASE("Of many that find it lost or end it, one wins, and tells the loss if it was one") {
    for (int round = 0; round < 100; ++round) {
        Hold hold{live(), false};
        std::atomic<int> lost{0};
        std::atomic<int> ended{0};
        support::run_together(4, [&](int index) {
            if (index < 3) {
                lost += hold.lose() ? 1 : 0;
            } else {
                ended += hold.end() ? 1 : 0;
            }
        });
        CAPTURE(round, lost.load(), ended.load());
        REQUIRE(lost + ended == 1);
        REQUIRE(hold.stop_token().stop_requested() == (lost == 1));
        REQUIRE_FALSE(hold.held());
        REQUIRE_FALSE(hold.valid_at(start));
    }
}

TEST_CASE("valid() and remaining() go by the clock that runs since boot") {
    const auto hold = held_now();
    CHECK(hold->valid());
    const auto most = 1h - drift_allowance(1h);
    CHECK(hold->remaining() <= most);
    CHECK(hold->remaining() > most - 10min);
    CHECK(hold->lose());
    CHECK_FALSE(hold->valid());
    CHECK(hold->remaining() == 0ns);

    const BootTime now = detail::BootClock::now();
    auto past = std::make_shared<Tenure>(identity(), "token");
    REQUIRE(past->granted(grant_at(now - 1h), now - 1h));
    const Hold over{past, false};
    CHECK(over.remaining() == 0ns);
    CHECK_FALSE(over.valid());
}

TEST_CASE("In the child of a fork a hold is inert: the lease is the parent's") {
    const auto hold = held_now();
    CHECK_FALSE(hold->forked());
    CHECK_FALSE(hold->tenure()->forked());
    auto child = test_support::Process::run([&] {
        int wrong = 0;
        if (!hold->forked()) wrong |= 1;
        if (hold->valid()) wrong |= 2;
        if (hold->remaining() != 0ns) wrong |= 4;
        if (!hold->tenure()->forked()) wrong |= 8;
        return wrong;
    });
    CHECK(child.wait() == test_support::ExitStatus{0, 0});
    CHECK(hold->valid());
}
