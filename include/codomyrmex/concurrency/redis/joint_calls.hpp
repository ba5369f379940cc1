// SPDX-License-Identifier: MIT
//
// Which requests of a connection go together in one call of a script (command.hpp): those that are
// alike and sent at the same time, unless the server refused such calls. And what the reply to one
// means for each of them. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_JOINT_CALLS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_JOINT_CALLS_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/request.hpp>
#include <codomyrmex/concurrency/redis/script_calls.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::redis {

/// What one reply is owed for.
struct SentCall {
    RequestPtr first{};
    std::vector<RequestPtr> others{};  ///< that go in the same call
    Deadline::time_point asked{};

    [[nodiscard]] std::size_t count() const noexcept { return 1 + others.size(); }
    template <class Do>
    void for_each(Do what) const {
        what(first);
        for (const RequestPtr& request : others)
            what(request);
    }
};

/// Not thread-safe.
class JointCalls {
  public:
    /// So many requests at most go in one call: a script that takes long holds up everybody.
    static constexpr std::size_t most = 100;

    /// Whether `request` may go with others over the connection of that number.
    [[nodiscard]] bool may_join(const Request& request, std::uint64_t connection) const noexcept {
        return request.command.parts.joint != nullptr && connection != apart_on_;
    }

    /// Puts `request` to those that it joins among the calls `sent`, from number `run` on, or a
    /// call of its own to its place among them.
    /// Requires: it and all of them may go with others. Throws: std::bad_alloc.
    void join(const RequestPtr& request, std::deque<SentCall>& sent, std::size_t run,
              Deadline::time_point asked, std::uint64_t connection) const {
        const Command& command = request->command;
        const int rank = command.parts.joint->rank;
        const auto begin = sent.begin() + static_cast<std::ptrdiff_t>(run);
        // What is to be executed first is not, if its call is refused and it is sent again. So that
        // goes by itself until the others' joint calls were seen to be answered.
        if (rank != 0 || connection == joint_on_) {
            const auto same = std::find_if(begin, sent.end(), [&](const SentCall& call) {
                return call.count() < most && call.first->command.joins(command);
            });
            if (same != sent.end()) {
                same->others.push_back(request);
                return;
            }
        }
        const auto behind =
            std::upper_bound(begin, sent.end(), rank, [](int of_this, const SentCall& call) {
                return of_this < call.first->command.parts.joint->rank;
            });
        sent.insert(behind, {request, {}, asked});
    }

    /// Appends `call` to `output`. Throws: std::bad_alloc.
    void append(std::string& output, const SentCall& call, std::uint64_t connection) {
        const Command& first = call.first->command;
        if (call.others.empty()) {
            const Call how = first.script != nullptr
                                 ? scripts_.how_to_call(*first.script, connection)
                                 : Call::digest;
            return redis::append(output, how, first);
        }
        std::vector<const Command*> commands;
        commands.reserve(call.count());
        call.for_each([&](const RequestPtr& request) { commands.push_back(&request->command); });
        const Script& script = first.parts.joint->script;
        append_joint(output, scripts_.how_to_call(script, connection), commands);
    }

    /// What `reply` means for each of `call`, which are several; nil for one that must be sent
    /// again, by itself: for all of them, if it is an error.
    /// Returns: nothing if it is no answer to that call. Throws: std::bad_alloc.
    [[nodiscard]] static std::vector<Reply> split(const SentCall& call, const Reply& reply) {
        if (reply.is_error()) return std::vector<Reply>(call.count());
        const std::vector<std::string_view> texts =
            split_joint(reply, call.count(), call.first->command.number_text());
        std::vector<Reply> replies(texts.size());
        if (texts.empty()) return replies;
        std::size_t i = 0;
        call.for_each([&](const RequestPtr& request) {
            Reply& its = replies[i];
            const std::string_view text = texts[i++];
            if (text.empty()) return;
            const std::string_view number = request->command.number_text();
            its.type = Reply::Type::string;
            its.text.reserve(text.size() + number.size());
            its.text.append(text).append(number);
        });
        return replies;
    }

    /// What `reply` to `call` says of the next ones.
    void learn(const SentCall& call, const Reply& reply) noexcept {
        const Command& command = call.first->command;
        const bool joint = !call.others.empty();
        const std::uint64_t connection = call.first->exchange.connection;
        if (!reply.is_error()) {
            if (joint) joint_on_ = connection;
            return;
        }
        const ServerErrorKind kind = classify(reply.text).kind;
        const Script* const script = joint ? &command.parts.joint->script : command.script;
        if (kind == ServerErrorKind::load_script && script != nullptr) scripts_.forget(*script);
        // It will be so the next time, as where their keys may lie apart.
        if (joint && (kind == ServerErrorKind::refused || kind == ServerErrorKind::redirect)) {
            apart_on_ = connection;
        }
    }

  private:
    ScriptCalls scripts_;         // which the server knows
    std::uint64_t joint_on_ = 0;  // the connection on which joint calls were answered
    std::uint64_t apart_on_ = 0;  // the one on which each request goes by itself
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_JOINT_CALLS_HPP
