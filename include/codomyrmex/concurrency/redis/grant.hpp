// SPDX-License-Identifier: MIT
//
// What the server says when it gives a lock, at once or later, and until when that can be relied
// on. Pure functions on replies and messages, without I/O and without a clock.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_GRANT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_GRANT_HPP

#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

namespace codomyrmex::concurrency::redis {

/// A point on this machine's clock.
using BootTime = detail::BootClock::time_point;

/// A point on the server's clock, which nobody else's is compared with.
using ServerTime = std::chrono::sys_time<std::chrono::nanoseconds>;

/// How much earlier than the server a client gives a lease up, for clocks that do not run alike:
/// a hundredth of the time to live, and 2 ms.
[[nodiscard]] constexpr std::chrono::nanoseconds drift_allowance(
    std::chrono::nanoseconds ttl) noexcept {
    return ttl / 100 + std::chrono::milliseconds{2};
}

/// A lease as it was given.
struct Grant {
    std::uint64_t fence = 0;             ///< the first fencing token
    std::uint64_t fences = 1;            ///< how many were reserved
    BootTime since{};                    ///< surely not later than when the server gave it
    std::chrono::nanoseconds ttl{0};     ///< for how long the server gave it
    std::chrono::nanoseconds waited{0};  ///< what `since` was computed over, by two clocks

    /// The end of validity, an allowance for drifting clocks taken off.
    [[nodiscard]] BootTime until() const noexcept {
        return since + ttl - drift_allowance(ttl + waited);
    }
};

/// 19 digits, as the server writes its times and fences, as a number; nothing for other text.
[[nodiscard]] inline std::optional<std::uint64_t> read_stamp(std::string_view text) noexcept {
    std::uint64_t value = 0;
    const char* const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (text.size() != 19 || error != std::errc{} || stop != end || value == 0) return std::nullopt;
    return value;
}

[[nodiscard]] inline ServerTime to_server_time(std::uint64_t stamp) noexcept {
    return ServerTime{std::chrono::nanoseconds{static_cast<std::int64_t>(stamp)}};
}

/// What the acquire script answers.
struct AcquireAnswer {
    enum class Outcome : std::uint8_t { granted, held, late };

    Outcome outcome = Outcome::held;
    ServerTime time{};                 ///< when it was executed
    std::uint64_t fence = 0;           ///< if granted
    std::uint64_t fences = 0;          ///< if granted
    std::int64_t rank = -1;            ///< if held: how many wait before; -1: does not wait
    std::chrono::milliseconds left{};  ///< if held: the holder's time, unless it is renewed
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<AcquireAnswer> read_acquire(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 4) return std::nullopt;
    const auto kind = reply.elements[0].as_integer();
    const auto time = read_stamp(reply.elements[1].as_text().value_or(""));
    const auto last = reply.elements[3].as_integer();
    if (!kind || !time || !last) return std::nullopt;
    AcquireAnswer answer;
    answer.time = to_server_time(*time);
    if (*kind == 0) {
        const auto rank = reply.elements[2].as_integer();
        if (!rank) return std::nullopt;
        constexpr std::int64_t year = std::int64_t{1000} * 86'400 * 365;
        answer.rank = std::clamp<std::int64_t>(*rank, -1, 1'000'000);
        answer.left = std::chrono::milliseconds{std::clamp<std::int64_t>(*last, 0, year)};
        return answer;
    }
    if (*kind == 2) {
        answer.outcome = AcquireAnswer::Outcome::late;
        return answer;
    }
    const auto fence = read_stamp(reply.elements[2].as_text().value_or(""));
    if (*kind != 1 || !fence || *last < 1) return std::nullopt;
    answer.outcome = AcquireAnswer::Outcome::granted;
    answer.fence = *fence;
    answer.fences = static_cast<std::uint64_t>(*last);
    return answer;
}

/// What the renew script answers.
struct RenewAnswer {
    enum class Outcome : std::uint8_t { lost, renewed, wanted, late };

    Outcome outcome = Outcome::lost;  ///< wanted: renewed, and somebody waits
    ServerTime time{};
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<RenewAnswer> read_renew(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 2) return std::nullopt;
    const auto kind = reply.elements[0].as_integer();
    const auto time = read_stamp(reply.elements[1].as_text().value_or(""));
    if (!kind || !time || *kind < 0 || *kind > 3) return std::nullopt;
    return RenewAnswer{static_cast<RenewAnswer::Outcome>(*kind), to_server_time(*time)};
}

/// What the release script answers: {1} or {0}, and 2 more.
struct ReleaseAnswer {
    bool ours = false;
    bool more = false;  ///< to be called again
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<ReleaseAnswer> read_release(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 1) return std::nullopt;
    const auto bits = reply.elements[0].as_integer();
    if (!bits || *bits < 0 || *bits > 3) return std::nullopt;
    return ReleaseAnswer{(*bits & 1) != 0, (*bits & 2) != 0};
}

/// What the reweigh script answers.
struct ReweighAnswer {
    enum class Outcome : std::uint8_t { lost, converted, no_room };

    Outcome outcome = Outcome::lost;
    ServerTime time{};
    std::uint64_t fence = 0;  ///< if converted
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<ReweighAnswer> read_reweigh(const Reply& reply) {
    if (reply.type != Reply::Type::array || reply.elements.size() != 4) return std::nullopt;
    const auto kind = reply.elements[0].as_integer();
    const auto time = read_stamp(reply.elements[1].as_text().value_or(""));
    if (!kind || !time || (*kind != 0 && *kind != 1 && *kind != 3)) return std::nullopt;
    ReweighAnswer answer;
    answer.time = to_server_time(*time);
    if (*kind == 3) answer.outcome = ReweighAnswer::Outcome::no_room;
    if (*kind != 1) return answer;
    const auto fence = read_stamp(reply.elements[2].as_text().value_or(""));
    if (!fence) return std::nullopt;
    answer.outcome = ReweighAnswer::Outcome::converted;
    answer.fence = *fence;
    return answer;
}

/// A message that the server published to this process: "wanted <key>", "revoked <token> <key>", or
/// "grant <token> <fence> <how many> <server time> <ms> <key>". A key may have any bytes.
struct Message {
    std::string_view verb{};   ///< "grant", "wanted", "revoked"
    std::string_view key{};    ///< of the lock
    std::string_view token{};  ///< of a grant or a revocation; the next are a grant's
    std::uint64_t fence = 0;
    std::uint64_t fences = 0;
    ServerTime time{};
    std::chrono::milliseconds ttl{0};
};

/// Returns: nothing for what no script of ours publishes. The views point into `text`.
[[nodiscard]] inline std::optional<Message> read_message(std::string_view text) {
    const auto next = [&text] {
        const std::size_t size = std::min(text.find(' '), text.size());
        const std::string_view word = text.substr(0, size);
        text.remove_prefix(std::min(size + 1, text.size()));
        return word;
    };
    const auto number = [](std::string_view word) -> std::optional<std::int64_t> {
        std::int64_t value = 0;
        const char* const end = word.data() + word.size();
        const auto [stop, error] = std::from_chars(word.data(), end, value);
        if (error != std::errc{} || stop != end || value < 1) return std::nullopt;
        return value;
    };
    Message message;
    message.verb = next();
    if (message.verb == "wanted") {
        message.key = text;
        if (text.empty()) return std::nullopt;
        return message;
    }
    if (message.verb != "grant" && message.verb != "revoked") return std::nullopt;
    message.token = next();
    if (message.verb == "revoked") {
        message.key = text;
        if (message.token.empty() || text.empty()) return std::nullopt;
        return message;
    }
    const auto fence = read_stamp(next());
    const auto fences = number(next());
    const auto time = read_stamp(next());
    const auto ttl = number(next());
    constexpr std::int64_t day = std::int64_t{1000} * 86'400;
    if (!fence || !fences || !time || !ttl || *ttl > day || text.empty()) return std::nullopt;
    message.key = text;
    message.fence = *fence;
    message.fences = static_cast<std::uint64_t>(*fences);
    message.time = to_server_time(*time);
    message.ttl = std::chrono::milliseconds{*ttl};
    return message;
}

/// The lease that a published grant gives to a waiter whose last request, sent at `asked`, the
/// server answered at its time `answered`; the message was received at `received`.
///
/// The grant may have lain in a buffer for any time, so it does not count from its receipt. It was
/// given `message.time - answered` after that answer, by the server's own clock, and the answer not
/// before `asked`: so not before the sum of these, drift aside.
[[nodiscard]] inline Grant grant_by_message(const Message& message, BootTime asked,
                                            ServerTime answered, BootTime received) noexcept {
    const std::chrono::nanoseconds waited = message.time - answered;
    Grant grant;
    grant.fence = message.fence;
    grant.fences = message.fences;
    grant.since = std::min(received, asked + waited);
    grant.ttl = message.ttl;
    grant.waited = std::max(waited, std::chrono::nanoseconds::zero());
    return grant;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_GRANT_HPP
