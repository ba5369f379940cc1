// SPDX-License-Identifier: MIT
//
// The one shared thing behind all copies of a RedisClient: the connection, the keeper, and the
// operations on leases that are made of them. Not for users; client.hpp is.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/system.hpp>
#include <codomyrmex/concurrency/detail/thread_identity.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// What came of asking for a lock.
struct Acquisition {
    bool acquired = false;
    /// If not: how long the present holder's lease lasts unless it is renewed.
    std::chrono::nanoseconds holder_left{0};
    /// If not: an earlier sending of the same request may yet be executed, so the hold must not be
    /// used again; it is cancelled in the background.
    bool doubtful = false;
};

/// What came of giving one back.
enum class Released : std::uint8_t { ours, lost, unknown };

/// `options` with the timeouts that the URL gives.
/// Throws: LockError(invalid_argument) for timeouts that are not positive or an empty prefix;
/// LockError(unsupported) for an endpoint with TLS.
[[nodiscard]] inline ClientOptions effective_options(const Endpoint& endpoint,
                                                     ClientOptions options) {
    options.patience = endpoint.patience.value_or(options.patience);
    options.connect_timeout = endpoint.connect_timeout.value_or(options.connect_timeout);
    options.response_timeout = endpoint.response_timeout.value_or(options.response_timeout);
    const auto require_positive = [](std::chrono::nanoseconds value, const char* what) {
        if (value <= std::chrono::nanoseconds::zero()) {
            throw LockError(LockErrc::invalid_argument,
                            std::string{"ClientOptions::"} + what + " must be positive");
        }
    };
    require_positive(options.patience, "patience");
    require_positive(options.connect_timeout, "connect_timeout");
    require_positive(options.response_timeout, "response_timeout");
    if (options.prefix.empty() || options.prefix.find_first_of("{}") != std::string::npos) {
        throw LockError(LockErrc::invalid_argument,
                        "ClientOptions::prefix must not be empty and have no braces");
    }
    if (endpoint.transport == Transport::tls) {
        throw LockError(LockErrc::unsupported,
                        endpoint.to_string() +
                            ": this build has no TLS; use redis:// on a trusted network, unix://, "
                            "or a TLS proxy such as stunnel");
    }
    return options;
}

/// Threads: safe, but for the destructor.
class ClientCore {
  public:
    /// Requires: the arguments outlive the core.
    /// Throws: std::exception if the system has no random numbers.
    ClientCore(const Endpoint& endpoint, const ClientOptions& options)
        : endpoint_{endpoint},
          options_{options},
          process_{detail::process_id()},
          identity_{detail::random_hex_128()},
          holder_{detail::host_name() + ':' + std::to_string(process_) + ':'},
          events_{std::make_shared<Events>(options.hooks)},
          pipeline_{endpoint, options},
          keeper_{endpoint, options, events_} {}

    /// The process that made it; in another it must not be touched.
    [[nodiscard]] std::int64_t process() const noexcept { return process_; }

    [[nodiscard]] ClientStats stats() const {
        ClientStats stats;
        stats.connections = pipeline_.connections() + keeper_.connections();
        stats.requests = pipeline_.requests();
        stats.renewals = keeper_.renewals();
        stats.leases_lost = events_->leases_lost();
        stats.leases_watched = keeper_.watched();
        stats.releases_pending = keeper_.releasing();
        stats.hook_exceptions = events_->exceptions();
        return stats;
    }

    void report(LockErrc errc, const std::string& what) noexcept { events_->error(errc, what); }

    void ping(Deadline deadline) {
        const auto is_pong = [](const Reply& reply) { return reply.as_text() == "PONG"; };
        std::array<std::string_view, 1> command{"PING"};
        const Answer answer = run(command, {}, deadline, Persistence::until_deadline, is_pong);
        if (!answer.ok) throw failure(answer, "no answer to a ping");
    }

    [[nodiscard]] std::shared_ptr<Hold> new_hold(std::shared_ptr<const LockIdentity> identity) {
        std::array<char, 17> number{};
        const auto end = std::to_chars(number.data(), number.data() + number.size(),
                                       counter_.fetch_add(1, std::memory_order_relaxed), 16);
        std::string token = identity_;
        token += '-';
        token.append(number.data(), end.ptr);
        return std::make_shared<Hold>(std::move(identity), std::move(token));
    }

    [[nodiscard]] Acquisition acquire(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        const LockIdentity& identity = hold->identity();
        const std::string ttl = std::to_string(identity.options.ttl.count());
        const std::string holder = holder_text(identity.options.label);
        std::optional<Grant> grant;
        const Answer answer =
            call(acquire_script, {identity.lock_key, identity.fence_key, identity.queue_key},
                 {hold->token(), ttl, holder}, request_limit(deadline), Persistence::until_deadline,
                 [&](const Reply& reply) {
                     grant = read_grant(reply);
                     return grant.has_value();
                 });
        if (!answer.ok) {
            if (answer.retry.maybe_executed()) keeper_.cancel_later(hold);
            throw failure(answer, "cannot acquire '" + hold->name() + '\'');
        }
        if (grant->fence == 0) {
            if (answer.retry.maybe_executed()) keeper_.cancel_later(hold);
            return {false, grant->holder_left, answer.retry.maybe_executed()};
        }
        if (!hold->granted(grant->fence, answer.sent, detail::BootClock::now())) {
            keeper_.release_later(hold);
            throw LockError(LockErrc::validity_exhausted,
                            "'" + hold->name() +
                                "' was acquired, but the answer took longer than " +
                                "its lease of " + ttl + " ms is valid; ask for a longer ttl");
        }
        try {
            keeper_.watch(hold, answer.sent);
        } catch (...) {
            release_quietly(hold);
            throw;
        }
        return {true, {}, false};
    }

    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        return release(hold, request_limit(deadline), Persistence::until_deadline);
    }

    Released release_quietly(const std::shared_ptr<Hold>& hold) noexcept {
        try {
            return release(hold, Deadline::after(quiet_limit), Persistence::one_try);
        } catch (const std::exception& error) {
            events_->error(LockErrc::unknown_outcome,
                           std::string{"cannot release: "} + error.what());
            return Released::unknown;
        }
    }

    [[nodiscard]] bool renew(const std::shared_ptr<Hold>& hold, Deadline deadline) {
        if (!hold->valid()) return false;
        const LockIdentity& identity = hold->identity();
        const std::string ttl = std::to_string(identity.options.ttl.count());
        const Answer answer =
            call(renew_script, {identity.lock_key, identity.fence_key}, {hold->token(), ttl},
                 request_limit(deadline), Persistence::until_deadline, is_flag);
        if (!answer.ok) throw failure(answer, "cannot renew '" + hold->name() + '\'');
        if (answer.reply.integer == 1) return hold->renewed(answer.sent, detail::BootClock::now());
        keeper_.unwatch(*hold);
        if (hold->lose()) events_->lost({hold->name(), hold->fence(), not_ours});
        return false;
    }

  private:
    enum class Persistence : std::uint8_t { one_try, until_deadline };

    struct Answer {
        bool ok = false;
        Reply reply{};
        BootTime sent{};
        Retry retry{};
    };

    struct Grant {
        std::uint64_t fence = 0;  // 0: held by another
        std::chrono::nanoseconds holder_left{0};
    };

    // How long a destructor waits for an answer, and for how long after one that did not come the
    // next ones do not wait at all: a guard of many locks must not take so much time for each.
    static constexpr std::chrono::milliseconds quiet_limit{120};
    static constexpr std::chrono::seconds quiet_pause{1};

    static constexpr const char* not_ours = "the server no longer has it under this token";

    // By when a request must be answered: the caller's deadline; patience for a caller without
    // one; one response_timeout for a caller who does not wait.
    [[nodiscard]] Deadline request_limit(Deadline deadline) const {
        if (deadline.is_never()) return Deadline::after(options_.patience);
        if (deadline.expired()) return Deadline::after(options_.response_timeout);
        return deadline;
    }

    [[nodiscard]] std::string holder_text(const std::string& label) const {
        std::string text = holder_ + std::to_string(detail::kernel_thread_id());
        if (label.empty()) return text;
        text += ' ';
        std::ranges::replace_copy_if(
            label, std::back_inserter(text),
            [](char byte) { return static_cast<unsigned char>(byte) < ' ' || byte == '\x7f'; },
            '?');
        return text;
    }

    [[nodiscard]] static bool is_flag(const Reply& reply) {
        return reply.type == Reply::Type::integer && (reply.integer == 0 || reply.integer == 1);
    }

    // {1, fence, time} or {0, ms left, time}.
    [[nodiscard]] static std::optional<Grant> read_grant(const Reply& reply) {
        if (reply.type != Reply::Type::array || reply.elements.size() != 3) return std::nullopt;
        const auto flag = reply.elements[0].as_integer();
        if (flag == 0) {
            const auto left = reply.elements[1].as_integer();
            if (!left) return std::nullopt;
            return Grant{0, std::chrono::milliseconds{std::clamp<std::int64_t>(
                                *left, 0, std::int64_t{1000} * 86'400 * 365)}};
        }
        const auto text = reply.elements[1].as_text();
        if (flag != 1 || !text || text->size() != 19) return std::nullopt;
        std::uint64_t fence = 0;
        const auto [end, error] = std::from_chars(text->data(), text->data() + 19, fence);
        if (error != std::errc{} || end != text->data() + 19 || fence == 0) return std::nullopt;
        return Grant{fence, {}};
    }

    [[nodiscard]] Released release(const std::shared_ptr<Hold>& hold, Deadline deadline,
                                   Persistence persistence) {
        if (hold->forked()) return Released::lost;
        // First no more renewals, then the release: none may come after it.
        keeper_.unwatch(*hold);
        if (!hold->valid()) {
            // Over already. The key may still be there for a while; nobody needs to wait for that.
            if (hold->lose()) {
                events_->lost({hold->name(), hold->fence(), "it had run out at release"});
            }
            keeper_.release_later(hold);
            return Released::lost;
        }
        if (persistence == Persistence::one_try && unanswered_lately()) {
            hold->end();
            keeper_.release_later(hold);
            return Released::unknown;
        }
        const LockIdentity& identity = hold->identity();
        const Answer answer = call(release_script, {identity.lock_key, identity.queue_key},
                                   {hold->token()}, deadline, persistence, is_flag);
        if (answer.ok && answer.reply.integer == 0 && !answer.retry.maybe_executed()) {
            if (hold->lose()) events_->lost({hold->name(), hold->fence(), not_ours});
            return Released::lost;
        }
        hold->end();
        if (answer.ok && answer.reply.integer == 1) return Released::ours;
        if (!answer.ok) {
            if (persistence == Persistence::one_try) {
                unanswered_.store(detail::BootClock::now().time_since_epoch().count(),
                                  std::memory_order_relaxed);
            }
            keeper_.release_later(hold);
            events_->error(LockErrc::unknown_outcome, endpoint_.to_string() + ": the release of '" +
                                                          hold->name() + "' is unanswered (" +
                                                          answer.retry.reason() +
                                                          "); it is repeated in the background");
        }
        return Released::unknown;
    }

    [[nodiscard]] bool unanswered_lately() const noexcept {
        const std::chrono::nanoseconds last{unanswered_.load(std::memory_order_relaxed)};
        return last.count() != 0 &&
               detail::BootClock::now().time_since_epoch() - last < quiet_pause;
    }

    template <class Check>
    [[nodiscard]] Answer call(const Script& script, std::initializer_list<std::string_view> keys,
                              std::initializer_list<std::string_view> arguments, Deadline deadline,
                              Persistence persistence, Check&& check) {
        std::array<std::string_view, 16> words{"EVALSHA", script.sha1};
        const std::string count = std::to_string(keys.size());
        words[2] = count;
        auto* const end =
            std::ranges::copy(arguments, std::ranges::copy(keys, words.begin() + 3).out).out;
        return run({words.begin(), end}, script.body, deadline, persistence,
                   std::forward<Check>(check));
    }

    // Sends `command` until it is answered in a way that `check` accepts, an error ends it, or the
    // deadline has passed. `body`: what to send instead of a digest that the server does not know.
    template <class Check>
    [[nodiscard]] Answer run(std::span<std::string_view> command, std::string_view body,
                             Deadline deadline, Persistence persistence, Check&& check) {
        Answer answer;
        Backoff backoff{
            std::chrono::milliseconds{100},
            std::hash<std::string>{}(identity_) + counter_.load(std::memory_order_relaxed)};
        bool body_sent = false;
        for (;;) {
            Exchange exchange = pipeline_.request(command, deadline);
            Retry::Step step = Retry::Step::again_later;
            switch (exchange.outcome) {
                case Exchange::Outcome::not_sent:
                    step = answer.retry.not_sent(exchange.error);
                    break;
                case Exchange::Outcome::unknown:
                    step = answer.retry.unknown(exchange.error);
                    break;
                case Exchange::Outcome::answered:
                    if (exchange.reply.is_error()) {
                        step = answer.retry.error_reply(exchange.reply.text);
                    } else if (check(exchange.reply)) {
                        answer.ok = true;
                        answer.sent = exchange.sent;
                        answer.reply = std::move(exchange.reply);
                        return answer;
                    } else {
                        step = answer.retry.wrong_reply(exchange.reply.describe());
                    }
                    break;
            }
            if (step == Retry::Step::give_up) return answer;
            if (step == Retry::Step::reconnect) {
                pipeline_.disconnect(exchange.connection, deadline);
            }
            if (step == Retry::Step::send_body && !std::exchange(body_sent, true)) {
                command[0] = "EVAL";
                command[1] = body;
                continue;
            }
            if (persistence == Persistence::one_try) return answer;
            const std::chrono::nanoseconds pause = backoff.next();
            if (pause >= deadline.remaining()) return answer;
            std::this_thread::sleep_for(pause);
        }
    }

    [[nodiscard]] LockError failure(const Answer& answer, const std::string& what) const {
        return {answer.retry.error(),
                endpoint_.to_string() + ": " + what + ": " + answer.retry.reason()};
    }

    const Endpoint& endpoint_;
    const ClientOptions& options_;
    const std::int64_t process_;
    const std::string identity_;  // 128 random bits: what this process's tokens begin with
    const std::string holder_;    // host:pid:
    std::atomic<std::uint64_t> counter_{1};
    std::atomic<std::int64_t> unanswered_{0};  // when a quiet release was last not answered
    const std::shared_ptr<Events> events_;
    Pipeline pipeline_;
    Keeper keeper_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_CLIENT_CORE_HPP
