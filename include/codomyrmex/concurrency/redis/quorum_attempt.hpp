// SPDX-License-Identifier: MIT
//
// One attempt to acquire a lease of a quorum: all nodes are asked at once, under one token; the
// answers are counted until a majority has granted it or none can; and where the nodes drew
// different fencing tokens, the highest is written back to a majority. Who tries again, and when,
// is quorum_core.hpp's subject; how votes are counted, quorum_round.hpp's.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ATTEMPT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ATTEMPT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/quorum_ballot.hpp>
#include <codomyrmex/concurrency/redis/quorum_caller.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/quorum_scripts.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// One attempt. Unless it was won and taken, what it obtained, or may yet obtain, is given back.
/// Not thread-safe.
class QuorumAttempt {
  public:
    /// `tenure`: a new one, for its token may be asked for once only.
    /// Requires: `keeper` outlives it; nobody else waits at `desk`.
    QuorumAttempt(QuorumKeeper& keeper, std::shared_ptr<Desk> desk,
                  std::shared_ptr<QuorumTenure> tenure)
        : keeper_{keeper},
          caller_{*keeper.caller},
          tenure_{std::move(tenure)},
          ballot_{std::make_shared<Question>(
              Question{QuorumRound{caller_.size(), detail::BootClock::now(), tenure_->ttl()},
                       std::move(desk)})} {}
    QuorumAttempt(const QuorumAttempt&) = delete;
    QuorumAttempt& operator=(const QuorumAttempt&) = delete;
    ~QuorumAttempt() { give_up(); }

    /// Asks all nodes, and waits until it is decided, at most until `limit`. Once only.
    /// Returns: what came of it, not `open`.
    /// Throws: std::bad_alloc.
    /// Cost: one round trip; one more where the nodes drew different fencing tokens.
    [[nodiscard]] QuorumRound::State run(Deadline limit) {
        ++keeper_.rounds;
        const BootTime now = detail::BootClock::now();
        const std::string wish = wished_fence(now);
        for (std::size_t number = 0; number < caller_.size(); ++number)
            ask(number, now, wish);
        caller_.await(*ballot_, limit);
        bool agreed = false;
        {
            const auto guard = caller_.lock();
            // From here on no answer changes what is decided on.
            ballot_->closed = true;
            // Where it is decided, who has not answered was not waited for.
            if (!ballot_->content.decided()) ballot_->content.close("no answer in time");
            if (ballot_->content.state() != QuorumRound::State::won) {
                return ballot_->content.state();
            }
            grant_ = ballot_->content.grant();
            agreed = ballot_->content.agreed();
        }
        tenure_->set_fence(grant_.fence);
        if (!agreed && !write_back()) return QuorumRound::State::unreachable;
        return QuorumRound::State::won;
    }

    /// The hold that was won. `contended`: it had to wait for others.
    /// Requires: run() returned `won`.
    /// Throws: LockError(validity_exhausted) if it came too late.
    [[nodiscard]] std::shared_ptr<Hold> take(bool contended) {
        // Made before, for what may fail must not follow the grant.
        if (!tenure_->granted(grant_, detail::BootClock::now())) {
            throw LockError(LockErrc::validity_exhausted,
                            "'" + tenure_->name() +
                                "' was acquired, but the answers took longer than its lease of " +
                                std::to_string(tenure_->identity().options.ttl.count()) +
                                " ms is valid; ask for a longer ttl");
        }
        auto hold = std::make_shared<Hold>(tenure_, contended);
        tenure_->used_by(hold);
        try {
            keeper_.watch(tenure_, grant_.since);
        } catch (...) {
            tenure_->used_by(nullptr);
            throw;
        }
        taken_ = true;
        return hold;
    }

    /// Gives back now what is not taken.
    void give_up() noexcept {
        if (std::exchange(taken_, true)) return;
        try {
            keeper_.release(tenure_, nullptr);
        } catch (const std::exception&) {
            // Out of memory: the keys run out.
        }
    }

    // Why it was not won. Requires of all: run() returned.

    /// Whether another was seen to hold a vote.
    [[nodiscard]] bool seen_held() const { return ballot_->content.seen_held(); }
    /// What a majority refuses it for.
    [[nodiscard]] LockErrc refusal() const { return ballot_->content.refusal(); }
    /// What each node said, for people.
    [[nodiscard]] std::string reasons() const {
        if (!write_back_.empty()) return write_back_;
        return ballot_->content.reasons(
            [this](std::size_t number) { return caller_.node(number).name; });
    }

  private:
    using Question = Ballot<QuorumRound>;

    // How far the fencing token that is wished for leads what is known of the nodes' clocks: more
    // than the way to a node changes from one request to the next.
    static constexpr std::chrono::milliseconds wish_lead{5};

    [[nodiscard]] std::chrono::nanoseconds min_uptime() const {
        return caller_.options.min_uptime.value_or(tenure_->identity().options.ttl);
    }

    // The same for all nodes, so that they draw the same: ahead of all clocks.
    [[nodiscard]] std::string wished_fence(BootTime now) {
        std::string wish;
        for (std::size_t number = 0; number < caller_.size(); ++number)
            wish = std::max(wish, caller_.node(number).link.clock.at(now + wish_lead));
        return wish;
    }

    void ask(std::size_t number, BootTime now, const std::string& wish) {
        QuorumCaller::Node& node = caller_.node(number);
        bool learn = false;
        {
            const auto guard = caller_.lock();
            if (node.memory.silent(now, caller_.options.node_timeout)) {
                return ballot_->content.unavailable(number, node.why_silent());
            }
            learn = min_uptime() > min_uptime().zero() &&
                    node.memory.uptime_unknown(node.link.pipeline.connections());
        }
        const Deadline never = Deadline::never();
        if (learn) {
            caller_.send(
                number, encode({"INFO", "server"}), never, false,
                [&node, ballot = ballot_, number](Exchange& exchange) {
                    learn_uptime(node, *ballot, number, exchange);
                },
                true);
        }
        tenure_->asked(number);
        const std::string not_after = node.link.clock.at(now + caller_.options.node_timeout);
        caller_.send(number, quorum_acquire_command(*tenure_, not_after, wish), never, false,
                     [&caller = caller_, ballot = ballot_, tenure = tenure_, number,
                      need = min_uptime()](Exchange& exchange) {
                         count(caller, *ballot, *tenure, number, need, exchange);
                         if (ballot->content.decided()) ballot->desk->notify();
                     });
    }

    // --- On whatever thread, under the caller's lock.

    static void learn_uptime(QuorumCaller::Node& node, Question& ballot, std::size_t number,
                             const Exchange& exchange) {
        if (exchange.outcome != Exchange::Outcome::answered) return;
        if (exchange.reply.is_error()) {
            // Loading, perhaps; or the right is missing, which is said here and not guessed.
            if (ballot.closed) return;
            const bool refused = classify(exchange.reply.text).kind == ServerErrorKind::refused;
            return ballot.content.unavailable(
                number,
                exchange.reply.text +
                    " (INFO tells for how long it is up; "
                    "QuorumOptions::min_uptime = 0 goes without)",
                refused ? LockErrc::backend_refused : LockErrc::backend_unavailable);
        }
        const auto uptime = read_uptime(exchange.reply.as_text().value_or(""));
        if (!uptime) return;
        node.memory.learn_uptime(exchange.connection, *uptime, detail::BootClock::now());
    }

    static void count(QuorumCaller& caller, Question& ballot, QuorumTenure& tenure,
                      std::size_t number, std::chrono::nanoseconds need, const Exchange& exchange) {
        QuorumCaller::Node& node = caller.node(number);
        // It may be executed when the lease is over, and is released until that is out of date.
        if (exchange.outcome == Exchange::Outcome::unknown) tenure.mark_doubtful_at(number);
        if (exchange.outcome == Exchange::Outcome::not_sent) tenure.not_asked(number);
        if (exchange.outcome != Exchange::Outcome::answered) {
            if (!ballot.closed) ballot.content.unavailable(number, exchange.error);
            return;
        }
        if (exchange.reply.is_error()) {
            const LockErrc errc = caller.learn_error(node, exchange);
            const bool cut = classify(exchange.reply.text).kind == ServerErrorKind::unknown_outcome;
            if (cut) tenure.mark_doubtful_at(number);
            if (!ballot.closed) ballot.content.unavailable(number, exchange.reply.text, errc);
            return;
        }
        const auto answer = read_quorum_acquire(exchange.reply);
        if (!answer) {
            node.to_drop = exchange.connection;
            tenure.mark_doubtful_at(number);
            if (!ballot.closed) {
                ballot.content.unavailable(number,
                                           "the server answered with " + exchange.reply.describe());
            }
            return;
        }
        node.link.clock.learn(answer->time, exchange.sent);
        // A late grant is given back with the rest, or renewed with it.
        if (ballot.closed) return;
        switch (answer->outcome) {
            case QuorumAcquireAnswer::Outcome::held:
                return ballot.content.held(number);
            case QuorumAcquireAnswer::Outcome::late:
                return ballot.content.unavailable(number, "it was executed too late");
            case QuorumAcquireAnswer::Outcome::granted:
                break;
        }
        if (const std::string why = no_vote(node, exchange, need); !why.empty()) {
            return ballot.content.unavailable(number, why);
        }
        ballot.content.granted(number, answer->fence);
    }

    // Why a node's grant does not count: after a restart it may have forgotten another. Empty if it
    // counts. What answers over one connection is one run of the server.
    [[nodiscard]] static std::string no_vote(const QuorumCaller::Node& node,
                                             const Exchange& exchange,
                                             std::chrono::nanoseconds need) {
        if (need == need.zero()) return {};
        const auto uptime = node.memory.uptime(exchange.connection, exchange.sent);
        if (!uptime) return "it is not known for how long it is up";
        if (*uptime >= need) return {};
        using std::chrono::milliseconds;
        return "it is up for less than " +
               std::to_string(std::chrono::ceil<milliseconds>(need).count()) +
               " ms and may have forgotten a lease";
    }

    // --- On the calling thread.

    // A second trip, where the nodes drew different fences.
    [[nodiscard]] bool write_back() {
        ++keeper_.write_backs;
        const auto ballot = std::make_shared<Ballot<QuorumVotes>>(
            Ballot<QuorumVotes>{QuorumVotes{caller_.size()}, ballot_->desk});
        for (std::size_t number = 0; number < caller_.size(); ++number) {
            if (!tenure_->was_asked(number) || caller_.silent(number, detail::BootClock::now())) {
                const auto guard = caller_.lock();
                ballot->content.vote(number, QuorumVotes::Vote::none);
                continue;
            }
            QuorumCaller::Node& node = caller_.node(number);
            caller_.send(
                number,
                quorum_raise_command(*tenure_, grant_.fence, node.link.clock.at(grant_.until())),
                Deadline::never(), false,
                [&caller = caller_, ballot, number, need = min_uptime()](Exchange& exchange) {
                    ballot->content.vote(number, written_back(caller, number, need, exchange));
                    if (ballot->content.decided()) ballot->desk->notify();
                });
        }
        caller_.await(*ballot, Deadline::after(caller_.options.node_timeout));
        const auto guard = caller_.lock();
        if (ballot->content.won()) return true;
        write_back_ = "no majority took the fencing token in time";
        return false;
    }

    [[nodiscard]] static QuorumVotes::Vote written_back(QuorumCaller& caller, std::size_t number,
                                                        std::chrono::nanoseconds need,
                                                        const Exchange& exchange) {
        QuorumCaller::Node& node = caller.node(number);
        const auto answer = caller.hear(node, exchange, read_quorum_step);
        const bool counts = answer && answer->kind == 1 && no_vote(node, exchange, need).empty();
        return counts ? QuorumVotes::Vote::yes : QuorumVotes::Vote::none;
    }

    QuorumKeeper& keeper_;
    QuorumCaller& caller_;
    const std::shared_ptr<QuorumTenure> tenure_;
    const std::shared_ptr<Question> ballot_;
    Grant grant_{};
    std::string write_back_;
    bool taken_ = false;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_ATTEMPT_HPP
