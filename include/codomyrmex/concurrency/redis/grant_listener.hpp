// SPDX-License-Identifier: MIT
//
// How threads wait for grants, and how the keeper's thread hears of them: it subscribes when
// somebody waits, stays on the watch while somebody does, and hands each grant to its waiter. While
// nobody listens, whoever waits asks the server again and again.
//
// It shares the agenda's mutex, so that no waiter comes unnoticed between the keeper's last look
// and its sleep.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_GRANT_LISTENER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_GRANT_LISTENER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/agenda.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/keeper_base.hpp>
#include <codomyrmex/concurrency/redis/mailbox.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/subscriber.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, but for what is marked as the keeper's.
class GrantListener {
  public:
    /// What was heard besides grants that somebody waited for.
    struct Heard {
        std::vector<std::string> wanted{};                ///< keys of locks
        std::vector<std::shared_ptr<Tenure>> unwanted{};  ///< granted to nobody: to be given back
        std::vector<std::shared_ptr<Tenure>> revoked{};   ///< lost; no longer renewed
    };

    explicit GrantListener(KeeperBase& base) : base_{base} {}

    // --- For who waits.

    /// Whether grants are heard here; subscribes first if that was not done yet.
    /// Returns: false if it cannot be done, or not by `deadline`.
    [[nodiscard]] bool listen(Deadline deadline) {
        Agenda::Guard guard = base_.agenda.lock();
        if (state_ == Subscriber::State::open) return true;
        if (state_ == Subscriber::State::forbidden) return false;
        const std::uint64_t attempts = attempts_;
        ++listeners_;
        base_.agenda.start();
        base_.agenda.wake();
        const Deadline limit = std::min(deadline, Deadline::after(base_.options.connect_timeout));
        attempted_.wait_until(guard, limit.time(), [&] { return attempts_ != attempts; });
        --listeners_;
        return state_ == Subscriber::State::open;
    }
    /// Whether grants are heard here now.
    [[nodiscard]] bool listens() const {
        const Agenda::Guard guard = base_.agenda.lock();
        return state_ == Subscriber::State::open;
    }

    /// From here on a grant to `token` wakes `waiter`, until it is settled or unwatched.
    void wait_for_grant(const std::string& token, GrantWaiter& waiter) {
        const Agenda::Guard guard = base_.agenda.lock();
        base_.agenda.mailbox.wait(token, waiter);
        // Silence is looked into as long as somebody waits.
        if (!std::exchange(looks_, true)) base_.agenda.wake();
    }
    /// Nobody waits for `token` any more.
    void settle(const std::string& token) {
        const Agenda::Guard guard = base_.agenda.lock();
        base_.agenda.mailbox.settle(token);
    }

    /// A grant that was delivered since the last call.
    [[nodiscard]] std::optional<DeliveredGrant> take_grant(GrantWaiter& waiter) const {
        const Agenda::Guard guard = base_.agenda.lock();
        waiter.state.set(GrantWaiter::waiting);
        return std::exchange(waiter.grant, std::nullopt);
    }

    /// How many connections it has made.
    [[nodiscard]] std::uint64_t connections() const noexcept { return connections_.load(); }

    /// In the child of a fork: closes the parent's file there. Nothing else may be called.
    void close_in_child() const noexcept {
        if (const int file = subscriber_.descriptor(); file >= 0) ::close(file);
    }

    // --- For the keeper's thread. Requires for these: the agenda's mutex is held.

    /// When to subscribe(); never if that need not be done, or cannot.
    [[nodiscard]] Deadline subscribe_at() const noexcept {
        const bool wanted =
            listeners_ != 0 || base_.agenda.mailbox.waiting() != 0 || base_.agenda.timed();
        return state_ == Subscriber::State::closed && wanted ? subscribe_at_ : Deadline::never();
    }

    /// Looks after the silence, if that has to be done, before the thread sleeps.
    /// Returns: when to look again, or never; nothing if the subscription is lost now.
    [[nodiscard]] std::optional<Deadline> look() {
        const bool heeded = base_.agenda.mailbox.waiting() != 0 || base_.agenda.timed();
        // Who waits again soon finds the thread still on the watch, and need not wake it.
        looks_ = open() && (heeded || (looks_ && !subscriber_.silent()));
        if (!looks_) return Deadline::never();
        const Deadline when = heeded ? subscriber_.look_after(base_.options.response_timeout)
                                     : subscriber_.silent_at();
        if (open()) return when;
        unsubscribed();
        return std::nullopt;
    }

    /// The subscription was lost: waits a while before the next.
    void unsubscribed() {
        state_ = subscriber_.state();
        subscribe_at_ = Deadline::after(pause_.next());
        unheard_ = true;
    }
    /// Whether it was, since the last call.
    [[nodiscard]] bool take_unheard() noexcept { return std::exchange(unheard_, false); }

    // --- For the keeper's thread. Requires for these: the agenda's mutex is not held.

    [[nodiscard]] bool open() const noexcept {
        return subscriber_.state() == Subscriber::State::open;
    }
    /// What to poll. Requires: open().
    [[nodiscard]] int descriptor() const noexcept { return subscriber_.descriptor(); }

    /// Connects and subscribes; waits for that, as long as no lease runs out meanwhile.
    void subscribe() {
        const bool opened = subscriber_.open(base_.endpoint, base_.options, base_.name.channel,
                                             [this] { return base_.agenda.tick(true); });
        if (subscriber_.state() == Subscriber::State::forbidden) {
            base_.events->error(LockErrc::backend_refused,
                                base_.endpoint.to_string() + ": " + subscriber_.error() +
                                    "; waiting goes on by asking again and again");
        }
        const Agenda::Guard guard = base_.agenda.lock();
        ++attempts_;
        state_ = subscriber_.state();
        if (opened) {
            connections_.fetch_add(1);
            pause_ = Backoff{};
            // Grants may have been missed.
            base_.agenda.mailbox.wake_all();
        } else {
            subscribe_at_ = Deadline::after(pause_.next());
        }
        attempted_.notify_all();
    }

    /// Reads what has come, and wakes whom it grants something. Requires: open().
    /// Returns: the rest of it, for the caller to act upon.
    [[nodiscard]] Heard receive() {
        const BootTime now = detail::BootClock::now();
        Heard heard;
        subscriber_.receive([&](std::string_view text) {
            detail::WaitWord::Wake wake;
            if (const auto message = read_message(text)) hear(*message, now, heard, wake);
            wake();
        });
        return heard;
    }

    void close() { subscriber_.close(""); }

  private:
    void hear(const Message& message, BootTime now, Heard& heard, detail::WaitWord::Wake& wake) {
        if (message.verb == "wanted") {
            heard.wanted.emplace_back(message.key);
            return;
        }
        const Agenda::Guard guard = base_.agenda.lock();
        if (message.verb == "revoked") {
            auto tenure = base_.agenda.schedule.find(message.token);
            if (!tenure || tenure->identity().keys.main() != message.key) return;
            base_.agenda.schedule.remove(*tenure);
            heard.revoked.push_back(std::move(tenure));
            return;
        }
        if (base_.agenda.mailbox.deliver(message, now, wake)) return;
        // Its waiter gave up; should that not have been heard, this is.
        heard.unwanted.push_back(std::make_shared<Tenure>(
            std::make_shared<LockIdentity>(identity_of_key(base_.name.prefix, message.key)),
            std::string{message.token}, base_.mark));
    }

    KeeperBase& base_;
    std::atomic<std::uint64_t> connections_{0};

    // Guarded by the agenda's mutex.
    std::size_t listeners_ = 0;  // threads that wait for the subscription
    bool looks_ = false;         // the thread looks into the subscription's silence
    Subscriber::State state_ = Subscriber::State::closed;  // as other threads see it
    bool unheard_ = false;                                 // it was lost
    std::uint64_t attempts_ = 0;                           // to subscribe
    std::condition_variable attempted_;                    // attempts_ has changed
    Deadline subscribe_at_ = Deadline::after(std::chrono::nanoseconds::zero());
    Backoff pause_;  // between attempts

    Subscriber subscriber_;  // of the thread alone
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_GRANT_LISTENER_HPP
