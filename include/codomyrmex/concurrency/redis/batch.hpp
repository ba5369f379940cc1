// SPDX-License-Identifier: MIT
//
// Several locks that are taken at once, all or none, in one round trip, without waiting for a
// holder; and given back in one request. Which of them to wait for, should one be held, is said by
// detail/take.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/local_queue.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/local_turns.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What came of several locks that were tried together.
struct TriedAll {
    enum class Outcome : std::uint8_t {
        obtained,  ///< all of them
        held,      ///< not all, for another holds one
        apart,     ///< not all; what stands in the way shows when each is tried by itself
    };

    Outcome outcome = Outcome::apart;
    std::size_t which = 0;                       ///< if held: which of them
    std::vector<std::shared_ptr<Hold>> holds{};  ///< if obtained: of each
    std::string failure{};                       ///< if apart: why there was no answer; or empty
};

/// While it lives, the locks that its thread gives back are collected; at its end they go in one
/// request, or before, if the thread asks for a lock meanwhile. Used by one thread.
class ReleasesTogether {
  public:
    /// Requires: `keeper` outlives it. Throws: std::bad_alloc.
    explicit ReleasesTogether(KeeperState& keeper) : keeper_{keeper} { keeper_.batches.open(); }
    ReleasesTogether(const ReleasesTogether&) = delete;
    ReleasesTogether& operator=(const ReleasesTogether&) = delete;
    ~ReleasesTogether() {
        if (!keeper_.mark->in_child()) keeper_.release_all(keeper_.batches.close());
    }

  private:
    KeeperState& keeper_;
};

/// Used by one thread.
class Batch {
  public:
    /// More than so many are not tried together: a script that takes long holds up everybody.
    static constexpr std::size_t most = 1'000;

    /// Requires: both outlive it; `turns` are of `claimant`.
    Batch(Claimant& claimant, LocalTurns& turns) noexcept
        : claimant_{claimant}, turns_{turns}, keeper_{claimant.keeper()} {}

    /// Tries all at once, without waiting for a holder; for the server at most until `deadline`,
    /// unless that has passed already.
    /// Requires: `identities` are of locks, and differ. Throws: std::bad_alloc.
    /// Cost: one round trip.
    [[nodiscard]] TriedAll try_all(
        const std::vector<std::shared_ptr<const LockIdentity>>& identities, Deadline deadline) {
        if (identities.size() > most) return {};
        // They end what is not taken from them, whatever happens.
        std::deque<Attempt> attempts;
        TriedAll result;
        result.holds.reserve(identities.size());
        const auto end = [&](TriedAll::Outcome outcome, std::size_t which = 0) {
            result.outcome = outcome;
            result.which = which;
            if (outcome == TriedAll::Outcome::obtained) {
                for (Attempt& attempt : attempts)
                    result.holds.push_back(attempt.take_hold());
            }
            return std::move(result);
        };
        Question question;
        const BootTime now = detail::BootClock::now();
        for (const auto& identity : identities) {
            switch (attempts.emplace_back(*this, identity).come(now)) {
                case LocalQueue::Entry::asks:
                    question.places.push_back(attempts.size() - 1);
                    break;
                case LocalQueue::Entry::has:
                    break;
                default:
                    return end(TriedAll::Outcome::held, attempts.size() - 1);
            }
        }
        if (question.places.empty()) return end(outcome_of(attempts));
        const LeaseOptions& first = identities[question.places.front()]->options;
        for (const std::size_t place : question.places) {
            const LeaseOptions& options = identities[place]->options;
            if (options.ttl != first.ttl || options.label != first.label) {
                return end(TriedAll::Outcome::apart);
            }
        }
        for (const std::size_t place : question.places) {
            question.tenures.push_back(attempts[place].prepare());
            question.block = std::max(question.block, attempts[place].block());
        }
        const std::optional<AcquireAllAnswer> answer = ask(question, deadline, result.failure);
        if (!answer) return end(TriedAll::Outcome::apart);
        const BootTime answered = detail::BootClock::now();
        for (std::size_t i = 0; i < question.places.size(); ++i) {
            Attempt& attempt = attempts[question.places[i]];
            if (answer->outcome != AcquireAllAnswer::Outcome::granted) {
                attempt.refused();
            } else {
                attempt.granted({answer->fence, question.block, question.sent, first.ttl, {}},
                                answered);
            }
        }
        if (answer->outcome == AcquireAllAnswer::Outcome::held) {
            return end(TriedAll::Outcome::held, question.places[answer->which]);
        }
        return end(outcome_of(attempts));
    }

  private:
    // What the server is asked for.
    struct Question {
        std::vector<std::size_t> places{};  // among all
        std::vector<std::shared_ptr<Tenure>> tenures{};
        std::uint64_t block = 1;  // how many fencing tokens for each
        BootTime sent{};
    };

    // One of the locks.
    class Attempt {
      public:
        Attempt(Batch& batch, std::shared_ptr<const LockIdentity> identity)
            : batch_{batch},
              identity_{std::move(identity)},
              line_{batch.keeper_.queues.come(identity_)} {}
        Attempt(const Attempt&) = delete;
        Attempt& operator=(const Attempt&) = delete;
        ~Attempt() {
            if (tenure_ && !obtained_) batch_.keeper_.give_up(tenure_);
            if (turn_) asked(nullptr, detail::BootClock::now());
            if (hold_) give_back();
            if (!taken_) batch_.keeper_.queues.leave(identity_->keys.main());
        }

        // Returns: asks if the server is to be asked, has if that is not needed, else busy.
        [[nodiscard]] LocalQueue::Entry come(BootTime now) {
            LocalWaiter me{*identity_};
            LocalQueue::Entry entry = LocalQueue::Entry::busy;
            {
                const std::lock_guard guard{line_.mutex};
                entry = line_.queue.enter(me, false, now);
                turn_ = entry == LocalQueue::Entry::asks;
            }
            if (entry == LocalQueue::Entry::has) {
                hold_ = batch_.turns_.use(line_, me.tenure, false, now);
            } else if (me.tenure) {
                // One that was retained, and will not do.
                batch_.keeper_.release(me.tenure, nullptr);
            }
            return entry;
        }

        // From here on the server may have been asked for it.
        [[nodiscard]] const std::shared_ptr<Tenure>& prepare() {
            return tenure_ = batch_.claimant_.make_tenure(identity_);
        }
        [[nodiscard]] std::uint64_t block() const {
            return LocalTurns::block_of(line_, identity_->options, false);
        }

        // Nothing was taken, so there is nothing to give up.
        void refused() noexcept { tenure_ = nullptr; }

        void granted(const Grant& grant, BootTime now) {
            if (!tenure_->granted(grant, now)) return;
            batch_.keeper_.watch(tenure_, grant.since);
            obtained_ = true;
            asked(tenure_, now);
            hold_ = batch_.turns_.use(line_, tenure_, false, now);
        }

        [[nodiscard]] bool has_hold() const noexcept { return hold_ != nullptr; }
        /// Requires: has_hold().
        [[nodiscard]] std::shared_ptr<Hold> take_hold() noexcept {
            taken_ = true;
            return std::move(hold_);
        }

      private:
        void give_back() noexcept {
            const std::shared_ptr<Tenure>& tenure = hold_->tenure();
            const BootTime now = detail::BootClock::now();
            const bool valid = hold_->valid_at(now) && !hold_->forked();
            const bool ours = hold_->end() && valid;
            tenure->used_by(nullptr);
            try {
                batch_.turns_.pass_on(tenure, nullptr, ours, now);
            } catch (const std::exception&) {
                // Out of memory: it runs out, and who stands in line goes on.
                batch_.keeper_.unwatch(*tenure);
                batch_.keeper_.queues.lost(tenure);
            }
        }

        void asked(const std::shared_ptr<Tenure>& tenure, BootTime now) noexcept {
            turn_ = false;
            batch_.turns_.asked(line_, tenure, nullptr, now);
        }

        Batch& batch_;
        const std::shared_ptr<const LockIdentity> identity_;
        LocalQueues::Line& line_;
        std::shared_ptr<Tenure> tenure_;
        std::shared_ptr<Hold> hold_;
        bool turn_ = false;  // it is ours to ask the server
        bool obtained_ = false;
        bool taken_ = false;  // the hold is the caller's
    };

    [[nodiscard]] static TriedAll::Outcome outcome_of(
        const std::deque<Attempt>& attempts) noexcept {
        const bool all = std::ranges::all_of(
            attempts, [](const Attempt& attempt) { return attempt.has_hold(); });
        return all ? TriedAll::Outcome::obtained : TriedAll::Outcome::apart;
    }

    // Returns: nothing if there was no answer that counts; `failure`: if there was none at all,
    // why.
    [[nodiscard]] std::optional<AcquireAllAnswer> ask(Question& question, Deadline deadline,
                                                      std::string& failure) {
        keeper_.release_all(keeper_.batches.take());
        Deadline limit = Deadline::after(keeper_.options.response_timeout);
        if (!deadline.expired()) limit = std::min(limit, deadline);
        const std::string text = claimant_.text(question.tenures.front()->identity());
        for (bool loaded = false;;) {
            const RequestNumber number = keeper_.next_number();
            Exchange exchange = keeper_.pipeline.request(
                acquire_all_command(question.tenures, text,
                                    keeper_.clock.at(detail::BootClock::now() + limit.remaining()),
                                    question.block, number),
                limit);
            if (exchange.outcome == Exchange::Outcome::answered) {
                if (exchange.reply.is_error()) {
                    const auto kind = classify(exchange.reply.text).kind;
                    // The next one brings the body along.
                    if (kind == ServerErrorKind::load_script && !std::exchange(loaded, true)) {
                        continue;
                    }
                    return {};
                }
                std::optional<AcquireAllAnswer> answer;
                if (number.take_from(exchange.reply)) {
                    answer = read_acquire_all(exchange.reply, question.tenures.size());
                }
                if (answer) {
                    keeper_.clock.learn(answer->time, exchange.sent);
                    question.sent = exchange.sent;
                    return answer;
                }
                keeper_.pipeline.disconnect(exchange.connection);
            }
            failure =
                keeper_.endpoint.to_string() + ": " +
                (exchange.error.empty() ? "the server answered with " + exchange.reply.describe()
                                        : exchange.error);
            if (exchange.outcome != Exchange::Outcome::not_sent) {
                for (const auto& tenure : question.tenures)
                    tenure->mark_doubtful();
            }
            return {};
        }
    }

    Claimant& claimant_;
    LocalTurns& turns_;
    KeeperState& keeper_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP
