// SPDX-License-Identifier: MIT
//
// Tests of quorum_ballot.hpp: when a desk wakes its thread, and what a ballot says once.

#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>

#include "support/catch2.hpp"

#include <cstddef>
#include <list>
#include <memory>
#include <poll.h>
#include <set>

using namespace codomyrmex::concurrency::redis;

namespace {

using Vote = QuorumVotes::Vote;

bool signalled(const Desk& desk) {
    pollfd file{desk.descriptor(), POLLIN, 0};
    return ::poll(&file, 1, 0) == 1;
}

}  // namespace

TEST_CASE("A desk is signalled once, and only if its thread sleeps there") {
    Desk desk;
    desk.notify();
    CHECK_FALSE(signalled(desk));
    desk.sleep_begins();
    CHECK_FALSE(signalled(desk));
    desk.notify();
    CHECK(signalled(desk));
    desk.drain();
    desk.notify();
    CHECK_FALSE(signalled(desk));
    desk.sleep_begins();
    desk.sleep_ends();
    desk.notify();
    CHECK_FALSE(signalled(desk));
}

TEST_CASE("A desk that is given back is lent again; two have two") {
    Desks desks;
    std::shared_ptr<Desk> first;
    {
        const Desks::Loan one{desks};
        const Desks::Loan other{desks};
        CHECK(one.desk() != other.desk());
        first = one.desk();
    }
    const Desks::Loan again{desks};
    CHECK(again.desk() == first);
}

TEST_CASE("No more than sixteen desks are kept") {
    Desks desks;
    std::set<std::weak_ptr<Desk>, std::owner_less<>> seen;
    {
        std::list<Desks::Loan> loans;
        for (int i = 0; i < 20; ++i)
            seen.insert(loans.emplace_back(desks).desk());
    }
    std::size_t kept = 0;
    for (const auto& desk : seen)
        kept += desk.expired() ? 0U : 1U;
    CHECK(kept == 16);
}

TEST_CASE("The decision of a ballot is taken once") {
    Ballot<QuorumVotes> ballot{QuorumVotes{3}};
    ballot.content.vote(0, Vote::yes);
    CHECK_FALSE(ballot.take_decision());
    CHECK_FALSE(ballot.closed);
    ballot.content.vote(1, Vote::yes);
    CHECK(ballot.take_decision());
    CHECK(ballot.closed);
    ballot.content.vote(2, Vote::yes);
    CHECK_FALSE(ballot.take_decision());
}
