// SPDX-License-Identifier: MIT
//
// The one shared thing behind all copies of a RedisClient: how a lock is acquired and given back,
// made of the line of this process (local_queues.hpp), the connection (pipeline.hpp), and the
// thread that renews and listens (keeper.hpp). Not for users; client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/thread_identity.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/caller.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/local_queues.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What came of giving a lock back.
enum class Released : std::uint8_t { ours, lost, unknown };

/// The error that unlock() leaves; none if it was ours.
[[nodiscard]] inline std::error_code error_of(Released released) noexcept {
    switch (released) {
        case Released::ours:
            break;
        case Released::lost:
            return LockErrc::lease_lost;
        case Released::unknown:
            return LockErrc::unknown_outcome;
    }
    return {};
}

/// `options` with the timeouts that the URL gives.
/// Throws: LockError(invalid_argument) for timeouts that are not positive or an empty prefix;
/// LockError(unsupported) for an endpoint with TLS.
[[nodiscard]] inline ClientOptions effective_options(const Endpoint& endpoint,
                                                     ClientOptions options) {
    options.patience = endpoint.patience.value_or(options.patience);
    options.connect_timeout = endpoint.connect_timeout.value_or(options.connect_timeout);
    options.response_timeout = endpoint.response_timeout.value_or(options.response_timeout);
    const auto require_positive = [](std::chrono::nanoseconds value, const char* what) {
        if (value <= std::chrono::nanoseconds::zero()) {
            throw LockError(LockErrc::invalid_argument,
                            std::string{"ClientOptions::"} + what + " must be positive");
        }
    };
    require_positive(options.patience, "patience");
    require_positive(options.connect_timeout, "connect_timeout");
    require_positive(options.response_timeout, "response_timeout");
    if (options.grant_ttl < std::chrono::milliseconds{10} ||
        options.grant_ttl > std::chrono::hours{1}) {
        throw LockError(LockErrc::invalid_argument,
                        "ClientOptions::grant_ttl must be from 10 ms to 1 h, not " +
                            std::to_string(options.grant_ttl.count()) + " ms");
    }
    if (options.max_pending == 0) {
        throw LockError(LockErrc::invalid_argument, "ClientOptions::max_pending must not be 0");
    }
    if (options.prefix.empty() || options.prefix.find_first_of("{}") != std::string::npos) {
        throw LockError(LockErrc::invalid_argument,
                        "ClientOptions::prefix must not be empty and have no braces");
    }
    if (endpoint.transport == Transport::tls) {
        throw LockError(LockErrc::unsupported,
                        endpoint.to_string() +
                            ": this build has no TLS; use redis:// on a trusted network, unix://, "
                            "or a TLS proxy such as stunnel");
    }
    return options;
}

/// Threads: safe, but for the destructor.
class ClientCore {
  public:
    /// Throws: std::exception if the system has no random numbers or no files.
    ClientCore(const Endpoint& endpoint, const ClientOptions& options)
        : events_{std::make_shared<Events>(options.hooks)},
          keeper_{std::make_shared<KeeperState>(endpoint, options, make_name(options), events_)} {}
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
        stats.local_handovers = local_handovers_.load(std::memory_order_relaxed);
        stats.grants = grants_.load(std::memory_order_relaxed);
        stats.hook_exceptions = events_->exceptions();
        return stats;
    }

    void report(LockErrc errc, const std::string& what) noexcept { events_->error(errc, what); }

    /// The connection and what belongs to it, for a quorum, which asks many at once.
    [[nodiscard]] const std::shared_ptr<KeeperState>& link() const noexcept { return keeper_; }

    void ping(Deadline deadline, std::nothrow_t) {
        const RequestNumber number = keeper_->next_number();
        static_cast<void>(keeper_->pipeline.request(encode({"PING", number.text()}), deadline));
    }
    void ping(Deadline deadline) {
        const Answer answer = caller_.run(
            no_script, deadline,
            [](Call, BootTime, RequestNumber number) {
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
        if (identity->kind != PrimitiveKind::lock) return acquire_permits(identity, wait);
        const std::string& key = identity->lock_key;
        const auto line = keeper_->queues.come(key);
        std::shared_ptr<Hold> hold;
        try {
            hold = take_turn(*line, identity, wait);
        } catch (...) {
            keeper_->queues.leave(key);
            throw;
        }
        // A hold stays in line until it is given back.
        if (!hold) keeper_->queues.leave(key);
        return hold;
    }

    /// What came of one of several that were tried together.
    struct Tried {
        std::shared_ptr<Hold> hold{};  ///< null: not obtained
        bool failed = false;           ///< whether another holds it is not known
    };

    /// Tries all at once, without waiting for a holder: one write, one round trip.
    /// Requires: `identities` are of locks, and differ. Throws: std::bad_alloc.
    [[nodiscard]] std::vector<Tried> try_acquire_all(
        const std::vector<std::shared_ptr<const LockIdentity>>& identities) {
        std::vector<Tried> results(identities.size());
        // Ends what is not obtained, whatever happens. Declared before what the replies go to.
        std::vector<std::unique_ptr<Attempt>> attempts;
        const Deadline limit = Deadline::after(keeper_->options.response_timeout);
        const auto batch = std::make_shared<Batch>(identities.size());
        std::size_t asking = 0;
        {
            const Pipeline::Cork cork{keeper_->pipeline};
            for (const auto& identity : identities) {
                attempts.push_back(std::make_unique<Attempt>(*this, identity));
                if (!attempts.back()->come()) continue;
                attempts.back()->send(batch, attempts.size() - 1, limit);
                ++asking;
            }
            // In the same write; and whoever waits for this reply reads the others'.
            if (asking != 0) ping(limit, std::nothrow);
        }
        for (std::size_t i = 0; i < attempts.size(); ++i) {
            std::optional<Exchange> exchange;
            if (attempts[i]->asked()) exchange = batch->take(i, limit);
            results[i] = attempts[i]->end(std::move(exchange));
        }
        return results;
    }

    /// For as long as what this gives lives, holds that are given back go in one write.
    [[nodiscard]] std::unique_ptr<Pipeline::Cork> cork() {
        return std::make_unique<Pipeline::Cork>(keeper_->pipeline);
    }

    /// Gives `hold` back without waiting for the server.
    /// Returns: lost if that is known already; else ours.
    Released give_back(const std::shared_ptr<Hold>& hold) noexcept {
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        const std::string& key = tenure->identity().lock_key;
        const LeaveLine leave{keeper_->queues, key};
        try {
            const bool valid = hold->valid();
            if (!valid && hold->lose()) {
                events_->lost({hold->name(), hold->fence(), "it had run out at release"});
            }
            const bool ours = hold->end() && valid;
            tenure->used_by(nullptr);
            pass_on(tenure, hold, ours);
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
        const std::string& key = tenure->identity().lock_key;
        const LeaveLine leave{keeper_->queues, key};
        const GiveUp give_up{keeper_->queues, tenure};
        // First no more renewals, then the release: none may come after it.
        keeper_->unwatch(*tenure);
        std::optional<ReleaseAnswer> word;
        const Answer answer = caller_.run(
            scripts_of(tenure->identity().kind).release, caller_.limit(deadline),
            [&](Call call, BootTime, RequestNumber number) {
                return release_command(call, *tenure, keeper_->name.prefix, number);
            },
            [&](const Reply& reply) {
                word = read_release(reply);
                return word.has_value();
            });
        const bool repeated = answer.retry.maybe_executed();
        Released released = Released::unknown;
        if (answer.ok && word->ours) released = Released::ours;
        if (answer.ok && !word->ours && !repeated) released = Released::lost;
        if (released == Released::lost && hold->lose()) {
            events_->lost({hold->name(), hold->fence(), not_ours});
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
                scripts_of(tenure->identity().kind).renew, caller_.limit(deadline),
                [&](Call call, BootTime, RequestNumber number) {
                    return renew_command(call, *tenure, keeper_->clock.at(tenure->deadline()),
                                         number);
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
        keeper_->lose(tenure, not_ours);
        return false;
    }

    /// Changes how many permits `hold` has. Returns: the hold that takes its place, under a new
    /// fencing token; null if there is no room, and `hold` stands as it did.
    /// Throws: LockError(lease_lost); LockError if the outcome is not known by the deadline.
    [[nodiscard]] std::shared_ptr<Hold> reweigh(const std::shared_ptr<Hold>& hold,
                                                std::uint64_t weight, Deadline deadline) {
        const std::shared_ptr<Tenure>& tenure = hold->tenure();
        if (!hold->valid()) {
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost before it could be converted");
        }
        const std::uint64_t order = tenure->next_conversion();
        std::optional<ReweighAnswer> word;
        const Answer answer = caller_.run(
            reweigh_script, caller_.limit(deadline),
            [&](Call call, BootTime, RequestNumber number) {
                return reweigh_command(call, *tenure, weight, keeper_->name.prefix, order, number);
            },
            [&](const Reply& reply) {
                word = read_reweigh(reply);
                return word.has_value();
            });
        if (!answer.ok) throw caller_.failure(answer, "cannot convert '" + hold->name() + '\'');
        keeper_->clock.learn(word->time, answer.sent);
        if (word->outcome == ReweighAnswer::Outcome::no_room) return nullptr;
        if (word->outcome == ReweighAnswer::Outcome::lost || !hold->valid()) {
            keeper_->unwatch(*tenure);
            keeper_->lose(tenure, not_ours);
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost before it could be converted");
        }
        auto next = std::make_shared<Hold>(*hold, word->fence);
        if (!hold->end()) {
            throw LockError(LockErrc::lease_lost,
                            "'" + hold->name() + "' was lost while it was converted");
        }
        tenure->used_by(next);
        if (!tenure->valid_at(detail::BootClock::now()) && next->lose()) {
            events_->lost({next->name(), next->fence(), "it ran out while it was converted"});
        }
        return next;
    }

    /// Changes how many permits the semaphore has. Returns: how many it had; 0 if it was unknown.
    /// Throws: LockError.
    std::uint64_t resize(const LockIdentity& identity, std::uint64_t capacity, Deadline deadline) {
        std::optional<std::int64_t> old;
        const Answer answer = caller_.run(
            resize_script, caller_.limit(deadline),
            [&](Call call, BootTime give_up, RequestNumber number) {
                return resize_command(call, identity, capacity, keeper_->name.prefix,
                                      keeper_->clock.at(give_up), number);
            },
            [&](const Reply& reply) {
                old = read_resize(reply);
                return old.has_value();
            });
        if (answer.ok && *old == -1) {
            throw LockError(LockErrc::backend_unavailable,
                            keeper_->endpoint.to_string() + ": the resizing of '" + identity.name +
                                "' was executed too late");
        }
        if (!answer.ok) throw caller_.failure(answer, "cannot resize '" + identity.name + '\'');
        return static_cast<std::uint64_t>(*old);
    }

  private:
    static constexpr const char* not_ours = "the server no longer has it under this token";

    // How many fencing tokens a lease reserves that may be retained: as many as there are
    // nanoseconds before the name can be asked for again. So the clock is past all of them by then,
    // and has no need of the fence's key to go on from there, should that be lost.
    static constexpr std::uint64_t retained_block = 10'000;

    [[nodiscard]] static ProcessName make_name(const ClientOptions& options) {
        ProcessName name;
        name.prefix = options.prefix;
        name.id = detail::random_hex_128();
        name.holder = detail::host_name() + ':' + std::to_string(detail::process_id()) + ':';
        name.channel = options.prefix + "wake:" + name.id;
        return name;
    }

    [[nodiscard]] std::string holder_text(const std::string& label) const {
        std::string text = keeper_->name.holder + std::to_string(detail::kernel_thread_id());
        if (label.empty()) return text;
        text += ' ';
        std::ranges::replace_copy_if(
            label, std::back_inserter(text),
            [](char byte) { return static_cast<unsigned char>(byte) < ' ' || byte == '\x7f'; },
            '?');
        return text;
    }

    // 128 bits of the process, a number, and a mark for those who want what we retain.
    [[nodiscard]] std::string new_token(const LeaseOptions& options) {
        std::array<char, 17> number{};
        const auto end = std::to_chars(number.data(), number.data() + number.size(),
                                       counter_.fetch_add(1, std::memory_order_relaxed), 16);
        std::string token = keeper_->name.id;
        token += '-';
        token.append(number.data(), end.ptr);
        if (options.retain != options.retain.zero()) token += 'r';
        return token;
    }

    // What must be done whatever happens.
    struct LeaveLine {
        LocalQueues& queues;
        const std::string& key;
        LeaveLine(LocalQueues& of, const std::string& name) noexcept : queues{of}, key{name} {}
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

    // Gives a tenure back, and its place in line, unless it found its use.
    struct GiveUpUnless {
        ClientCore& core;
        LocalQueues::Line& line;
        const std::shared_ptr<Tenure>& tenure;
        bool used = false;
        GiveUpUnless(ClientCore& of, LocalQueues::Line& in,
                     const std::shared_ptr<Tenure>& what) noexcept
            : core{of}, line{in}, tenure{what} {}
        GiveUpUnless(const GiveUpUnless&) = delete;
        GiveUpUnless& operator=(const GiveUpUnless&) = delete;
        ~GiveUpUnless() {
            if (used) return;
            try {
                core.keeper_->release(tenure, nullptr);
            } catch (const std::exception&) {
                // Out of memory: nobody renews it any more, so it runs out.
            }
            const std::lock_guard guard{line.mutex};
            line.queue.lost(tenure);
        }
    };

    // --- The line of this process.

    [[nodiscard]] std::shared_ptr<Hold> take_turn(
        LocalQueues::Line& line, const std::shared_ptr<const LockIdentity>& identity,
        const Wait& wait) {
        const BootTime entered = detail::BootClock::now();
        for (bool contended = false;;) {
            LocalWaiter me{*identity};
            LocalQueue::Entry entry = LocalQueue::Entry::busy;
            {
                const std::lock_guard guard{line.mutex};
                entry = line.queue.enter(me, wait.for_holders, detail::BootClock::now());
            }
            if (entry == LocalQueue::Entry::busy) return nullptr;
            bool has = entry == LocalQueue::Entry::has;
            if (entry == LocalQueue::Entry::line) {
                contended = true;
                if (!stand_in_line(line, me, wait)) return nullptr;
                has = me.state.load() == LocalWaiter::has;
            }
            if (has) {
                if (auto hold = use(line, me.tenure, contended)) return hold;
                continue;
            }
            if (auto hold = ask(line, identity, wait, entered, contended, me.tenure)) return *hold;
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

    // Asks the server. Returns: the hold, or null if it was not obtained; nothing if it was lost at
    // once, to try again.
    [[nodiscard]] std::optional<std::shared_ptr<Hold>> ask(
        LocalQueues::Line& line, const std::shared_ptr<const LockIdentity>& identity,
        const Wait& wait, BootTime entered, bool contended,
        const std::shared_ptr<Tenure>& retained) {
        std::string failure;
        const BootTime began = detail::BootClock::now();
        try {
            // One that will not do.
            if (retained) keeper_->release(retained, nullptr);
            const Reach reach = reach_of(line, entered, contended);
            if (contended && (wait.deadline.expired() || wait.stop.stop_requested())) {
                asked(line, nullptr, failure, began);
                return nullptr;
            }
            auto tenure =
                std::make_shared<Tenure>(identity, new_token(identity->options), keeper_->mark);
            {
                // What it gives up goes out before the next in line asks.
                Acquisition acquisition{*keeper_,
                                        tenure,
                                        holder_text(identity->options.label),
                                        block_of(line, identity->options, contended),
                                        wait,
                                        reach.deadline,
                                        contended && reach.answers};
                if (!acquisition.run()) tenure = nullptr;
                contended = contended || acquisition.contended();
                if (acquisition.handed_over()) grants_.fetch_add(1, std::memory_order_relaxed);
            }
            asked(line, tenure, failure, began);
            if (!tenure) return nullptr;
            if (auto hold = use(line, tenure, contended)) return hold;
            return std::nullopt;
        } catch (const LockError& error) {
            if (error.code() == LockErrc::backend_unavailable) failure = error.what();
            asked(line, nullptr, failure, began);
            throw;
        } catch (...) {
            asked(line, nullptr, failure, began);
            throw;
        }
    }

    void asked(LocalQueues::Line& line, const std::shared_ptr<Tenure>& tenure, std::string& failure,
               BootTime began) noexcept {
        const std::lock_guard guard{line.mutex};
        if (line.failure.empty()) line.unanswered_since = began;
        line.failure.swap(failure);
        if (tenure) line.wanted = false;
        line.queue.asked(tenure, detail::BootClock::now());
    }

    struct Reach {
        Deadline deadline;    // by when the server must have answered
        bool answers = true;  // whether it was last seen to
    };

    // Until when the server must have answered. Who stood in line behind one that had no answer has
    // waited for the server as well. Throws: LockError if it has waited long enough.
    [[nodiscard]] Reach reach_of(LocalQueues::Line& line, BootTime entered, bool contended) const {
        std::string failure;
        {
            const std::lock_guard guard{line.mutex};
            if (contended) failure = line.failure;
            entered = std::max(entered, line.unanswered_since);
        }
        if (failure.empty()) return {Deadline::after(keeper_->options.patience)};
        const Deadline reach =
            Deadline::after(keeper_->options.patience - (detail::BootClock::now() - entered));
        if (!reach.expired()) return {reach, false};
        throw LockError(LockErrc::backend_unavailable,
                        "another thread with this lock had no answer either: " + failure);
    }

    // How many fencing tokens to reserve: for those who stand in line behind it, or may come; for
    // who stood in line itself is not alone.
    [[nodiscard]] static std::uint64_t block_of(LocalQueues::Line& line,
                                                const LeaseOptions& options, bool stood) {
        if (options.retain != options.retain.zero()) return retained_block;
        const std::lock_guard guard{line.mutex};
        if (line.queue.waiting() == 0 && !stood) return 1;
        return static_cast<std::uint64_t>(options.max_local_handovers) + 1;
    }

    // Returns: null if it is lost already.
    [[nodiscard]] std::shared_ptr<Hold> use(LocalQueues::Line& line,
                                            const std::shared_ptr<Tenure>& tenure, bool contended) {
        GiveUpUnless give_up{*this, line, tenure};
        auto hold = std::make_shared<Hold>(tenure, contended);
        const BootTime now = detail::BootClock::now();
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

    // --- Several locks at once.

    // Where their replies come to.
    class Batch {
      public:
        explicit Batch(std::size_t count) : exchanges_(count) {}
        void put(std::size_t number, Exchange exchange) {
            const std::lock_guard guard{mutex_};
            exchanges_[number] = std::move(exchange);
            changed_.notify_all();
        }
        // Returns: nothing if it has not come by the deadline.
        [[nodiscard]] std::optional<Exchange> take(std::size_t number, Deadline deadline) {
            std::unique_lock guard{mutex_};
            changed_.wait_until(guard, deadline.time(),
                                [&] { return exchanges_[number].has_value(); });
            return std::exchange(exchanges_[number], std::nullopt);
        }

      private:
        std::mutex mutex_;
        std::condition_variable changed_;
        std::vector<std::optional<Exchange>> exchanges_;
    };

    // One lock of several. Used by one thread.
    class Attempt {
      public:
        Attempt(ClientCore& core, std::shared_ptr<const LockIdentity> identity)
            : core_{core},
              identity_{std::move(identity)},
              line_{core.keeper_->queues.come(identity_->lock_key)} {}
        Attempt(const Attempt&) = delete;
        Attempt& operator=(const Attempt&) = delete;
        ~Attempt() {
            if (sent_ && !obtained_) core_.keeper_->give_up(tenure_);
            if (turn_) {
                std::string failure;
                core_.asked(*line_, obtained_ ? tenure_ : nullptr, failure,
                            detail::BootClock::now());
            }
            if (!hold_) core_.keeper_->queues.leave(identity_->lock_key);
        }

        // Returns: whether the server is to be asked.
        [[nodiscard]] bool come() {
            LocalWaiter me{*identity_};
            {
                const std::lock_guard guard{line_->mutex};
                const auto entry = line_->queue.enter(me, false, detail::BootClock::now());
                if (entry == LocalQueue::Entry::busy) return false;
                turn_ = entry == LocalQueue::Entry::asks;
            }
            if (!turn_) {
                hold_ = core_.use(*line_, me.tenure, false);
                return false;
            }
            // One that was retained, and will not do.
            if (me.tenure) core_.keeper_->release(me.tenure, nullptr);
            return true;
        }

        void send(const std::shared_ptr<Batch>& batch, std::size_t place, Deadline limit) {
            KeeperState& keeper = *core_.keeper_;
            tenure_ = std::make_shared<Tenure>(identity_, core_.new_token(identity_->options),
                                               keeper.mark);
            number_ = keeper.next_number();
            std::string bytes =
                acquire_command(keeper.how_to_call(acquire_script), *tenure_, keeper.name.prefix,
                                core_.holder_text(identity_->options.label),
                                keeper.clock.at(detail::BootClock::now() + limit.remaining()),
                                block_of(*line_, identity_->options, false), {}, number_);
            sent_ = true;
            keeper.pipeline.send(std::move(bytes), limit, false, [batch, place](Exchange& reply) {
                batch->put(place, std::move(reply));
            });
        }
        [[nodiscard]] bool asked() const noexcept { return sent_; }

        [[nodiscard]] Tried end(std::optional<Exchange> exchange) {
            if (!sent_) return {hold_, false};
            std::optional<AcquireAnswer> answer;
            if (exchange && exchange->outcome == Exchange::Outcome::answered) {
                const bool numbered = number_.take_from(exchange->reply);
                if (numbered) answer = read_acquire(exchange->reply);
                if (!answer && !exchange->reply.is_error()) {
                    core_.keeper_->pipeline.disconnect(exchange->connection);
                    tenure_->mark_doubtful();
                }
            } else if (!exchange || exchange->outcome == Exchange::Outcome::unknown) {
                tenure_->mark_doubtful();
            }
            if (!answer) return {nullptr, true};
            core_.keeper_->clock.learn(answer->time, exchange->sent);
            if (answer->outcome != AcquireAnswer::Outcome::granted) {
                sent_ = false;  // and so nothing to give up
                return {nullptr, answer->outcome == AcquireAnswer::Outcome::late};
            }
            const Grant grant{
                answer->fence, answer->fences, exchange->sent, identity_->options.ttl, {}};
            if (!tenure_->granted(grant, detail::BootClock::now())) return {nullptr, true};
            core_.keeper_->watch(tenure_, grant.since);
            obtained_ = true;
            turn_ = false;
            std::string failure;
            core_.asked(*line_, tenure_, failure, detail::BootClock::now());
            hold_ = core_.use(*line_, tenure_, false);
            return {hold_, hold_ == nullptr};
        }

      private:
        ClientCore& core_;
        const std::shared_ptr<const LockIdentity> identity_;
        const std::shared_ptr<LocalQueues::Line> line_;
        std::shared_ptr<Tenure> tenure_;
        std::shared_ptr<Hold> hold_;
        RequestNumber number_{0};
        bool turn_ = false;  // it is ours to ask the server
        bool sent_ = false;
        bool obtained_ = false;
    };

    // --- Permits, of which this process may have many: each thread stands in the server's queue
    // itself, so that those who fit beside each other are served together.

    [[nodiscard]] std::shared_ptr<Hold> acquire_permits(
        const std::shared_ptr<const LockIdentity>& identity, const Wait& wait) {
        bool contended = false;
        for (;;) {
            auto tenure =
                std::make_shared<Tenure>(identity, new_token(identity->options), keeper_->mark);
            Acquisition acquisition{*keeper_, tenure, holder_text(identity->options.label),
                                    1,        wait,   Deadline::after(keeper_->options.patience)};
            if (!acquisition.run()) return nullptr;
            contended = contended || acquisition.contended();
            if (acquisition.handed_over()) grants_.fetch_add(1, std::memory_order_relaxed);
            if (auto hold = use(tenure, contended)) return hold;
        }
    }

    // Returns: null if it is lost already; it is then given back.
    [[nodiscard]] std::shared_ptr<Hold> use(const std::shared_ptr<Tenure>& tenure, bool contended) {
        std::shared_ptr<Hold> hold;
        try {
            hold = std::make_shared<Hold>(tenure, contended);
        } catch (...) {
            keeper_->unwatch(*tenure);
            keeper_->release(tenure, nullptr);
            throw;
        }
        tenure->used_by(hold);
        // After that: whoever finds it lost from now on tells this hold.
        if (tenure->valid_at(detail::BootClock::now())) return hold;
        hold->end();
        tenure->used_by(nullptr);
        keeper_->release(tenure, nullptr);
        return nullptr;
    }

    // To the next in line, to nobody for a while, or back to the server.
    void pass_on(const std::shared_ptr<Tenure>& tenure, const std::shared_ptr<Hold>& hold,
                 bool ours) {
        const LockIdentity& identity = tenure->identity();
        if (identity.kind != PrimitiveKind::lock) {
            return keeper_->release(tenure, ours ? hold : nullptr);
        }
        const auto line = keeper_->queues.find(identity.lock_key);
        bool timer = false;
        BootTime until{};
        {
            const std::lock_guard guard{line->mutex};
            if (!ours) {
                // Its key may be there still for a while.
                keeper_->release(tenure, nullptr);
                line->queue.lost(tenure);
                return;
            }
            const BootTime now = detail::BootClock::now();
            const bool may_retain = identity.options.retain != identity.options.retain.zero() &&
                                    !line->wanted && now >= line->not_retained_before &&
                                    keeper_->listens();
            switch (line->queue.give_back(tenure, may_retain, now)) {
                case LocalQueue::GivenBack::handed:
                    local_handovers_.fetch_add(1, std::memory_order_relaxed);
                    break;
                case LocalQueue::GivenBack::retained:
                    until = line->retained_until = now + identity.options.retain;
                    timer = !std::exchange(line->timed, true);
                    break;
                case LocalQueue::GivenBack::release:
                    // Before the next one asks, so that it is executed before.
                    keeper_->release(tenure, hold);
                    line->queue.next_asks();
                    break;
                case LocalQueue::GivenBack::foreign:
                    keeper_->release(tenure, hold);
                    break;
            }
        }
        if (timer) keeper_->look_at(identity.lock_key, until);
    }

    std::atomic<std::uint64_t> counter_{1};
    std::atomic<std::uint64_t> local_handovers_{0};
    std::atomic<std::uint64_t> grants_{0};
    const std::shared_ptr<Events> events_;
    const std::shared_ptr<KeeperState> keeper_;
    Caller caller_{*keeper_};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
