// SPDX-License-Identifier: MIT
//
// How a majority of independent masters is counted, without I/O and without a clock: who answered
// what, whether that decides the matter, and until when a lease that was won is valid. What asks
// them is quorum_attempt.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ROUND_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ROUND_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// More than a half: any two majorities have a node in common.
[[nodiscard]] constexpr std::size_t majority_of(std::size_t nodes) noexcept {
    return nodes / 2 + 1;
}

/// The answers to one question, yes or no. The first answer of each node counts.
/// Not thread-safe.
class QuorumVotes {
  public:
    enum class Vote : std::uint8_t {
        open,  ///< not answered yet
        yes,
        no,
        none,  ///< no answer will come, or it does not count
    };

    explicit QuorumVotes(std::size_t nodes) : votes_(nodes, Vote::open) {}

    void vote(std::size_t node, Vote vote) {
        if (votes_[node] == Vote::open) votes_[node] = vote;
    }

    [[nodiscard]] Vote of(std::size_t node) const { return votes_[node]; }
    [[nodiscard]] std::size_t count(Vote vote) const {
        return static_cast<std::size_t>(std::ranges::count(votes_, vote));
    }
    [[nodiscard]] std::size_t nodes() const noexcept { return votes_.size(); }
    [[nodiscard]] std::size_t majority() const noexcept { return majority_of(votes_.size()); }

    /// A majority says yes.
    [[nodiscard]] bool won() const { return count(Vote::yes) >= majority(); }
    /// So many say no that no majority can say yes, not even when all are back.
    [[nodiscard]] bool denied() const { return count(Vote::no) > nodes() - majority(); }
    /// No majority can say yes any more.
    [[nodiscard]] bool failed() const { return count(Vote::yes) + count(Vote::open) < majority(); }
    [[nodiscard]] bool decided() const { return won() || failed(); }
    [[nodiscard]] bool waits_for(std::size_t node) const { return votes_[node] == Vote::open; }

  private:
    std::vector<Vote> votes_;
};

/// The pauses of one who waits while others hold the lock: random, so that those who split the
/// votes between them do not meet again, in a window that grows.
/// Not thread-safe.
class RetryPause {
  public:
    explicit RetryPause(std::chrono::nanoseconds longest, std::uint64_t seed) noexcept
        : longest_{longest}, random_{seed | 1U} {}

    /// The next one, after a round that took so long: the window has room for two such rounds.
    [[nodiscard]] std::chrono::nanoseconds next(std::chrono::nanoseconds round) noexcept {
        window_ = std::min(std::max(window_ * 2, round * 2), longest_);
        // xorshift64: no more than spreading is asked of it.
        random_ ^= random_ << 13U;
        random_ ^= random_ >> 7U;
        random_ ^= random_ << 17U;
        return window_ / 1024 * static_cast<std::int64_t>(random_ % 1025U);
    }

  private:
    std::chrono::nanoseconds longest_;
    std::chrono::nanoseconds window_ = std::chrono::microseconds{500};
    std::uint64_t random_;
};

/// One attempt to acquire: all nodes are asked at once, under one token.
/// Not thread-safe.
class QuorumRound {
  public:
    enum class State : std::uint8_t {
        open,         ///< a majority may still be had
        won,          ///< a majority granted it
        contended,    ///< a majority answered, and others hold too many: try again later
        refused,      ///< so many refuse for good that there never is a majority
        unreachable,  ///< so many do not answer that there is no majority now
    };

    /// `began`: read before the first request was sent.
    QuorumRound(std::size_t nodes, BootTime began, std::chrono::nanoseconds ttl)
        : votes_{nodes}, fences_(nodes, 0), failures_(nodes), began_{began}, ttl_{ttl} {}

    // The answers. Only the first of a node counts, and none that comes after the decision was
    // acted upon: that is the caller's to see to.

    void granted(std::size_t node, std::uint64_t fence) {
        if (votes_.of(node) != QuorumVotes::Vote::open) return;
        votes_.vote(node, QuorumVotes::Vote::yes);
        fences_[node] = fence;
    }
    void held(std::size_t node) { votes_.vote(node, QuorumVotes::Vote::no); }

    /// No answer, or one that does not count, and why. `errc` is backend_unavailable for what may
    /// be another thing next time.
    void unavailable(std::size_t node, std::string why,
                     LockErrc errc = LockErrc::backend_unavailable) {
        if (votes_.of(node) != QuorumVotes::Vote::open) return;
        votes_.vote(node, QuorumVotes::Vote::none);
        failures_[node] = {errc, std::move(why)};
    }

    /// The time is over: who has not answered will not be waited for.
    void close(const std::string& why) {
        for (std::size_t node = 0; node < votes_.nodes(); ++node)
            unavailable(node, why);
    }

    [[nodiscard]] bool decided() const { return state() != State::open; }
    [[nodiscard]] State state() const {
        using Vote = QuorumVotes::Vote;
        if (votes_.won()) return State::won;
        if (!votes_.failed()) return State::open;
        if (refusals() > votes_.nodes() - votes_.majority()) return State::refused;
        const bool answered =
            votes_.count(Vote::yes) + votes_.count(Vote::no) + votes_.count(Vote::open) >=
            votes_.majority();
        return answered && seen_held() ? State::contended : State::unreachable;
    }

    /// Whether somebody was seen to hold a vote.
    [[nodiscard]] bool seen_held() const { return votes_.count(QuorumVotes::Vote::no) != 0; }
    [[nodiscard]] bool waits_for(std::size_t node) const {
        return votes_.of(node) == QuorumVotes::Vote::open;
    }

    /// The lease's fencing token: the highest that was drawn.
    [[nodiscard]] std::uint64_t fence() const { return std::ranges::max(fences_); }

    /// Whether a majority drew just that. Else it must be written back to a majority before use.
    ///
    /// Why that is enough: let leases A and B of a name have fences that stand, F(A) and F(B), in
    /// the fence keys of majorities M(A) and M(B), each written while the lease had the node's
    /// vote. A node of both gave its vote to one of them first, say to A. When it gave it to B,
    /// F(A) stood in its fence key, so it drew more for B, and F(B) is no less than what it drew.
    /// So of any two leases the one that was second there has the larger fence, and was not handed
    /// out before the first had lost that vote.
    [[nodiscard]] bool agreed() const {
        return static_cast<std::size_t>(std::ranges::count(fences_, fence())) >= votes_.majority();
    }

    /// What was won. Counted from before the first request was sent.
    [[nodiscard]] Grant grant() const { return {fence(), 1, began_, ttl_, {}}; }

    /// Why there was no majority, node by node. `name_of(node)` is what to call it.
    template <class NameOf>
    [[nodiscard]] std::string reasons(NameOf name_of) const {
        std::string text;
        for (std::size_t node = 0; node < failures_.size(); ++node) {
            if (failures_[node].why.empty()) continue;
            if (!text.empty()) text += "; ";
            text += name_of(node) + ": " + failures_[node].why;
        }
        return text;
    }

    /// Of the nodes that refuse, what they refuse for.
    [[nodiscard]] LockErrc refusal() const {
        for (const Failure& failure : failures_) {
            if (failure.errc != LockErrc::backend_unavailable) return failure.errc;
        }
        return LockErrc::backend_unavailable;
    }

  private:
    struct Failure {
        LockErrc errc = LockErrc::backend_unavailable;
        std::string why{};
    };

    [[nodiscard]] std::size_t refusals() const {
        return static_cast<std::size_t>(std::ranges::count_if(
            failures_,
            [](const Failure& failure) { return failure.errc != LockErrc::backend_unavailable; }));
    }

    QuorumVotes votes_;
    std::vector<std::uint64_t> fences_;
    std::vector<Failure> failures_;
    BootTime began_;
    std::chrono::nanoseconds ttl_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ROUND_HPP
