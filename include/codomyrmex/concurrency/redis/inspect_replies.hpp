// SPDX-License-Identifier: MIT
//
// What looking on asks of the server and what it makes of the answers. Pure functions. The text in
// the server was written by other processes, or by strangers: what cannot be read as ours is shown
// as it is, in `label`, and never trusted.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_REPLIES_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_REPLIES_HPP

#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/inspect_scripts.hpp>
#include <codomyrmex/concurrency/redis/key_names.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

// --- Commands.

[[nodiscard]] inline Command look_command(const PrimitiveKeys& keys) {
    return call_of(look_script, {"3", keys.main(), keys.fence(), keys.queue()});
}

/// `skip`, `count`: which of the holders.
[[nodiscard]] inline Command look_many_command(const PrimitiveKeys& keys, std::size_t skip,
                                               std::size_t count) {
    const std::string first = std::to_string(skip);
    const std::string most = std::to_string(count);
    return call_of(look_many_script,
                   {"4", keys.main(), keys.fence(), keys.queue(), keys.meta(), first, most});
}

[[nodiscard]] inline Command force_release_command(const PrimitiveKeys& keys,
                                                   std::string_view token,
                                                   std::string_view prefix) {
    return call_of(force_release_script,
                   {"3", keys.main(), keys.fence(), keys.queue(), token, prefix});
}

[[nodiscard]] inline Command force_release_permits_command(const PrimitiveKeys& keys,
                                                           std::string_view token,
                                                           std::string_view prefix) {
    const Script& script = force_release_permits_script;
    return call_of(script,
                   {"4", keys.main(), keys.fence(), keys.queue(), keys.meta(), token, prefix});
}

[[nodiscard]] inline std::string scan_command(std::string_view cursor, std::string_view keys) {
    return encode({"SCAN", cursor, "MATCH", keys, "COUNT", "1000"});
}

/// Places `first` to `last` of the queue.
[[nodiscard]] inline std::string waiters_command(const PrimitiveKeys& keys, std::size_t first,
                                                 std::size_t last) {
    const std::string from = std::to_string(first);
    const std::string to = std::to_string(last);
    return encode({"ZRANGE", keys.queue(), from, to, "WITHSCORES"});
}

// --- Texts.

/// All of `text` as a number, at least 0.
[[nodiscard]] inline std::optional<std::int64_t> read_count(std::string_view text) noexcept {
    std::int64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (text.empty() || error != std::errc{} || stop != end || value < 0) return std::nullopt;
    return value;
}

/// The front of `text` up to the next space, which is taken off with it.
[[nodiscard]] inline std::string_view take_word(std::string_view& text) noexcept {
    const std::size_t size = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, size);
    text.remove_prefix(std::min(size + 1, text.size()));
    return word;
}

/// Fills in who somebody is, from "host:pid:thread" and, behind a space, a label. Other text
/// becomes the label.
template <class Somebody>
void read_text(std::string_view text, Somebody& somebody) {
    std::string_view label = text;
    const std::string_view who = take_word(label);
    const std::size_t second = who.rfind(':');
    const std::size_t first =
        second == std::string_view::npos || second == 0 ? second : who.rfind(':', second - 1);
    if (first != std::string_view::npos && first != second && first != 0) {
        const auto pid = read_count(who.substr(first + 1, second - first - 1));
        const auto thread = read_count(who.substr(second + 1));
        if (pid && thread) {
            somebody.host = who.substr(0, first);
            somebody.pid = *pid;
            somebody.thread = *thread;
            somebody.label = label;
            return;
        }
    }
    somebody.label = text;
}

/// Fills in also since when: the last word, in seconds of the server's clock, which shows `now`.
inline void read_text_and_since(std::string_view text, ServerTime now, Holder& holder) {
    const std::size_t space = text.rfind(' ');
    const std::size_t last = space == std::string_view::npos ? 0 : space + 1;
    // Up to the year 9999: what follows is a calculation that must not overflow.
    const auto seconds = read_count(text.substr(last));
    if (seconds && *seconds < 253'402'300'800) {
        holder.since = std::chrono::sys_seconds{std::chrono::seconds{*seconds}};
        holder.age = std::max(std::chrono::floor<std::chrono::seconds>(now) - holder.since,
                              std::chrono::seconds::zero());
        text = text.substr(0, space == std::string_view::npos ? 0 : space);
    }
    read_text(text, holder);
}

/// Tokens are "<process>-<number>", with an r behind where the lease may be retained.
[[nodiscard]] inline bool token_retains(std::string_view token) noexcept {
    return token.find('-') != std::string_view::npos && token.ends_with('r');
}

// --- Replies. Each returns nothing for what the command does not answer.

/// What a look at one primitive shows.
struct Look {
    std::vector<Holder> holders{};  ///< those that were asked for
    std::size_t held = 0;           ///< how many there are
    std::size_t waiting = 0;
    std::uint64_t capacity = 1;
    bool foreign = false;  ///< what stands there is not ours
};

/// A reply of look_script.
[[nodiscard]] inline std::optional<Look> read_look(const Reply& reply, PrimitiveKind kind) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 5) return std::nullopt;
    const auto stamp = read_stamp(reply.elements[0].as_text().value_or(""));
    const auto value = reply.elements[1].as_text();
    const auto left = reply.elements[2].as_integer();
    const auto fence = reply.elements[3].as_text();
    const auto waiting = reply.elements[4].as_integer();
    if (!stamp || !value || !left || !fence || !waiting || *waiting < 0) return std::nullopt;
    Look look;
    look.waiting = static_cast<std::size_t>(*waiting);
    if (value->empty()) return look;
    std::string_view text = *value;
    Holder holder;
    holder.kind = kind;
    holder.token = take_word(text);
    look.foreign = holder.token.empty();
    if (look.foreign) return look;
    read_text_and_since(text, to_server_time(*stamp), holder);
    holder.ttl = std::chrono::milliseconds{std::clamp<std::int64_t>(*left, 0, 86'400'000'000)};
    holder.fence = read_stamp(*fence).value_or(0);
    holder.retains = token_retains(holder.token);
    look.held = 1;
    look.holders.push_back(std::move(holder));
    return look;
}

/// A reply of look_many_script.
[[nodiscard]] inline std::optional<Look> read_look_many(const Reply& reply, PrimitiveKind kind) {
    const auto& parts = reply.elements;
    if (reply.type != Reply::Type::array || parts.size() < 5 || (parts.size() - 5) % 3 != 0) {
        return std::nullopt;
    }
    const auto stamp = read_stamp(parts[0].as_text().value_or(""));
    const auto capacity = parts[1].as_text();
    const auto fence = parts[2].as_text();
    const auto waiting = parts[3].as_integer();
    const auto held = parts[4].as_integer();
    if (!stamp || !capacity || !fence || !waiting || *waiting < 0 || !held || *held < 0) {
        return std::nullopt;
    }
    const ServerTime now = to_server_time(*stamp);
    Look look;
    look.waiting = static_cast<std::size_t>(*waiting);
    look.held = static_cast<std::size_t>(*held);
    look.capacity = static_cast<std::uint64_t>(read_count(*capacity).value_or(0));
    for (std::size_t i = 5; i < parts.size(); i += 3) {
        const auto token = parts[i].as_text();
        const auto expiry = parts[i + 1].as_text();
        const auto value = parts[i + 2].as_text();
        if (!token || !expiry || !value) return std::nullopt;
        Holder holder;
        holder.kind = kind;
        holder.token = *token;
        std::string_view text = *value;
        if (const auto weight = read_count(std::string_view{text}.substr(0, text.find(' ')))) {
            holder.weight = static_cast<std::uint64_t>(*weight);
            static_cast<void>(take_word(text));
        }
        read_text_and_since(text, now, holder);
        const auto end = read_count(*expiry).value_or(0);
        const auto left =
            end - std::chrono::floor<std::chrono::microseconds>(now).time_since_epoch().count();
        holder.ttl = std::chrono::milliseconds{
            std::clamp<std::int64_t>(left / 1000, 0, std::int64_t{86'400'000'000})};
        holder.fence = read_stamp(*fence).value_or(0);
        holder.retains = token_retains(*token);
        look.holders.push_back(std::move(holder));
    }
    return look;
}

/// Those who wait, with their scores.
[[nodiscard]] inline std::optional<std::vector<Waiter>> read_waiters(const Reply& reply,
                                                                     PrimitiveKind kind) {
    const auto& parts = reply.elements;
    if (reply.type != Reply::Type::array || parts.size() % 2 != 0) return std::nullopt;
    std::vector<Waiter> waiters;
    for (std::size_t i = 0; i < parts.size(); i += 2) {
        const auto member = parts[i].as_text();
        const auto score = parts[i + 1].as_text();
        if (!member || !score) return std::nullopt;
        std::string_view text = *member;
        Waiter waiter;
        waiter.token = take_word(text);
        const std::string_view rest = text;
        const auto ttl = read_count(take_word(text));
        const auto weight = read_count(take_word(text));
        if (ttl && weight) {
            // Of a lock's waiter, how many fencing tokens it wants.
            if (!has_one_holder(kind)) waiter.weight = static_cast<std::uint64_t>(*weight);
            read_text(text, waiter);
        } else {
            waiter.label = rest;
        }
        waiter.since = std::chrono::sys_time<std::chrono::microseconds>{
            std::chrono::microseconds{read_count(*score).value_or(0)}};
        waiters.push_back(std::move(waiter));
    }
    return waiters;
}

/// One page of a SCAN.
struct ScanPage {
    std::string cursor{};  ///< "0" after the last page
    std::vector<std::string> keys{};
};

[[nodiscard]] inline std::optional<ScanPage> read_scan(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 2 ||
        reply.elements[1].type != Reply::Type::array) {
        return std::nullopt;
    }
    const auto cursor = reply.elements[0].as_text();
    if (!cursor || cursor->empty() || cursor->size() > 20 ||
        cursor->find_first_not_of("0123456789") != std::string_view::npos) {
        return std::nullopt;
    }
    ScanPage page;
    page.cursor = *cursor;
    for (const Reply& each : reply.elements[1].elements) {
        const auto key = each.as_text();
        if (!key) return std::nullopt;
        page.keys.emplace_back(*key);
    }
    return page;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_INSPECT_REPLIES_HPP
