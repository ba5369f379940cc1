// SPDX-License-Identifier: MIT
//
// What to do after an attempt failed, without I/O: try again at once, later, with the script's
// body, or give up with which error. The rules are the table of errors in README.md's promises;
// every script is idempotent by its owner token, so an attempt with unknown outcome is repeated.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_RETRY_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_RETRY_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency::redis {

/// Pauses that double from 1 ms to `limit`, each shortened at random by up to a half, so that
/// clients that failed together do not come back together.
class Backoff {
  public:
    explicit constexpr Backoff(std::chrono::nanoseconds limit = std::chrono::milliseconds{100},
                               std::uint64_t seed = 1) noexcept
        : limit_{limit}, random_{seed | 1U} {}

    [[nodiscard]] constexpr std::chrono::nanoseconds limit() const noexcept { return limit_; }

    /// The next pause.
    [[nodiscard]] constexpr std::chrono::nanoseconds next() noexcept {
        const std::chrono::nanoseconds whole = std::min(next_, limit_);
        next_ = whole > limit_ / 2 ? limit_ : whole * 2;
        // xorshift64: no more than spreading is asked of it.
        random_ ^= random_ << 13U;
        random_ ^= random_ >> 7U;
        random_ ^= random_ << 17U;
        const auto part = static_cast<std::int64_t>(random_ % 1024U);
        return whole - whole / 2048 * part;
    }

  private:
    std::chrono::nanoseconds limit_;
    std::chrono::nanoseconds next_ = std::chrono::milliseconds{1};
    std::uint64_t random_;
};

/// The state of one request over its attempts.
class Retry {
  public:
    /// What the caller does next.
    enum class Step : std::uint8_t {
        again,        ///< at once
        again_later,  ///< after a pause
        send_body,    ///< at once; the script's body then goes along
        reconnect,    ///< drop the connection, then after a pause
        give_up,      ///< raise error()
    };

    /// The attempt was not executed: no connection.
    [[nodiscard]] Step not_sent(std::string_view why) {
        reason_ = why;
        return Step::again_later;
    }

    /// The attempt was sent and may have been executed.
    [[nodiscard]] Step unknown(std::string_view why) {
        reason_ = why;
        unknown_ = true;
        return Step::again_later;
    }

    /// The server answered with an error.
    [[nodiscard]] Step error_reply(std::string_view text) {
        reason_ = text;
        switch (classify(text).kind) {
            case ServerErrorKind::retry:
                return Step::again_later;
            case ServerErrorKind::rediscover:
                return Step::reconnect;
            // EVAL carries the body and loads it, so that no third answer is possible.
            case ServerErrorKind::load_script:
                return Step::send_body;
            case ServerErrorKind::foreign_key:
                error_ = LockErrc::foreign_key;
                break;
            case ServerErrorKind::mismatch:
                error_ = LockErrc::mismatch;
                break;
            case ServerErrorKind::redirect:
                error_ = LockErrc::unsupported;
                break;
            case ServerErrorKind::unknown_outcome:
                unknown_ = true;
                return Step::again_later;
            case ServerErrorKind::refused:
                error_ = LockErrc::backend_refused;
                break;
        }
        return Step::give_up;
    }

    /// The server answered with what the script does not give; the connection is dropped.
    [[nodiscard]] Step wrong_reply(const std::string& what) {
        reason_ = "the server answered with " + what;
        unknown_ = true;
        return Step::reconnect;
    }

    /// Whether an earlier attempt may have been executed.
    [[nodiscard]] bool maybe_executed() const noexcept { return unknown_; }

    /// What to raise after give_up, or once the deadline has passed: then `backend_unavailable`.
    [[nodiscard]] LockErrc error() const noexcept { return error_; }

    /// The last failure in words; empty if there was none.
    [[nodiscard]] const std::string& reason() const noexcept { return reason_; }

  private:
    LockErrc error_ = LockErrc::backend_unavailable;
    bool unknown_ = false;
    std::string reason_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_RETRY_HPP
