// SPDX-License-Identifier: MIT
//
// One who is subscribed to a channel of a RedisServer, for tests of what is published there.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_LISTENER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_LISTENER_HPP

#include "support/redis_server.hpp"

#include <hiredis/hiredis.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <sys/time.h>

namespace test_support {

/// A process that listens, so that its waiters are alive.
class Listener {
  public:
    explicit Listener(const RedisServer& server, const std::string& channel,
                      const char* command = "SUBSCRIBE")
        : context_{redisConnectUnixWithTimeout(server.socket_path().c_str(), timeval{5, 0}),
                   redisFree} {
        if (!context_ || context_->err != 0) throw std::runtime_error{"cannot connect"};
        redisSetTimeout(context_.get(), timeval{5, 0});
        const std::unique_ptr<void, void (*)(void*)> answer{
            redisCommand(context_.get(), "%s %b", command, channel.data(), channel.size()),
            freeReplyObject};
        if (!answer) throw std::runtime_error{"cannot subscribe"};
    }

    /// The next message, of whatever is there or comes within 5 s; empty if there is none.
    std::string next() {
        void* raw = nullptr;
        if (redisGetReply(context_.get(), &raw) != REDIS_OK) return {};
        const std::unique_ptr<void, void (*)(void*)> owner{raw, freeReplyObject};
        return RedisReply::from(*static_cast<const redisReply*>(raw)).elements.back().text;
    }

  private:
    std::unique_ptr<redisContext, void (*)(redisContext*)> context_;
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_LISTENER_HPP
