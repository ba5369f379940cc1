// SPDX-License-Identifier: MIT
//
// A mutual exclusion lock among processes and machines that share a Redis server. Use it as a
// std::timed_mutex, with the guards of the standard, or take a Lease from it to know more. Within
// one process a LocalLock does the same a thousand times faster.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/client_core.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/lease.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>

#include <algorithm>
#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// What a lock needs of the client that speaks for it; the meaning stands with RedisClient.
template <class C>
concept LockClient =
    std::copy_constructible<C> &&
    requires(C& client, std::string_view name, LeaseOptions options,
             std::shared_ptr<const redis::LockIdentity> identity,
             const std::shared_ptr<redis::Hold>& hold, Deadline deadline,
             std::chrono::nanoseconds duration, LockErrc errc, const std::string& what) {
        { client.identify(name, options) } -> std::same_as<decltype(identity)>;
        { client.new_hold(identity) } -> std::same_as<std::shared_ptr<redis::Hold>>;
        { client.acquire(hold, deadline) } -> std::same_as<redis::Acquisition>;
        { client.release(hold, deadline) } -> std::same_as<redis::Released>;
        { client.release_quietly(hold) } noexcept -> std::same_as<redis::Released>;
        { client.renew(hold, deadline) } -> std::same_as<bool>;
        { client.patience() } -> std::same_as<std::chrono::nanoseconds>;
        client.report(errc, what);
        client.pause(duration);
    };

/// A lock on a name. All objects of one name and one key prefix on one server exclude each other,
/// in this process and in others, and so do the threads that share an object.
///
///     state                lock()                   unlock()
///     free                 held                     not_held reported, nothing sent
///     held by this object  another thread waits,    free
///                          the same one deadlocks
///     held elsewhere       waits, then held         not_held reported, nothing sent
///     lost                 waits, then held         lease_lost reported, the holder untouched
///
/// A hold is a lease: it is renewed in the background until unlock(), and can be lost, which
/// valid(), stop_token() and fence() tell of. The hold belongs to the object, not to the thread: a
/// guard may be moved to another thread. Two objects of one name in one std::scoped_lock never end.
///
/// Verbs that take an OnError throw LockError, or leave the error in a std::error_code if one is
/// given last: backend_unavailable, backend_refused, foreign_key, validity_exhausted. Contention
/// and time-outs are no errors.
///
/// Threads: all members but the destructor are safe to call concurrently.
template <LockClient Client>
class BasicRedisLock {
  public:
    using lease_type = BasicLease<Client>;

    /// A lock on `name` at the server of `client`. Sends nothing yet.
    /// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes (any bytes) and the
    /// options keep their bounds.
    BasicRedisLock(std::string_view name, Client client, LeaseOptions options = {})
        : client_{std::move(client)}, identity_{client_.identify(name, std::move(options))} {}

    /// The same with a client of its own. Programs with more than one lock should share a client.
    BasicRedisLock(std::string_view name, std::string_view url, LeaseOptions options = {})
        requires std::constructible_from<Client, std::string_view>
        : BasicRedisLock{name, Client{url}, std::move(options)} {}

    BasicRedisLock(const BasicRedisLock&) = delete;
    BasicRedisLock& operator=(const BasicRedisLock&) = delete;

    /// Releases what it holds inside, as unlock() does. Leases taken from it go on.
    ~BasicRedisLock() {
        if (current_.hold) client_.release_quietly(current_.hold);
    }

    [[nodiscard]] const std::string& name() const noexcept { return identity_->name; }
    [[nodiscard]] const LeaseOptions& options() const noexcept { return identity_->options; }

    /// Waits for the lock: for a holder as long as it takes, for a server that does not answer at
    /// most `patience`.
    /// Throws: LockError if the server cannot answer. Cost: one round trip when free.
    void lock(OnError error = {}) {
        error.run([this] { acquire(Deadline::never(), Wait::yes, Keep::inside); });
    }

    /// Takes the lock if it is free, without waiting for a holder; for the server at most
    /// `response_timeout`.
    /// Returns: true if acquired. Throws, cost: as lock().
    [[nodiscard]] bool try_lock(OnError error = {}) {
        return error.run([this] { return acquire(at_once(), Wait::no, Keep::inside) != nullptr; });
    }

    /// Waits at most `timeout`. Zero or negative tries once, as try_lock().
    /// Returns: true if acquired; false only if another was seen to hold it.
    /// Throws, cost: as lock().
    template <class Rep, class Period>
    [[nodiscard]] bool try_lock_for(const std::chrono::duration<Rep, Period>& timeout,
                                    OnError error = {}) {
        const Deadline deadline = Deadline::after(timeout);
        return error.run([&] { return acquire(deadline, Wait::yes, Keep::inside) != nullptr; });
    }

    /// Waits until `time`. A time that has passed tries once. As try_lock_for().
    template <class Clock, class Duration>
    [[nodiscard]] bool try_lock_until(const std::chrono::time_point<Clock, Duration>& time,
                                      OnError error = {}) {
        const Deadline deadline = Deadline::at(time);
        return error.run([&] { return acquire(deadline, Wait::yes, Keep::inside) != nullptr; });
    }

    /// Gives the lock back. Misuse and loss go to the client's hooks.
    /// Cost: one round trip, 120 ms at most; an unanswered release is repeated in the background.
    void unlock() noexcept {
        std::error_code ignored;
        unlock(ignored);
    }

    /// The same, and tells: not_held, lease_lost, or unknown_outcome if the server did not answer.
    void unlock(std::error_code& code) noexcept {
        code.clear();
        // The last touch of this object is inside take_hold(): whoever acquires after the release
        // may destroy it.
        Client client{client_};
        const std::shared_ptr<const redis::LockIdentity> identity = identity_;
        const std::shared_ptr<redis::Hold> hold = take_hold();
        if (!hold) {
            code = LockErrc::not_held;
            client.report(LockErrc::not_held,
                          "unlock of '" + identity->name + "', which is not held");
            return;
        }
        switch (client.release_quietly(hold)) {
            case redis::Released::ours:
                break;
            case redis::Released::lost:
                code = LockErrc::lease_lost;
                break;
            case redis::Released::unknown:
                code = LockErrc::unknown_outcome;
                break;
        }
    }

    /// As lock(), but the hold becomes a Lease, which may outlive the lock. The lock itself does
    /// not hold then: unlock() is `not_held`.
    [[nodiscard]] lease_type lease(OnError error = {}) {
        return error.run([this] { return lease_until(Deadline::never(), Wait::yes); });
    }

    /// As try_lock(), with an empty lease for false.
    [[nodiscard]] lease_type try_lease(OnError error = {}) {
        return error.run([this] { return lease_until(at_once(), Wait::no); });
    }

    /// As try_lock_for(), with an empty lease for false.
    template <class Rep, class Period>
    [[nodiscard]] lease_type try_lease_for(const std::chrono::duration<Rep, Period>& timeout,
                                           OnError error = {}) {
        const Deadline deadline = Deadline::after(timeout);
        return error.run([&] { return lease_until(deadline, Wait::yes); });
    }

    /// As try_lock_until(), with an empty lease for false.
    template <class Clock, class Duration>
    [[nodiscard]] lease_type try_lease_until(const std::chrono::time_point<Clock, Duration>& time,
                                             OnError error = {}) {
        const Deadline deadline = Deadline::at(time);
        return error.run([&] { return lease_until(deadline, Wait::yes); });
    }

    // Of the hold inside, as the members of BasicLease; as without a lease where there is none.

    [[nodiscard]] std::uint64_t fence() const noexcept {
        const auto hold = current();
        return hold ? hold->fence() : 0;
    }
    [[nodiscard]] bool valid() const noexcept {
        const auto hold = current();
        return hold && hold->valid();
    }
    [[nodiscard]] std::chrono::nanoseconds remaining() const noexcept {
        const auto hold = current();
        return hold ? hold->remaining() : std::chrono::nanoseconds::zero();
    }
    [[nodiscard]] std::stop_token stop_token() const noexcept {
        const auto hold = current();
        return hold ? hold->stop_token() : std::stop_token{};
    }

  private:
    enum class Wait : bool { no, yes };
    enum class Keep : bool { outside, inside };

    // A hold and the thread that locked: not its owner, but the most likely one to unlock it.
    struct Seat {
        std::shared_ptr<redis::Hold> hold{};
        std::thread::id thread{};
    };

    [[nodiscard]] static Deadline at_once() noexcept {
        return Deadline::after(std::chrono::nanoseconds::zero());
    }

    [[nodiscard]] lease_type lease_until(Deadline deadline, Wait wait) {
        auto hold = acquire(deadline, wait, Keep::outside);
        return hold ? lease_type{client_, std::move(hold)} : lease_type{};
    }

    std::shared_ptr<redis::Hold> acquire(Deadline deadline, Wait wait, Keep keep) {
        bool contended = false;
        const std::optional<Deadline> reach = take_turn(deadline, wait, contended);
        if (!reach) return nullptr;
        std::shared_ptr<redis::Hold> hold;
        try {
            hold = ask(deadline, wait, *reach, contended);
        } catch (const LockError& error) {
            end_turn(error.code() == LockErrc::backend_unavailable ? error.what() : "");
            throw;
        } catch (...) {
            end_turn({});
            throw;
        }
        if (hold && keep == Keep::inside) sit_down(hold);
        end_turn({});
        return hold;
    }

    // One thread of the object asks the server at a time; the others wait here for their turn.
    // Returns: until when the server must have answered; nothing if the time is over.
    // Throws: the error of those who asked before, if the server did not answer them for as long
    // as this caller may wait for it.
    [[nodiscard]] std::optional<Deadline> take_turn(Deadline deadline, Wait wait, bool& contended) {
        const Deadline reach = patience_from_now();
        std::unique_lock guard{mutex_};
        const std::uint64_t failures = failures_;
        while (asking_ || occupied()) {
            contended = true;
            if (wait == Wait::no || deadline.expired()) return std::nullopt;
            wait_for_change(guard, deadline);
        }
        const bool failing = !failure_.empty() && failures_ != failures;
        if (failing && reach.expired()) {
            throw LockError(LockErrc::backend_unavailable,
                            "another thread with this lock had no answer either: " + failure_);
        }
        if (contended && deadline.expired()) return std::nullopt;
        // So that sit_down() has room whatever comes: what is granted must not be dropped.
        aside_.reserve(aside_.size() + 1);
        asking_ = true;
        return failing ? reach : patience_from_now();
    }

    // Asks until it is granted or the deadline has come. `reach`: by when there must be an answer,
    // for callers without a deadline.
    [[nodiscard]] std::shared_ptr<redis::Hold> ask(Deadline deadline, Wait wait, Deadline reach,
                                                   bool contended) {
        auto hold = client_.new_hold(identity_);
        if (contended) hold->mark_contended();
        redis::Backoff pauses{std::chrono::milliseconds{50},
                              std::hash<std::string>{}(hold->token())};
        bool seen_held = false;
        for (;;) {
            const auto asked = Deadline::clock::now();
            redis::Acquisition answer;
            try {
                answer = client_.acquire(hold, deadline.is_never() ? reach : deadline);
            } catch (const LockError& error) {
                // Held when last seen, and then the time was over: that is no failure.
                if (!seen_held || !deadline.expired_within(pauses.limit()) ||
                    error.code() != LockErrc::backend_unavailable) {
                    throw;
                }
                return nullptr;
            }
            if (answer.acquired) return hold;
            if (answer.doubtful) hold = client_.new_hold(identity_);
            hold->mark_contended();
            seen_held = true;
            if (wait == Wait::no || deadline.expired()) return nullptr;
            // No longer than the holder's lease lasts, if it is not renewed.
            const auto left = std::max<std::chrono::nanoseconds>(answer.holder_left,
                                                                 std::chrono::milliseconds{1});
            const auto round_trip = Deadline::clock::now() - asked;
            client_.pause(std::min({pauses.next(), left, deadline.remaining()}));
            // An answer must have time to come: a request given up costs the connection.
            if (deadline.expired_within(2 * round_trip)) {
                client_.pause(deadline.remaining());
                return nullptr;
            }
            reach = patience_from_now();
        }
    }

    [[nodiscard]] Deadline patience_from_now() { return Deadline::after(client_.patience()); }

    // Ends the turn that take_turn() gave. `failure`: why the server did not answer, if so. (Words
    // and no exception: one exception is not for several threads.)
    void end_turn(std::string failure) noexcept {
        const std::lock_guard guard{mutex_};
        asking_ = false;
        failure_ = std::move(failure);
        if (!failure_.empty()) ++failures_;
        // All, for each has a limit of its own to compute from what is new.
        changed_.notify_all();
    }

    // A lost hold steps aside for a new one until its own unlock() comes.
    void sit_down(const std::shared_ptr<redis::Hold>& hold) noexcept {
        const std::lock_guard guard{mutex_};
        if (current_.hold) aside_.push_back(std::move(current_));
        current_ = {hold, std::this_thread::get_id()};
    }

    // Requires: the mutex is held.
    [[nodiscard]] bool occupied() const noexcept { return current_.hold && current_.hold->valid(); }

    // Waits until something has changed, or may have: nobody tells when a hold runs out.
    void wait_for_change(std::unique_lock<std::mutex>& guard, Deadline deadline) {
        if (current_.hold) {
            deadline = std::min(deadline, Deadline::after(current_.hold->remaining() +
                                                          std::chrono::milliseconds{1}));
        }
        if (deadline.is_never()) {
            changed_.wait(guard);
        } else {
            changed_.wait_until(guard, deadline.time());
        }
    }

    // The hold that an unlock() on this thread means, or nothing.
    [[nodiscard]] std::shared_ptr<redis::Hold> take_hold() {
        const std::lock_guard guard{mutex_};
        std::shared_ptr<redis::Hold> hold;
        const auto mine = std::ranges::find(aside_, std::this_thread::get_id(), &Seat::thread);
        const bool current_is_mine = current_.thread == std::this_thread::get_id();
        if (current_.hold && (current_is_mine || mine == aside_.end())) {
            hold = std::exchange(current_, {}).hold;
        } else if (!aside_.empty()) {
            const auto meant = mine == aside_.end() ? aside_.begin() : mine;
            hold = std::move(meant->hold);
            aside_.erase(meant);
        }
        changed_.notify_all();
        return hold;
    }

    [[nodiscard]] std::shared_ptr<redis::Hold> current() const noexcept {
        const std::lock_guard guard{mutex_};
        return current_.hold;
    }

    Client client_;
    std::shared_ptr<const redis::LockIdentity> identity_;
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    bool asking_ = false;
    Seat current_;
    std::vector<Seat> aside_;
    std::uint64_t failures_ = 0;
    std::string failure_;  // why the last to ask had no answer; empty if it had
};

/// A lock over one Redis server.
using RedisLock = BasicRedisLock<RedisClient>;

static_assert(LockClient<RedisClient>);
static_assert(TimedLockable<RedisLock>);
static_assert(Leasing<RedisLock>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCK_HPP
