// SPDX-License-Identifier: MIT
//
// Tests of quorum_renewal.hpp: what the nodes' answers to a renewal say, without servers.

#include <codomyrmex/concurrency/redis/quorum_renewal.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

namespace {

using Outcome = Exchange::Outcome;

QuorumRenewal renewal_at(std::size_t nodes) {
    QuorumRenewal renewal{{QuorumVotes{nodes}}};
    renewal.tenure = std::make_shared<QuorumTenure>(
        std::make_shared<const LockIdentity>(make_quorum_identity("p:", "ledger", {.ttl = 1s})),
        "token", "holder");
    return renewal;
}

Exchange ended(Outcome outcome) {
    Exchange exchange;
    exchange.outcome = outcome;
    exchange.error = "broken";
    return exchange;
}

std::optional<QuorumStepAnswer> answer(std::int64_t kind) {
    return QuorumStepAnswer{kind, {}};
}

}  // namespace

TEST_CASE("A renewal is won where a majority extended the lease or has it again") {
    QuorumRenewal renewal = renewal_at(3);
    renewal.count(0, "a", ended(Outcome::answered), answer(1));
    CHECK_FALSE(renewal.content.decided());
    renewal.count(1, "b", ended(Outcome::answered), answer(2));
    CHECK(renewal.content.won());
    CHECK(renewal.trouble.empty());
}

TEST_CASE("A renewal is denied where a majority has it for another") {
    QuorumRenewal renewal = renewal_at(3);
    renewal.count(0, "a", ended(Outcome::answered), answer(0));
    renewal.count(1, "b", ended(Outcome::answered), answer(0));
    CHECK(renewal.content.denied());
    CHECK_FALSE(renewal.tenure->doubtful_at(0));
}

TEST_CASE("A node that was not asked, or too late, neither confirms nor denies") {
    QuorumRenewal renewal = renewal_at(3);
    renewal.skip(0, "a", "it does not answer");
    CHECK(renewal.trouble == "a: it does not answer");
    renewal.count(1, "b", ended(Outcome::answered), answer(3));
    CHECK(renewal.trouble == "b: it was executed too late");
    CHECK(renewal.content.failed());
    CHECK_FALSE(renewal.content.denied());
    CHECK_FALSE(renewal.tenure->doubtful_at(0));
    CHECK_FALSE(renewal.tenure->doubtful_at(1));
}

TEST_CASE("A renewal that may be executed later makes the node doubtful") {
    QuorumRenewal renewal = renewal_at(5);
    renewal.count(0, "a", ended(Outcome::not_sent), std::nullopt);
    CHECK(renewal.trouble == "a: broken");
    CHECK_FALSE(renewal.tenure->doubtful_at(0));
    renewal.count(1, "b", ended(Outcome::unknown), std::nullopt);
    CHECK(renewal.trouble == "b: broken");
    CHECK(renewal.tenure->doubtful_at(1));
    renewal.count(2, "c", ended(Outcome::answered), std::nullopt);
    CHECK(renewal.trouble == "c: nil");
    CHECK(renewal.tenure->doubtful_at(2));
    CHECK(renewal.content.failed());
}
