// SPDX-License-Identifier: MIT
//
// What the keeper has to do and when, without I/O and without a clock: leases to renew, in order
// of their due times, and releases to repeat. A task that was taken stays in the schedule, due
// again when it should be looked at if no answer came: that is how an unanswered renewal is
// retried and how a lease whose time is over is found.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP

#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

enum class Duty : std::uint8_t { renew, release };

struct Task {
    std::shared_ptr<Tenure> tenure{};
    Duty duty = Duty::renew;
    BootTime until{};         ///< of a release: when the key is gone without it
    bool to_the_end = false;  ///< of a release: repeated though answered "not yours" (see cancel)
};

/// What goes together in one request: renewals of locks with the same time to live, at most `most`;
/// anything else by itself.
[[nodiscard]] inline std::vector<std::vector<Task>> in_requests(std::vector<Task> work,
                                                                std::size_t most) {
    std::vector<std::vector<Task>> requests;
    std::map<std::chrono::milliseconds, std::size_t> open;
    for (Task& task : work) {
        const LockIdentity& identity = task.tenure->identity();
        if (task.duty == Duty::renew && identity.kind == PrimitiveKind::lock) {
            const auto [place, fresh] = open.try_emplace(identity.options.ttl, requests.size());
            if (!fresh && requests[place->second].size() < most) {
                requests[place->second].push_back(std::move(task));
                continue;
            }
            place->second = requests.size();
        }
        requests.emplace_back().push_back(std::move(task));
    }
    return requests;
}

/// The tenures of tasks, in their order.
[[nodiscard]] inline std::vector<std::shared_ptr<Tenure>> tenures_of(
    const std::vector<Task>& tasks) {
    std::vector<std::shared_ptr<Tenure>> tenures;
    tenures.reserve(tasks.size());
    for (const Task& task : tasks)
        tenures.push_back(task.tenure);
    return tenures;
}

/// Not thread-safe.
class Schedule {
  public:
    struct Due {
        std::vector<Task> work{};  ///< to be sent now
        std::vector<Task> lost{};  ///< leases that ran out; no longer in the schedule
        [[nodiscard]] bool empty() const noexcept { return work.empty() && lost.empty(); }
    };

    /// Adds a task, or replaces the one that the same tenure has.
    void add(Task task, BootTime due) {
        remove(*task.tenure);
        const Tenure* const tenure = task.tenure.get();
        const auto place = order_.emplace(due, tenure).first;
        try {
            entries_.emplace(tenure, Entry{std::move(task), due});
        } catch (...) {
            order_.erase(place);
            throw;
        }
    }

    void remove(const Tenure& tenure) noexcept {
        const auto found = entries_.find(&tenure);
        if (found == entries_.end()) return;
        order_.erase({found->second.due, &tenure});
        entries_.erase(found);
    }

    /// Makes the task of `tenure` due at another time. Requires: it is in the schedule.
    void move(const Tenure& tenure, BootTime due) {
        Entry& entry = entries_.at(&tenure);
        order_.erase({entry.due, &tenure});
        entry.due = due;
        order_.emplace(due, &tenure);
    }

    /// The same, but no later than its lease runs out. Does nothing if it is not there.
    void postpone(const Tenure& tenure, BootTime due) {
        const auto found = entries_.find(&tenure);
        if (found == entries_.end()) return;
        const bool renew = found->second.task.duty == Duty::renew;
        move(tenure, renew ? std::min(due, tenure.deadline()) : due);
    }

    [[nodiscard]] bool contains(const Tenure& tenure, Duty duty) const {
        const auto found = entries_.find(&tenure);
        return found != entries_.end() && found->second.task.duty == duty;
    }

    /// The lease that is renewed under this token, if there is one. Cost: looks at every task.
    [[nodiscard]] std::shared_ptr<Tenure> find(std::string_view token) const {
        for (const auto& [tenure, entry] : entries_) {
            if (entry.task.duty == Duty::renew && tenure->token() == token) {
                return entry.task.tenure;
            }
        }
        return nullptr;
    }

    [[nodiscard]] std::size_t count(Duty duty) const {
        return static_cast<std::size_t>(std::ranges::count_if(
            entries_, [duty](const auto& each) { return each.second.task.duty == duty; }));
    }

    /// When take_due() next has something to give; BootTime::max() if never.
    [[nodiscard]] BootTime next_due() const noexcept {
        return order_.empty() ? BootTime::max() : order_.begin()->first;
    }

    /// All that is due, and if anything is, what will be due soon, so that it goes in the same
    /// write: renewals within a twelfth of their terms, so that the leases of a client come to be
    /// renewed together; other things within a few milliseconds. What is handed out as work becomes
    /// due again after another third of its term (a release: after a second), or when its lease
    /// runs out, should nobody settle or postpone() it before.
    [[nodiscard]] Due take_due(BootTime now) {
        Due due;
        if (next_due() > now) return due;
        for (const Tenure* tenure : due_about(now)) {
            Entry& entry = entries_.at(tenure);
            if (over(entry.task, now)) {
                drop(*tenure, due.lost);
            } else if (entry.task.duty == Duty::release) {
                due.work.push_back(entry.task);
                move(*tenure, now + std::chrono::seconds{1});
            } else if (!entry.task.tenure->renewable_at(now)) {
                // Held longer than allowed: nothing to do but to see it end.
                move(*tenure, std::max(entry.task.tenure->deadline(), now));
            } else {
                due.work.push_back(entry.task);
                postpone(*tenure, now + entry.task.tenure->term() / 3);
            }
        }
        return due;
    }

    /// Whether a lease ran out by `now` that take_due() has not found yet.
    [[nodiscard]] bool has_lost(BootTime now) const {
        for (const auto& [due, tenure] : order_) {
            if (due > now) break;
            const Task& task = entries_.at(tenure).task;
            if (task.duty == Duty::renew && over(task, now)) return true;
        }
        return false;
    }

    /// The releases that were not answered. No longer in the schedule.
    [[nodiscard]] std::vector<Task> take_releases() {
        std::vector<Task> releases;
        for (auto& [tenure, entry] : entries_) {
            if (entry.task.duty == Duty::release) releases.push_back(entry.task);
        }
        for (const Task& task : releases)
            remove(*task.tenure);
        return releases;
    }

  private:
    struct Entry {
        Task task{};
        BootTime due{};
    };

    [[nodiscard]] static bool over(const Task& task, BootTime now) {
        return task.duty == Duty::renew ? !task.tenure->valid_at(now) : now >= task.until;
    }

    // How much earlier than it is due a task may go.
    [[nodiscard]] static std::chrono::nanoseconds slack(const Task& task) noexcept {
        constexpr std::chrono::nanoseconds little = std::chrono::milliseconds{5};
        if (task.duty == Duty::release) return little;
        return std::max(little, task.tenure->term() / 12);
    }

    [[nodiscard]] std::vector<const Tenure*> due_about(BootTime now) const {
        std::vector<const Tenure*> tenures;
        // Many that must not go yet may stand before one that may; it is not worth a long search.
        int misses = 0;
        for (const auto& [due, tenure] : order_) {
            if (due - slack(entries_.at(tenure).task) <= now) {
                tenures.push_back(tenure);
            } else if (++misses == 16) {
                break;
            }
        }
        return tenures;
    }

    void drop(const Tenure& tenure, std::vector<Task>& lost) {
        if (entries_.at(&tenure).task.duty == Duty::renew)
            lost.push_back(entries_.at(&tenure).task);
        remove(tenure);
    }

    std::set<std::pair<BootTime, const Tenure*>> order_;
    std::unordered_map<const Tenure*, Entry> entries_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP
