// SPDX-License-Identifier: MIT
//
// The renewal of a quorum's lease while its answers come in, without I/O and without a clock: who
// confirmed it, who has it for another, and why the rest did neither. quorum_keeper.hpp sends it.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RENEWAL_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RENEWAL_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Not thread-safe.
struct QuorumRenewal : Ballot<QuorumVotes> {
    std::shared_ptr<QuorumTenure> tenure{};
    BootTime sent{};         ///< before its first request
    bool by_keeper = false;  ///< sent by the background thread, which settles it
    std::string trouble{};   ///< the last reason why a node did not renew

    /// That `node` does not renew it, and why; `name` is what the node is called.
    void skip(std::size_t node, const std::string& name, const std::string& why) {
        content.vote(node, QuorumVotes::Vote::none);
        trouble = name + ": " + why;
    }

    /// What came of the request to `node`. `answer`: as it was read, if there was one.
    void count(std::size_t node, const std::string& name, const Exchange& exchange,
               const std::optional<QuorumStepAnswer>& answer) {
        using Vote = QuorumVotes::Vote;
        if (!answer) {
            // A copy that is executed when the lease is over would give it a key again.
            if (exchange.outcome != Exchange::Outcome::not_sent) tenure->mark_doubtful_at(node);
            const bool answered = exchange.outcome == Exchange::Outcome::answered;
            return skip(node, name, answered ? exchange.reply.describe() : exchange.error);
        }
        if (answer->kind == 3) return skip(node, name, "it was executed too late");
        content.vote(node, answer->kind == 0 ? Vote::no : Vote::yes);
    }
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RENEWAL_HPP
