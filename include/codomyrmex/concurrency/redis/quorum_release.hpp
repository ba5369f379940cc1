// SPDX-License-Identifier: MIT
//
// How a lease is given back to the nodes of a quorum, without I/O and without a clock: what a
// node's answer says of the lease, and when a node that owes an answer is to be told again. A node
// is told until it has answered for sure or the key is gone by itself. quorum_keeper.hpp sends.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RELEASE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RELEASE_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// The question whether a majority still had the lease. Not thread-safe.
struct QuorumRelease : Ballot<QuorumVotes> {
    std::shared_ptr<Hold> hold{};  ///< of whom a loss is told that the answers show, if any
};

/// A node that has not answered a release.
struct QuorumDebt {
    std::shared_ptr<QuorumTenure> tenure{};
    std::size_t node = 0;
    BootTime gone{};                           ///< when the key is gone without it
    std::shared_ptr<QuorumRelease> release{};  ///< where the answer is counted, if anybody asks
};

/// What an exchange says that was a release.
struct ReleaseVerdict {
    /// Whether the node still had the lease: `none` if that will never be known, `open` if it is
    /// not known yet.
    QuorumVotes::Vote vote = QuorumVotes::Vote::open;

    /// In how long it is to be sent again; nothing if there is no need.
    std::optional<std::chrono::milliseconds> again{};
};

/// `ours`: what the node answered, as it was read, if it did. `doubtful`: an earlier request may
/// yet be executed that gives the lease its key there.
[[nodiscard]] inline ReleaseVerdict judge_release(const Exchange& exchange,
                                                  std::optional<bool> ours, bool doubtful) {
    using std::chrono::milliseconds;
    using Vote = QuorumVotes::Vote;
    if (!ours) {
        // With the body, at once.
        const bool unknown_script =
            exchange.reply.is_error() &&
            classify(exchange.reply.text).kind == ServerErrorKind::load_script;
        return {Vote::open, milliseconds{unknown_script ? 0 : 100}};
    }
    ReleaseVerdict verdict{*ours ? Vote::yes : Vote::no};
    // After a repetition, "not yours" may come of the first copy.
    if (!*ours && (exchange.repeated || doubtful)) verdict.vote = Vote::none;
    if (doubtful) verdict.again = milliseconds{500};
    return verdict;
}

/// What is to be sent again, and when. Not thread-safe.
class QuorumDebts {
  public:
    void add(BootTime due, QuorumDebt debt) { debts_.emplace(due, std::move(debt)); }

    /// Those that are due; they are in it no longer.
    [[nodiscard]] std::vector<QuorumDebt> take_due(BootTime now) {
        std::vector<QuorumDebt> due;
        while (next_due() <= now) {
            due.push_back(std::move(debts_.begin()->second));
            debts_.erase(debts_.begin());
        }
        return due;
    }

    /// BootTime::max() if there are none.
    [[nodiscard]] BootTime next_due() const noexcept {
        return debts_.empty() ? BootTime::max() : debts_.begin()->first;
    }

  private:
    std::multimap<BootTime, QuorumDebt> debts_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_RELEASE_HPP
