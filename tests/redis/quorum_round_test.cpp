// SPDX-License-Identifier: MIT
//
// Tests of quorum_round.hpp: how votes are counted, without servers and on a clock made by hand.

#include <codomyrmex/concurrency/redis/quorum_round.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstddef>
#include <set>
#include <string>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {

using State = QuorumRound::State;
using Vote = QuorumVotes::Vote;

constexpr BootTime began{1000s};

std::string reasons(const QuorumRound& round) {
    return round.reasons(
        [](std::size_t node) { return std::string(1, static_cast<char>('a' + node)); });
}

}  // namespace

TEST_CASE("A majority is more than a half") {
    CHECK(majority_of(1) == 1);
    CHECK(majority_of(2) == 2);
    CHECK(majority_of(3) == 2);
    CHECK(majority_of(4) == 3);
    CHECK(majority_of(5) == 3);
}

TEST_CASE("Votes are decided as soon as the rest cannot change it") {
    QuorumVotes votes{5};
    CHECK_FALSE(votes.decided());
    votes.vote(0, Vote::yes);
    votes.vote(1, Vote::yes);
    votes.vote(2, Vote::none);
    votes.vote(3, Vote::no);
    CHECK_FALSE(votes.decided());
    CHECK(votes.waits_for(4));
    SECTION("for") {
        votes.vote(4, Vote::yes);
        CHECK(votes.won());
        CHECK_FALSE(votes.failed());
    }
    SECTION("against, though not by a majority") {
        votes.vote(4, Vote::no);
        CHECK(votes.failed());
        CHECK_FALSE(votes.denied());
    }
    SECTION("a node has one vote") {
        votes.vote(3, Vote::yes);
        votes.vote(0, Vote::no);
        CHECK(votes.count(Vote::yes) == 2);
        CHECK_FALSE(votes.decided());
    }
}

TEST_CASE("Votes are denied when no majority can come, were all back") {
    QuorumVotes odd{5};
    for (const std::size_t node : {0U, 1U, 2U})
        odd.vote(node, Vote::no);
    CHECK(odd.denied());
    QuorumVotes even{4};
    even.vote(0, Vote::no);
    CHECK_FALSE(even.denied());
    even.vote(1, Vote::no);
    CHECK(even.denied());
}

TEST_CASE("A round is won at the majority, whatever the others say") {
    QuorumRound round{5, began, 10s};
    round.granted(4, 7);
    round.unavailable(0, "down");
    round.held(1);
    round.granted(2, 9);
    CHECK(round.state() == State::open);
    CHECK(round.waits_for(3));
    round.granted(3, 8);
    CHECK(round.state() == State::won);
    CHECK(round.fence() == 9);
    CHECK_FALSE(round.agreed());
    CHECK(round.grant().fence == 9);
    CHECK(round.grant().since == began);
    CHECK(round.grant().until() == began + 10s - drift_allowance(10s));
}

TEST_CASE("Fences agree when a majority drew the highest") {
    QuorumRound round{5, began, 10s};
    round.granted(0, 9);
    round.granted(1, 9);
    round.granted(2, 8);
    CHECK(round.state() == State::won);
    CHECK_FALSE(round.agreed());
    round.granted(3, 9);
    CHECK(round.agreed());
    round.granted(4, 10);
    CHECK_FALSE(round.agreed());
}

TEST_CASE("A round that cannot be won tells why") {
    QuorumRound round{5, began, 10s};
    SECTION("others hold it, and it ends before the last answers") {
        round.held(0);
        round.held(1);
        CHECK(round.state() == State::open);
        round.held(2);
        CHECK(round.state() == State::contended);
    }
    SECTION("votes are split, and the rest is down") {
        round.granted(0, 1);
        round.granted(1, 1);
        round.held(2);
        round.unavailable(3, "down");
        CHECK(round.state() == State::open);
        round.unavailable(4, "down");
        CHECK(round.state() == State::contended);
    }
    SECTION("no majority answers, though one was seen held") {
        round.held(0);
        round.granted(1, 1);
        round.unavailable(2, "refused");
        round.close("no answer in time");
        CHECK(round.state() == State::unreachable);
        CHECK(round.seen_held());
        CHECK(reasons(round) == "c: refused; d: no answer in time; e: no answer in time");
    }
    SECTION("a majority refuses") {
        round.unavailable(0, "NOPERM", LockErrc::backend_refused);
        round.unavailable(1, "NOPERM", LockErrc::backend_refused);
        round.unavailable(2, "down");
        CHECK(round.state() == State::unreachable);
        QuorumRound worse{5, began, 10s};
        for (const std::size_t node : {0U, 1U, 2U})
            worse.unavailable(node, "NOPERM", LockErrc::backend_refused);
        CHECK(worse.state() == State::refused);
        CHECK(worse.refusal() == LockErrc::backend_refused);
    }
    SECTION("a minority refuses, and others hold it") {
        round.unavailable(0, "NOPERM", LockErrc::backend_refused);
        round.held(1);
        round.held(2);
        round.held(3);
        CHECK(round.state() == State::contended);
    }
}

TEST_CASE("What a node says first counts") {
    QuorumRound round{3, began, 10s};
    round.unavailable(0, "no answer in time");
    round.granted(0, 5);
    round.granted(1, 5);
    CHECK(round.state() == State::open);
    round.held(1);
    round.close("no answer in time");
    CHECK(round.state() == State::unreachable);
    CHECK(round.fence() == 5);
}

TEST_CASE("Pauses are random, grow with the tries and with the rounds, and stay within bounds") {
    RetryPause one{50ms, 1};
    RetryPause other{50ms, 2};
    std::set<std::chrono::nanoseconds> seen;
    for (int i = 0; i < 200; ++i) {
        const auto pause = one.next(1ms);
        CHECK(pause >= 0ns);
        CHECK(pause <= 50ms);
        seen.insert(pause);
        seen.insert(other.next(1ms));
    }
    CHECK(seen.size() > 200);
    CHECK(*seen.rbegin() > 25ms);
    RetryPause first{50ms, 3};
    CHECK(first.next(0ns) <= 1ms);
    RetryPause far{50ms, 3};
    std::chrono::nanoseconds longest{0};
    for (int i = 0; i < 20; ++i)
        longest =
            std::max(longest, RetryPause{50ms, static_cast<std::uint64_t>(i * 977 + 1)}.next(10ms));
    CHECK(longest <= 20ms);
}
