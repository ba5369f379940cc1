// SPDX-License-Identifier: MIT
//
// One connection that many threads share. A request goes out, its reply comes back, and both
// belong together by their order; a request whose caller gave up takes the connection with it, so
// that its late reply cannot be taken for another's. Reconnects when asked the next time.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/timed_wait.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// What came of one request.
struct Exchange {
    enum class Outcome : std::uint8_t {
        answered,  ///< `reply` is the server's, an error reply perhaps
        not_sent,  ///< no connection: surely not executed
        unknown,   ///< sent, in part at least, and no reply: executed or not
    };

    Outcome outcome = Outcome::not_sent;
    Reply reply{};
    detail::BootClock::time_point sent{};  ///< read before the first byte went out
    std::string error{};                   ///< what went wrong, unless answered
    std::uint64_t connection = 0;          ///< which connection it went over
};

/// Threads: safe.
class Pipeline {
  public:
    /// Requires: both arguments outlive the pipeline. Does not connect yet.
    Pipeline(const Endpoint& endpoint, const ClientOptions& options) noexcept
        : endpoint_{endpoint}, options_{options} {}

    /// Sends `command` and waits for its reply, at most until `deadline` and no longer than
    /// `response_timeout` (and `connect_timeout`, if it has to connect first).
    /// Throws: std::bad_alloc. Cost: one round trip.
    [[nodiscard]] Exchange request(std::span<const std::string_view> command, Deadline deadline) {
        Exchange exchange;
        if (!detail::try_lock_until(mutex_, deadline)) {
            exchange.error = "the connection was busy until the deadline";
            return exchange;
        }
        const std::lock_guard guard{mutex_, std::adopt_lock};
        if (deadline.expired()) {
            // Sent now, it would cost everybody the connection.
            exchange.error = "the deadline passed before it could be sent";
            return exchange;
        }
        // A request that ended by an exception may have left its reply behind.
        if (connection_.outstanding() != 0) connection_.close();
        if (!connection_.is_ready()) {
            const Io opened = connection_.open(
                endpoint_, options_, std::min(deadline, Deadline::after(options_.connect_timeout)));
            if (opened == Io::refused) {
                exchange.outcome = Exchange::Outcome::answered;
                exchange.reply.type = Reply::Type::error;
                exchange.reply.text = connection_.error();
                return exchange;
            }
            if (opened != Io::done) {
                exchange.error = connection_.error();
                return exchange;
            }
            connections_.fetch_add(1, std::memory_order_relaxed);
        }
        requests_.fetch_add(1, std::memory_order_relaxed);
        const Deadline limit = std::min(deadline, Deadline::after(options_.response_timeout));
        exchange.connection = connections();
        connection_.append(command);
        exchange.sent = detail::BootClock::now();
        exchange.outcome = Exchange::Outcome::unknown;
        if (connection_.flush(limit) != Io::done) {
            exchange.error = connection_.error();
            return exchange;
        }
        switch (connection_.receive(exchange.reply, limit)) {
            case Io::done:
                exchange.outcome = Exchange::Outcome::answered;
                break;
            case Io::timeout:
                connection_.close();
                exchange.error = "no reply in time";
                break;
            default:
                exchange.error = connection_.error();
                break;
        }
        return exchange;
    }

    /// Drops the connection number `connection`, as after a reply that says it leads to the wrong
    /// server; does nothing if that is gone already, or if the deadline comes first.
    void disconnect(std::uint64_t connection, Deadline deadline) {
        if (!detail::try_lock_until(mutex_, deadline)) return;
        const std::lock_guard guard{mutex_, std::adopt_lock};
        if (connections() == connection) connection_.close();
    }

    [[nodiscard]] std::uint64_t connections() const noexcept {
        return connections_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t requests() const noexcept {
        return requests_.load(std::memory_order_relaxed);
    }

  private:
    const Endpoint& endpoint_;
    const ClientOptions& options_;
    std::timed_mutex mutex_;
    Connection connection_;
    std::atomic<std::uint64_t> connections_{0};
    std::atomic<std::uint64_t> requests_{0};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_PIPELINE_HPP
