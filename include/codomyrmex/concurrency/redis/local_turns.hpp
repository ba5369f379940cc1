// SPDX-License-Identifier: MIT
//
// How a thread comes to a lock behind the other threads of its process: one of them at a time asks
// the server, and who gives the lock back passes it on to the next, or retains it. The line itself,
// without I/O, is local_queue.hpp's.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_TURNS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_TURNS_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/claimant.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/local_queue.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/yield_policy.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class LocalTurns {
  public:
    /// Requires: `claimant` outlives it.
    explicit LocalTurns(Claimant& claimant) noexcept
        : claimant_{claimant}, keeper_{claimant.keeper()} {}

    /// Waits for the lock as `wait` says. Returns: null if it was not obtained: another was seen to
    /// hold it, or to be before.
    /// Throws: LockError.
    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        const std::string_view key = identity->keys.main();
        LocalQueues::Line& line = keeper_.queues.come(identity);
        std::shared_ptr<Hold> hold;
        try {
            hold = take_turn(line, identity, wait);
        } catch (...) {
            keeper_.queues.leave(key);
            throw;
        }
        // A hold stays in line until it is given back.
        if (!hold) keeper_.queues.leave(key);
        return hold;
    }

    /// Gives `tenure` to the next in line, to nobody for a while, or back to the server. `ours`:
    /// that it was valid to the end of `hold`, which is `now`.
    void pass_on(const std::shared_ptr<Tenure>& tenure, const std::shared_ptr<Hold>& hold,
                 bool ours, BootTime now) {
        const LockIdentity& identity = tenure->identity();
        LocalQueues::Line* const line = keeper_.queues.find(identity.keys.main());
        if (ours && hold && let_others_come(*line, *hold)) now = detail::BootClock::now();
        bool timer = false;
        BootTime until{};
        detail::WaitWord::Wake wake;
        {
            const std::lock_guard guard{line->mutex};
            if (!ours) {
                // Its key may be there still for a while.
                keeper_.release(tenure, nullptr);
                line->queue.lost(tenure);
                return;
            }
            const bool may_retain = identity.options.retain != identity.options.retain.zero() &&
                                    !line->wanted && now >= line->not_retained_before &&
                                    keeper_.listens();
            switch (line->queue.give_back(tenure, may_retain, now, wake)) {
                case LocalQueue::GivenBack::handed:
                    handovers_.fetch_add(1, std::memory_order_relaxed);
                    break;
                case LocalQueue::GivenBack::retained:
                    until = line->retained_until = now + identity.options.retain;
                    timer = !std::exchange(line->timed, true);
                    break;
                case LocalQueue::GivenBack::release:
                    // Before the next one asks, so that it is executed before, unless this thread
                    // collects what it gives back; then the next one may stand in the server's
                    // line for a moment.
                    keeper_.release(tenure, hold);
                    line->queue.next_asks();
                    break;
                case LocalQueue::GivenBack::foreign:
                    keeper_.release(tenure, hold);
                    break;
            }
        }
        wake();
        if (timer) keeper_.look_at(std::string{identity.keys.main()}, until);
    }

    /// How many holds were passed from thread to thread.
    [[nodiscard]] std::uint64_t handovers() const noexcept {
        return handovers_.load(std::memory_order_relaxed);
    }

    // --- For whoever has its turn and asks by itself (batch.hpp).

    /// How many fencing tokens to reserve: for those who stand in line behind it, or may come; for
    /// who stood in line itself is not alone.
    [[nodiscard]] static std::uint64_t block_of(LocalQueues::Line& line,
                                                const LeaseOptions& options, bool stood) {
        if (options.retain != options.retain.zero()) return retained_block;
        const std::lock_guard guard{line.mutex};
        if (!line.queue.waited_for() && !stood) return 1;
        return static_cast<std::uint64_t>(options.max_local_handovers) + 1;
    }

    /// It has asked until `now`, and got `tenure`, or null. `silence`: that it had no answer, or
    /// null.
    void asked(LocalQueues::Line& line, const std::shared_ptr<Tenure>& tenure,
               std::unique_ptr<Silence> silence, BootTime now) noexcept {
        const std::lock_guard guard{line.mutex};
        if (silence && line.silence) silence->since = line.silence->since;
        line.silence.swap(silence);
        if (tenure) line.wanted = false;
        line.queue.asked(tenure, now);
    }

    /// A hold of `tenure`, whose use is the caller's, from `now` on. Returns: null if it is lost
    /// already.
    [[nodiscard]] std::shared_ptr<Hold> use(LocalQueues::Line& line,
                                            const std::shared_ptr<Tenure>& tenure, bool contended,
                                            BootTime now) {
        GiveUpUnless give_up{keeper_, line, tenure};
        auto hold = std::make_shared<Hold>(tenure, contended);
        tenure->passed_on(now);
        tenure->used_by(hold);
        // After that: whoever finds it lost from now on tells this hold.
        if (tenure->valid_at(now)) {
            give_up.used = true;
            return hold;
        }
        hold->end();
        tenure->used_by(nullptr);
        return nullptr;
    }

  private:
    // How many fencing tokens a lease reserves that may be retained: as many as there are
    // nanoseconds before the name can be asked for again. So the clock is past all of them by then,
    // and has no need of the fence's key to go on from there, should that be lost.
    static constexpr std::uint64_t retained_block = 10'000;

    // Gives a tenure back, and its place in line, unless it found its use.
    struct GiveUpUnless {
        KeeperState& keeper;
        LocalQueues::Line& line;
        const std::shared_ptr<Tenure>& tenure;
        bool used = false;
        GiveUpUnless(KeeperState& of, LocalQueues::Line& in,
                     const std::shared_ptr<Tenure>& what) noexcept
            : keeper{of}, line{in}, tenure{what} {}
        GiveUpUnless(const GiveUpUnless&) = delete;
        GiveUpUnless& operator=(const GiveUpUnless&) = delete;
        ~GiveUpUnless() {
            if (used) return;
            try {
                keeper.release(tenure, nullptr);
            } catch (const std::exception&) {
                // Out of memory: nobody renews it any more, so it runs out.
            }
            const std::lock_guard guard{line.mutex};
            line.queue.lost(tenure);
        }
    };

    // Before the lock is given back: the thread that passed it on to this one may be about to come
    // again, but runs only when this one does not. Then it is handed over; or, at the end of a run,
    // the next run begins with one that has waited, instead of this thread asking for itself. A
    // yield, where that was seen to pay. Returns: whether it did.
    [[nodiscard]] bool let_others_come(LocalQueues::Line& line, const Hold& hold) {
        if (hold.tenure()->identity().options.max_local_handovers == 0) return false;
        // Those of a process that never passed a lock on are in other processes.
        if (!hold.contended() || handovers() == 0) return false;
        const auto looks = [&](auto look) {
            const std::lock_guard guard{line.mutex};
            return look(line.queue);
        };
        const bool alone =
            looks([&](const LocalQueue& queue) { return queue.alone_with(*hold.tenure()); });
        if (!alone || !yields_.worth_it()) return false;
        const auto begin = Deadline::clock::now();
        std::this_thread::yield();
        const auto took = Deadline::clock::now() - begin;
        const bool came = looks([](const LocalQueue& queue) { return queue.waited_for(); });
        yields_.learn(came ? 1 : 0, took);
        return true;
    }

    [[nodiscard]] std::shared_ptr<Hold> take_turn(
        LocalQueues::Line& line, const std::shared_ptr<const LockIdentity>& identity,
        const Wait& wait) {
        const BootTime entered = detail::BootClock::now();
        BootTime now = entered;
        for (bool contended = false;; now = detail::BootClock::now()) {
            LocalWaiter me{*identity};
            LocalQueue::Entry entry = LocalQueue::Entry::busy;
            {
                const std::lock_guard guard{line.mutex};
                entry = line.queue.enter(me, wait.for_holders, now);
            }
            if (entry == LocalQueue::Entry::busy) return nullptr;
            bool has = entry == LocalQueue::Entry::has;
            if (entry == LocalQueue::Entry::line) {
                contended = true;
                if (!stand_in_line(line, me, wait)) return nullptr;
                has = me.state.load() == LocalWaiter::has;
                now = detail::BootClock::now();
            }
            if (has) {
                if (auto hold = use(line, me.tenure, contended, now)) return hold;
                continue;
            }
            if (auto hold = ask(line, identity, wait, entered, now, contended, me.tenure)) {
                return *hold;
            }
        }
    }

    // Returns: whether its turn has come.
    [[nodiscard]] static bool stand_in_line(LocalQueues::Line& line, LocalWaiter& me,
                                            const Wait& wait) {
        const std::stop_callback stop{wait.stop, [&] {
                                          const std::lock_guard guard{line.mutex};
                                          if (line.queue.leave(me)) me.state.set(LocalWaiter::left);
                                      }};
        me.state.wait_while(LocalWaiter::waiting, wait.deadline);
        // Whoever gave it its turn is done with it when it has this.
        const std::lock_guard guard{line.mutex};
        if (me.state.load() == LocalWaiter::waiting) return !line.queue.leave(me);
        return me.state.load() != LocalWaiter::left;
    }

    // Asks the server, beginning at `began`. Returns: the hold, or null if it was not obtained;
    // nothing if it was lost at once, to try again.
    [[nodiscard]] std::optional<std::shared_ptr<Hold>> ask(
        LocalQueues::Line& line, const std::shared_ptr<const LockIdentity>& identity,
        const Wait& wait, BootTime entered, BootTime began, bool contended,
        const std::shared_ptr<Tenure>& retained) {
        try {
            // One that will not do.
            if (retained) keeper_.release(retained, nullptr);
            const Reach reach = reach_of(line, entered, contended);
            if (contended && (wait.deadline.expired() || wait.stop.stop_requested())) {
                asked(line, nullptr, nullptr, began);
                return nullptr;
            }
            // What it gives up goes out before the next in line asks.
            const std::shared_ptr<Tenure> tenure =
                claimant_.acquire(identity, block_of(line, identity->options, contended), wait,
                                  reach.deadline, contended && reach.answers, contended);
            const BootTime now = tenure ? tenure->acquired() : detail::BootClock::now();
            asked(line, tenure, nullptr, now);
            if (!tenure) return nullptr;
            if (auto hold = use(line, tenure, contended, now)) return hold;
            return std::nullopt;
        } catch (const LockError& error) {
            std::unique_ptr<Silence> silence;
            if (error.code() == LockErrc::backend_unavailable) {
                silence = std::make_unique<Silence>(Silence{error.what(), began});
            }
            asked(line, nullptr, std::move(silence), detail::BootClock::now());
            throw;
        } catch (...) {
            asked(line, nullptr, nullptr, detail::BootClock::now());
            throw;
        }
    }

    struct Reach {
        Deadline deadline;    // by when the server must have answered
        bool answers = true;  // whether it was last seen to
    };

    // Until when the server must have answered. Who stood in line behind one that had no answer has
    // waited for the server as well. Throws: LockError if it has waited long enough.
    [[nodiscard]] Reach reach_of(LocalQueues::Line& line, BootTime entered, bool contended) const {
        Silence before;
        if (contended) {
            const std::lock_guard guard{line.mutex};
            if (line.silence) before = *line.silence;
        }
        if (before.reason.empty()) return {Deadline::after(keeper_.options.patience)};
        entered = std::max(entered, before.since);
        const Deadline reach =
            Deadline::after(keeper_.options.patience - (detail::BootClock::now() - entered));
        if (!reach.expired()) return {reach, false};
        throw LockError(LockErrc::backend_unavailable,
                        "another thread with this lock had no answer either: " + before.reason);
    }

    Claimant& claimant_;
    KeeperState& keeper_;
    std::atomic<std::uint64_t> handovers_{0};
    YieldPolicy yields_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCAL_TURNS_HPP
