// SPDX-License-Identifier: MIT
//
// Several locks that are tried at once, in one write and one round trip, without waiting for a
// holder. Which of them to wait for, should one be held, is said by lock_guards.hpp.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/local_queue.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/local_turns.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/request_queue.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <condition_variable>
#include <cstddef>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What came of one of several locks that were tried together.
struct Tried {
    std::shared_ptr<Hold> hold{};  ///< null: not obtained
    bool failed = false;           ///< whether another holds it is not known
};

/// Used by one thread.
class Batch {
  public:
    /// Requires: both outlive it; `turns` are of `claimant`.
    Batch(Claimant& claimant, LocalTurns& turns) noexcept : claimant_{claimant}, turns_{turns} {}

    /// Tries all at once, without waiting for a holder: one write, one round trip.
    /// Requires: `identities` are of locks, and differ. Throws: std::bad_alloc.
    [[nodiscard]] std::vector<Tried> try_all(
        const std::vector<std::shared_ptr<const LockIdentity>>& identities) {
        KeeperState& keeper = claimant_.keeper();
        std::vector<Tried> results(identities.size());
        // Ends what is not obtained, whatever happens. Declared before what the replies go to.
        std::vector<std::unique_ptr<Attempt>> attempts;
        const Deadline limit = Deadline::after(keeper.options.response_timeout);
        const auto replies = std::make_shared<Replies>(identities.size());
        std::size_t asking = 0;
        {
            const Pipeline::Cork cork{keeper.pipeline};
            for (const auto& identity : identities) {
                attempts.push_back(std::make_unique<Attempt>(*this, identity));
                if (!attempts.back()->come()) continue;
                attempts.back()->send(replies, attempts.size() - 1, limit);
                ++asking;
            }
            // In the same write; and whoever waits for this reply reads the others'.
            if (asking != 0) {
                const RequestNumber number = keeper.next_number();
                static_cast<void>(keeper.pipeline.request(encode({"PING", number.text()}), limit));
            }
        }
        for (std::size_t i = 0; i < attempts.size(); ++i) {
            std::optional<Exchange> exchange;
            if (attempts[i]->asked()) exchange = replies->take(i, limit);
            results[i] = attempts[i]->end(std::move(exchange));
        }
        return results;
    }

  private:
    // Where their replies come to.
    class Replies {
      public:
        explicit Replies(std::size_t count) : exchanges_(count) {}
        void put(std::size_t number, Exchange exchange) {
            const std::lock_guard guard{mutex_};
            exchanges_[number] = std::move(exchange);
            changed_.notify_all();
        }
        // Returns: nothing if it has not come by the deadline.
        [[nodiscard]] std::optional<Exchange> take(std::size_t number, Deadline deadline) {
            std::unique_lock guard{mutex_};
            changed_.wait_until(guard, deadline.time(),
                                [&] { return exchanges_[number].has_value(); });
            return std::exchange(exchanges_[number], std::nullopt);
        }

      private:
        std::mutex mutex_;
        std::condition_variable changed_;
        std::vector<std::optional<Exchange>> exchanges_;
    };

    // One of the locks.
    class Attempt {
      public:
        Attempt(Batch& batch, std::shared_ptr<const LockIdentity> identity)
            : claimant_{batch.claimant_},
              turns_{batch.turns_},
              keeper_{claimant_.keeper()},
              identity_{std::move(identity)},
              line_{keeper_.queues.come(identity_->lock_key)} {}
        Attempt(const Attempt&) = delete;
        Attempt& operator=(const Attempt&) = delete;
        ~Attempt() {
            if (sent_ && !obtained_) keeper_.give_up(tenure_);
            if (turn_) {
                std::string failure;
                turns_.asked(*line_, obtained_ ? tenure_ : nullptr, failure,
                             detail::BootClock::now());
            }
            if (!hold_) keeper_.queues.leave(identity_->lock_key);
        }

        // Returns: whether the server is to be asked.
        [[nodiscard]] bool come() {
            LocalWaiter me{*identity_};
            {
                const std::lock_guard guard{line_->mutex};
                const auto entry = line_->queue.enter(me, false, detail::BootClock::now());
                if (entry == LocalQueue::Entry::busy) return false;
                turn_ = entry == LocalQueue::Entry::asks;
            }
            if (!turn_) {
                hold_ = turns_.use(*line_, me.tenure, false);
                return false;
            }
            // One that was retained, and will not do.
            if (me.tenure) keeper_.release(me.tenure, nullptr);
            return true;
        }

        void send(const std::shared_ptr<Replies>& replies, std::size_t place, Deadline limit) {
            tenure_ = claimant_.make_tenure(identity_);
            number_ = keeper_.next_number();
            std::string bytes = acquire_command(
                keeper_.how_to_call(acquire_script), *tenure_, keeper_.name.prefix,
                claimant_.text(*identity_),
                keeper_.clock.at(detail::BootClock::now() + limit.remaining()),
                LocalTurns::block_of(*line_, identity_->options, false), {}, number_);
            sent_ = true;
            keeper_.pipeline.send(
                std::move(bytes), limit, false,
                [replies, place](Exchange& reply) { replies->put(place, std::move(reply)); });
        }
        [[nodiscard]] bool asked() const noexcept { return sent_; }

        [[nodiscard]] Tried end(std::optional<Exchange> exchange) {
            if (!sent_) return {hold_, false};
            std::optional<AcquireAnswer> answer;
            if (exchange && exchange->outcome == Exchange::Outcome::answered) {
                const bool numbered = number_.take_from(exchange->reply);
                if (numbered) answer = read_acquire(exchange->reply);
                if (!answer && !exchange->reply.is_error()) {
                    keeper_.pipeline.disconnect(exchange->connection);
                    tenure_->mark_doubtful();
                }
            } else if (!exchange || exchange->outcome == Exchange::Outcome::unknown) {
                tenure_->mark_doubtful();
            }
            if (!answer) return {nullptr, true};
            keeper_.clock.learn(answer->time, exchange->sent);
            if (answer->outcome != AcquireAnswer::Outcome::granted) {
                sent_ = false;  // and so nothing to give up
                return {nullptr, answer->outcome == AcquireAnswer::Outcome::late};
            }
            const Grant grant{
                answer->fence, answer->fences, exchange->sent, identity_->options.ttl, {}};
            if (!tenure_->granted(grant, detail::BootClock::now())) return {nullptr, true};
            keeper_.watch(tenure_, grant.since);
            obtained_ = true;
            turn_ = false;
            std::string failure;
            turns_.asked(*line_, tenure_, failure, detail::BootClock::now());
            hold_ = turns_.use(*line_, tenure_, false);
            return {hold_, hold_ == nullptr};
        }

      private:
        Claimant& claimant_;
        LocalTurns& turns_;
        KeeperState& keeper_;
        const std::shared_ptr<const LockIdentity> identity_;
        const std::shared_ptr<LocalQueues::Line> line_;
        std::shared_ptr<Tenure> tenure_;
        std::shared_ptr<Hold> hold_;
        RequestNumber number_{0};
        bool turn_ = false;  // it is ours to ask the server
        bool sent_ = false;
        bool obtained_ = false;
    };

    Claimant& claimant_;
    LocalTurns& turns_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_BATCH_HPP
