// SPDX-License-Identifier: MIT
//
// A RedisClient without a Redis: what BasicRedisLock and BasicLease need of a client, with a server
// that is a map in this process. A test decides what it answers, sees what it was asked, and stands
// at the points where the real one would wait, so that races are met on purpose and not by chance.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_CLIENT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace test_support {

/// Copies share the server. Leases are never renewed, so give them time. Threads: safe; the hook is
/// set before threads use it and runs without a mutex held.
class FakeClient {
    using Hold = codomyrmex::concurrency::redis::Hold;
    using LockIdentity = codomyrmex::concurrency::redis::LockIdentity;
    using Released = codomyrmex::concurrency::redis::Released;
    using Wait = codomyrmex::concurrency::redis::Wait;

  public:
    // --- What a test sets.

    /// Called at each acquire, before it is answered; may block, and may throw in its place.
    void on_acquire(std::function<void()> call) { server_->on_acquire = std::move(call); }

    /// Another process holds `name`.
    void hold_elsewhere(std::string_view name) {
        const std::lock_guard guard{server_->mutex};
        server_->keys[std::string{name}] = {"elsewhere", nullptr};
    }
    /// Whoever holds `name` gives it back.
    void free(std::string_view name) {
        const std::lock_guard guard{server_->mutex};
        server_->keys.erase(std::string{name});
        server_->changed.notify_all();
    }
    /// The lease of `name` is lost, and its holder is told as the keeper does it.
    void lose(std::string_view name) {
        std::shared_ptr<Hold> hold;
        {
            const std::lock_guard guard{server_->mutex};
            hold = server_->keys.at(std::string{name}).hold;
            server_->keys.erase(std::string{name});
            server_->changed.notify_all();
        }
        hold->lose();
    }
    /// Every release is answered so, whatever it did.
    void answer_releases(Released answer) {
        server_->forced = true;
        server_->answer = answer;
    }

    // --- What a test sees.

    /// The token that holds `name`; empty if it is free.
    [[nodiscard]] std::string holder(std::string_view name) const {
        const std::lock_guard guard{server_->mutex};
        const auto found = server_->keys.find(std::string{name});
        return found == server_->keys.end() ? std::string{} : found->second.token;
    }
    /// How each acquire so far was to wait.
    [[nodiscard]] std::vector<Wait> acquires() const { return seen(server_->acquires); }
    /// The token of each release so far.
    [[nodiscard]] std::vector<std::string> releases() const { return seen(server_->releases); }
    [[nodiscard]] std::size_t renewals() const { return seen(server_->renewals); }
    [[nodiscard]] std::vector<codomyrmex::concurrency::LockErrc> reports() const {
        return seen(server_->reports);
    }

    // --- What a lock needs.

    [[nodiscard]] std::shared_ptr<const LockIdentity> identify(
        std::string_view name, codomyrmex::concurrency::LeaseOptions options) const {
        return std::make_shared<const LockIdentity>(
            codomyrmex::concurrency::redis::make_identity("fake:", name, std::move(options)));
    }

    [[nodiscard]] std::shared_ptr<Hold> acquire(const std::shared_ptr<const LockIdentity>& identity,
                                                const Wait& wait) {
        using codomyrmex::concurrency::redis::Grant;
        using codomyrmex::concurrency::redis::Tenure;
        {
            const std::lock_guard guard{server_->mutex};
            server_->acquires.push_back(wait);
        }
        if (server_->on_acquire) server_->on_acquire();
        std::unique_lock guard{server_->mutex};
        auto& keys = server_->keys;
        const std::stop_callback stop{wait.stop, [this] { server_->changed.notify_all(); }};
        while (keys.count(identity->name) != 0) {
            if (!wait.for_holders || wait.deadline.expired() || wait.stop.stop_requested()) {
                return nullptr;
            }
            // In slices, so that a stop request is seen.
            server_->changed.wait_for(guard, std::chrono::milliseconds{1});
        }
        auto tenure =
            std::make_shared<Tenure>(identity, "token-" + std::to_string(++server_->tokens));
        const auto now = codomyrmex::concurrency::detail::BootClock::now();
        if (!tenure->granted(Grant{++server_->fence, 1, now, tenure->ttl(), {}}, now)) {
            return nullptr;
        }
        auto hold = std::make_shared<Hold>(tenure, false);
        keys[identity->name] = {tenure->token(), hold};
        return hold;
    }

    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold,
                                   codomyrmex::concurrency::Deadline) {
        const bool valid = hold->valid();
        hold->end();
        const std::lock_guard guard{server_->mutex};
        server_->releases.push_back(hold->token());
        const auto key = server_->keys.find(hold->name());
        const bool ours = key != server_->keys.end() && key->second.token == hold->token();
        if (ours) server_->keys.erase(key);
        server_->changed.notify_all();
        if (server_->forced) return server_->answer;
        return valid && ours ? Released::ours : Released::lost;
    }

    Released give_back(const std::shared_ptr<Hold>& hold) noexcept {
        return release(hold, codomyrmex::concurrency::Deadline::never());
    }

    [[nodiscard]] bool renew(const std::shared_ptr<Hold>& hold, codomyrmex::concurrency::Deadline) {
        const auto now = codomyrmex::concurrency::detail::BootClock::now();
        const std::lock_guard guard{server_->mutex};
        ++server_->renewals;
        return hold->tenure()->renewed(now, now);
    }

    void report(codomyrmex::concurrency::LockErrc errc, const std::string&) {
        const std::lock_guard guard{server_->mutex};
        server_->reports.push_back(errc);
    }

  private:
    struct Key {
        std::string token;
        std::shared_ptr<Hold> hold;
    };

    struct Server {
        std::function<void()> on_acquire;
        bool forced = false;
        Released answer{};

        std::mutex mutex;  // guards all below
        std::condition_variable changed;
        std::map<std::string, Key> keys;
        std::uint64_t tokens = 0;
        std::uint64_t fence = 0;
        std::vector<Wait> acquires;
        std::vector<std::string> releases;
        std::vector<codomyrmex::concurrency::LockErrc> reports;
        std::size_t renewals = 0;
    };

    template <class T>
    [[nodiscard]] T seen(const T& what) const {
        const std::lock_guard guard{server_->mutex};
        return what;
    }

    std::shared_ptr<Server> server_ = std::make_shared<Server>();
};

static_assert(codomyrmex::concurrency::LockClient<FakeClient>);

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_CLIENT_HPP
