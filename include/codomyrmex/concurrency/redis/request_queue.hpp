// SPDX-License-Identifier: MIT
//
// The requests of one connection in their order, without I/O: those not yet sent, and those sent
// and not yet answered. A reply belongs to the oldest that is unanswered, so one whose caller gave
// up keeps its place. When the connection breaks, what was sent ends as unknown, or stays to be
// sent again if it was asked to; what was not sent stays.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What came of one request.
struct Exchange {
    enum class Outcome : std::uint8_t {
        not_sent,  ///< surely not executed
        unknown,   ///< sent, in part at least, and no reply: executed or not
        answered,  ///< `reply` is the server's, an error reply perhaps
    };

    Outcome outcome = Outcome::not_sent;
    bool repeated = false;         ///< sent more than once: an earlier copy may have been executed
    Reply reply{};                 ///< if answered
    BootTime sent{};               ///< read before the first byte of the last copy went out
    std::uint64_t connection = 0;  ///< the number of the connection that it went over
    std::string error{};           ///< what went wrong, unless answered
};

/// One command on its way.
struct Request {
    /// What its thread waits for.
    static constexpr std::uint32_t waiting = 0;
    static constexpr std::uint32_t drive = 1;  ///< it is this thread's turn to use the socket
    static constexpr std::uint32_t done = 2;   ///< `exchange` is final

    std::string bytes{};                    ///< the command in the server's format
    Deadline deadline = Deadline::never();  ///< when nobody is interested any more
    bool repeat = false;                    ///< to be sent again after a connection broke
    std::function<void(Exchange&)> then{};  ///< called when it is done, where no thread waits

    Exchange exchange{};
    Deadline::time_point asked{};  ///< when it was sent for the last time
    bool abandoned = false;        ///< its caller gave up
    bool finished = false;         ///< `exchange` is final, though the thread may not know yet
    detail::WaitWord state{waiting};

    [[nodiscard]] bool has_thread() const noexcept { return !then && !abandoned; }
};

using RequestPtr = std::shared_ptr<Request>;

/// Not thread-safe.
class RequestQueue {
  public:
    explicit RequestQueue(std::size_t bound) noexcept : bound_{bound} {}

    /// Puts it behind the others. Returns: false if there are too many.
    [[nodiscard]] bool add(RequestPtr request) {
        if (size() >= bound_) return false;
        unsent_.push_back(std::move(request));
        return true;
    }

    [[nodiscard]] std::size_t size() const noexcept { return unsent_.size() + sent_.size(); }
    [[nodiscard]] std::size_t unsent() const noexcept { return unsent_.size(); }
    [[nodiscard]] std::size_t unanswered() const noexcept { return sent_.size(); }

    /// When the oldest that is unanswered was sent. Requires: there is one.
    [[nodiscard]] Deadline::time_point oldest() const noexcept { return sent_.front()->asked; }

    /// Appends all that is unsent to `output`; from here on it counts as sent, at `now`, over the
    /// connection number `connection`.
    void take(std::string& output, BootTime now, Deadline::time_point steady_now,
              std::uint64_t connection) {
        for (; !unsent_.empty(); unsent_.pop_front()) {
            const RequestPtr& request = unsent_.front();
            output += request->bytes;
            sent_.push_back(request);
            Exchange& exchange = request->exchange;
            exchange.repeated = exchange.outcome == Exchange::Outcome::unknown;
            exchange.outcome = Exchange::Outcome::unknown;
            exchange.sent = now;
            exchange.connection = connection;
            request->asked = steady_now;
        }
    }

    /// The request that `reply` answers, with the reply in it unless its caller gave up; null if
    /// nothing was asked.
    [[nodiscard]] RequestPtr answer(Reply reply) {
        if (sent_.empty()) return nullptr;
        RequestPtr request = std::move(sent_.front());
        sent_.pop_front();
        // What was given up belongs to its caller again.
        if (request->abandoned) return request;
        request->exchange.outcome = Exchange::Outcome::answered;
        request->exchange.reply = std::move(reply);
        return request;
    }

    /// The caller of `request` gives up. What was sent keeps its place.
    void give_up(const RequestPtr& request) {
        request->abandoned = true;
        const auto found = std::ranges::find(unsent_, request);
        if (found != unsent_.end()) unsent_.erase(found);
    }

    /// The connection broke. Returns: what ends by that.
    [[nodiscard]] std::vector<RequestPtr> disconnect(const std::string& why) {
        std::vector<RequestPtr> ended;
        std::deque<RequestPtr> again;
        for (RequestPtr& request : sent_) {
            if (request->abandoned) continue;
            request->exchange.error = why;
            (request->repeat ? again.emplace_back() : ended.emplace_back()) = std::move(request);
        }
        sent_.clear();
        unsent_.insert(unsent_.begin(), std::make_move_iterator(again.begin()),
                       std::make_move_iterator(again.end()));
        return ended;
    }

    /// There is no connection. Returns: what was to be sent for the first time; the rest waits for
    /// the next one, but for what nobody is interested in any more.
    [[nodiscard]] std::vector<RequestPtr> not_connected(const std::string& why) {
        std::vector<RequestPtr> ended;
        std::deque<RequestPtr> again;
        for (RequestPtr& request : unsent_) {
            const bool stays = request->repeat && !request->deadline.expired();
            request->exchange.error = why;
            (stays ? again.emplace_back() : ended.emplace_back()) = std::move(request);
        }
        unsent_ = std::move(again);
        return ended;
    }

    /// The first whose thread waits; null if there is none.
    [[nodiscard]] RequestPtr first_waiting() const {
        for (const auto* queue : {&sent_, &unsent_}) {
            for (const RequestPtr& request : *queue) {
                if (request->has_thread()) return request;
            }
        }
        return nullptr;
    }

  private:
    std::size_t bound_;
    std::deque<RequestPtr> unsent_;
    std::deque<RequestPtr> sent_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
