// SPDX-License-Identifier: MIT
//
// The keeper's own requests: renewals that are due, those of many locks in one, and releases that
// are repeated. Sends them, and makes of what was answered that a task is done, is due again, or
// that a lease is lost. A task without an answer is due again by itself (schedule.hpp).

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_DUTIES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_DUTIES_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/agenda.hpp>
#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/keeper_base.hpp>
#include <codomyrmex/concurrency/redis/releases.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Requires of who makes it: that it lives as long as the pipeline is used.
/// Threads: of the keeper's alone, but for the counts.
class Duties {
  public:
    Duties(KeeperBase& base, Releases& releases) : base_{base}, releases_{releases} {}

    /// Sends `work` in as few requests as will do; its answers come to the agenda.
    void send_all(std::vector<Task> work) {
        for (std::vector<Task>& tasks : in_requests(std::move(work), together_)) {
            send(std::move(tasks));
        }
    }

    /// Sends `tasks` in one request. Requires: there is one, or they are renewals of locks.
    void send(std::vector<Task> tasks) {
        const BootTime now = detail::BootClock::now();
        const RequestNumber number = base_.next_number();
        const Tenure& first = *tasks.front().tenure;
        Command command;
        Deadline deadline = Deadline::never();
        if (tasks.front().duty == Duty::renew) {
            // A renewal that comes after the end would only keep others waiting.
            BootTime end = first.deadline();
            for (const Task& task : tasks) {
                // But for one that was given back meanwhile.
                const BootTime its = task.tenure->deadline();
                if (end <= now || (its > now && its < end)) end = its;
            }
            const std::string last = base_.clock.at(end);
            command = tasks.size() == 1 ? renew_command(first, last, number)
                                        : renew_all_command(tenures_of(tasks), last, number);
            deadline = Deadline::after(end - now);
        } else {
            command = release_command(first, base_.name.prefix, number);
            deadline = Deadline::after(base_.options.response_timeout);
        }
        owed_.fetch_add(1);
        base_.pipeline.send(
            std::move(command), deadline, false,
            [this, tasks = std::move(tasks), number](Exchange& exchange) mutable {
                owed_.fetch_sub(1);
                base_.agenda.answered({std::move(tasks), number, std::move(exchange)});
            },
            true);
    }

    /// Does what follows from an answer to send(). Returns: whether something was sent again.
    bool settle(TasksAnswer& answer) {
        std::vector<Task>& tasks = answer.tasks;
        Exchange& exchange = answer.exchange;
        if (exchange.outcome != Exchange::Outcome::answered) {
            again_later(tasks, exchange.error);
            return false;
        }
        if (exchange.reply.is_error()) {
            const ServerErrorKind kind = classify(exchange.reply.text).kind;
            if (kind == ServerErrorKind::load_script) {
                // The first of those that say so brings the body along.
                send(std::move(tasks));
                return true;
            }
            if (kind == ServerErrorKind::rediscover) {
                base_.pipeline.disconnect(exchange.connection);
            }
            const bool passes = kind == ServerErrorKind::retry ||
                                kind == ServerErrorKind::rediscover ||
                                kind == ServerErrorKind::unknown_outcome;
            if (!passes && tasks.size() > 1) {
                // The server takes them one by one only, as where their keys may lie apart.
                together_ = 1;
                send_all(std::move(tasks));
                return true;
            }
            again_later(tasks, exchange.reply.text);
            return false;
        }
        // A reply of another request: which belongs to which is anybody's guess from here on.
        if (!answer.number.take_from(exchange.reply) || !settle(tasks, exchange)) {
            base_.pipeline.disconnect(exchange.connection);
            again_later(tasks, "the server answered with " + exchange.reply.describe());
        }
        return false;
    }

    /// How many requests are not answered yet.
    [[nodiscard]] std::size_t owed() const noexcept { return owed_.load(); }
    /// How many renewals succeeded.
    [[nodiscard]] std::uint64_t renewals() const noexcept { return renewals_.load(); }

  private:
    // Returns: false for an answer that is none.
    bool settle(const std::vector<Task>& tasks, const Exchange& exchange) {
        if (tasks.front().duty == Duty::release) {
            settle_release(tasks.front(), exchange);
            return true;
        }
        std::vector<RenewAnswer> answers;
        if (tasks.size() > 1) {
            answers = read_renew_all(exchange.reply, tasks.size());
        } else if (const auto answer = read_renew(exchange.reply)) {
            answers.push_back(*answer);
        }
        if (answers.empty()) return false;
        base_.clock.learn(answers.front().time, exchange.sent);
        for (std::size_t i = 0; i < tasks.size(); ++i)
            settle_renewal(tasks[i], answers[i].outcome, exchange.sent);
        return true;
    }

    void settle_renewal(const Task& task, RenewAnswer::Outcome outcome, BootTime sent) {
        using Outcome = RenewAnswer::Outcome;
        const BootTime now = detail::BootClock::now();
        const char* reason = KeeperBase::not_ours;
        {
            const Agenda::Guard guard = base_.agenda.lock();
            Schedule& schedule = base_.agenda.schedule;
            if (!schedule.contains(*task.tenure, task.duty)) return;
            if (outcome == Outcome::late) {
                // By a wrong idea of the server's clock, which is right now.
                schedule.postpone(*task.tenure, now);
                return;
            }
            if (outcome != Outcome::lost) {
                reason = KeeperBase::ran_out;
                if (task.tenure->renewed(sent, now)) {
                    renewals_.fetch_add(1);
                    schedule.move(*task.tenure, task.tenure->renewal_due(sent));
                    reason = nullptr;
                }
            }
            if (reason != nullptr) schedule.remove(*task.tenure);
        }
        if (reason != nullptr) return base_.lose(task.tenure, reason);
        if (outcome == Outcome::wanted) {
            releases_.give_up_retained(std::string{task.tenure->identity().keys.main()});
        }
    }

    void settle_release(const Task& task, const Exchange& exchange) {
        const std::optional<ReleaseAnswer> answer = read_release(exchange.reply);
        const Agenda::Guard guard = base_.agenda.lock();
        Schedule& schedule = base_.agenda.schedule;
        if (!schedule.contains(*task.tenure, task.duty)) return;
        const bool ours = answer && answer->ours;
        const bool more = answer && answer->more;
        const BootTime now = detail::BootClock::now();
        if (more || !answer) {
            schedule.postpone(*task.tenure, more ? now : now + std::chrono::seconds{1});
        } else if (ours || !task.to_the_end) {
            schedule.remove(*task.tenure);
        } else {
            schedule.postpone(*task.tenure, now + std::chrono::seconds{1});
        }
    }

    void again_later(const std::vector<Task>& tasks, const std::string& why) {
        bool tell = false;
        {
            const Agenda::Guard guard = base_.agenda.lock();
            const BootTime now = detail::BootClock::now();
            const BootTime no_sooner = now + std::chrono::milliseconds{100};
            for (const Task& task : tasks) {
                const BootTime due = task.tenure->retry_due(now);
                base_.agenda.schedule.postpone(
                    *task.tenure, task.duty == Duty::renew ? due : std::max(due, no_sooner));
            }
            // Told once, not for each lease.
            tell = !base_.agenda.stopping() && now >= quiet_until_;
            if (tell) quiet_until_ = now + std::chrono::milliseconds{100};
        }
        if (!tell) return;
        const bool refused = classify(why).kind == ServerErrorKind::refused && !why.empty() &&
                             why.front() >= 'A' && why.front() <= 'Z';
        base_.events->error(refused ? LockErrc::backend_refused : LockErrc::backend_unavailable,
                            base_.endpoint.to_string() + ": " + why + "; will be tried again");
    }

    KeeperBase& base_;
    Releases& releases_;
    std::atomic<std::size_t> owed_{0};
    std::atomic<std::uint64_t> renewals_{0};
    std::size_t together_ = KeeperBase::most_together;  // how many are renewed in one request
    BootTime quiet_until_{};                            // no failure is told before
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_DUTIES_HPP
