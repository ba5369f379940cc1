// SPDX-License-Identifier: MIT
//
// What the keeper's thread has to do, and how it is woken for it: any thread adds to it, and begins
// the thread by that; the keeper's takes what is due, and says until when it sleeps. Without I/O,
// but for the file that wakes.
//
// Its one mutex guards what belongs together: what is due, who waits for a grant, and whether the
// thread sleeps. So whatever is added while the thread makes up its mind to sleep wakes it.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_AGENDA_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_AGENDA_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/wake_file.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>

#include <algorithm>
#include <chrono>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What came back for tasks that went in one request: one, or several locks' renewals.
struct TasksAnswer {
    std::vector<Task> tasks{};
    RequestNumber number{0};  ///< of the request
    Exchange exchange{};
};

/// Threads: safe, but for what requires the mutex.
class Agenda {
  public:
    using Guard = std::unique_lock<std::mutex>;

    /// All that is due at one time.
    struct Work {
        std::vector<TasksAnswer> answers{};
        std::vector<LostLease> losses{};  ///< to be told
        Schedule::Due due{};
        std::vector<std::string> lines{};  ///< local lines to look at, by their keys
        bool pump = false;                 ///< the pipeline wants to be looked after
        [[nodiscard]] bool empty() const noexcept {
            return answers.empty() && losses.empty() && due.empty() && lines.empty() && !pump;
        }
    };

    /// `begin`: begins the keeper's thread; called at most once, with the mutex held.
    explicit Agenda(std::function<std::thread()> begin) : begin_{std::move(begin)} {}

    /// Holds the mutex as long as what it returns.
    [[nodiscard]] Guard lock() const { return Guard{mutex_}; }

    // --- What there is to do.

    /// `task` is due at `due`. Throws: std::bad_alloc; std::system_error without a thread.
    void add(Task task, BootTime due) {
        const Guard guard{mutex_};
        start();
        schedule.add(std::move(task), due);
        wake_if_later(due);
    }

    /// No task of `tenure` begins after this, and nobody waits for it.
    void remove(const Tenure& tenure) noexcept {
        const Guard guard{mutex_};
        schedule.remove(tenure);
        if (tenure.stood()) mailbox.forget(tenure.token());
    }

    /// The local line `key` is to be looked at, at `when`. Throws: as add().
    void look_at(std::string key, BootTime when) {
        const Guard guard{mutex_};
        timers_.emplace(when, std::move(key));
        start();
        wake_if_later(when);
    }

    /// The pipeline wants to be looked after `within` this time.
    void attend(std::chrono::nanoseconds within) {
        const Guard guard{mutex_};
        const Deadline when = Deadline::after(within);
        if (when < pump_at_) pump_at_ = when;
        try {
            start();
        } catch (const std::exception&) {
            // Then the next thread that drives reads the replies.
            return;
        }
        wake();
    }

    /// The same, by the keeper's thread.
    void attend_again(std::chrono::nanoseconds within) {
        const Guard guard{mutex_};
        pump_at_ = std::min(pump_at_, Deadline::after(within));
    }

    /// For a thread that drives the pipeline, and must not do with an answer what might use it.
    void answered(TasksAnswer answer) noexcept {
        try {
            const Guard guard{mutex_};
            answers_.push_back(std::move(answer));
            wake();
        } catch (const std::exception&) {
            // Out of memory: the tasks become due again, as without an answer.
        }
    }

    /// For a thread that drives the pipeline, which a hook may use.
    void tell_later(LostLease loss) noexcept {
        try {
            const Guard guard{mutex_};
            losses_.push_back(std::move(loss));
            wake();
        } catch (const std::exception&) {
            // Out of memory: it is not told.
        }
    }

    // --- The thread.

    /// Ends it and waits for it; on the thread itself, does not wait.
    /// Returns: false if there was none.
    bool stop() {
        {
            const Guard guard{mutex_};
            stopping_ = true;
            wake();
        }
        if (!thread_.joinable()) return false;
        if (thread_.get_id() == std::this_thread::get_id()) {
            thread_.detach();
        } else {
            thread_.join();
        }
        return true;
    }

    /// While something connects, leases go on running out. Returns: false to stop connecting, to
    /// tell of them; and where `others_first`, when any are due, for these shall not be lost behind
    /// a connection that they do not need.
    [[nodiscard]] bool tick(bool others_first) const {
        const Guard guard{mutex_};
        const BootTime now = detail::BootClock::now();
        if (stopping_ || schedule.has_lost(now)) return false;
        return !others_first || schedule.next_due() > now;
    }

    /// What the thread polls while it sleeps; drained by it.
    [[nodiscard]] const detail::WakeFile& wake_file() const noexcept { return wake_file_; }

    // --- Requires for these: the mutex is held.

    Schedule schedule;  ///< renewals, and releases that are repeated
    Mailbox mailbox;    ///< who waits for a grant

    /// The thread is to end; none begins any more.
    [[nodiscard]] bool stopping() const noexcept { return stopping_; }

    /// A local line is to be looked at some time.
    [[nodiscard]] bool timed() const noexcept { return !timers_.empty(); }

    /// Takes what is due. Throws: std::bad_alloc.
    [[nodiscard]] Work take(BootTime now) {
        Work work;
        work.answers = std::exchange(answers_, {});
        work.losses = std::exchange(losses_, {});
        work.due = schedule.take_due(now);
        while (!timers_.empty() && timers_.begin()->first <= now) {
            work.lines.push_back(std::move(timers_.begin()->second));
            timers_.erase(timers_.begin());
        }
        work.pump = pump_at_.expired();
        if (work.pump) pump_at_ = Deadline::never();
        return work;
    }

    /// Until when the thread may sleep as far as its tasks go.
    [[nodiscard]] BootTime next_due(BootTime now) const {
        // A bound far away, for conversions of the standard library may overflow.
        BootTime until = std::min(schedule.next_due(), now + std::chrono::hours{24});
        if (!timers_.empty()) until = std::min(until, timers_.begin()->first);
        // What this thread was woken for may be over already, and the next of its kind is due
        // later: to sleep no longer than that saves being woken for each of many brief leases.
        if (expected_ > now) until = std::min(until, expected_);
        return until;
    }
    /// And as far as the pipeline goes.
    [[nodiscard]] Deadline pump_at() const noexcept { return pump_at_; }

    /// Begins the thread, unless that was done. Throws: std::bad_alloc, std::system_error.
    void start() {
        if (thread_.joinable() || stopping_) return;
        const detail::SignalsBlocked blocked;
        thread_ = begin_();
    }

    /// The thread sleeps from when the mutex is given up: for its tasks, until `until`.
    void fall_asleep(BootTime until) noexcept {
        asleep_until_ = until;
        asleep_ = true;
    }
    /// It sleeps no longer, woken or not.
    void rise() noexcept { asleep_ = false; }

    /// Wakes the thread if it sleeps.
    void wake() noexcept {
        if (std::exchange(asleep_, false)) wake_file_.signal();
    }

  private:
    void wake_if_later(BootTime due) noexcept {
        if (due >= asleep_until_) return;
        expected_ = due;
        wake();
    }

    const std::function<std::thread()> begin_;
    const detail::WakeFile wake_file_;

    mutable std::mutex mutex_;  // guards the next, and what is public above
    bool stopping_ = false;
    std::thread thread_;
    std::multimap<BootTime, std::string> timers_;  // local lines to look at
    std::vector<TasksAnswer> answers_;
    std::vector<LostLease> losses_;
    Deadline pump_at_ = Deadline::never();
    bool asleep_ = false;  // and was not woken yet
    BootTime asleep_until_ = BootTime::max();
    BootTime expected_{};  // when that is due for which the thread was woken last
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_AGENDA_HPP
