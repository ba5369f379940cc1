// SPDX-License-Identifier: MIT
//
// What the keeper has to do and when, without I/O and without a clock: leases to renew, in order
// of their due times, and releases to repeat. A task that was taken stays in the schedule, due
// again when it should be looked at if no answer came: that is how an unanswered renewal is
// retried and how a lease whose time is over is found.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP

#include <codomyrmex/concurrency/redis/hold.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

enum class Duty : std::uint8_t { renew, release };

struct Task {
    std::shared_ptr<Hold> hold{};
    Duty duty = Duty::renew;
    BootTime until{};         ///< of a release: when the key is gone without it
    bool to_the_end = false;  ///< of a release: repeated though answered "not yours" (see cancel)
};

/// Not thread-safe.
class Schedule {
  public:
    struct Due {
        std::vector<Task> work{};  ///< to be sent now
        std::vector<Task> lost{};  ///< leases that ran out; no longer in the schedule
        [[nodiscard]] bool empty() const noexcept { return work.empty() && lost.empty(); }
    };

    /// Adds a task, or replaces the one that the same hold has.
    void add(Task task, BootTime due) {
        remove(*task.hold);
        const Hold* const hold = task.hold.get();
        order_.emplace(due, hold);
        entries_.emplace(hold, Entry{std::move(task), due});
    }

    void remove(const Hold& hold) noexcept {
        const auto found = entries_.find(&hold);
        if (found == entries_.end()) return;
        order_.erase({found->second.due, &hold});
        entries_.erase(found);
    }

    /// Makes the task of `hold` due at another time. Requires: it is in the schedule.
    void move(const Hold& hold, BootTime due) {
        Entry& entry = entries_.at(&hold);
        order_.erase({entry.due, &hold});
        entry.due = due;
        order_.emplace(due, &hold);
    }

    /// The same, but no later than its lease runs out. Does nothing if it is not there.
    void postpone(const Hold& hold, BootTime due) {
        const auto found = entries_.find(&hold);
        if (found == entries_.end()) return;
        const bool renew = found->second.task.duty == Duty::renew;
        move(hold, renew ? std::min(due, hold.deadline()) : due);
    }

    [[nodiscard]] bool contains(const Hold& hold, Duty duty) const {
        const auto found = entries_.find(&hold);
        return found != entries_.end() && found->second.task.duty == duty;
    }

    [[nodiscard]] std::size_t count(Duty duty) const {
        return static_cast<std::size_t>(std::ranges::count_if(
            entries_, [duty](const auto& each) { return each.second.task.duty == duty; }));
    }

    /// When take_due() next has something to give; BootTime::max() if never.
    [[nodiscard]] BootTime next_due() const noexcept {
        return order_.empty() ? BootTime::max() : order_.begin()->first;
    }

    /// All that is due, and what will be due within the next few milliseconds if anything is, so
    /// that it goes in the same write. What is handed out as work becomes due again after another
    /// third of its time to live (a release: after a second), or when its lease runs out, should
    /// nobody settle or postpone() it before.
    [[nodiscard]] Due take_due(BootTime now) {
        Due due;
        if (next_due() > now) return due;
        const BootTime horizon = now + std::chrono::milliseconds{5};
        for (const Hold* hold : due_by(horizon)) {
            Entry& entry = entries_.at(hold);
            if (over(entry.task, now)) {
                drop(*hold, due.lost);
            } else if (entry.task.duty == Duty::release) {
                due.work.push_back(entry.task);
                move(*hold, now + std::chrono::seconds{1});
            } else if (!entry.task.hold->renewable_at(now)) {
                // Held longer than allowed: nothing to do but to see it end.
                move(*hold, std::max(entry.task.hold->deadline(), now));
            } else {
                due.work.push_back(entry.task);
                postpone(*hold, now + entry.task.hold->ttl() / 3);
            }
        }
        return due;
    }

    /// The leases that ran out, whatever else is due. No longer in the schedule.
    [[nodiscard]] std::vector<Task> take_lost(BootTime now) {
        std::vector<Task> lost;
        for (const Hold* hold : due_by(now)) {
            if (over(entries_.at(hold).task, now)) drop(*hold, lost);
        }
        return lost;
    }

    /// The releases that were not answered. No longer in the schedule.
    [[nodiscard]] std::vector<Task> take_releases() {
        std::vector<Task> releases;
        for (auto& [hold, entry] : entries_) {
            if (entry.task.duty == Duty::release) releases.push_back(entry.task);
        }
        for (const Task& task : releases)
            remove(*task.hold);
        return releases;
    }

  private:
    struct Entry {
        Task task{};
        BootTime due{};
    };

    [[nodiscard]] static bool over(const Task& task, BootTime now) {
        return task.duty == Duty::renew ? !task.hold->valid_at(now) : now >= task.until;
    }

    [[nodiscard]] std::vector<const Hold*> due_by(BootTime horizon) const {
        std::vector<const Hold*> holds;
        for (const auto& [due, hold] : order_) {
            if (due > horizon) break;
            holds.push_back(hold);
        }
        return holds;
    }

    void drop(const Hold& hold, std::vector<Task>& lost) {
        if (entries_.at(&hold).task.duty == Duty::renew) lost.push_back(entries_.at(&hold).task);
        remove(hold);
    }

    std::set<std::pair<BootTime, const Hold*>> order_;
    std::unordered_map<const Hold*, Entry> entries_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP
