// SPDX-License-Identifier: MIT
//
// A RedisClient without a Redis: what BasicRedisLock and BasicLease need of a client, with a server
// that is a map in this process. A test decides what it answers, sees what it was asked, and stands
// at the points where the real one would wait, so that races are met on purpose and not by chance.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FAKE_CLIENT_HPP

#include <codomyrmex/concurrency/redis/lock.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace test_support {

/// Copies share the server. Leases are never renewed, so give them time. Threads: safe; the hooks
/// are set before threads use it and run without a mutex held.
class FakeClient {
  public:
    using nanoseconds = std::chrono::nanoseconds;

    // --- What a test sets.

    /// Called at each acquire, before it is answered; may block, and may throw in its place.
    void on_acquire(std::function<void()> call) { server_->on_acquire = std::move(call); }
    /// Called in place of each pause; without one a pause lasts as long as it is asked to.
    void on_pause(std::function<void()> call) { server_->on_pause = std::move(call); }
    void set_patience(nanoseconds patience) { server_->patience = patience; }

    /// Another process holds `name` under `token`, for so much longer by its own account.
    void hold_elsewhere(std::string_view name, nanoseconds left = std::chrono::hours{1},
                        std::string token = "elsewhere") {
        const std::lock_guard guard{server_->mutex};
        server_->keys[std::string{name}] = {std::move(token), left, nullptr};
    }
    /// Whoever holds `name` gives it back.
    void free(std::string_view name) {
        const std::lock_guard guard{server_->mutex};
        server_->keys.erase(std::string{name});
    }
    /// The lease of `name` is lost, and its holder is told as the keeper does it.
    void lose(std::string_view name) {
        std::shared_ptr<codomyrmex::concurrency::redis::Hold> hold;
        {
            const std::lock_guard guard{server_->mutex};
            hold = server_->keys.at(std::string{name}).hold;
            server_->keys.erase(std::string{name});
        }
        hold->lose();
    }
    /// Every release is answered so, whatever it did.
    void answer_releases(codomyrmex::concurrency::redis::Released answer) {
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
    /// The deadline of each acquire so far, and the length of each pause.
    [[nodiscard]] std::vector<codomyrmex::concurrency::Deadline> acquires() const {
        return seen(server_->acquires);
    }
    [[nodiscard]] std::vector<nanoseconds> pauses() const { return seen(server_->pauses); }
    /// The token of each release so far.
    [[nodiscard]] std::vector<std::string> releases() const { return seen(server_->releases); }
    [[nodiscard]] std::size_t renewals() const { return seen(server_->renewals); }
    [[nodiscard]] std::vector<codomyrmex::concurrency::LockErrc> reports() const {
        return seen(server_->reports);
    }
    /// How often the lock asked for the patience: once when a call begins, under its mutex, and
    /// again when it gets its turn.
    [[nodiscard]] std::size_t patience_asked() const { return seen(server_->patience_asked); }

    // --- What a lock needs.

    [[nodiscard]] std::shared_ptr<const codomyrmex::concurrency::redis::LockIdentity> identify(
        std::string_view name, codomyrmex::concurrency::LeaseOptions options) const {
        return std::make_shared<const codomyrmex::concurrency::redis::LockIdentity>(
            codomyrmex::concurrency::redis::make_identity("fake:", name, std::move(options)));
    }

    [[nodiscard]] std::shared_ptr<codomyrmex::concurrency::redis::Hold> new_hold(
        std::shared_ptr<const codomyrmex::concurrency::redis::LockIdentity> identity) {
        const std::lock_guard guard{server_->mutex};
        return std::make_shared<codomyrmex::concurrency::redis::Hold>(
            std::move(identity), "token-" + std::to_string(++server_->tokens));
    }

    [[nodiscard]] codomyrmex::concurrency::redis::Acquisition acquire(
        const std::shared_ptr<codomyrmex::concurrency::redis::Hold>& hold,
        codomyrmex::concurrency::Deadline deadline) {
        {
            const std::lock_guard guard{server_->mutex};
            server_->acquires.push_back(deadline);
        }
        if (server_->on_acquire) server_->on_acquire();
        const std::lock_guard guard{server_->mutex};
        const auto [key, free] = server_->keys.try_emplace(hold->name());
        if (!free) return {false, key->second.left};
        key->second = {hold->token(), hold->ttl(), hold};
        const auto now = codomyrmex::concurrency::detail::BootClock::now();
        return {hold->granted(++server_->fence, now, now), {}};
    }

    [[nodiscard]] codomyrmex::concurrency::redis::Released release(
        const std::shared_ptr<codomyrmex::concurrency::redis::Hold>& hold,
        codomyrmex::concurrency::Deadline) {
        using codomyrmex::concurrency::redis::Released;
        const bool valid = hold->valid();
        hold->end();
        const std::lock_guard guard{server_->mutex};
        server_->releases.push_back(hold->token());
        const auto key = server_->keys.find(hold->name());
        const bool ours = key != server_->keys.end() && key->second.token == hold->token();
        if (ours) server_->keys.erase(key);
        if (server_->forced) return server_->answer;
        return valid && ours ? Released::ours : Released::lost;
    }

    codomyrmex::concurrency::redis::Released release_quietly(
        const std::shared_ptr<codomyrmex::concurrency::redis::Hold>& hold) noexcept {
        return release(hold, codomyrmex::concurrency::Deadline::never());
    }

    [[nodiscard]] bool renew(const std::shared_ptr<codomyrmex::concurrency::redis::Hold>& hold,
                             codomyrmex::concurrency::Deadline) {
        const auto now = codomyrmex::concurrency::detail::BootClock::now();
        const std::lock_guard guard{server_->mutex};
        ++server_->renewals;
        return hold->renewed(now, now);
    }

    [[nodiscard]] nanoseconds patience() const {
        const std::lock_guard guard{server_->mutex};
        ++server_->patience_asked;
        return server_->patience;
    }

    void report(codomyrmex::concurrency::LockErrc errc, const std::string&) {
        const std::lock_guard guard{server_->mutex};
        server_->reports.push_back(errc);
    }

    void pause(nanoseconds duration) {
        {
            const std::lock_guard guard{server_->mutex};
            server_->pauses.push_back(duration);
        }
        if (server_->on_pause) return server_->on_pause();
        std::this_thread::sleep_for(duration);
    }

  private:
    struct Key {
        std::string token;
        nanoseconds left{};
        std::shared_ptr<codomyrmex::concurrency::redis::Hold> hold{};
    };

    struct Server {
        std::function<void()> on_acquire;
        std::function<void()> on_pause;
        bool forced = false;
        codomyrmex::concurrency::redis::Released answer{};
        nanoseconds patience = std::chrono::seconds{10};

        std::mutex mutex;  // guards all below, and `patience`
        std::map<std::string, Key> keys;
        std::uint64_t tokens = 0;
        std::uint64_t fence = 0;
        std::vector<codomyrmex::concurrency::Deadline> acquires;
        std::vector<nanoseconds> pauses;
        std::vector<std::string> releases;
        std::vector<codomyrmex::concurrency::LockErrc> reports;
        std::size_t renewals = 0;
        std::size_t patience_asked = 0;
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
