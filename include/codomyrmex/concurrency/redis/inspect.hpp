// SPDX-License-Identifier: MIT
//
// Looks at what stands in the server and takes it away from its holders: what RedisClient's members
// for operators do. Without state; not for users, client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/caller.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/inspect_replies.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/key_names.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>

#include <algorithm>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_set>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class Inspector {
  public:
    /// Requires: `keeper` outlives it.
    explicit Inspector(KeeperState& keeper) noexcept : keeper_{keeper}, caller_{keeper} {}

    /// What one primitive looks like, with the first `count` of its holders.
    [[nodiscard]] Look look(std::string_view name, PrimitiveKind kind, std::size_t count) {
        const PrimitiveKeys keys = keys_of(prefix(), kind, name);
        Look look = ask(keys, kind, name, 0, std::min(count, page_size));
        while (look.holders.size() < std::min(count, look.held)) {
            // Others may have gone meanwhile, and then those behind moved up.
            const Look more =
                ask(keys, kind, name, look.holders.size(), std::min(count, page_size));
            if (more.holders.empty()) break;
            for (const Holder& holder : more.holders) {
                if (std::ranges::find(look.holders, holder.token, &Holder::token) ==
                    look.holders.end()) {
                    look.holders.push_back(holder);
                }
            }
            look.held = more.held;
        }
        if (look.foreign) {
            throw LockError(LockErrc::foreign_key, keeper_.endpoint.to_string() + ": the key of '" +
                                                       std::string{name} +
                                                       "' was not written by this library");
        }
        return look;
    }

    /// Those who wait, in the order in which they will be served.
    [[nodiscard]] std::vector<Waiter> waiters(std::string_view name, PrimitiveKind kind) {
        const PrimitiveKeys keys = keys_of(prefix(), kind, name);
        std::vector<Waiter> waiters;
        std::unordered_set<std::string> seen;
        for (std::size_t first = 0;; first += page_size) {
            std::optional<std::vector<Waiter>> page;
            call([&] { return waiters_command(keys, first, first + page_size - 1); },
                 [&](const Reply& reply) {
                     page = read_waiters(reply, kind);
                     return page.has_value();
                 },
                 "cannot see who waits for '" + std::string{name} + '\'');
            for (Waiter& waiter : *page) {
                if (seen.insert(waiter.token).second) waiters.push_back(std::move(waiter));
            }
            if (page->size() < page_size) return waiters;
        }
    }

    /// The primitives that are held and whose names match, sorted by name and kind.
    [[nodiscard]] std::vector<RedisEntry> list(std::string_view pattern) {
        const NamePattern names{pattern};
        const std::string keys = names.of_keys(prefix());
        std::vector<RedisEntry> entries;
        std::unordered_set<std::string> seen;
        std::string cursor = "0";
        for (std::size_t pages = 0; pages < most_pages; ++pages) {
            std::optional<ScanPage> page;
            call([&] { return scan_command(cursor, keys); },
                 [&](const Reply& reply) {
                     page = read_scan(reply);
                     return page.has_value();
                 },
                 "cannot list");
            std::vector<RedisEntry> found;
            for (std::string& key : page->keys) {
                // SCAN may give a key twice.
                auto named = name_of_key(prefix(), key);
                if (!named || !names.matches(named->second) || !seen.insert(std::move(key)).second)
                    continue;
                found.push_back({.name = std::move(named->second), .kind = named->first});
            }
            look_at_all(found);
            for (RedisEntry& entry : found) {
                // It may have been given back since the key was seen.
                if (entry.holders != 0 || entry.foreign) entries.push_back(std::move(entry));
            }
            cursor = page->cursor;
            if (cursor == "0" || entries.size() >= most_entries) break;
        }
        std::ranges::sort(entries, [](const RedisEntry& a, const RedisEntry& b) {
            return std::tie(a.name, a.kind) < std::tie(b.name, b.kind);
        });
        return entries;
    }

    /// Takes from `seen` what it holds. Returns: false if it no longer holds it.
    [[nodiscard]] bool force_release(std::string_view name, const Holder& seen) {
        if (seen.token.empty() || seen.token.find(' ') != std::string::npos) {
            throw LockError(LockErrc::invalid_argument,
                            "force_release: the holder has no token; pass what holder() returned");
        }
        const PrimitiveKeys keys = keys_of(prefix(), seen.kind, name);
        const std::string what = "cannot take '" + std::string{name} + "' away";
        bool repeated = false;
        bool freed = false;
        for (std::int64_t bits = 2; (bits & 2) != 0;) {
            const Answer answer = call([&] { return force_release_command_of(keys, seen); },
                                       [&](const Reply& reply) {
                                           bits = reply.as_integer().value_or(-1);
                                           return bits >= 0 && bits <= 3;
                                       },
                                       what);
            repeated = repeated || answer.retry.maybe_executed();
            freed = freed || (bits & 1) != 0;
        }
        if (!freed && repeated) {
            throw LockError(LockErrc::unknown_outcome,
                            keeper_.endpoint.to_string() + ": " + what +
                                ": the first answer was lost; that holder does not have it now");
        }
        return freed;
    }

  private:
    // Of holders and waiters. COUNT of a SCAN is as much: a server is busy with it for less than a
    // millisecond.
    static constexpr std::size_t page_size = 1000;
    // What a server can make us do at most.
    static constexpr std::size_t most_entries = 100'000;
    static constexpr std::size_t most_pages = 1U << 20U;

    [[nodiscard]] const std::string& prefix() const noexcept { return keeper_.name.prefix; }

    // Returns: an answer that is ok. Throws: LockError.
    template <class Make, class Check>
    Answer call(Make make, Check check, const std::string& what) {
        Answer answer = caller_.run(
            caller_.limit(Deadline::never()), [&](BootTime) { return make(); }, check);
        if (!answer.ok) throw caller_.failure(answer, what);
        return answer;
    }

    [[nodiscard]] Look ask(const PrimitiveKeys& keys, PrimitiveKind kind, std::string_view name,
                           std::size_t skip, std::size_t count) {
        std::optional<Look> look;
        call([&] { return look_command_of(keys, kind, skip, count); },
             [&](const Reply& reply) {
                 look = read_look_of(reply, kind);
                 return look.has_value();
             },
             "cannot see who holds '" + std::string{name} + '\'');
        return *std::move(look);
    }

    [[nodiscard]] static Command look_command_of(const PrimitiveKeys& keys, PrimitiveKind kind,
                                                 std::size_t skip, std::size_t count) {
        return has_one_holder(kind) ? look_command(keys) : look_many_command(keys, skip, count);
    }
    [[nodiscard]] Command force_release_command_of(const PrimitiveKeys& keys,
                                                   const Holder& seen) const {
        return has_one_holder(seen.kind)
                   ? force_release_command(keys, seen.token, prefix())
                   : force_release_permits_command(keys, seen.token, prefix());
    }
    [[nodiscard]] static std::optional<Look> read_look_of(const Reply& reply, PrimitiveKind kind) {
        return has_one_holder(kind) ? read_look(reply, kind) : read_look_many(reply, kind);
    }

    // What the looks of one page share with whoever reads their replies.
    struct Page {
        std::mutex mutex{};
        std::condition_variable all_came{};
        std::size_t missing = 0;
        std::vector<std::optional<Exchange>> exchanges{};
    };

    // All in one write, as far as the connection is there; what was not answered so is asked for
    // once more, one by one.
    void look_at_all(std::vector<RedisEntry>& entries) {
        if (entries.empty()) return;
        const auto page = std::make_shared<Page>();
        page->missing = entries.size();
        page->exchanges.resize(entries.size());
        std::vector<PrimitiveKeys> keys;
        for (const RedisEntry& entry : entries)
            keys.push_back(keys_of(prefix(), entry.kind, entry.name));
        const Deadline deadline = Deadline::after(keeper_.options.response_timeout);
        for (std::size_t i = 0; i < entries.size(); ++i) {
            keeper_.pipeline.send(
                look_command_of(keys[i], entries[i].kind, 0, 1), deadline, false,
                [page, i](Exchange& exchange) {
                    const std::lock_guard guard{page->mutex};
                    page->exchanges[i] = std::move(exchange);
                    if (--page->missing == 0) page->all_came.notify_all();
                },
                true);
        }
        // Whoever waits for this reads the others' replies before.
        call([] { return encode({"PING"}); },
             [](const Reply& reply) { return reply.as_text() == "PONG"; }, "cannot list");
        std::unique_lock lock{page->mutex};
        page->all_came.wait_until(lock, deadline.time(), [&] { return page->missing == 0; });
        std::vector<std::optional<Exchange>> exchanges = std::exchange(page->exchanges, {});
        exchanges.resize(entries.size());
        page->exchanges.resize(entries.size());
        lock.unlock();
        for (std::size_t i = 0; i < entries.size(); ++i)
            fill_in(entries[i], keys[i], exchanges[i]);
    }

    void fill_in(RedisEntry& entry, const PrimitiveKeys& keys,
                 const std::optional<Exchange>& exchange) {
        std::optional<Look> look;
        if (exchange && exchange->outcome == Exchange::Outcome::answered) {
            look = read_look_of(exchange->reply, entry.kind);
        }
        try {
            if (!look) look = ask(keys, entry.kind, entry.name, 0, 1);
        } catch (const LockError& error) {
            if (error.code() != LockErrc::foreign_key) throw;
            entry.foreign = true;
            return;
        }
        entry.holders = look->held;
        entry.waiting = look->waiting;
        entry.capacity = look->capacity;
        entry.foreign = look->foreign;
        if (!look->holders.empty()) entry.holder = std::move(look->holders.front());
    }

    KeeperState& keeper_;
    Caller caller_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_HPP
