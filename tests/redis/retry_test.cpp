// SPDX-License-Identifier: MIT
//
// Tests of retry.hpp: each row of the table of errors, without a server. What the words of real
// servers mean is server_error_test.cpp's subject.

#include <codomyrmex/concurrency/redis/retry.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstdint>
#include <ostream>
#include <set>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::redis {

std::ostream& operator<<(std::ostream& out, Retry::Step step) {
    switch (step) {
        case Retry::Step::again:
            return out << "again";
        case Retry::Step::again_later:
            return out << "again_later";
        case Retry::Step::send_body:
            return out << "send_body";
        case Retry::Step::reconnect:
            return out << "reconnect";
        case Retry::Step::give_up:
            return out << "give_up";
    }
    return out << "?";
}

}  // namespace codomyrmex::concurrency::redis

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;
using Step = Retry::Step;

struct Row {
    std::string_view text;
    Step step;
    LockErrc error;
    bool maybe_executed;
};

constexpr LockErrc unavailable = LockErrc::backend_unavailable;
constexpr LockErrc refused = LockErrc::backend_refused;

}  // namespace

TEST_CASE("An error reply says what comes next and what is raised") {
    for (const Row& row : {
             // States that pass: until the deadline, then unavailable.
             Row{"LOADING Redis is loading the dataset in memory", Step::again_later, unavailable,
                 false},
             Row{"BUSY Redis is busy running a script.", Step::again_later, unavailable, false},
             Row{"CLUSTERDOWN Hash slot not served", Step::again_later, unavailable, false},
             Row{"TRYAGAIN Multiple keys request", Step::again_later, unavailable, false},
             Row{"NOREPLICAS Not enough good replicas to write.", Step::again_later, unavailable,
                 false},
             Row{"MASTERDOWN Link with MASTER is down", Step::again_later, unavailable, false},
             Row{"ERR max number of clients reached", Step::again_later, unavailable, false},
             Row{"OOM command not allowed when used memory > 'maxmemory'.", Step::again_later,
                 unavailable, false},
             Row{"MISCONF Redis is configured to save RDB snapshots", Step::again_later,
                 unavailable, false},
             // The wrong server.
             Row{"READONLY You can't write against a read only replica.", Step::reconnect,
                 unavailable, false},
             Row{"MOVED 3999 127.0.0.1:6381", Step::give_up, LockErrc::unsupported, false},
             Row{"ASK 3999 127.0.0.1:6381", Step::give_up, LockErrc::unsupported, false},
             // The script is not there yet.
             Row{"NOSCRIPT No matching script.", Step::send_body, unavailable, false},
             // For good.
             Row{"NOAUTH Authentication required.", Step::give_up, refused, false},
             Row{"WRONGPASS invalid username-password pair", Step::give_up, refused, false},
             Row{"NOPERM this user has no permissions", Step::give_up, refused, false},
             Row{"ERR The user executing the script can't run this command or subcommand script: "
                 "aa, on @user_script:1.",
                 Step::give_up, refused, false},
             Row{"ERR unknown command 'EVALSHA'", Step::give_up, refused, false},
             Row{"CROSSSLOT Keys in request don't hash to the same slot", Step::give_up, refused,
                 false},
             Row{"NEVERHEARD of", Step::give_up, refused, false},
             // Not ours.
             Row{"WRONGTYPE Operation against a key holding the wrong kind of value", Step::give_up,
                 LockErrc::foreign_key, false},
             Row{"FOREIGNKEY the lock key has no expiry", Step::give_up, LockErrc::foreign_key,
                 false},
             // Half-way.
             Row{"ERR Script killed by user with SCRIPT KILL...", Step::again_later, unavailable,
                 true},
         }) {
        CAPTURE(std::string{row.text});
        Retry retry;
        CHECK(retry.error_reply(row.text) == row.step);
        CHECK(make_error_code(retry.error()) == row.error);
        CHECK(retry.maybe_executed() == row.maybe_executed);
        CHECK(retry.reason() == row.text);  // in the server's words
    }
}

TEST_CASE("What was not sent is tried again and surely not executed") {
    Retry retry;
    CHECK(retry.not_sent("cannot connect: Connection refused") == Step::again_later);
    CHECK_FALSE(retry.maybe_executed());
    CHECK(make_error_code(retry.error()) == unavailable);
    CHECK(retry.reason() == "cannot connect: Connection refused");
}

TEST_CASE("What was sent and not answered is tried again and may have been executed") {
    Retry retry;
    CHECK(retry.unknown("Connection reset by peer") == Step::again_later);
    CHECK(retry.maybe_executed());
    CHECK(make_error_code(retry.error()) == unavailable);
    CHECK(retry.reason() == "Connection reset by peer");
}

TEST_CASE("A reply that the script does not give drops the connection") {
    Retry retry;
    CHECK(retry.wrong_reply("an array of 3") == Step::reconnect);
    CHECK(retry.maybe_executed());
    CHECK(make_error_code(retry.error()) == unavailable);
    CHECK_THAT(retry.reason(), Catch::Matchers::ContainsSubstring("an array of 3"));
}

TEST_CASE("That an attempt may have been executed is not forgotten, the last reason is kept") {
    Retry retry;
    CHECK(retry.reason().empty());
    CHECK_FALSE(retry.maybe_executed());
    (void)retry.unknown("first");
    (void)retry.not_sent("second");
    CHECK(retry.maybe_executed());
    CHECK(retry.reason() == "second");
    (void)retry.error_reply("NOPERM third");
    CHECK(retry.maybe_executed());
    CHECK(retry.reason() == "NOPERM third");
    CHECK(make_error_code(retry.error()) == refused);
}

TEST_CASE("Pauses double from a millisecond up to the limit, shortened by up to a half") {
    const auto limit = 100ms;
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        Backoff backoff{limit, seed};
        std::chrono::nanoseconds whole = 1ms;
        for (int i = 0; i < 12; ++i) {
            const auto pause = backoff.next();
            CAPTURE(seed, i, pause.count(), whole.count());
            REQUIRE(pause <= whole);
            REQUIRE(pause > whole / 2);
            whole = std::min<std::chrono::nanoseconds>(whole * 2, limit);
        }
    }
}

TEST_CASE("Clients that failed together do not come back together") {
    std::set<std::int64_t> pauses;
    std::set<std::int64_t> first_pauses;
    for (std::uint64_t seed = 1; seed <= 64; ++seed) {
        // Seeds as a client would have them: not small numbers.
        Backoff backoff{100ms, seed * 0x9E3779B97F4A7C15U};
        first_pauses.insert(backoff.next().count());
        for (int i = 0; i < 10; ++i)
            (void)backoff.next();
        pauses.insert(backoff.next().count());
    }
    CHECK(first_pauses.size() > 32);
    CHECK(pauses.size() > 48);

    // Nor does one client keep a rhythm once it has reached the limit.
    Backoff one{100ms};
    std::set<std::int64_t> of_one;
    for (int i = 0; i < 64; ++i)
        of_one.insert(one.next().count());
    CHECK(of_one.size() > 48);
}

TEST_CASE("A limit below a millisecond bounds the first pause too") {
    Backoff backoff{10us};
    for (int i = 0; i < 100; ++i) {
        const auto pause = backoff.next();
        REQUIRE(pause <= 10us);
        REQUIRE(pause > 5us);
    }
}

TEST_CASE("However long it goes on, a pause does not overflow") {
    Backoff backoff{std::chrono::nanoseconds::max() / 4};
    for (int i = 0; i < 200; ++i)
        REQUIRE(backoff.next() > 0ns);
}
