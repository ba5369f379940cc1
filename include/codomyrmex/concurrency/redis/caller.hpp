// SPDX-License-Identifier: MIT
//
// A request that is repeated until it is answered, as the table of errors says (retry.hpp): what a
// caller goes through who waits for the server's word.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CALLER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CALLER_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/commands.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// What came of a request.
struct Answer {
    bool ok = false;        ///< answered with what was expected
    bool repeated = false;  ///< an earlier copy may have been executed
    Reply reply{};
    BootTime sent{};               ///< before the copy that was answered
    std::uint64_t connection = 0;  ///< which brought the answer
    Retry retry{};                 ///< what went wrong on the way
};

/// Threads: safe.
class Caller {
  public:
    /// Requires: `keeper` outlives it.
    explicit Caller(KeeperState& keeper) noexcept : keeper_{keeper} {}

    /// By when a request must be answered: the caller's deadline; `patience` for a caller without
    /// one; one `response_timeout` for a caller who does not wait.
    [[nodiscard]] Deadline limit(Deadline deadline) const {
        if (deadline.is_never()) return Deadline::after(keeper_.options.patience);
        if (deadline.expired()) return Deadline::after(keeper_.options.response_timeout);
        return deadline;
    }

    /// Sends what `make(give_up, number)` gives until it is answered in a way that `check(reply)`
    /// accepts, an error ends it, or `deadline` has passed. `give_up`: when this copy is given up.
    /// `number`: what its reply repeats; where `make` takes none, the reply is known by its place
    /// alone. `stop`: ends it between two copies as the deadline does.
    template <class Make, class Check>
    [[nodiscard]] Answer run(Deadline deadline, Make make, Check check,
                             const std::stop_token& stop = {}) {
        constexpr bool numbered = std::is_invocable_v<Make&, BootTime, RequestNumber>;
        Answer answer;
        std::optional<Backoff> backoff;
        bool loaded = false;
        for (;;) {
            const auto patience = std::min<std::chrono::nanoseconds>(
                deadline.remaining(), keeper_.options.response_timeout);
            const Deadline limit =
                stop.stop_possible() ? std::min(deadline, Deadline::after(patience)) : deadline;
            const RequestNumber number = keeper_.next_number();
            const BootTime give_up = detail::BootClock::now() + patience;
            Command request;
            if constexpr (numbered) {
                request = make(give_up, number);
            } else {
                request = make(give_up);
            }
            Exchange exchange = keeper_.pipeline.request(std::move(request), limit);
            Retry::Step step = Retry::Step::again_later;
            switch (exchange.outcome) {
                case Exchange::Outcome::not_sent:
                    // A copy that the deadline cut off says nothing of why there was no answer.
                    if (deadline.expired() && !answer.retry.reason().empty()) return answer;
                    step = answer.retry.not_sent(exchange.error);
                    break;
                case Exchange::Outcome::unknown:
                    if (deadline.expired() && !answer.retry.reason().empty()) {
                        exchange.error = answer.retry.reason();
                    }
                    step = answer.retry.unknown(exchange.error);
                    break;
                case Exchange::Outcome::answered:
                    if (exchange.reply.is_error()) {
                        step = answer.retry.error_reply(exchange.reply.text);
                    } else if ((!numbered || number.take_from(exchange.reply)) &&
                               check(exchange.reply)) {
                        answer.ok = true;
                        answer.repeated = exchange.repeated || answer.retry.maybe_executed();
                        answer.sent = exchange.sent;
                        answer.connection = exchange.connection;
                        answer.reply = std::move(exchange.reply);
                        return answer;
                    } else {
                        step = answer.retry.wrong_reply(exchange.reply.describe());
                    }
                    break;
            }
            if (step == Retry::Step::give_up) return answer;
            if (step == Retry::Step::reconnect) keeper_.pipeline.disconnect(exchange.connection);
            // The next one brings the body along.
            if (step == Retry::Step::send_body && !std::exchange(loaded, true)) continue;
            if (!backoff) {
                backoff.emplace(std::chrono::milliseconds{100},
                                static_cast<std::uint64_t>(give_up.time_since_epoch().count()));
            }
            const std::chrono::nanoseconds pause = backoff->next();
            if (pause >= deadline.remaining() || stop.stop_requested()) return answer;
            std::this_thread::sleep_for(pause);
        }
    }

    [[nodiscard]] LockError failure(const Answer& answer, const std::string& what) const {
        return {answer.retry.error(),
                keeper_.endpoint.to_string() + ": " + what + ": " + answer.retry.reason()};
    }

  private:
    KeeperState& keeper_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CALLER_HPP
