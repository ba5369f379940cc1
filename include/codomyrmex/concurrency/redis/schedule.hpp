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
#include <string_view>
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

/// Not thread-safe. A tenure is in one schedule at most.
class Schedule {
  public:
    struct Due {
        std::vector<Task> work{};  ///< to be sent now
        std::vector<Task> lost{};  ///< leases that ran out; no longer in the schedule
        [[nodiscard]] bool empty() const noexcept { return work.empty() && lost.empty(); }
    };

    /// Adds a task, or replaces the one that the same tenure has.
    void add(Task task, BootTime due) {
        Tenure& tenure = *task.tenure;
        remove(tenure);
        tasks_.emplace(Place{due, &tenure}, std::move(task));
        tenure.scheduled_ = due;
    }

    void remove(const Tenure& tenure) noexcept { tasks_.erase(place_of(tenure)); }

    /// Makes the task of `tenure` due at another time. Requires: it is in the schedule.
    void move(const Tenure& tenure, BootTime due) { move(tasks_.find(place_of(tenure)), due); }

    /// The same, but no later than its lease runs out. Does nothing if it is not there.
    void postpone(const Tenure& tenure, BootTime due) {
        const auto found = tasks_.find(place_of(tenure));
        if (found != tasks_.end()) postpone(found, due);
    }

    [[nodiscard]] bool contains(const Tenure& tenure, Duty duty) const {
        const auto found = tasks_.find(place_of(tenure));
        return found != tasks_.end() && found->second.duty == duty;
    }

    /// The lease that is renewed under this token, if there is one. Cost: looks at every task.
    [[nodiscard]] std::shared_ptr<Tenure> find(std::string_view token) const {
        for (const auto& [place, task] : tasks_) {
            if (task.duty == Duty::renew && task.tenure->token() == token) return task.tenure;
        }
        return nullptr;
    }

    [[nodiscard]] std::size_t count(Duty duty) const {
        return static_cast<std::size_t>(std::ranges::count_if(
            tasks_, [duty](const auto& each) { return each.second.duty == duty; }));
    }

    /// When take_due() next has something to give; BootTime::max() if never.
    [[nodiscard]] BootTime next_due() const noexcept {
        return tasks_.empty() ? BootTime::max() : tasks_.begin()->first.first;
    }

    /// All that is due, and if anything is, what will be due soon, so that it goes in the same
    /// write: renewals within a twelfth of their terms, so that the leases of a client come to be
    /// renewed together; other things within a few milliseconds. What is handed out as work becomes
    /// due again after another third of its term (a release: after a second), or when its lease
    /// runs out, should nobody settle or postpone() it before.
    [[nodiscard]] Due take_due(BootTime now) {
        Due due;
        if (next_due() > now) return due;
        for (const auto each : due_about(now)) {
            const Task& task = each->second;
            if (over(task, now)) {
                if (task.duty == Duty::renew) due.lost.push_back(task);
                tasks_.erase(each);
            } else if (task.duty == Duty::release) {
                due.work.push_back(task);
                move(each, now + std::chrono::seconds{1});
            } else if (!task.tenure->renewable_at(now)) {
                // Held longer than allowed: nothing to do but to see it end.
                move(each, std::max(task.tenure->deadline(), now));
            } else {
                due.work.push_back(task);
                postpone(each, now + task.tenure->term() / 3);
            }
        }
        return due;
    }

    /// Whether a lease ran out by `now` that take_due() has not found yet.
    [[nodiscard]] bool has_lost(BootTime now) const {
        for (const auto& [place, task] : tasks_) {
            if (place.first > now) break;
            if (task.duty == Duty::renew && over(task, now)) return true;
        }
        return false;
    }

    /// The releases that were not answered. No longer in the schedule.
    [[nodiscard]] std::vector<Task> take_releases() {
        std::vector<Task> releases;
        for (const auto& [place, task] : tasks_) {
            if (task.duty == Duty::release) releases.push_back(task);
        }
        for (const Task& task : releases)
            remove(*task.tenure);
        return releases;
    }

  private:
    // When it is due, and whose it is.
    using Place = std::pair<BootTime, const Tenure*>;
    using Tasks = std::map<Place, Task>;

    // Where the task of `tenure` is, if it has one.
    [[nodiscard]] static Place place_of(const Tenure& tenure) noexcept {
        return {tenure.scheduled_, &tenure};
    }

    void move(Tasks::const_iterator task, BootTime due) {
        auto node = tasks_.extract(task);
        node.key().first = node.mapped().tenure->scheduled_ = due;
        tasks_.insert(std::move(node));
    }

    void postpone(Tasks::const_iterator task, BootTime due) {
        const bool renew = task->second.duty == Duty::renew;
        move(task, renew ? std::min(due, task->second.tenure->deadline()) : due);
    }

    [[nodiscard]] static bool over(const Task& task, BootTime now) {
        return task.duty == Duty::renew ? !task.tenure->valid_at(now) : now >= task.until;
    }

    // How much earlier than it is due a task may go.
    [[nodiscard]] static std::chrono::nanoseconds slack(const Task& task) noexcept {
        constexpr std::chrono::nanoseconds little = std::chrono::milliseconds{5};
        if (task.duty == Duty::release) return little;
        return std::max(little, task.tenure->term() / 12);
    }

    [[nodiscard]] std::vector<Tasks::const_iterator> due_about(BootTime now) const {
        std::vector<Tasks::const_iterator> found;
        // Many that must not go yet may stand before one that may; it is not worth a long search.
        int misses = 0;
        for (auto each = tasks_.begin(); each != tasks_.end() && misses < 16; ++each) {
            if (each->first.first - slack(each->second) <= now) {
                found.push_back(each);
            } else {
                ++misses;
            }
        }
        return found;
    }

    Tasks tasks_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCHEDULE_HPP
