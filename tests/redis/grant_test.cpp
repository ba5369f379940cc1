// SPDX-License-Identifier: MIT
//
// Tests of grant.hpp. Times are a test's own: the server's clock is far from this machine's, and
// both move when the test says so.

#include <codomyrmex/concurrency/redis/grant.hpp>

#include "support/catch2.hpp"
#include "support/replies.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace {

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using test_support::replies::text;

constexpr BootTime start{1h};
constexpr std::uint64_t fence_number = 1'700'000'000'123'456'001;

const ServerTime server_start{1'700'000'000s};

/// A message of a grant, given so long after `server_start`.
Message granted_after(std::chrono::nanoseconds when, std::chrono::milliseconds ttl = 1s) {
    Message message;
    message.verb = "grant";
    message.fence = 7;
    message.fences = 3;
    message.time = server_start + when;
    message.ttl = ttl;
    return message;
}

}  // namespace

TEST_CASE("Drift is a hundredth of the time to live and two milliseconds") {
    CHECK(drift_allowance(0ms) == 2ms);
    CHECK(drift_allowance(10ms) == 2100us);
    CHECK(drift_allowance(30s) == 302ms);
    CHECK(drift_allowance(24h) == 864s + 2ms);
}

TEST_CASE("A lease ends a time to live after the request was sent, less drift") {
    Grant grant;
    grant.since = start;
    grant.ttl = 1s;
    CHECK(grant.until() == start + 988ms);
}

TEST_CASE("Drift is taken off for the wait as well, which two clocks measured") {
    Grant grant;
    grant.since = start;
    grant.ttl = 1s;
    grant.waited = 60s;
    CHECK(grant.until() == start + 1s - 612ms);
    // After a wait of some minutes nothing is left of a short grant: it must be asked for anew.
    grant.waited = 100s;
    CHECK(grant.until() < start);
}

// --- The validity of a grant that comes by message.

TEST_CASE("A grant that comes at once counts from when the server gave it, by its own clock") {
    // Asked at `start`, answered "queued" at `server_start`, granted 10 s later.
    const Message message = granted_after(10s);
    const Grant grant = grant_by_message(message, start, server_start, start + 10s + 200us);
    CHECK(grant.since == start + 10s);
    CHECK(grant.waited == 10s);
    CHECK(grant.ttl == 1s);
    CHECK(grant.fence == 7);
    CHECK(grant.fences == 3);
    CHECK(grant.until() == start + 11s - drift_allowance(11s));
}

TEST_CASE("However late the message is received, the lease ends no later") {
    const Message message = granted_after(10s);
    const BootTime end = grant_by_message(message, start, server_start, start + 10s).until();
    // It lay in a buffer while the process was stopped. Counted from its receipt the lease would
    // be valid together with the next holder's.
    for (const auto late : {1ms, 500ms, 989ms, 10'000ms, 3'600'000ms}) {
        CAPTURE(late.count());
        const BootTime received = start + 10s + late;
        const Grant grant = grant_by_message(message, start, server_start, received);
        CHECK(grant.until() == end);
        CHECK(grant.until() < received + message.ttl - drift_allowance(message.ttl));
        if (late >= 989ms) CHECK(grant.until() <= received);  // it is over when it is read
    }
}

TEST_CASE("The lease never counts from later than its receipt") {
    // The answer that says "queued" took two seconds; so the estimate is late, the receipt is not.
    const Message message = granted_after(10s);
    const Grant grant = grant_by_message(message, start + 2s, server_start, start + 10s + 1ms);
    CHECK(grant.since == start + 10s + 1ms);
    CHECK(grant.until() == start + 11s + 1ms - drift_allowance(11s));
    // A server whose clock was set on in between makes the wait seem longer than it was.
    const Message leap = granted_after(1h);
    CHECK(grant_by_message(leap, start, server_start, start + 10s).since == start + 10s);
}

TEST_CASE("A grant that overtook the answer to the request counts from before the request") {
    // Its time is before that of the last answer: of an earlier request, or a clock set back.
    const Message message = granted_after(-3s);
    const Grant grant = grant_by_message(message, start, server_start, start + 1ms);
    CHECK(grant.since == start - 3s);
    CHECK(grant.waited == 0s);
    CHECK(grant.until() == start - 3s + 988ms);
}

TEST_CASE("A lease by message is never valid past what the server gave, on any timeline") {
    // The true time of each event, on one clock; that of the server is ahead by `server_start`.
    for (const auto way_there : {0ms, 1ms, 700ms}) {
        for (const auto waited : {0ms, 5ms, 900ms, 30'000ms}) {
            for (const auto way_back : {0ms, 1ms, 400ms, 5'000ms}) {
                CAPTURE(way_there.count(), waited.count(), way_back.count());
                const BootTime asked = start;
                const ServerTime answered = server_start + way_there;
                const Message message = granted_after(way_there + waited, 1s);
                const BootTime truly_given = start + way_there + waited;
                const Grant grant =
                    grant_by_message(message, asked, answered, truly_given + way_back);
                CHECK(grant.until() <= truly_given + message.ttl - drift_allowance(message.ttl));
                CHECK(grant.since <= truly_given);
            }
        }
    }
}

// --- What the scripts answer.

TEST_CASE("A stamp is 19 digits, nothing else, and not zero") {
    CHECK(read_stamp("1700000000123456000") == 1'700'000'000'123'456'000U);
    CHECK(read_stamp("9999999999999999999") == 9'999'999'999'999'999'999U);
    CHECK(read_stamp("0000000000000000001") == 1U);
    for (const std::string_view bad :
         {"", "1", "170000000012345600", "17000000001234560000", "170000000012345600x",
          "x700000000123456000", " 700000000123456000", "-700000000123456000",
          "+700000000123456000", "1700000000.23456000", "0000000000000000000"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_stamp(bad).has_value());
    }
    CHECK_FALSE(read_stamp(std::string_view{"170000000012345600\0", 19}).has_value());
}

TEST_CASE("An acquire's answer says granted, held or late") {
    const auto granted = read_acquire(text("1 1700000000123456000 1700000000123456001 33"));
    REQUIRE(granted.has_value());
    CHECK(granted->outcome == AcquireAnswer::Outcome::granted);
    CHECK(granted->time == ServerTime{1'700'000'000'123'456'000ns});
    CHECK(granted->fence == fence_number);
    CHECK(granted->fences == 33);

    const auto held = read_acquire(text("0 1700000000123456000 4 2500"));
    REQUIRE(held.has_value());
    CHECK(held->outcome == AcquireAnswer::Outcome::held);
    CHECK(held->rank == 4);
    CHECK(held->left == 2500ms);
    CHECK(held->time == to_server_time(1'700'000'000'123'456'000));
    CHECK(held->fence == 0);

    const auto late = read_acquire(text("2 1700000000123456000"));
    REQUIRE(late.has_value());
    CHECK(late->outcome == AcquireAnswer::Outcome::late);
    CHECK(late->time == to_server_time(1'700'000'000'123'456'000));
    CHECK(late->fence == 0);
}

TEST_CASE("What a server says of ranks and times is bounded before it is reckoned with") {
    const auto high =
        read_acquire(text("0 1700000000123456000 9223372036854775807 9223372036854775807"));
    REQUIRE(high.has_value());
    CHECK(high->rank == 1'000'000);
    CHECK(high->left == 24h * 365);
    const auto low =
        read_acquire(text("0 1700000000123456000 -9223372036854775808 -9223372036854775808"));
    REQUIRE(low.has_value());
    CHECK(low->rank == -1);
    CHECK(low->left == 0ms);
}

TEST_CASE("What the acquire script does not answer is nothing") {
    for (const std::string_view bad : {"",
                                       "1",
                                       "1 ",
                                       "1 1700000000123456000",
                                       "1 1700000000123456000 1700000000123456001",
                                       "1 1700000000123456000 1700000000123456001 ",
                                       "1 1700000000123456000 1700000000123456001 1 1",
                                       "one 1700000000123456000 1700000000123456001 1",
                                       "3 1700000000123456000 1700000000123456001 1",
                                       "-1 1700000000123456000 1700000000123456001 1",
                                       "1 12 1700000000123456001 1",
                                       "1 1700000000123456000 7 1",
                                       "1 1700000000123456000 1700000000123456001 0",
                                       "1 1700000000123456000 1700000000123456001 -1",
                                       "1 1700000000123456000 1700000000123456001 1x",
                                       "1  1700000000123456000 1700000000123456001 1",
                                       "0 1700000000123456000 x 1",
                                       "0 1700000000123456000 1",
                                       "0 1700000000123456000 1 ",
                                       "0 1700000000123456000 1 1 1",
                                       "0 1700000000123456000 1 99999999999999999999",
                                       "2",
                                       "2 17",
                                       "2 1700000000123456000 0"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_acquire(text(bad)).has_value());
    }
    for (const auto type : {Reply::Type::nil, Reply::Type::status, Reply::Type::error,
                            Reply::Type::integer, Reply::Type::array}) {
        Reply other = text("1 1700000000123456000 1700000000123456001 33");
        other.type = type;
        CAPTURE(other.describe());
        CHECK_FALSE(read_acquire(other).has_value());
    }
}

TEST_CASE("A renewal's answer says lost, renewed, wanted or late, and the server's time") {
    using Outcome = RenewAnswer::Outcome;
    for (const auto& [words, outcome] : {std::pair{"0 1700000000123456000", Outcome::lost},
                                         std::pair{"1 1700000000123456000", Outcome::renewed},
                                         std::pair{"2 1700000000123456000", Outcome::wanted},
                                         std::pair{"3 1700000000123456000", Outcome::late}}) {
        CAPTURE(words);
        const auto answer = read_renew(text(words));
        REQUIRE(answer.has_value());
        CHECK(answer->outcome == outcome);
        CHECK(answer->time == to_server_time(1'700'000'000'123'456'000));
    }
    for (const std::string_view bad :
         {"", "1", "1 1700000000123456000 1", "4 1700000000123456000", "-1 1700000000123456000",
          "x 1700000000123456000", "1 x", "1 1"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_renew(text(bad)).has_value());
    }
    CHECK_FALSE(read_renew(Reply{}).has_value());
}

TEST_CASE("A release's answer says whether it was ours, and whether to call again") {
    for (const int bits : {0, 1, 2, 3}) {
        CAPTURE(bits);
        const auto answer = read_release(text(std::to_string(bits)));
        REQUIRE(answer.has_value());
        CHECK(answer->ours == (bits % 2 == 1));
        CHECK(answer->more == (bits >= 2));
    }
    for (const std::string_view bad : {"", "4", "-1", "x", "1 1", "1x"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_release(text(bad)).has_value());
    }
    CHECK_FALSE(read_release(Reply{}).has_value());
}

TEST_CASE("A conversion's answer says lost, converted or that there is no room") {
    using Outcome = ReweighAnswer::Outcome;
    const auto converted = read_reweigh(text("1 1700000000123456000 1700000000123456001 1"));
    REQUIRE(converted.has_value());
    CHECK(converted->outcome == Outcome::converted);
    CHECK(converted->fence == fence_number);
    CHECK(converted->time == to_server_time(1'700'000'000'123'456'000));
    const auto lost = read_reweigh(text("0 1700000000123456000"));
    REQUIRE(lost.has_value());
    CHECK(lost->outcome == Outcome::lost);
    const auto no_room = read_reweigh(text("3 1700000000123456000"));
    REQUIRE(no_room.has_value());
    CHECK(no_room->outcome == Outcome::no_room);
    for (const std::string_view bad :
         {"", "1", "1 1700000000123456000", "1 1700000000123456000 7 1",
          "1 1700000000123456000 1700000000123456001", "2 1700000000123456000",
          "1 1700000000123456000 1700000000123456001 2", "0 1700000000123456000 1", "0 x"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_reweigh(text(bad)).has_value());
    }
}

TEST_CASE("A resize's answer says how many there were or that it came too late, and the time") {
    for (const std::uint64_t old : {std::uint64_t{0}, std::uint64_t{1'000'000}}) {
        const auto answer = read_resize(text(std::to_string(old) + " 1700000000123456000"));
        REQUIRE(answer.has_value());
        CHECK(answer->old == old);
        CHECK(answer->time == to_server_time(1'700'000'000'123'456'000U));
    }
    const auto late = read_resize(text("-1 1700000000123456000"));
    REQUIRE(late.has_value());
    CHECK_FALSE(late->old.has_value());
    CHECK(late->time == to_server_time(1'700'000'000'123'456'000U));
    for (const std::string_view bad : {"", "5", "-2 1700000000123456000", "x 1700000000123456000",
                                       "1 1", "1 1700000000123456000 1"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_resize(text(bad)).has_value());
    }
}

// --- What the scripts publish.

TEST_CASE("A grant's message is taken apart") {
    const std::string line =
        "grant abc-1f 1700000000123456001 33 1700000000123456000 1000 "
        "codomyrmex:lock:{job}";
    const auto message = read_message(line);
    REQUIRE(message.has_value());
    CHECK(message->verb == "grant");
    CHECK(message->token == "abc-1f");
    CHECK(message->fence == fence_number);
    CHECK(message->fences == 33);
    CHECK(message->time == to_server_time(1'700'000'000'123'456'000));
    CHECK(message->ttl == 1s);
    CHECK(message->key == "codomyrmex:lock:{job}");
}

TEST_CASE("A message that the lock is wanted is taken apart") {
    const auto message = read_message("wanted codomyrmex:lock:{job}");
    REQUIRE(message.has_value());
    CHECK(message->verb == "wanted");
    CHECK(message->key == "codomyrmex:lock:{job}");
    CHECK(message->token.empty());
    CHECK(message->fence == 0);
}

TEST_CASE("A revocation names the token and the key") {
    const auto message = read_message("revoked 0abc-1r codomyrmex:lock:{a b}");
    REQUIRE(message.has_value());
    CHECK(message->verb == "revoked");
    CHECK(message->token == "0abc-1r");
    CHECK(message->key == "codomyrmex:lock:{a b}");
    for (const char* bad : {"revoked", "revoked ", "revoked t", "revoked t ", "revoked  k"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_message(bad).has_value());
    }
}

TEST_CASE("The key in a message may have any bytes") {
    std::string key = "p:lock:{ two  blanks ";
    for (int byte = 0; byte < 256; ++byte)
        key += static_cast<char>(byte);
    key += "}";
    const std::string wanted = "wanted " + key;
    REQUIRE(read_message(wanted).has_value());
    CHECK(read_message(wanted)->key == key);
    const std::string grant = "grant t 1700000000123456001 1 1700000000123456000 1 " + key;
    REQUIRE(read_message(grant).has_value());
    CHECK(read_message(grant)->key == key);
}

TEST_CASE("What no script of ours publishes is nothing") {
    for (const std::string_view bad :
         {"", " ", "probe", "wanted", "wanted ", "grant", "Grant t 1 1 1 1 k", "wantedkey",
          // Nothing is left for the key.
          "grant t 1700000000123456001 1 1700000000123456000 1000",
          "grant t 1700000000123456001 1 1700000000123456000 1000 ",
          // Numbers that are none, or out of their bounds.
          "grant t 17 1 1700000000123456000 1000 k", "grant t x 1 1700000000123456000 1000 k",
          "grant t 1700000000123456001 0 1700000000123456000 1000 k",
          "grant t 1700000000123456001 -1 1700000000123456000 1000 k",
          "grant t 1700000000123456001 1x 1700000000123456000 1000 k",
          "grant t 1700000000123456001  1700000000123456000 1000 k",
          "grant t 1700000000123456001 1 now 1000 k",
          "grant t 1700000000123456001 1 1700000000123456000 0 k",
          "grant t 1700000000123456001 1 1700000000123456000 -5 k",
          "grant t 1700000000123456001 1 1700000000123456000 86400001 k",
          "grant t 1700000000123456001 1 1700000000123456000 99999999999999999999 k",
          "grant t 1700000000123456001 99999999999999999999 1700000000123456000 1 k"}) {
        CAPTURE(bad);
        CHECK_FALSE(read_message(bad).has_value());
    }
    CHECK(read_message("grant t 1700000000123456001 1 1700000000123456000 86400000 k").has_value());
}

TEST_CASE("An answer about several locks is read, or refused as a whole") {
    using Outcome = AcquireAllAnswer::Outcome;
    const auto granted = read_acquire_all(text("1 1700000000000000001"), 3);
    REQUIRE(granted.has_value());
    CHECK(granted->outcome == Outcome::granted);
    CHECK(granted->fence == 1'700'000'000'000'000'001);
    CHECK(granted->time == to_server_time(1'700'000'000'000'000'001));
    const auto held = read_acquire_all(text("0 1700000000000000001 2"), 3);
    REQUIRE(held.has_value());
    CHECK(held->outcome == Outcome::held);
    CHECK(held->which == 2);
    CHECK(read_acquire_all(text("2 1700000000000000001"), 3)->outcome == Outcome::late);
    CHECK(read_acquire_all(text("3 1700000000000000001"), 3)->outcome == Outcome::apart);
    for (const char* wrong :
         {"", "1", "4 1700000000000000001", "-1 1700000000000000001", "1 1700",
          "1 1700000000000000001 1", "0 1700000000000000001", "0 1700000000000000001 3",
          "0 1700000000000000001 -1", "0 1700000000000000001 1 1", "x 1700000000000000001"}) {
        CAPTURE(wrong);
        CHECK_FALSE(read_acquire_all(text(wrong), 3));
    }

    const auto renewed = read_renew_all(text("1700000000000000001 1 0 2"), 3);
    REQUIRE(renewed.size() == 3);
    CHECK(renewed[0].outcome == RenewAnswer::Outcome::renewed);
    CHECK(renewed[1].outcome == RenewAnswer::Outcome::lost);
    CHECK(renewed[2].outcome == RenewAnswer::Outcome::wanted);
    CHECK(renewed[2].time == to_server_time(1'700'000'000'000'000'001));
    for (const char* wrong :
         {"", "1700000000000000001", "1700000000000000001 1 1", "1700000000000000001 1 1 1 1",
          "1700000000000000001 1 1 4", "1700000000000000001 1 -1 1", "1 1 1 1", "x 1 1 1"}) {
        CAPTURE(wrong);
        CHECK(read_renew_all(text(wrong), 3).empty());
    }

    const auto released = read_release_all(text("1 ,0 ,3 ,2a"), 3, "2a");
    REQUIRE(released.size() == 3);
    CHECK((released[0]->ours && !released[0]->more));
    CHECK((!released[1]->ours && !released[1]->more));
    CHECK((released[2]->ours && released[2]->more));
    const auto one_failed = read_release_all(text("1 ,,1 ,2a"), 3, "2a");
    REQUIRE(one_failed.size() == 3);
    CHECK((one_failed[0] && !one_failed[1] && one_failed[2]));
    for (const char* wrong : {"", "2a", "1 ,1 ,2a", "1 ,1 ,1 ,1 ,2a", "1 ,1 ,4 ,2a", "1 ,x ,1 ,2a",
                              "1 ,1 ,-1 ,2a", "1 ,1 ,1 ,2b", "1 ,1 ,1 2a"}) {
        CAPTURE(wrong);
        CHECK(read_release_all(text(wrong), 3, "2a").empty());
    }
}
