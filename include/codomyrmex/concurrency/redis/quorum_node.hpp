// SPDX-License-Identifier: MIT
//
// What a quorum remembers of one of its nodes, without I/O and without a clock: whether it answers,
// so that a node that is down delays nobody twice; and for how long it has been up, for a server
// that restarted may have forgotten whom it gave its vote.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_NODE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_NODE_HPP

#include <codomyrmex/concurrency/redis/grant.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace codomyrmex::concurrency::redis {

/// Not thread-safe.
class NodeMemory {
  public:
    /// A request is sent at `now`.
    void asked(BootTime now) noexcept {
        if (owed_++ == 0) quiet_since_ = now;
    }
    /// One ended at `now`. `answered`: else the server was not reached, or the connection broke.
    void ended(BootTime now, bool answered) noexcept {
        --owed_;
        quiet_since_ = now;
        if (answered) {
            pause_ = pause_.zero();
            left_alone_until_ = BootTime{};
        } else if (now >= left_alone_until_) {
            // Requests that were under way together count as one failure.
            pause_ = std::clamp<std::chrono::nanoseconds>(pause_ * 2, std::chrono::milliseconds{10},
                                                          std::chrono::milliseconds{160});
            left_alone_until_ = now + pause_;
        }
    }

    /// How many requests have not ended.
    [[nodiscard]] std::size_t owed() const noexcept { return owed_; }

    /// Whether it is not to be asked now, for an answer is not to be expected: it owes something
    /// and has given no sign of life for longer than `patience`, or it was not reached just now.
    [[nodiscard]] bool silent(BootTime now, std::chrono::nanoseconds patience) const noexcept {
        return now < left_alone_until_ || (owed_ != 0 && now - quiet_since_ > patience);
    }

    /// The server at the other end of the connection number `connection` said that it is up for
    /// `uptime`; read at `received`. Servers count whole seconds, so it may be one less.
    void learn_uptime(std::uint64_t connection, std::chrono::seconds uptime,
                      BootTime received) noexcept {
        connection_ = connection;
        up_since_ = received - (uptime - std::chrono::seconds{1});
    }

    /// Whether that must be asked for, if requests go over the connection number `connection`.
    [[nodiscard]] bool uptime_unknown(std::uint64_t connection) const noexcept {
        return connection_ != connection;
    }

    /// For how long the server that answered over `connection` a request sent at `sent` was up at
    /// least; nothing if it is not known.
    [[nodiscard]] std::optional<std::chrono::nanoseconds> uptime(std::uint64_t connection,
                                                                 BootTime sent) const noexcept {
        if (connection_ != connection) return std::nullopt;
        return std::max(sent - up_since_, std::chrono::nanoseconds::zero());
    }

  private:
    std::size_t owed_ = 0;
    BootTime quiet_since_{};
    std::chrono::nanoseconds pause_{0};
    BootTime left_alone_until_{};
    std::optional<std::uint64_t> connection_{};
    BootTime up_since_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_NODE_HPP
