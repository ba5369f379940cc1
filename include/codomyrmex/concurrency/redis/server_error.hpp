// SPDX-License-Identifier: MIT
//
// What an error reply of a Redis server means for the request that it answers: try again, look for
// the master, load the script, give up. Redis says it by the first word, and Lua wraps that word
// differently from version to version. Pure functions on text, without I/O and allocation.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SERVER_ERROR_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SERVER_ERROR_HPP

#include <algorithm>
#include <array>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// What to do about an error reply. Except for `unknown_outcome` the request was not executed (our
/// scripts begin with the call that can fail).
enum class ServerErrorKind {
    retry,            ///< A state that passes: try again until the deadline.
    rediscover,       ///< Not the master any more: find it, then try again.
    redirect,         ///< The key lives on another node of the cluster.
    load_script,      ///< The server does not know the script: send its body.
    mismatch,         ///< The semaphore has another number of permits, which the message says.
    foreign_key,      ///< The key has a type that this library does not write.
    unknown_outcome,  ///< Stopped half-way: it may have taken effect.
    refused,          ///< It will never do: no permission, wrong password, unknown command.
};

/// An error reply taken apart. The views point into the text that was given to classify().
struct ServerError {
    ServerErrorKind kind = ServerErrorKind::refused;
    std::string_view word{};     ///< Such as "OOM"; "ERR" where Lua or the server names none.
    std::string_view message{};  ///< What follows, without what Lua put before and after it.
};

}  // namespace codomyrmex::concurrency::redis

namespace codomyrmex::concurrency::detail {

/// Takes `prefix` off the front of `text`; returns whether it was there.
constexpr bool take_prefix(std::string_view& text, std::string_view prefix) noexcept {
    if (!text.starts_with(prefix)) return false;
    text.remove_prefix(prefix.size());
    return true;
}

/// Takes off what Lua puts before an error up to Redis 6.2, perhaps with "@user_script:1: " twice
/// and in two spellings:
///     ERR Error running script (call to f_<sha>): @user_script:1: @user_script: 1: -OOM command
constexpr void unwrap_lua_front(std::string_view& text) noexcept {
    if (!take_prefix(text, "ERR Error running script (call to ")) return;
    const auto end = text.find("): ");
    text.remove_prefix(end == text.npos ? text.size() : end + 3);
    while (take_prefix(text, "@user_script:") || take_prefix(text, "user_script:")) {
        text.remove_prefix(std::min(text.find_first_not_of(" 0123456789"), text.size()));
        take_prefix(text, ":");
        text.remove_prefix(std::min(text.find_first_not_of(' '), text.size()));
    }
    take_prefix(text, "-");
}

/// Takes off what Lua puts after an error from Redis 7 on: " script: <sha>, on @user_script:1."
constexpr void unwrap_lua_back(std::string_view& text) noexcept {
    const auto begin = text.rfind(" script: ");
    if (begin != text.npos && text.find(", on @user_script:", begin) != text.npos) {
        text = text.substr(0, begin);
    }
}

/// Takes the first word off, if it is one in capitals as Redis writes it; else it is "ERR".
constexpr std::string_view take_word(std::string_view& text) noexcept {
    const auto size = std::min(text.find(' '), text.size());
    const std::string_view word = text.substr(0, size);
    const bool capitals =
        !word.empty() && std::ranges::all_of(word, [](char c) { return c >= 'A' && c <= 'Z'; });
    if (!capitals) return "ERR";
    text.remove_prefix(std::min(size + 1, text.size()));
    return word;
}

[[nodiscard]] constexpr redis::ServerErrorKind error_kind(std::string_view word,
                                                          std::string_view message) noexcept {
    using enum redis::ServerErrorKind;
    struct Row {
        std::string_view text;
        redis::ServerErrorKind kind;
    };
    constexpr std::array words{
        Row{"LOADING", retry},        // It reads its data from disk.
        Row{"BUSY", retry},           // Somebody's script takes long.
        Row{"CLUSTERDOWN", retry},    // A slot is not served.
        Row{"TRYAGAIN", retry},       // A slot is moving.
        Row{"NOREPLICAS", retry},     // min-replicas-to-write.
        Row{"MASTERDOWN", retry},     // A replica that lost its master.
        Row{"OOM", retry},            // maxmemory.
        Row{"MISCONF", retry},        // It cannot write its snapshot.
        Row{"READONLY", rediscover},  // A replica.
        Row{"MOVED", redirect},
        Row{"ASK", redirect},
        Row{"NOSCRIPT", load_script},
        Row{"WRONGTYPE", foreign_key},
        Row{"FOREIGNKEY", foreign_key},  // Of our own scripts.
        Row{"MISMATCH", mismatch},       // Likewise.
    };
    for (const Row& row : words) {
        if (word == row.text) return row.kind;
    }
    // Errors without a word of their own are known by how their message begins.
    constexpr std::array messages{
        Row{"max number of clients", retry},
        Row{"Script attempted to execute a command while the cluster is down", retry},
        Row{"Script killed by user", unknown_outcome},
    };
    for (const Row& row : messages) {
        if (word == "ERR" && message.starts_with(row.text)) return row.kind;
    }
    return refused;
}

}  // namespace codomyrmex::concurrency::detail

namespace codomyrmex::concurrency::redis {

/// Takes an error reply (without the leading '-') apart, also one that comes out of a script. What
/// it does not know is `refused`: an error that nobody expects must not be retried for ever.
/// Threads: safe.
[[nodiscard]] constexpr ServerError classify(std::string_view error_text) noexcept {
    ServerError error;
    error.message = error_text;
    detail::unwrap_lua_front(error.message);
    detail::unwrap_lua_back(error.message);
    error.word = detail::take_word(error.message);
    error.kind = detail::error_kind(error.word, error.message);
    return error;
}

static_assert(classify("OOM command not allowed").kind == ServerErrorKind::retry);
static_assert(classify("ERR unknown command 'EVALSHA'").kind == ServerErrorKind::refused);

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SERVER_ERROR_HPP
