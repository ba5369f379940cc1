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
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using support::error_of;
using support::message_of;

static_assert(!std::is_copy_constructible_v<Hold> && !std::is_move_constructible_v<Hold>);

constexpr BootTime start{1h};

// A lease of 1 s ends 988 ms after its request was sent: drift takes 10 ms and 2 ms.
constexpr auto valid_for = 988ms;
static_assert(1s - drift_allowance(1s) == valid_for);

std::shared_ptr<const LockIdentity> identity(LeaseOptions options = {.ttl = 1s}) {
    return std::make_shared<const LockIdentity>(make_identity("p:", "name", std::move(options)));
}

/// A hold of 1 s whose request was sent at `start` and answered 3 ms later.
std::unique_ptr<Hold> held(LeaseOptions options = {.ttl = 1s}) {
    auto hold = std::make_unique<Hold>(identity(std::move(options)), "token");
    REQUIRE(hold->granted(7, start, start + 3ms));
    return hold;
}

}  // namespace

TEST_CASE("Drift is a hundredth of the time to live and two milliseconds") {
    CHECK(drift_allowance(0ms) == 2ms);
    CHECK(drift_allowance(10ms) == 2100us);
    CHECK(drift_allowance(30s) == 302ms);
    CHECK(drift_allowance(24h) == 864s + 2ms);
}

TEST_CASE("A time to live has from 10 ms to 24 hours") {
    for (const auto good : {std::chrono::milliseconds{10ms}, std::chrono::milliseconds{11ms},
                            std::chrono::milliseconds{30s}, std::chrono::milliseconds{24h}}) {
        CAPTURE(good.count());
        CHECK_NOTHROW(validate(LeaseOptions{.ttl = good}));
    }
    for (const auto bad : {9ms, 1ms, 0ms, -1ms, -30'000ms, std::chrono::milliseconds{24h} + 1ms,
                           std::chrono::milliseconds::max(), std::chrono::milliseconds::min()}) {
        CAPTURE(bad.count());
        const auto check = [&] { validate(LeaseOptions{.ttl = bad}); };
        CHECK(error_of(check) == LockErrc::invalid_argument);
        CHECK_THAT(message_of(check),
                   Catch::Matchers::ContainsSubstring("ttl") &&
                       Catch::Matchers::ContainsSubstring(std::to_string(bad.count())));
    }
}

TEST_CASE("max_hold may be anything but negative") {
    CHECK_NOTHROW(validate(LeaseOptions{.max_hold = 0ms}));
    CHECK_NOTHROW(validate(LeaseOptions{.max_hold = std::chrono::milliseconds::max()}));
    for (const auto bad : {-1ms, std::chrono::milliseconds::min()}) {
        const auto check = [&] { validate(LeaseOptions{.max_hold = bad}); };
        CHECK(error_of(check) == LockErrc::invalid_argument);
        CHECK_THAT(message_of(check), Catch::Matchers::ContainsSubstring("max_hold"));
    }
}

TEST_CASE("A name has from 1 to 512 bytes of any kind") {
    CHECK(error_of([] { validate_name(""); }) == LockErrc::invalid_argument);
    CHECK_NOTHROW(validate_name("x"));
    CHECK_NOTHROW(validate_name(std::string(512, 'x')));
    CHECK(error_of([] { validate_name(std::string(513, 'x')); }) == LockErrc::invalid_argument);
    CHECK_THAT(message_of([] { validate_name(std::string(513, 'x')); }),
               Catch::Matchers::ContainsSubstring("513"));

    std::string every_byte;
    for (int byte = 0; byte < 256; ++byte)
        every_byte += static_cast<char>(byte);
    CHECK_NOTHROW(validate_name(every_byte));
    CHECK_NOTHROW(validate_name(std::string_view{"\0", 1}));
}

TEST_CASE("Only what could end the hash tag is percent-encoded in a name") {
    CHECK(encode_name("plain/name:1") == "plain/name:1");
    CHECK(encode_name("{") == "%7B");
    CHECK(encode_name("}") == "%7D");
    CHECK(encode_name("%") == "%25");
    CHECK(encode_name("a{b}c%d") == "a%7Bb%7Dc%25d");
    // What is encoded already is another name.
    CHECK(encode_name("%7B") == "%257B");
    CHECK(encode_name(std::string_view{"a\0\r\n\xFF", 5}) == std::string_view{"a\0\r\n\xFF", 5});
    CHECK(encode_name("") == "");
}

TEST_CASE("The keys of a lock share one hash tag") {
    const LockIdentity plain = make_identity("codomyrmex:", "job", {.ttl = 5s, .label = "me"});
    CHECK(plain.name == "job");
    CHECK(plain.lock_key == "codomyrmex:lock:{job}");
    CHECK(plain.fence_key == "codomyrmex:lock:{job}:fence");
    CHECK(plain.queue_key == "codomyrmex:lock:{job}:queue");
    CHECK(plain.options.ttl == 5s);
    CHECK(plain.options.label == "me");

    const LockIdentity odd = make_identity("", "}{", {});
    CHECK(odd.name == "}{");
    CHECK(odd.lock_key == "lock:{%7D%7B}");

    CHECK(error_of([] { (void)make_identity("p:", "", {}); }) == LockErrc::invalid_argument);
    CHECK(error_of([] { (void)make_identity("p:", "x", {.ttl = 9ms}); }) ==
          LockErrc::invalid_argument);
    // The bound is the name's, not the key's: encoding may make it longer.
    CHECK(make_identity("p:", std::string(512, '%'), {}).lock_key.size() == 8 + 1536 + 1);
}

TEST_CASE("A pending hold holds nothing") {
    const Hold hold{identity(), "token"};
    CHECK(hold.name() == "name");
    CHECK(hold.identity().lock_key == "p:lock:{name}");
    CHECK(hold.token() == "token");
    CHECK(hold.ttl() == 1s);
    CHECK(hold.fence() == 0);
    CHECK_FALSE(hold.held());
    CHECK_FALSE(hold.valid());
    CHECK_FALSE(hold.valid_at(start));
    CHECK(hold.remaining() == 0ns);
    CHECK_FALSE(hold.contended());
    CHECK_FALSE(hold.stop_token().stop_requested());
}

TEST_CASE("Validity counts from before the request was sent, less drift") {
    const auto hold = held();
    CHECK(hold->held());
    CHECK(hold->fence() == 7);
    CHECK(hold->deadline() == start + valid_for);
    CHECK(hold->valid_at(start + 3ms));
    CHECK(hold->valid_at(start + valid_for - 1ns));
    CHECK_FALSE(hold->valid_at(start + valid_for));
}

TEST_CASE("A grant whose answer took longer than the lease lasts is none") {
    Hold hold{identity(), "token"};
    CHECK_FALSE(hold.granted(7, start, start + valid_for));
    CHECK_FALSE(hold.held());
    CHECK(hold.fence() == 0);
    CHECK_FALSE(hold.valid_at(start));
    // It is still pending: a later attempt with the same token may do better.
    CHECK(hold.granted(8, start + 2s, start + 2s + valid_for - 1ns));
    CHECK(hold.fence() == 8);
    CHECK(hold.valid_at(start + 2s + valid_for - 1ns));
}

TEST_CASE("Once it was seen to be invalid it never is valid again") {
    const auto hold = held();
    CHECK_FALSE(hold->valid_at(start + valid_for));
    CHECK_FALSE(hold->valid_at(start + 3ms));  // not even for an earlier time
    CHECK_FALSE(hold->renewed(start + 500ms, start + 510ms));
    CHECK_FALSE(hold->valid_at(start + 3ms));
    CHECK(hold->deadline() == BootTime{});
    CHECK(hold->held());  // until somebody says that it is lost
    CHECK(hold->lose());
}

TEST_CASE("A renewal moves the deadline, from before it was sent") {
    const auto hold = held();
    CHECK(hold->renewed(start + 300ms, start + 400ms));
    CHECK(hold->deadline() == start + 300ms + valid_for);
    CHECK(hold->valid_at(start + 300ms + valid_for - 1ns));
    CHECK(hold->fence() == 7);

    SECTION("and an answer that comes out of order never moves it back") {
        CHECK(hold->renewed(start + 100ms, start + 410ms));
        CHECK(hold->deadline() == start + 300ms + valid_for);
    }
    SECTION("up to the last moment") {
        const BootTime end = hold->deadline();
        CHECK(hold->renewed(end - 2ns, end - 1ns));
        CHECK(hold->valid_at(end));
    }
    SECTION("but not when the answer comes at the deadline or past it") {
        const BootTime end = hold->deadline();
        CHECK_FALSE(hold->renewed(end - 1ms, end));
        CHECK_FALSE(hold->valid_at(start + 3ms));
        CHECK_FALSE(hold->renewed(end - 1ms, end - 1ms));
    }
}

TEST_CASE("A renewal revives neither what is pending, lost nor ended") {
    const std::string state = GENERATE("pending", "lost", "ended");
    CAPTURE(state);
    Hold hold{identity(), "token"};
    if (state != "pending") REQUIRE(hold.granted(7, start, start));
    if (state == "lost") REQUIRE(hold.lose());
    if (state == "ended") hold.end();
    CHECK_FALSE(hold.renewed(start, start + 1ms));
    CHECK_FALSE(hold.valid_at(start));
    CHECK(hold.deadline() == BootTime{});
}

TEST_CASE("Loss is told once, through the stop token") {
    const auto hold = held();
    const std::stop_token token = hold->stop_token();
    int calls = 0;
    const std::stop_callback callback{token, [&] {
                                          // Whoever is called sees that it is over.
                                          calls += hold->held() || hold->valid_at(start) ? 100 : 1;
                                      }};
    CHECK_FALSE(token.stop_requested());
    CHECK(hold->lose());
    CHECK(token.stop_requested());
    CHECK(calls == 1);
    CHECK_FALSE(hold->held());
    CHECK_FALSE(hold->valid_at(start));
    CHECK_FALSE(hold->lose());
    CHECK(calls == 1);
    hold->end();  // What is lost stays lost,
    CHECK_FALSE(hold->lose());
    CHECK(calls == 1);  // and is not told twice.
}

TEST_CASE("The stop token stops on loss only") {
    SECTION("not at the end") {
        const auto hold = held();
        hold->end();
        CHECK_FALSE(hold->held());
        CHECK_FALSE(hold->valid_at(start + 5ms));
        CHECK_FALSE(hold->lose());  // too late: the holder gave it up itself
        CHECK_FALSE(hold->stop_token().stop_requested());
    }
    SECTION("not for what never was held") {
        Hold hold{identity(), "token"};
        CHECK_FALSE(hold.lose());
        CHECK_FALSE(hold.stop_token().stop_requested());
    }
    SECTION("not because time has passed: somebody must look") {
        const auto hold = held();
        CHECK_FALSE(hold->valid_at(start + 1h));
        CHECK_FALSE(hold->stop_token().stop_requested());
    }
}

TEST_CASE("Of a renewal and an observer that race at the deadline, one wins for good") {
    // If the observer saw it over, the renewal must not have extended it, and the other way round.
    int won_by_renewal = 0;
    for (int round = 0; round < 300; ++round) {
        const auto hold = held();
        const BootTime end = hold->deadline();
        bool extended = false;
        bool seen_valid = false;
        support::run_together(2, [&](int index) {
            if (index == 0) {
                extended = hold->renewed(end - 10ms, end - 1ns);
            } else {
                seen_valid = hold->valid_at(end);
            }
        });
        if (extended != seen_valid) FAIL("round " << round << ": extended is " << extended);
        if (hold->valid_at(end) != extended) FAIL("round " << round << ": it changed its mind");
        won_by_renewal += extended ? 1 : 0;
    }
    INFO("won by the renewal: " << won_by_renewal << " of 300");
    SUCCEED();
}

TEST_CASE("Of many that find it lost or end it, at most one tells the loss") {
    for (int round = 0; round < 100; ++round) {
        const auto hold = held();
        std::atomic<int> lost{0};
        support::run_together(4, [&](int index) {
            if (index < 3) {
                lost += hold->lose() ? 1 : 0;
            } else {
                hold->end();
            }
        });
        CAPTURE(round, lost.load());
        REQUIRE(lost <= 1);
        REQUIRE(hold->stop_token().stop_requested() == (lost == 1));
        REQUIRE_FALSE(hold->held());
        REQUIRE_FALSE(hold->valid_at(start));
    }
}

TEST_CASE("valid() and remaining() go by the clock that runs since boot") {
    Hold hold{identity({.ttl = 1h}), "token"};
    const BootTime now = detail::BootClock::now();
    REQUIRE(hold.granted(7, now, now));
    CHECK(hold.valid());
    const auto most = 1h - drift_allowance(1h);
    CHECK(hold.remaining() <= most);
    CHECK(hold.remaining() > most - 10min);
    CHECK(hold.lose());
    CHECK_FALSE(hold.valid());
    CHECK(hold.remaining() == 0ns);

    Hold past{identity(), "token"};
    REQUIRE(past.granted(7, now - 1h, now - 1h));
    CHECK(past.remaining() == 0ns);
    CHECK_FALSE(past.valid());
}

TEST_CASE("A renewal is due at a third, and again at a tenth within bounds") {
    const auto hold = held({.ttl = 3s});
    CHECK(hold->renewal_due(start) == start + 1s);
    CHECK(hold->retry_due(start) == start + 300ms);
    CHECK(held({.ttl = 24h})->retry_due(start) == start + 1s);
    CHECK(Hold{identity({.ttl = 10ms}), "t"}.retry_due(start) == start + 1ms);
}

TEST_CASE("max_hold limits for how long it is renewed, not how long it is valid") {
    const auto hold = held({.ttl = 1s, .max_hold = 2s});
    // The acquisition was at start + 3 ms.
    CHECK(hold->renewable_at(start + 2s + 3ms - 1ns));
    CHECK_FALSE(hold->renewable_at(start + 2s + 3ms));
    CHECK(hold->valid_at(start + valid_for - 1ns));

    CHECK(held({.ttl = 1s, .max_hold = 0ms})->renewable_at(start + 24h * 365));
    CHECK(
        held({.ttl = 1s, .max_hold = std::chrono::milliseconds::max()})->renewable_at(start + 1h));
}

TEST_CASE("The key is gone one time to live and the drift after the last request") {
    CHECK(held()->key_gone_by(start) == start + 1s + 12ms);
}

TEST_CASE("Contention is remembered") {
    Hold hold{identity(), "token"};
    hold.mark_contended();
    CHECK(hold.contended());
}

TEST_CASE("In the child of a fork a hold is inert: the lease is the parent's") {
    Hold hold{identity({.ttl = 1h}), "token"};
    const BootTime now = detail::BootClock::now();
    REQUIRE(hold.granted(7, now, now));
    CHECK_FALSE(hold.forked());
    auto child = test_support::Process::run([&] {
        int wrong = 0;
        if (!hold.forked()) wrong |= 1;
        if (hold.valid()) wrong |= 2;
        if (hold.remaining() != 0ns) wrong |= 4;
        return wrong;
    });
    CHECK(child.wait() == test_support::ExitStatus{0, 0});
    CHECK(hold.valid());
}
