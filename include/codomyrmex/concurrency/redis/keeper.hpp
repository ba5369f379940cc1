// SPDX-License-Identifier: MIT
//
// The one background thread of a client. It renews the leases that are due, all in one write; finds
// out what was lost and tells; listens for grants; repeats releases that were not answered; and
// reads replies that nobody waits for. It sleeps until the next of these is due; a client that
// holds nothing and waits for nothing costs nothing.
//
// Here is the thread itself, and what the client asks of it. What is due stands in the agenda
// (agenda.hpp); renewals are in duties.hpp, what is given back in releases.hpp, and how grants are
// heard in grant_listener.hpp.
//
// The thread and all that it works on live in a state of their own, for a hook may drop the last
// reference to the client: the keeper is then destroyed on its own thread, which cannot wait for
// itself.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/agenda.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/duties.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant_listener.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/keeper_base.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/release_batches.hpp>
#include <codomyrmex/concurrency/redis/releases.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <poll.h>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What the keeper's thread and the client share.
/// Threads: safe.
class KeeperState : public KeeperBase, public std::enable_shared_from_this<KeeperState> {
  public:
    /// Requires: it is made as a shared pointer.
    KeeperState(const Endpoint& to, const ClientOptions& with, ProcessName self,
                std::shared_ptr<Events> tell)
        : KeeperBase{to, with, std::move(self), std::move(tell), [this] {
                         return std::thread{[state = shared_from_this()] { state->run(); }};
                     }} {}

    // --- Leases. What these add to the agenda throws std::bad_alloc, or std::system_error where
    // the thread cannot be begun; those that cannot throw let the lease run out instead.

    /// Renews `tenure`, granted at `since`, until unwatch().
    void watch(std::shared_ptr<Tenure> tenure, BootTime since) {
        const BootTime due = tenure->renewal_due(since);
        agenda.add({std::move(tenure), Duty::renew, {}, false}, due);
    }

    /// See Releases, for all of these.
    void release(const std::shared_ptr<Tenure>& tenure, std::shared_ptr<Hold> hold) {
        releases_.release(tenure, std::move(hold));
    }
    void release_all(std::vector<GivenUp> all) noexcept { releases_.release_all(std::move(all)); }
    void give_up(const std::shared_ptr<Tenure>& tenure) noexcept { releases_.give_up(tenure); }
    void cancel_later(std::shared_ptr<Tenure> tenure) { releases_.cancel_later(std::move(tenure)); }
    void release_later(std::shared_ptr<Tenure> tenure) {
        releases_.release_later(std::move(tenure));
    }

    /// Looks at the line `key` at `when`: what it retains is then given back.
    void look_at(std::string key, BootTime when) { agenda.look_at(std::move(key), when); }

    // --- Waiting for grants. See GrantListener, for all of these.

    [[nodiscard]] bool listen(Deadline deadline) { return listener_.listen(deadline); }
    [[nodiscard]] bool listens() const { return listener_.listens(); }
    void wait_for_grant(const std::string& token, GrantWaiter& waiter) {
        listener_.wait_for_grant(token, waiter);
    }
    void settle(const std::string& token) { listener_.settle(token); }
    [[nodiscard]] std::optional<DeliveredGrant> take_grant(GrantWaiter& waiter) const {
        return listener_.take_grant(waiter);
    }

    // --- Counts.

    /// Leases that are renewed.
    [[nodiscard]] std::size_t watched() const {
        const Agenda::Guard guard = agenda.lock();
        return agenda.schedule.count(Duty::renew);
    }
    /// Releases that were not answered yet.
    [[nodiscard]] std::size_t releasing() const {
        const Agenda::Guard guard = agenda.lock();
        return agenda.schedule.count(Duty::release) + releases_.under_way();
    }
    /// Renewals that succeeded.
    [[nodiscard]] std::uint64_t renewals() const noexcept { return duties_.renewals(); }
    /// Connections that were made to listen on.
    [[nodiscard]] std::uint64_t connections() const noexcept { return listener_.connections(); }

    // --- The end.

    /// Ends the thread, after it has waited for the releases under way, 120 ms at most; on the
    /// thread itself, does not wait for it.
    void stop() {
        if (!agenda.stop()) pipeline.drain(Deadline::after(last_words));
    }

    /// In the child of a fork: closes the parent's files there. Nothing else may be called.
    void close_in_child() const noexcept {
        pipeline.close_in_child();
        listener_.close_in_child();
        agenda.wake_file().close_in_child();
    }

  private:
    // For what is said at the end.
    static constexpr std::chrono::milliseconds last_words{120};
    // While another thread may read our answers, or close the file that is polled for them.
    static constexpr std::chrono::milliseconds look_again{5};

    static constexpr const char* taken_away = "it was revoked: somebody released it by force";

    void run() {
        Agenda::Guard guard = agenda.lock();
        while (!agenda.stopping()) {
            const BootTime now = detail::BootClock::now();
            if (!work(guard, now)) sleep(guard);
        }
        const std::vector<Task> last = agenda.schedule.take_releases();
        guard.unlock();
        try {
            const Deadline limit = Deadline::after(last_words);
            releases_.give_up_all();
            for (const Task& task : last)
                duties_.send({task});
            pipeline.drain(limit);
            // What was answered with an error.
            guard.lock();
            const std::vector<Task> again = agenda.schedule.take_releases();
            guard.unlock();
            for (const Task& task : again)
                duties_.send({task});
            pipeline.drain(limit);
        } catch (const std::exception&) {
            // Nobody is left to tell; the leases run out.
        }
        listener_.close();
    }

    // Does what is due. Returns: false if nothing was.
    bool work(Agenda::Guard& guard, BootTime now) {
        Agenda::Work taken = agenda.take(now);
        const bool subscribe = listener_.subscribe_at().expired();
        const bool unheard = listener_.take_unheard();
        if (taken.empty() && !subscribe && !unheard) return false;
        guard.unlock();
        try {
            bool again = false;
            for (TasksAnswer& answer : taken.answers)
                again = duties_.settle(answer) || again;
            for (const LostLease& loss : taken.losses)
                events->lost(loss);
            for (const Task& task : taken.due.lost)
                lose(task.tenure, ran_out);
            // Nobody can tell us any more that a lock is wanted.
            if (unheard) releases_.give_up_all();
            const bool sends = !taken.due.work.empty();
            duties_.send_all(std::move(taken.due.work));
            for (const std::string& key : taken.lines)
                releases_.time_out(key, now);
            if (taken.pump || again || sends) attend_pipeline();
            if (subscribe) listener_.subscribe();
        } catch (const std::exception& error) {
            // Out of memory, most likely. Nothing is forgotten: all of it becomes due again.
            events->error(LockErrc::backend_unavailable, error.what());
        }
        // Destroying this may destroy the last handle, so not under the mutex.
        taken = {};
        guard.lock();
        return true;
    }

    void sleep(Agenda::Guard& guard) {
        const BootTime now = detail::BootClock::now();
        const BootTime until = agenda.next_due(now);
        const bool open = listener_.open();
        const std::optional<Deadline> look = listener_.look();
        if (!look) return;
        Deadline limit = std::min(
            {Deadline::after(until - now), agenda.pump_at(), listener_.subscribe_at(), *look});
        agenda.fall_asleep(until);
        guard.unlock();
        const bool owed = duties_.owed() != 0;
        std::array<pollfd, 3> files{{{agenda.wake_file().descriptor(), POLLIN, 0},
                                     {open ? listener_.descriptor() : -1, POLLIN, 0},
                                     {owed ? pipeline.awaited_file() : -1, POLLIN, 0}}};
        if (owed) limit = std::min(limit, Deadline::after(look_again));
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(limit.remaining()).count();
        ::poll(files.data(), files.size(),
               static_cast<int>(std::clamp<std::int64_t>(left, 0, 3'600'000)));
        if (files[0].revents != 0) agenda.wake_file().drain();
        try {
            if (files[1].revents != 0) receive();
            if (files[2].revents != 0) attend_pipeline();
        } catch (const std::exception& error) {
            events->error(LockErrc::backend_unavailable, error.what());
        }
        guard.lock();
        agenda.rise();
        if (open && !listener_.open()) listener_.unsubscribed();
    }

    // Requires for these: the agenda's mutex is not held.

    void attend_pipeline() {
        const auto again = pipeline.pump(Deadline::after(options.connect_timeout),
                                         [this] { return agenda.tick(false); });
        if (again) agenda.attend_again(*again);
    }

    void receive() {
        const GrantListener::Heard heard = listener_.receive();
        for (const std::string& key : heard.wanted)
            releases_.give_up_retained(key);
        for (const auto& tenure : heard.unwanted)
            release(tenure, nullptr);
        for (const auto& tenure : heard.revoked)
            lose(tenure, taken_away);
    }

    Releases releases_{*this};
    Duties duties_{*this, releases_};
    GrantListener listener_{*this};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_KEEPER_HPP
