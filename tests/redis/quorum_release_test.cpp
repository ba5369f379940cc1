// SPDX-License-Identifier: MIT
//
// Tests of quorum_release.hpp: what an answer to a release says, and when it is repeated, on a
// clock made by hand.

#include <codomyrmex/concurrency/redis/quorum_release.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {

using Outcome = Exchange::Outcome;
using Vote = QuorumVotes::Vote;

constexpr BootTime start{1000s};

Exchange answered(bool repeated = false) {
    Exchange exchange;
    exchange.outcome = Outcome::answered;
    exchange.repeated = repeated;
    return exchange;
}

Exchange error(std::string text) {
    Exchange exchange = answered();
    exchange.reply.type = Reply::Type::error;
    exchange.reply.text = std::move(text);
    return exchange;
}

QuorumDebt debt(std::size_t node) {
    QuorumDebt made;
    made.node = node;
    return made;
}

}  // namespace

TEST_CASE("A node that answers a release is told no more, and its word counts") {
    const ReleaseVerdict ours = judge_release(answered(), true, false);
    CHECK(ours.vote == Vote::yes);
    CHECK_FALSE(ours.again.has_value());
    const ReleaseVerdict lost = judge_release(answered(), false, false);
    CHECK(lost.vote == Vote::no);
    CHECK_FALSE(lost.again.has_value());
}

TEST_CASE("\"Not yours\" means nothing after a repetition, \"yours\" does") {
    const ReleaseVerdict lost = judge_release(answered(true), false, false);
    CHECK(lost.vote == Vote::none);
    CHECK_FALSE(lost.again.has_value());
    CHECK(judge_release(answered(true), true, false).vote == Vote::yes);
}

TEST_CASE("Where the key may yet come, a release is repeated though it was answered") {
    const ReleaseVerdict lost = judge_release(answered(), false, true);
    CHECK(lost.vote == Vote::none);
    CHECK(lost.again == 500ms);
    const ReleaseVerdict ours = judge_release(answered(), true, true);
    CHECK(ours.vote == Vote::yes);
    CHECK(ours.again == 500ms);
}

TEST_CASE("A release without an answer is repeated, one without its script at once") {
    for (const Outcome outcome : {Outcome::not_sent, Outcome::unknown}) {
        Exchange exchange;
        exchange.outcome = outcome;
        const ReleaseVerdict verdict = judge_release(exchange, std::nullopt, false);
        CHECK(verdict.vote == Vote::open);
        CHECK(verdict.again == 100ms);
    }
    CHECK(judge_release(answered(), std::nullopt, false).again == 100ms);
    CHECK(judge_release(error("LOADING"), std::nullopt, false).again == 100ms);
    const ReleaseVerdict script = judge_release(error("NOSCRIPT No"), std::nullopt, true);
    CHECK(script.vote == Vote::open);
    CHECK(script.again == 0ms);
}

TEST_CASE("Debts are due in the order of their times, each once") {
    QuorumDebts debts;
    CHECK(debts.next_due() == BootTime::max());
    CHECK(debts.take_due(start).empty());
    debts.add(start + 20ms, debt(2));
    debts.add(start + 10ms, debt(1));
    debts.add(start + 30ms, debt(3));
    CHECK(debts.next_due() == start + 10ms);
    CHECK(debts.take_due(start + 9ms).empty());
    const std::vector<QuorumDebt> due = debts.take_due(start + 20ms);
    REQUIRE(due.size() == 2);
    CHECK(due[0].node == 1);
    CHECK(due[1].node == 2);
    CHECK(debts.take_due(start + 20ms).empty());
    CHECK(debts.next_due() == start + 30ms);
}
