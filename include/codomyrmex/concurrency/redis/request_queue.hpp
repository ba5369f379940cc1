// SPDX-License-Identifier: MIT
//
// The requests of one connection in their order, without I/O: those not yet sent, and those sent
// and not yet answered. Those that are alike and sent at the same time go in one call of a script
// (command.hpp). A reply belongs to the oldest that is unanswered, so one whose caller gave up
// keeps its place. When the connection breaks, what was sent ends as unknown, or stays to be sent
// again if it was asked to; what was not sent stays.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/detail/wait_word.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/script_calls.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
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

    Request() = default;
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;
    virtual ~Request() = default;

    Command command{};
    Deadline deadline = Deadline::never();  ///< when nobody is interested any more
    bool repeat = false;                    ///< to be sent again after a connection broke
    bool waited_for = true;                 ///< by a thread; else tell() is called

    Exchange exchange{};
    bool abandoned = false;  ///< its caller gave up
    bool finished = false;   ///< `exchange` is final, though the thread may not know yet
    detail::WaitWord state{waiting};

    [[nodiscard]] bool has_thread() const noexcept { return waited_for && !abandoned; }

    /// Where no thread waits for it: `exchange` is final.
    virtual void tell() {}
};

/// One that no thread waits for. `then`: called with the exchange when that is final.
template <class Then>
struct RequestThen final : Request {
    explicit RequestThen(Then what) : then{std::move(what)} { waited_for = false; }
    void tell() override { then(exchange); }

    Then then;
};

using RequestPtr = std::shared_ptr<Request>;

/// Not thread-safe.
class RequestQueue {
  public:
    /// So many requests at most go in one call: a script that takes long holds up everybody.
    static constexpr std::size_t most_joint = 100;

    explicit RequestQueue(std::size_t bound) noexcept : bound_{bound} {}

    /// Puts it behind the others. Returns: false if there are too many.
    [[nodiscard]] bool add(RequestPtr request) {
        if (size() >= bound_) return false;
        unsent_.push_back(std::move(request));
        return true;
    }

    [[nodiscard]] std::size_t size() const noexcept { return unsent_.size() + in_calls_; }
    [[nodiscard]] std::size_t unsent() const noexcept { return unsent_.size(); }
    /// How many replies are owed.
    [[nodiscard]] std::size_t unanswered() const noexcept { return sent_.size(); }

    /// When the oldest that is unanswered was sent. Requires: there is one.
    [[nodiscard]] Deadline::time_point oldest() const noexcept { return sent_.front().asked; }

    /// Appends all that is unsent to `output`; from here on it counts as sent, at `now`, over the
    /// connection number `connection`.
    /// Returns: how many replies are owed for it.
    std::size_t take(std::string& output, BootTime now, Deadline::time_point steady_now,
                     std::uint64_t connection) {
        const std::size_t before = sent_.size();
        // Where those begin that may be put together: nothing overtakes what goes by itself.
        std::size_t run = before;
        for (; !unsent_.empty(); unsent_.pop_front()) {
            const RequestPtr& request = unsent_.front();
            Exchange& exchange = request->exchange;
            exchange.repeated = exchange.outcome == Exchange::Outcome::unknown;
            exchange.outcome = Exchange::Outcome::unknown;
            exchange.sent = now;
            exchange.connection = connection;
            if (request->command.parts.joint == nullptr || connection == apart_on_) {
                sent_.push_back({request, {}, steady_now});
                run = sent_.size();
            } else {
                join(request, run, steady_now, connection);
            }
            ++in_calls_;
        }
        for (std::size_t i = before; i < sent_.size(); ++i)
            append(output, sent_[i], connection);
        return sent_.size() - before;
    }

    /// `reply` belongs to the oldest that is unanswered. Puts whom it answers into `ended`, but for
    /// whose caller gave up. Of a call for several, those are sent again, each by itself, that it
    /// has no answer for; all of them, if it is an error.
    /// Returns: false, and does nothing, if it is no answer to that: which reply belongs to which
    /// is anybody's guess from here on.
    /// Throws: std::bad_alloc; nothing has changed then.
    [[nodiscard]] bool answer(Reply reply, std::vector<RequestPtr>& ended) {
        if (sent_.empty()) return false;
        Sent& oldest = sent_.front();
        ended.reserve(ended.size() + oldest.count());
        if (oldest.others.empty()) {
            if (is_unknown_script(reply) && oldest.first->command.script != nullptr) {
                calls_.forget(*oldest.first->command.script);
            }
            finish(oldest.first, std::move(reply), ended);
        } else {
            const std::string number{oldest.first->command.number_text()};
            std::vector<std::string_view> texts(oldest.count());
            if (!reply.is_error()) texts = split_joint(reply, oldest.count(), number);
            if (texts.empty()) return false;
            const Script& script = oldest.first->command.parts.joint->script;
            answer_each(oldest, texts, ended);
            if (reply.is_error()) not_executed(oldest, classify(reply.text).kind);
            note(script, oldest.first->exchange.connection, reply);
        }
        in_calls_ -= oldest.count();
        sent_.pop_front();
        return true;
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
        std::vector<RequestPtr> again;
        for (const Sent& sent : sent_) {
            sent.for_each([&](const RequestPtr& request) {
                if (request->abandoned) return;
                request->exchange.error = why;
                (request->repeat ? again : ended).push_back(request);
            });
        }
        unsent_.insert(unsent_.begin(), again.begin(), again.end());
        sent_.clear();
        in_calls_ = 0;
        return ended;
    }

    /// There is no connection. Returns: what was to be sent for the first time; the rest waits for
    /// the next one, but for what nobody is interested in any more.
    [[nodiscard]] std::vector<RequestPtr> not_connected(const std::string& why) {
        std::vector<RequestPtr> ended;
        std::deque<RequestPtr> again;
        for (const RequestPtr& request : unsent_) {
            const bool stays = request->repeat && !request->deadline.expired();
            request->exchange.error = why;
            stays ? again.push_back(request) : ended.push_back(request);
        }
        unsent_ = std::move(again);
        return ended;
    }

    /// The first whose thread waits; null if there is none.
    [[nodiscard]] RequestPtr first_waiting() const {
        for (const Sent& sent : sent_) {
            if (sent.first->has_thread()) return sent.first;
            for (const RequestPtr& request : sent.others) {
                if (request->has_thread()) return request;
            }
        }
        for (const RequestPtr& request : unsent_) {
            if (request->has_thread()) return request;
        }
        return nullptr;
    }

  private:
    // What one reply is owed for.
    struct Sent {
        RequestPtr first{};
        std::vector<RequestPtr> others{};  // that go in the same call
        Deadline::time_point asked{};

        [[nodiscard]] std::size_t count() const noexcept { return 1 + others.size(); }
        // Requires: it may go with others.
        [[nodiscard]] int rank() const noexcept { return first->command.parts.joint->rank; }
        template <class Do>
        void for_each(Do what) const {
            what(first);
            for (const RequestPtr& request : others)
                what(request);
        }
    };

    // Puts it to those that it joins, among those from `run` on.
    void join(const RequestPtr& request, std::size_t run, Deadline::time_point asked,
              std::uint64_t connection) {
        const Command& command = request->command;
        const auto begin = sent_.begin() + static_cast<std::ptrdiff_t>(run);
        // What is to be executed first is not, if its call is refused and it is sent again. So that
        // goes by itself until the others' joint calls were seen to be answered.
        const bool together = command.parts.joint->rank != 0 || connection == joint_on_;
        if (together) {
            const auto same = std::find_if(begin, sent_.end(), [&](const Sent& sent) {
                return sent.count() < most_joint && sent.first->command.joins(command);
            });
            if (same != sent_.end()) {
                same->others.push_back(request);
                return;
            }
        }
        const auto behind =
            std::upper_bound(begin, sent_.end(), command.parts.joint->rank,
                             [](int rank, const Sent& sent) { return rank < sent.rank(); });
        sent_.insert(behind, {request, {}, asked});
    }

    void append(std::string& output, const Sent& sent, std::uint64_t connection) {
        const Command& first = sent.first->command;
        if (sent.others.empty()) {
            const Call call = first.script != nullptr
                                  ? calls_.how_to_call(*first.script, connection)
                                  : Call::digest;
            return redis::append(output, call, first);
        }
        std::vector<const Command*> commands{&first};
        commands.reserve(sent.count());
        for (const RequestPtr& request : sent.others)
            commands.push_back(&request->command);
        const Script& script = first.parts.joint->script;
        append_joint(output, calls_.how_to_call(script, connection), commands);
    }

    [[nodiscard]] static bool is_unknown_script(const Reply& reply) noexcept {
        return reply.is_error() && classify(reply.text).kind == ServerErrorKind::load_script;
    }

    // Requires: `ended` has room. What was given up belongs to its caller again.
    static void finish(const RequestPtr& request, Reply reply, std::vector<RequestPtr>& ended) {
        request->finished = true;
        if (request->abandoned) return;
        request->exchange.outcome = Exchange::Outcome::answered;
        request->exchange.reply = std::move(reply);
        ended.push_back(request);
    }

    // Each of `sent` has got its text, or must go by itself where that is empty.
    void answer_each(const Sent& sent, const std::vector<std::string_view>& texts,
                     std::vector<RequestPtr>& ended) {
        std::vector<RequestPtr> again;
        std::vector<Reply> replies(texts.size());
        std::size_t i = 0;
        sent.for_each([&](const RequestPtr& request) {
            Reply& reply = replies[i];
            reply.type = Reply::Type::string;
            const std::string_view text = texts[i++];
            if (!text.empty()) {
                const std::string_view number = request->command.number_text();
                reply.text.reserve(text.size() + number.size());
                reply.text.append(text).append(number);
            } else if (!request->abandoned) {
                again.push_back(request);
            }
        });
        unsent_.insert(unsent_.begin(), again.begin(), again.end());
        // From here on nothing throws.
        i = 0;
        sent.for_each([&](const RequestPtr& request) {
            Reply& reply = replies[i++];
            if (reply.text.empty()) {
                request->command.parts.joint = nullptr;
            } else {
                finish(request, std::move(reply), ended);
            }
        });
    }

    // An error of that kind: nothing of the call was executed. But copies from before may have
    // been.
    static void not_executed(const Sent& sent, ServerErrorKind kind) {
        if (kind == ServerErrorKind::unknown_outcome) return;
        sent.for_each([](const RequestPtr& request) {
            if (request->abandoned || request->exchange.repeated) return;
            request->exchange.outcome = Exchange::Outcome::not_sent;
        });
    }

    // What `reply` to a joint call says of the next ones.
    void note(const Script& script, std::uint64_t connection, const Reply& reply) {
        if (!reply.is_error()) {
            joint_on_ = connection;
            return;
        }
        if (is_unknown_script(reply)) calls_.forget(script);
        const ServerErrorKind kind = classify(reply.text).kind;
        // It will be so the next time, as where their keys may lie apart.
        if (kind == ServerErrorKind::refused || kind == ServerErrorKind::redirect) {
            apart_on_ = connection;
        }
    }

    std::size_t bound_;
    std::deque<RequestPtr> unsent_;
    std::deque<Sent> sent_;
    std::size_t in_calls_ = 0;    // requests among those that were sent
    ScriptCalls calls_;           // which scripts the server knows
    std::uint64_t joint_on_ = 0;  // the connection on which joint calls were answered
    std::uint64_t apart_on_ = 0;  // the one on which each request goes by itself
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
