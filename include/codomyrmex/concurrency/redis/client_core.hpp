// SPDX-License-Identifier: MIT
//
// The one shared thing behind all copies of a RedisClient: how what it holds is renewed and given
// back, and the way to each of the parts that acquire: locks by turns (local_turns.hpp), several
// locks at once (batch.hpp), permits (permits.hpp). Under all of them are the connection
// (pipeline.hpp) and the thread that renews and listens (keeper.hpp). Not for users; client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/batch.hpp>
#include <codomyrmex/concurrency/redis/caller.hpp>
#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/local_turns.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/permits.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for the destructor.
class ClientCore {
  public:
    /// Throws: std::exception if the system has no random numbers or no files.
    ClientCore(const Endpoint& endpoint, const ClientOptions& options)
        : events_{std::make_shared<Events>(options.hooks)},
          keeper_{std::make_shared<KeeperState>(endpoint, options,
                                                make_process_name(options.prefix), events_)} {}
    ClientCore(const ClientCore&) = delete;
    ClientCore& operator=(const ClientCore&) = delete;

    /// Ends the background thread, after at most 120 ms for releases that are unanswered.
    ~ClientCore() { keeper_->stop(); }

    /// Whether this is the child of the process that made it; there it must not be touched, but for
    /// close_in_child().
    [[nodiscard]] bool forked() const noexcept { return keeper_->mark->in_child(); }
    void close_in_child() noexcept { keeper_->close_in_child(); }

    /// For those who look on (inspect.hpp).
    [[nodiscard]] KeeperState& keeper() noexcept { return *keeper_; }

    [[nodiscard]] ClientStats stats() const {
        ClientStats stats;
        stats.connections = keeper_->pipeline.connections() + keeper_->connections();
        stats.requests = keeper_->pipeline.requests();
        stats.writes = keeper_->pipeline.writes();
        stats.renewals = keeper_->renewals();
        stats.leases_lost = events_->leases_lost();
        stats.leases_watched = keeper_->watched();
        stats.leases_retained = keeper_->queues.retained();
        stats.releases_pending = keeper_->releasing();
        stats.local_handovers = turns_.handovers();
        stats.grants = claimant_.grants();
        stats.hook_exceptions = events_->exceptions();
        return stats;
    }

    void report(LockErrc errc, const std::string& what) noexcept { events_->error(errc, what); }

    /// The connection and what belongs to it, for a quorum, which asks many at once.
    [[nodiscard]] const std::shared_ptr<KeeperState>& link() const noexcept { return keeper_; }

    void ping(Deadline deadline) {
        const Answer answer = caller_.run(
            deadline,
            [](BootTime, RequestNumber number) {
                return encode({"PING", number.text()});
            },
            [](const Reply&) { return true; });
        if (!answer.ok) throw caller_.failure(answer, "no answer to a ping");
    }

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained: another was seen to
    /// hold it, or to be before.
    /// Throws: LockError.
    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        if (identity->kind != PrimitiveKind::lock) return permits_.acquire(identity, wait);
        return turns_.acquire(identity, wait);
    }

    /// As Batch::try_all().
    [[nodiscard]] TriedAll try_acquire_all(
        const std::vector<std::shared_ptr<const LockIdentity>>& identities, Deadline deadline) {
        return Batch{claimant_, turns_}.try_all(identities, deadline);
    }

    /// While what this gives lives, the locks that this thread gives back go in one request.
    [[nodiscard]] std::unique_ptr<ReleasesTogether> together() {
        return std::make_unique<ReleasesTogether>(*keeper_);
    }

    /// Gives `hold` back without waiting for the server.
    /// Returns: lost if that is known already; else ours.
    Released give_back(const std::shared_ptr<Hold>& hold) noexcept {
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        const LeaveLine leave{keeper_->queues, tenure->identity().keys.main()};
        try {
            const BootTime now = detail::BootClock::now();
            const bool valid = hold->valid_at(now) && !hold->forked();
            if (!valid && hold->lose()) {
                events_->lost({hold->name(), hold->fence(), "it had run out at release"});
            }
            const bool ours = hold->end() && valid;
            tenure->used_by(nullptr);
            if (tenure->identity().kind == PrimitiveKind::lock) {
                turns_.pass_on(tenure, hold, ours, now);
            } else {
                keeper_->release(tenure, ours ? hold : nullptr);
            }
            return ours ? Released::ours : Released::lost;
        } catch (const std::exception& error) {
            // Out of memory: the lease runs out, and who stands in line goes on.
            keeper_->unwatch(*tenure);
            keeper_->queues.lost(tenure);
            report(LockErrc::unknown_outcome, error.what());
            return Released::unknown;
        }
    }

    /// Gives `hold` back to the server and waits for its word.
    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        if (hold->forked()) return Released::lost;
        if (!hold->valid()) {
            (void)give_back(hold);
            return Released::lost;
        }
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        const LeaveLine leave{keeper_->queues, tenure->identity().keys.main()};
        const GiveUp give_up{keeper_->queues, tenure};
        // First no more renewals, then the release: none may come after it.
        keeper_->unwatch(*tenure);
        std::optional<ReleaseAnswer> word;
        const Answer answer = caller_.run(
            caller_.limit(deadline),
            [&](BootTime, RequestNumber number) {
                return release_command(*tenure, keeper_->name.prefix, number);
            },
            [&](const Reply& reply) {
                word = read_release(reply);
                return word.has_value();
            });
        Released released = Released::unknown;
        if (answer.ok && word->ours) released = Released::ours;
        if (answer.ok && !word->ours && !answer.repeated) released = Released::lost;
        if (released == Released::lost && hold->lose()) {
            events_->lost({hold->name(), hold->fence(), KeeperState::not_ours});
        }
        hold->end();
        tenure->close();
        tenure->used_by(nullptr);
        if (!answer.ok || tenure->doubtful() || word->more) {
            tenure->doubtful() ? keeper_->cancel_later(tenure) : keeper_->release_later(tenure);
        }
        if (!answer.ok) {
            events_->error(LockErrc::unknown_outcome,
                           keeper_->endpoint.to_string() + ": the release of '" + hold->name() +
                               "' is unanswered (" + answer.retry.reason() +
                               "); it is repeated in the background");
        }
        return released;
    }

    [[nodiscard]] bool renew(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        if (!hold->valid()) return false;
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        std::optional<RenewAnswer> renewal;
        for (;;) {
            const Answer answer = caller_.run(
                caller_.limit(deadline),
                [&](BootTime, RequestNumber number) {
                    return renew_command(*tenure, keeper_->clock.at(tenure->deadline()), number);
                },
                [&](const Reply& reply) {
                    renewal = read_renew(reply);
                    return renewal.has_value();
                });
            if (!answer.ok) throw caller_.failure(answer, "cannot renew '" + hold->name() + '\'');
            keeper_->clock.learn(renewal->time, answer.sent);
            if (renewal->outcome == RenewAnswer::Outcome::late && hold->valid()) continue;
            if (renewal->outcome == RenewAnswer::Outcome::renewed ||
                renewal->outcome == RenewAnswer::Outcome::wanted) {
                if (tenure->renewed(answer.sent, detail::BootClock::now())) return hold->held();
            }
            break;
        }
        keeper_->unwatch(*tenure);
        keeper_->lose(tenure, KeeperState::not_ours);
        return false;
    }

    /// What only those have who can be many.
    [[nodiscard]] Permits& permits() noexcept { return permits_; }

  private:
    // What must be done whatever happens.
    struct LeaveLine {
        LocalQueues& queues;
        const std::string_view key;
        LeaveLine(LocalQueues& of, std::string_view name) noexcept : queues{of}, key{name} {}
        LeaveLine(const LeaveLine&) = delete;
        LeaveLine& operator=(const LeaveLine&) = delete;
        ~LeaveLine() { queues.leave(key); }
    };
    struct GiveUp {
        LocalQueues& queues;
        const std::shared_ptr<Tenure>& tenure;
        GiveUp(LocalQueues& of, const std::shared_ptr<Tenure>& what) noexcept
            : queues{of}, tenure{what} {}
        GiveUp(const GiveUp&) = delete;
        GiveUp& operator=(const GiveUp&) = delete;
        ~GiveUp() { queues.lost(tenure); }
    };

    const std::shared_ptr<Events> events_;
    const std::shared_ptr<KeeperState> keeper_;
    Caller caller_{*keeper_};
    Claimant claimant_{*keeper_};
    LocalTurns turns_{claimant_};
    Permits permits_{claimant_};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
