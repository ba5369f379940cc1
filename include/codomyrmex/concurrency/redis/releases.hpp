// SPDX-License-Identifier: MIT
//
// Gives leases back without waiting for the answer: one, several together, those of an acquire that
// came to nothing, and those that this process only retained. What was not answered, or not for
// good, is repeated by the keeper's thread (duties.hpp).

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_RELEASES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_RELEASES_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/batch_scripts.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper_base.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/release_batches.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Requires of who makes it: that it lives as long as the pipeline is used.
/// Threads: safe.
class Releases {
  public:
    explicit Releases(KeeperBase& base) : base_{base} {}

    /// Gives `tenure` back without waiting for the answer. `hold`: of whom a loss is told that the
    /// answer shows, or null.
    void release(const std::shared_ptr<Tenure>& tenure, std::shared_ptr<Hold> hold) {
        base_.unwatch(*tenure);
        const bool plain = tenure->identity().kind == PrimitiveKind::lock && !tenure->doubtful() &&
                           tenure->waiter().empty();
        GivenUp what{tenure, std::move(hold)};
        if (!plain || !base_.batches.collect(what)) release_now(std::move(what));
    }

    /// Gives several locks back, as release() does each, in as few requests as will do.
    void release_all(std::vector<GivenUp> all) noexcept {
        while (!all.empty()) {
            const std::size_t rest = all.size() - std::min(all.size(), KeeperBase::most_together);
            const auto from = all.begin() + static_cast<std::ptrdiff_t>(rest);
            try {
                release_together({from, all.end()});
            } catch (const std::exception&) {
                // Out of memory: nobody renews them any more, so they run out.
            }
            all.erase(from, all.end());
        }
    }

    /// Ends an acquire whose lock was not obtained here, or not in time.
    void give_up(const std::shared_ptr<Tenure>& tenure) noexcept {
        try {
            if (tenure->doubtful()) {
                base_.unwatch(*tenure);
                cancel_later(tenure);
            } else {
                release(tenure, nullptr);
            }
        } catch (const std::exception&) {
            // Out of memory: it ends with its time to live, and a waiter when it is not heard.
        }
    }

    /// The same for an acquire that may be executed later: it is repeated, though the answer be
    /// that there was nothing to release, until it hits or the key would be gone by itself.
    void cancel_later(std::shared_ptr<Tenure> tenure) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now) + base_.options.response_timeout;
        base_.agenda.add({std::move(tenure), Duty::release, gone, true}, now);
    }
    /// Repeats a release until it is answered or the key is gone by itself.
    void release_later(std::shared_ptr<Tenure> tenure) {
        const BootTime now = detail::BootClock::now();
        const BootTime gone = tenure->key_gone_by(now);
        base_.agenda.add({std::move(tenure), Duty::release, gone, false}, now);
    }

    // --- What is retained for nobody.

    /// Gives back all that is retained.
    void give_up_all() {
        const Pipeline::Cork together{base_.pipeline};
        base_.queues.give_up_all(
            [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
    }

    /// Gives back what is retained of the lock `key`, for somebody elsewhere wants it.
    void give_up_retained(const std::string& key) {
        const auto again = base_.queues.wanted(
            key, detail::BootClock::now(),
            [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
        if (again) base_.agenda.look_at(key, *again);
    }

    /// Gives back what is retained of the lock `key`, if it was for long enough.
    void time_out(const std::string& key, BootTime now) {
        const auto again = base_.queues.time_out(
            key, now, [this](const std::shared_ptr<Tenure>& tenure) { release(tenure, nullptr); });
        if (again) base_.agenda.look_at(key, *again);
    }

    /// How many were sent and not answered yet, without those that are repeated.
    [[nodiscard]] std::size_t under_way() const noexcept {
        return under_way_.load(std::memory_order_relaxed);
    }

  private:
    void release_now(GivenUp what) {
        // Sent again before any later request, until it is answered or the key is gone by itself.
        const Tenure& tenure = *what.tenure;
        const Deadline gone = Deadline::after(tenure.key_lasts());
        const RequestNumber number = base_.next_number();
        Command command = release_command(tenure, base_.name.prefix, number);
        send(std::move(command), gone, 1,
             [this, number, what = std::move(what)](Exchange& exchange) {
                 released(what, answer_of(number, exchange), exchange.repeated);
             });
    }

    // Sends a request that gives so many back.
    template <class Then>
    void send(Command command, Deadline gone, std::size_t count, Then then) {
        // Before it is sent, for the answer may be there at once.
        under_way_.fetch_add(count, std::memory_order_relaxed);
        try {
            base_.pipeline.send(std::move(command), gone, true, std::move(then));
        } catch (...) {
            under_way_.fetch_sub(count, std::memory_order_relaxed);
            throw;
        }
    }

    void release_together(std::vector<GivenUp> some) {
        if (some.size() == 1) return release_now(std::move(some.front()));
        std::chrono::nanoseconds last{};
        std::vector<std::shared_ptr<Tenure>> tenures;
        for (const GivenUp& each : some) {
            tenures.push_back(each.tenure);
            last = std::max(last, each.tenure->key_lasts());
        }
        const RequestNumber number = base_.next_number();
        Command command = release_all_command(tenures, base_.name.prefix, number);
        const std::size_t count = some.size();
        send(std::move(command), Deadline::after(last), count,
             [this, number, some = std::move(some)](Exchange& exchange) {
                 all_released(some, number, exchange);
             });
    }

    // An answer to release_together(), on whatever thread.
    void all_released(const std::vector<GivenUp>& some, RequestNumber number,
                      Exchange& exchange) noexcept {
        std::vector<std::optional<ReleaseAnswer>> answers;
        try {
            if (exchange.outcome == Exchange::Outcome::answered && !exchange.reply.is_error()) {
                answers = read_release_all(exchange.reply, some.size(), number.text());
                if (answers.empty()) base_.pipeline.disconnect(exchange.connection);
            }
        } catch (const std::exception&) {
            // Out of memory: they are given back once more, one by one.
        }
        for (std::size_t i = 0; i < some.size(); ++i) {
            released(some[i], answers.empty() ? std::nullopt : answers[i], exchange.repeated);
        }
    }

    // The answer to a release, on whatever thread; nothing if there is none.
    [[nodiscard]] std::optional<ReleaseAnswer> answer_of(RequestNumber number, Exchange& exchange) {
        if (exchange.outcome != Exchange::Outcome::answered || exchange.reply.is_error()) return {};
        if (number.take_from(exchange.reply)) return read_release(exchange.reply);
        // Of another request: which reply belongs to which is anybody's guess from here on.
        base_.pipeline.disconnect(exchange.connection);
        return {};
    }

    // `what` was given back, with this answer or with none, on whatever thread. `repeated`: an
    // earlier copy of the request may have been executed.
    void released(const GivenUp& what, const std::optional<ReleaseAnswer>& answer,
                  bool repeated) noexcept {
        const auto& [tenure, hold] = what;
        under_way_.fetch_sub(1, std::memory_order_relaxed);
        if (!answer || answer->more || tenure->doubtful()) return later(tenure, tenure->doubtful());
        // After a repetition it cannot be told from a release that was executed before.
        if (!answer->ours && !repeated && hold) {
            base_.agenda.tell_later({hold->name(), hold->fence(), KeeperBase::not_ours});
        }
    }

    void later(const std::shared_ptr<Tenure>& tenure, bool to_the_end) noexcept {
        try {
            to_the_end ? cancel_later(tenure) : release_later(tenure);
        } catch (const std::exception&) {
            // Out of memory: the lease runs out.
        }
    }

    KeeperBase& base_;
    std::atomic<std::size_t> under_way_{0};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_RELEASES_HPP
