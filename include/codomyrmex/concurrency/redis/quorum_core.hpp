// SPDX-License-Identifier: MIT
//
// The one shared thing behind all copies of a QuorumClient in a process: how a lease over several
// independent masters is acquired, renewed and given back. After Redlock (redis.io/docs/latest/
// develop/use/patterns/distributed-locks), with fencing tokens, renewals that repair, and rounds
// that end as soon as they are decided. Not for users; quorum_client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/fork_mark.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder_text.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_commands.hpp>
#include <codomyrmex/concurrency/redis/quorum_keeper.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/quorum_round.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for the destructor.
class QuorumCore {
  public:
    /// Requires: the clients of `links` outlive it.
    /// Throws: std::exception if the system has no random numbers or no files.
    QuorumCore(const std::vector<std::shared_ptr<KeeperState>>& links, const QuorumOptions& options)
        : id_{detail::random_hex_128()},
          process_{process_text()},
          keeper_{std::make_shared<QuorumKeeper>(links, options,
                                                 std::make_shared<Events>(options.hooks))} {}
    QuorumCore(const QuorumCore&) = delete;
    QuorumCore& operator=(const QuorumCore&) = delete;
    ~QuorumCore() { keeper_->stop(); }

    /// Whether this is the child of the process that made it; there it must not be touched.
    [[nodiscard]] bool forked() const noexcept { return mark_->in_child(); }

    [[nodiscard]] QuorumStats stats() const { return keeper_->stats(); }
    /// Whether a request to that node has not ended.
    [[nodiscard]] bool owes(std::size_t node) const { return keeper_->owes(node); }

    void report(LockErrc errc, const std::string& what) noexcept {
        keeper_->events->error(errc, what);
    }

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained: another was seen to
    /// hold it.
    /// Throws: LockError.
    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        const std::string text = holder_text(process_, identity->options.label);
        const DeskLoan desk{*keeper_};
        const std::uint64_t seed = std::hash<std::string>{}(new_token());
        RetryPause pauses{keeper_->options.max_retry_delay, seed};
        Deadline reach = reach_of(wait);
        bool contended = false;
        std::optional<Standing> standing;
        for (;;) {
            const BootTime began = detail::BootClock::now();
            Attempt attempt{*keeper_, desk.desk,
                            std::make_shared<QuorumTenure>(identity, new_token(), text, mark_)};
            switch (attempt.run(round_limit(wait, reach))) {
                case QuorumRound::State::won:
                    return attempt.take(contended);
                case QuorumRound::State::refused:
                    throw LockError(attempt.refusal(),
                                    "cannot acquire '" + identity->name +
                                        "', a majority refuses: " + attempt.reasons());
                case QuorumRound::State::contended:
                    contended = true;
                    if (!wait.for_holders || over(wait)) return nullptr;
                    reach = reach_of(wait);
                    break;
                case QuorumRound::State::open:
                case QuorumRound::State::unreachable:
                    contended = contended || attempt.seen_held();
                    if (wait.for_holders && wait.stop.stop_requested()) return nullptr;
                    if (!reach.expired()) break;
                    // Held when last seen, and then the time was over: that is no failure.
                    if (contended && !wait.deadline.is_never()) return nullptr;
                    throw LockError(LockErrc::backend_unavailable,
                                    "cannot acquire '" + identity->name +
                                        "', no majority answers: " + attempt.reasons());
            }
            // Whoever waits gives back first what it had.
            attempt.give_up();
            if (!standing) standing.emplace(*keeper_, identity->lock_key);
            const auto took = detail::BootClock::now() - began;
            standing->sleep(pauses.next(took), std::min(wait.deadline, reach), wait.stop);
            if (wait.for_holders && contended && over(wait)) return nullptr;
        }
    }

    /// Gives `hold` back without waiting for the nodes.
    /// Returns: lost if that is known already; else ours.
    Released give_back(const std::shared_ptr<Hold>& hold) noexcept {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        try {
            const bool ours = end(hold);
            std::shared_ptr<QuorumKeeper::Release> release;
            if (ours) release = make_release(hold, nullptr);
            keeper_->release(tenure, release);
            keeper_->wake_waiter(tenure->identity().lock_key);
            return ours ? Released::ours : Released::lost;
        } catch (const std::exception& error) {
            // Out of memory: the lease runs out.
            report(LockErrc::unknown_outcome, error.what());
            return Released::unknown;
        }
    }

    /// Gives `hold` back and waits for the word of a majority.
    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        // Past its end there is nothing left to be answered.
        const auto left = std::max<std::chrono::nanoseconds>(
            std::min<std::chrono::nanoseconds>(hold->remaining(), keeper_->options.patience),
            keeper_->options.node_timeout);
        const Deadline limit = std::min(deadline, Deadline::after(left));
        if (!end(hold)) {
            keeper_->release(tenure, nullptr);
            return Released::lost;
        }
        const DeskLoan desk{*keeper_};
        const auto release = make_release(hold, desk.desk);
        keeper_->release(tenure, release);
        keeper_->wake_waiter(tenure->identity().lock_key);
        keeper_->await(*release, limit);
        Released released = Released::unknown;
        {
            const auto guard = keeper_->lock();
            release->closed = true;
            if (release->content.won()) released = Released::ours;
            if (release->content.denied()) released = Released::lost;
        }
        if (released == Released::lost) {
            keeper_->events->lost({hold->name(), hold->fence(), QuorumKeeper::not_ours});
        }
        return released;
    }

    /// Renews a lease now. Returns: false if it was lost. Throws: LockError(backend_unavailable) if
    /// no majority answers.
    [[nodiscard]] bool renew(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        const auto tenure = std::static_pointer_cast<QuorumTenure>(hold->tenure());
        const Deadline limit =
            std::min(deadline.is_never() ? Deadline::after(keeper_->options.patience) : deadline,
                     Deadline::after(hold->remaining()));
        const DeskLoan desk{*keeper_};
        RetryPause pauses{keeper_->options.max_retry_delay, 1};
        for (;;) {
            if (!hold->valid()) {
                keeper_->lose(tenure, QuorumKeeper::ran_out);
                return false;
            }
            const auto renewal = std::make_shared<QuorumKeeper::Renewal>(
                QuorumKeeper::Renewal{{QuorumVotes{keeper_->size()}, desk.desk}});
            renewal->tenure = tenure;
            keeper_->send_renewals(renewal, false);
            keeper_->await(*renewal,
                           std::min(limit, Deadline::after(keeper_->options.node_timeout)));
            bool won = false;
            bool denied = false;
            std::string trouble;
            {
                const auto guard = keeper_->lock();
                renewal->closed = true;
                won = renewal->content.won();
                denied = renewal->content.denied();
                trouble = renewal->trouble;
            }
            if (won && tenure->renewed(renewal->sent, detail::BootClock::now())) {
                return hold->held();
            }
            if (won || denied) {
                keeper_->lose(tenure, won ? QuorumKeeper::ran_out : QuorumKeeper::not_ours);
                return false;
            }
            if (limit.expired() && hold->valid()) {
                throw LockError(LockErrc::backend_unavailable,
                                "cannot renew '" + hold->name() + "', no majority answers: " +
                                    (trouble.empty() ? "no reply in time" : trouble));
            }
            QuorumKeeper::Waiter waiter{tenure->identity().lock_key};
            keeper_->sleep(waiter, pauses.next(std::chrono::nanoseconds::zero()), limit);
        }
    }

  private:
    // How far the fencing token that is wished for leads what is known of the nodes' clocks: more
    // than the way to a node changes from one request to the next.
    static constexpr std::chrono::milliseconds wish_lead{5};

    struct DeskLoan {
        explicit DeskLoan(QuorumKeeper& of) : keeper{of}, desk{of.borrow_desk()} {}
        DeskLoan(const DeskLoan&) = delete;
        DeskLoan& operator=(const DeskLoan&) = delete;
        ~DeskLoan() { keeper.return_desk(desk); }
        QuorumKeeper& keeper;
        const std::shared_ptr<QuorumKeeper::Desk> desk;
    };

    // Among those who wait for another try.
    class Standing {
      public:
        Standing(QuorumKeeper& keeper, const std::string& key) : keeper_{keeper}, waiter_{key} {
            keeper_.enter(waiter_);
        }
        Standing(const Standing&) = delete;
        Standing& operator=(const Standing&) = delete;
        ~Standing() { keeper_.leave(waiter_); }

        void sleep(std::chrono::nanoseconds pause, Deadline deadline, const std::stop_token& stop) {
            const std::stop_callback wake{
                stop, [this] { waiter_.state.set(QuorumKeeper::Waiter::awake); }};
            keeper_.sleep(waiter_, pause, deadline);
        }

      private:
        QuorumKeeper& keeper_;
        QuorumKeeper::Waiter waiter_;
    };

    // One round: all nodes are asked at once, under one token. Unless it was won and taken, what it
    // obtained, or may yet obtain, is given back.
    class Attempt {
      public:
        Attempt(QuorumKeeper& keeper, std::shared_ptr<QuorumKeeper::Desk> desk,
                std::shared_ptr<QuorumTenure> tenure)
            : keeper_{keeper},
              tenure_{std::move(tenure)},
              ballot_{std::make_shared<Ballot>(
                  Ballot{QuorumRound{keeper.size(), detail::BootClock::now(), tenure_->ttl()},
                         std::move(desk)})} {}
        Attempt(const Attempt&) = delete;
        Attempt& operator=(const Attempt&) = delete;
        ~Attempt() { give_up(); }

        /// Returns: what came of it, not `open`.
        [[nodiscard]] QuorumRound::State run(Deadline limit) {
            ++keeper_.rounds;
            const BootTime now = detail::BootClock::now();
            const std::string wish = wished_fence(now);
            for (std::size_t number = 0; number < keeper_.size(); ++number)
                ask(number, now, wish);
            keeper_.await(*ballot_, limit);
            bool agreed = false;
            {
                const auto guard = keeper_.lock();
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

        /// Requires: run() returned `won`.
        /// Throws: LockError(validity_exhausted) if it came too late.
        [[nodiscard]] std::shared_ptr<Hold> take(bool contended) {
            // Made before, for what may fail must not follow the grant.
            if (!tenure_->granted(grant_, detail::BootClock::now())) {
                throw LockError(LockErrc::validity_exhausted,
                                "'" + tenure_->name() +
                                    "' was acquired, but the answers took longer than its lease "
                                    "of " +
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

        void give_up() noexcept {
            if (std::exchange(taken_, true)) return;
            try {
                keeper_.release(tenure_, nullptr);
            } catch (const std::exception&) {
                // Out of memory: the keys run out.
            }
        }

        [[nodiscard]] bool seen_held() const { return ballot_->content.seen_held(); }
        [[nodiscard]] LockErrc refusal() const { return ballot_->content.refusal(); }
        [[nodiscard]] std::string reasons() const {
            if (!write_back_.empty()) return write_back_;
            return ballot_->content.reasons(
                [this](std::size_t number) { return keeper_.node(number).name; });
        }

      private:
        using Ballot = QuorumKeeper::Ballot<QuorumRound>;

        [[nodiscard]] std::chrono::nanoseconds min_uptime() const {
            return keeper_.options.min_uptime.value_or(tenure_->identity().options.ttl);
        }

        // The same for all nodes, so that they draw the same: ahead of all clocks.
        [[nodiscard]] std::string wished_fence(BootTime now) {
            std::string wish;
            for (std::size_t number = 0; number < keeper_.size(); ++number)
                wish = std::max(wish, keeper_.node(number).link.clock.at(now + wish_lead));
            return wish;
        }

        void ask(std::size_t number, BootTime now, const std::string& wish) {
            QuorumKeeper::Node& node = keeper_.node(number);
            bool learn = false;
            {
                const auto guard = keeper_.lock();
                if (node.memory.silent(now, keeper_.options.node_timeout)) {
                    return ballot_->content.unavailable(number, node.why_silent());
                }
                learn = min_uptime() > min_uptime().zero() &&
                        node.memory.uptime_unknown(node.link.pipeline.connections());
            }
            const Deadline never = Deadline::never();
            if (learn) {
                keeper_.send(
                    number, encode({"INFO", "server"}), never, false,
                    [&node, ballot = ballot_, number](Exchange& exchange) {
                        learn_uptime(node, *ballot, number, exchange);
                    },
                    true);
            }
            tenure_->asked(number);
            const std::string not_after = node.link.clock.at(now + keeper_.options.node_timeout);
            keeper_.send(number,
                         quorum_acquire_command(node.link.how_to_call(quorum_acquire_script),
                                                *tenure_, not_after, wish),
                         never, false,
                         [&keeper = keeper_, ballot = ballot_, tenure = tenure_, number,
                          need = min_uptime()](Exchange& exchange) {
                             count(keeper, *ballot, *tenure, number, need, exchange);
                             if (ballot->content.decided())
                                 QuorumKeeper::notify(ballot->desk.get());
                         });
        }

        // --- On whatever thread, under the keeper's lock.

        static void learn_uptime(QuorumKeeper::Node& node, Ballot& ballot, std::size_t number,
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

        static void count(QuorumKeeper& keeper, Ballot& ballot, QuorumTenure& tenure,
                          std::size_t number, std::chrono::nanoseconds need,
                          const Exchange& exchange) {
            QuorumKeeper::Node& node = keeper.node(number);
            // It may be executed when the lease is over, and is released until that is out of date.
            if (exchange.outcome == Exchange::Outcome::unknown) tenure.mark_doubtful_at(number);
            if (exchange.outcome == Exchange::Outcome::not_sent) tenure.not_asked(number);
            if (exchange.outcome != Exchange::Outcome::answered) {
                if (!ballot.closed) ballot.content.unavailable(number, exchange.error);
                return;
            }
            if (exchange.reply.is_error()) {
                const LockErrc errc = keeper.learn_error(node, exchange, quorum_acquire_script);
                const bool cut =
                    classify(exchange.reply.text).kind == ServerErrorKind::unknown_outcome;
                if (cut) tenure.mark_doubtful_at(number);
                if (!ballot.closed) ballot.content.unavailable(number, exchange.reply.text, errc);
                return;
            }
            const auto answer = read_quorum_acquire(exchange.reply);
            if (!answer) {
                node.to_drop = exchange.connection;
                tenure.mark_doubtful_at(number);
                if (!ballot.closed) {
                    ballot.content.unavailable(
                        number, "the server answered with " + exchange.reply.describe());
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

        // Why a node's grant does not count: after a restart it may have forgotten another. Empty
        // if it counts. What answers over one connection is one run of the server.
        [[nodiscard]] static std::string no_vote(const QuorumKeeper::Node& node,
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

        // ---

        // A second trip, where the nodes drew different fences.
        [[nodiscard]] bool write_back() {
            ++keeper_.write_backs;
            const auto ballot = std::make_shared<QuorumKeeper::Ballot<QuorumVotes>>(
                QuorumKeeper::Ballot<QuorumVotes>{QuorumVotes{keeper_.size()}, ballot_->desk});
            for (std::size_t number = 0; number < keeper_.size(); ++number) {
                if (!tenure_->was_asked(number) ||
                    keeper_.silent(number, detail::BootClock::now())) {
                    const auto guard = keeper_.lock();
                    ballot->content.vote(number, QuorumVotes::Vote::none);
                    continue;
                }
                QuorumKeeper::Node& node = keeper_.node(number);
                keeper_.send(
                    number,
                    quorum_raise_command(node.link.how_to_call(quorum_raise_script), *tenure_,
                                         grant_.fence, node.link.clock.at(grant_.until())),
                    Deadline::never(), false,
                    [&keeper = keeper_, ballot, number, need = min_uptime()](Exchange& exchange) {
                        ballot->content.vote(number, written_back(keeper, number, need, exchange));
                        if (ballot->content.decided()) QuorumKeeper::notify(ballot->desk.get());
                    });
            }
            keeper_.await(*ballot, Deadline::after(keeper_.options.node_timeout));
            const auto guard = keeper_.lock();
            if (ballot->content.won()) return true;
            write_back_ = "no majority took the fencing token in time";
            return false;
        }

        [[nodiscard]] static QuorumVotes::Vote written_back(QuorumKeeper& keeper,
                                                            std::size_t number,
                                                            std::chrono::nanoseconds need,
                                                            const Exchange& exchange) {
            using Vote = QuorumVotes::Vote;
            QuorumKeeper::Node& node = keeper.node(number);
            if (exchange.outcome != Exchange::Outcome::answered) return Vote::none;
            if (exchange.reply.is_error()) {
                keeper.learn_error(node, exchange, quorum_raise_script);
                return Vote::none;
            }
            const auto answer = read_quorum_step(exchange.reply);
            if (!answer) {
                node.to_drop = exchange.connection;
                return Vote::none;
            }
            node.link.clock.learn(answer->time, exchange.sent);
            const bool counts = answer->kind == 1 && no_vote(node, exchange, need).empty();
            return counts ? Vote::yes : Vote::none;
        }

        QuorumKeeper& keeper_;
        const std::shared_ptr<QuorumTenure> tenure_;
        const std::shared_ptr<Ballot> ballot_;
        Grant grant_{};
        std::string write_back_;
        bool taken_ = false;
    };

    [[nodiscard]] static bool over(const Wait& wait) noexcept {
        return wait.deadline.expired() || wait.stop.stop_requested();
    }

    // Until when a majority must have been reached: the caller's deadline; `patience` for a caller
    // without one; five times what a node may take for one who does not wait.
    [[nodiscard]] Deadline reach_of(const Wait& wait) const {
        if (!wait.for_holders) return Deadline::after(keeper_->options.node_timeout * 5);
        if (wait.deadline.is_never()) return Deadline::after(keeper_->options.patience);
        return wait.deadline;
    }

    [[nodiscard]] Deadline round_limit(const Wait& wait, Deadline reach) const {
        const Deadline round = Deadline::after(keeper_->options.node_timeout);
        return wait.deadline.is_never() ? round : std::min(round, reach);
    }

    // Returns: whether it was still valid. It is ended, and a loss is told.
    [[nodiscard]] bool end(const std::shared_ptr<Hold>& hold) {
        const bool valid = hold->valid();
        if (!valid && hold->lose()) {
            keeper_->events->lost({hold->name(), hold->fence(), "it had run out at release"});
        }
        const bool ours = hold->end() && valid;
        hold->tenure()->used_by(nullptr);
        return ours;
    }

    [[nodiscard]] std::shared_ptr<QuorumKeeper::Release> make_release(
        const std::shared_ptr<Hold>& hold, std::shared_ptr<QuorumKeeper::Desk> desk) const {
        return std::make_shared<QuorumKeeper::Release>(
            QuorumKeeper::Release{{QuorumVotes{keeper_->size()}, std::move(desk)}, hold});
    }

    [[nodiscard]] std::string new_token() {
        return id_ + '-' + std::to_string(counter_.fetch_add(1, std::memory_order_relaxed));
    }

    const std::shared_ptr<const detail::ForkMark> mark_ = std::make_shared<detail::ForkMark>();
    const std::string id_;
    const std::string process_;  // for people
    std::atomic<std::uint64_t> counter_{1};
    const std::shared_ptr<QuorumKeeper> keeper_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_CORE_HPP
