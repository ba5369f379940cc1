// SPDX-License-Identifier: MIT
//
// The requests of one connection in their order, without I/O: those not yet sent, and those sent
// and not yet answered, several of them perhaps in one call (joint_calls.hpp). A reply belongs to
// the oldest call that is unanswered, so a request whose caller gave up keeps its place. When the
// connection breaks, what was sent ends as unknown, or stays to be sent again if it was asked to;
// what was not sent stays.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/redis/grant.hpp>
#include <codomyrmex/concurrency/redis/joint_calls.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// Not thread-safe.
class RequestQueue {
  public:
    /// So many requests at most go in one call.
    static constexpr std::size_t most_joint = JointCalls::most;

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
            if (joint_.may_join(*request, connection)) {
                joint_.join(request, sent_, run, steady_now, connection);
            } else {
                sent_.push_back({request, {}, steady_now});
                run = sent_.size();
            }
            ++in_calls_;
        }
        for (std::size_t i = before; i < sent_.size(); ++i)
            joint_.append(output, sent_[i], connection);
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
        const SentCall& oldest = sent_.front();
        ended.reserve(ended.size() + oldest.count());
        if (oldest.others.empty()) {
            joint_.learn(oldest, reply);
            finish(oldest.first, std::move(reply), ended);
        } else {
            std::vector<Reply> replies = JointCalls::split(oldest, reply);
            if (replies.empty()) return false;
            send_again(oldest, replies);
            // From here on nothing throws.
            joint_.learn(oldest, reply);
            if (reply.is_error()) not_executed(oldest, classify(reply.text).kind);
            answer_each(oldest, std::move(replies), ended);
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
        for (const SentCall& call : sent_) {
            call.for_each([&](const RequestPtr& request) {
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
        for (const SentCall& call : sent_) {
            if (call.first->has_thread()) return call.first;
            for (const RequestPtr& request : call.others) {
                if (request->has_thread()) return request;
            }
        }
        for (const RequestPtr& request : unsent_) {
            if (request->has_thread()) return request;
        }
        return nullptr;
    }

  private:
    // Requires: `ended` has room. What was given up belongs to its caller again.
    static void finish(const RequestPtr& request, Reply reply, std::vector<RequestPtr>& ended) {
        request->finished = true;
        if (request->abandoned) return;
        request->exchange.outcome = Exchange::Outcome::answered;
        request->exchange.reply = std::move(reply);
        ended.push_back(request);
    }

    // Puts those of `call` whose reply is nil before what is unsent.
    void send_again(const SentCall& call, const std::vector<Reply>& replies) {
        std::vector<RequestPtr> again;
        auto reply = replies.begin();
        call.for_each([&](const RequestPtr& request) {
            const bool answered = (reply++)->type != Reply::Type::nil;
            if (!answered && !request->abandoned) again.push_back(request);
        });
        unsent_.insert(unsent_.begin(), again.begin(), again.end());
    }

    // Requires: `ended` has room. Those whose reply is nil go by themselves from here on.
    static void answer_each(const SentCall& call, std::vector<Reply> replies,
                            std::vector<RequestPtr>& ended) noexcept {
        auto reply = replies.begin();
        call.for_each([&](const RequestPtr& request) {
            Reply& its = *reply++;
            if (its.type != Reply::Type::nil) return finish(request, std::move(its), ended);
            request->command.parts.joint = nullptr;
        });
    }

    // An error of that kind: nothing of the call was executed. But copies from before may have
    // been.
    static void not_executed(const SentCall& call, ServerErrorKind kind) noexcept {
        if (kind == ServerErrorKind::unknown_outcome) return;
        call.for_each([](const RequestPtr& request) {
            if (request->abandoned || request->exchange.repeated) return;
            request->exchange.outcome = Exchange::Outcome::not_sent;
        });
    }

    std::size_t bound_;
    std::deque<RequestPtr> unsent_;
    std::deque<SentCall> sent_;
    std::size_t in_calls_ = 0;  // requests among those that were sent
    JointCalls joint_;
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_REQUEST_QUEUE_HPP
