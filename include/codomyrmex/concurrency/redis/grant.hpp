// SPDX-License-Identifier: MIT
//
// What the server says when it gives a lock, at once or later, and until when that can be relied
// on. Pure functions on replies and messages, without I/O and without a clock.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_GRANT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_GRANT_HPP

#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
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
#include <vector>

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

/// Words with single blanks between them, one after another.
class Words {
  public:
    explicit Words(std::string_view text) noexcept : left_{text} {}

    /// Empty if there are no more.
    [[nodiscard]] std::string_view next() noexcept {
        const std::size_t size = std::min(left_.find(' '), left_.size());
        const std::string_view word = left_.substr(0, size);
        left_.remove_prefix(std::min(size + 1, left_.size()));
        return word;
    }
    /// The next one as a number; nothing if it is none.
    [[nodiscard]] std::optional<std::int64_t> number() noexcept {
        const std::string_view word = next();
        std::int64_t value = 0;
        const char* const end = word.data() + word.size();
        const auto [stop, error] = std::from_chars(word.data(), end, value);
        if (error != std::errc{} || stop != end) return std::nullopt;
        return value;
    }
    /// The next one as read_stamp() takes it.
    [[nodiscard]] std::optional<std::uint64_t> stamp() noexcept { return read_stamp(next()); }
    [[nodiscard]] std::optional<ServerTime> time() noexcept {
        const auto value = stamp();
        return value ? std::optional{to_server_time(*value)} : std::nullopt;
    }

    [[nodiscard]] std::string_view rest() const noexcept { return left_; }
    [[nodiscard]] bool over() const noexcept { return left_.empty(); }

  private:
    std::string_view left_;
};

/// The words of a script's answer; none, if `reply` is of another kind.
[[nodiscard]] inline Words words_of(const Reply& reply) noexcept {
    return Words{reply.type == Reply::Type::string ? reply.text : std::string_view{}};
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
    Words words = words_of(reply);
    const auto kind = words.number();
    const auto time = words.time();
    if (!kind || !time) return std::nullopt;
    AcquireAnswer answer;
    answer.time = *time;
    if (*kind == 0) {
        const auto rank = words.number();
        const auto left = words.number();
        if (!rank || !left || !words.over()) return std::nullopt;
        constexpr std::int64_t year = std::int64_t{1000} * 86'400 * 365;
        answer.rank = std::clamp<std::int64_t>(*rank, -1, 1'000'000);
        answer.left = std::chrono::milliseconds{std::clamp<std::int64_t>(*left, 0, year)};
    } else if (*kind == 1) {
        const auto fence = words.stamp();
        const auto fences = words.number();
        if (!fence || !fences || *fences < 1 || !words.over()) return std::nullopt;
        answer.outcome = AcquireAnswer::Outcome::granted;
        answer.fence = *fence;
        answer.fences = static_cast<std::uint64_t>(*fences);
    } else if (*kind == 2 && words.over()) {
        answer.outcome = AcquireAnswer::Outcome::late;
    } else {
        return std::nullopt;
    }
    return answer;
}

/// What the acquire_all script answers.
struct AcquireAllAnswer {
    enum class Outcome : std::uint8_t { held, granted, late, apart };

    Outcome outcome = Outcome::held;  ///< apart: they must be taken one by one
    ServerTime time{};                ///< when it was executed
    std::uint64_t fence = 0;          ///< if granted: the first of each
    std::size_t which = 0;            ///< if held: which of them
};

/// Returns: nothing for what the script does not answer about `count` locks.
[[nodiscard]] inline std::optional<AcquireAllAnswer> read_acquire_all(const Reply& reply,
                                                                      std::size_t count) {
    Words words = words_of(reply);
    const auto kind = words.number();
    const auto fence = words.stamp();
    if (!kind || *kind < 0 || *kind > 3 || !fence) return std::nullopt;
    AcquireAllAnswer answer;
    answer.outcome = static_cast<AcquireAllAnswer::Outcome>(*kind);
    answer.time = to_server_time(*fence);
    if (answer.outcome == AcquireAllAnswer::Outcome::granted) answer.fence = *fence;
    if (answer.outcome == AcquireAllAnswer::Outcome::held) {
        const auto which = words.number();
        if (!which || *which < 0 || static_cast<std::size_t>(*which) >= count) return std::nullopt;
        answer.which = static_cast<std::size_t>(*which);
    }
    if (!words.over()) return std::nullopt;
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
    Words words = words_of(reply);
    const auto kind = words.number();
    const auto time = words.time();
    if (!kind || !time || *kind < 0 || *kind > 3 || !words.over()) return std::nullopt;
    return RenewAnswer{static_cast<RenewAnswer::Outcome>(*kind), *time};
}

/// What the renew_all script answers about `count` locks.
/// Returns: empty for what the script does not answer.
[[nodiscard]] inline std::vector<RenewAnswer> read_renew_all(const Reply& reply,
                                                             std::size_t count) {
    Words words = words_of(reply);
    const auto time = words.time();
    if (!time) return {};
    std::vector<RenewAnswer> answers;
    answers.reserve(count);
    while (answers.size() < count) {
        const auto kind = words.number();
        if (!kind || *kind < 0 || *kind > 3) return {};
        answers.push_back({static_cast<RenewAnswer::Outcome>(*kind), *time});
    }
    if (!words.over()) return {};
    return answers;
}

/// What the release script answers: 1 or 0, and 2 more.
struct ReleaseAnswer {
    bool ours = false;
    bool more = false;  ///< to be called again
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<ReleaseAnswer> read_release(Words words) {
    const auto bits = words.number();
    if (!bits || *bits < 0 || *bits > 3 || !words.over()) return std::nullopt;
    return ReleaseAnswer{(*bits & 1) != 0, (*bits & 2) != 0};
}
[[nodiscard]] inline std::optional<ReleaseAnswer> read_release(const Reply& reply) {
    return read_release(words_of(reply));
}

/// What the release_all script answers about `count` locks to the request of that number; nothing
/// about one whose release was an error.
/// Returns: empty for what the script does not answer to it.
[[nodiscard]] inline std::vector<std::optional<ReleaseAnswer>> read_release_all(
    const Reply& reply, std::size_t count, std::string_view number) {
    std::vector<std::optional<ReleaseAnswer>> answers;
    answers.reserve(count);
    for (const std::string_view text : split_joint(reply, count, number)) {
        answers.push_back(read_release(Words{text}));
        if (!answers.back() && !text.empty()) return {};
    }
    return answers;
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
    Words words = words_of(reply);
    const auto kind = words.number();
    const auto time = words.time();
    if (!kind || !time) return std::nullopt;
    ReweighAnswer answer;
    answer.time = *time;
    if (*kind == 1) {
        const auto fence = words.stamp();
        if (!fence || words.number() != 1 || !words.over()) return std::nullopt;
        answer.outcome = ReweighAnswer::Outcome::converted;
        answer.fence = *fence;
        return answer;
    }
    if ((*kind != 0 && *kind != 3) || !words.over()) return std::nullopt;
    if (*kind == 3) answer.outcome = ReweighAnswer::Outcome::no_room;
    return answer;
}

/// What the resize script answers.
struct ResizeAnswer {
    std::optional<std::uint64_t> old{};  ///< how many permits there were; nothing: it came too late
    ServerTime time{};
};

/// Returns: nothing for what the script does not answer.
[[nodiscard]] inline std::optional<ResizeAnswer> read_resize(const Reply& reply) {
    Words words = words_of(reply);
    const auto old = words.number();
    const auto time = words.time();
    if (!old || *old < -1 || !time || !words.over()) return std::nullopt;
    ResizeAnswer answer;
    if (*old >= 0) answer.old = static_cast<std::uint64_t>(*old);
    answer.time = *time;
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
    Words words{text};
    Message message;
    message.verb = words.next();
    if (message.verb == "wanted") {
        message.key = words.rest();
        if (message.key.empty()) return std::nullopt;
        return message;
    }
    if (message.verb != "grant" && message.verb != "revoked") return std::nullopt;
    message.token = words.next();
    if (message.verb == "revoked") {
        message.key = words.rest();
        if (message.token.empty() || message.key.empty()) return std::nullopt;
        return message;
    }
    const auto fence = words.stamp();
    const auto fences = words.number();
    const auto time = words.time();
    const auto ttl = words.number();
    constexpr std::int64_t day = std::int64_t{1000} * 86'400;
    if (!fence || !fences || *fences < 1 || !time || !ttl || *ttl < 1 || *ttl > day) {
        return std::nullopt;
    }
    message.key = words.rest();
    if (message.key.empty()) return std::nullopt;
    message.fence = *fence;
    message.fences = static_cast<std::uint64_t>(*fences);
    message.time = *time;
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
