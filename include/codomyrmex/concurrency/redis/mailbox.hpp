// SPDX-License-Identifier: MIT
//
// Who in this process waits for a grant, by owner token. A grant is only a message: it may come
// before the answer that says "queued", after its waiter gave up, or twice by two ways. So a token
// stays in the box as long as its lease may live, waited for or not. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_MAILBOX_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_MAILBOX_HPP

#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// A grant as it came, without its text.
struct DeliveredGrant {
    Message message{};
    BootTime received{};
};

/// One thread that waits for a grant.
struct GrantWaiter {
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t woken = 1;

    detail::WaitWord state{waiting};
    std::optional<DeliveredGrant> grant{};
};

/// Not thread-safe. Whoever waits must not destroy its waiter before it has left the box.
class Mailbox {
  public:
    /// `token` is waited for from here on.
    void wait(const std::string& token, GrantWaiter& waiter) {
        auto& place = waiters_[token];
        if (place == nullptr) ++waiting_;
        place = &waiter;
    }

    /// Nobody waits any more: it has its lease, or will give it back.
    void settle(const std::string& token) {
        const auto found = waiters_.find(token);
        if (found == waiters_.end() || found->second == nullptr) return;
        found->second = nullptr;
        --waiting_;
    }

    /// The lease of `token` is given back.
    void forget(const std::string& token) {
        settle(token);
        waiters_.erase(token);
    }

    /// A grant came. `wake`: wakes its waiter, and is to be called, best when the lock that guards
    /// this is not held. Returns: false if the token is unknown; then it is to be given back.
    [[nodiscard]] bool deliver(const Message& grant, BootTime received,
                               detail::WaitWord::Wake& wake) {
        const auto found = waiters_.find(std::string{grant.token});
        if (found == waiters_.end()) return false;
        if (GrantWaiter* const waiter = found->second) {
            waiter->grant = {grant, received};
            Message& kept = waiter->grant->message;
            kept.verb = kept.token = kept.key = {};
            wake = waiter->state.set_and_wake_later(GrantWaiter::woken);
        }
        return true;
    }

    /// Messages may have been missed: everybody asks again.
    void wake_all() {
        for (const auto& [token, waiter] : waiters_) {
            if (waiter != nullptr) waiter->state.set(GrantWaiter::woken);
        }
    }

    [[nodiscard]] std::size_t waiting() const noexcept { return waiting_; }

  private:
    std::unordered_map<std::string, GrantWaiter*> waiters_;
    std::size_t waiting_ = 0;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_MAILBOX_HPP
