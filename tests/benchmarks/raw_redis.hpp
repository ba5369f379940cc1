// SPDX-License-Identifier: MIT
//
// What one would write with hiredis alone, to compare with: a connection, and a lock in a dozen
// lines: SET NX PX to lock, a script that compares and deletes to unlock. No fence, no renewal, no
// reconnection; an answer that was not expected ends the program.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_RAW_REDIS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_RAW_REDIS_HPP

#include <hiredis/hiredis.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace benchmarks {

/// A connection of hiredis. Threads: one at a time.
class RawConnection {
  public:
    struct Free {
        void operator()(redisContext* context) const noexcept { ::redisFree(context); }
        void operator()(redisReply* reply) const noexcept { ::freeReplyObject(reply); }
    };
    using Answer = std::unique_ptr<redisReply, Free>;

    [[nodiscard]] static RawConnection to_port(int port) {
        return RawConnection{::redisConnect("127.0.0.1", port)};
    }
    [[nodiscard]] static RawConnection to_socket(const std::string& path) {
        return RawConnection{::redisConnectUnix(path.c_str())};
    }

    template <std::size_t Count>
    Answer command(const std::array<std::string_view, Count>& words) {
        std::array<const char*, Count> texts;
        std::array<std::size_t, Count> sizes;
        for (std::size_t i = 0; i < Count; ++i) {
            texts[i] = words[i].data();
            sizes[i] = words[i].size();
        }
        Answer answer{static_cast<redisReply*>(::redisCommandArgv(
            context_.get(), static_cast<int>(Count), texts.data(), sizes.data()))};
        if (!answer) fail(context_->errstr);
        if (answer->type == REDIS_REPLY_ERROR) fail(answer->str);
        return answer;
    }

    /// The SHA-1 by which EVALSHA calls `script`.
    [[nodiscard]] std::string load(std::string_view script) {
        return text(command<3>({"SCRIPT", "LOAD", script}));
    }

    [[nodiscard]] static std::string text(const Answer& answer) {
        return answer->str == nullptr
                   ? std::string{}
                   : std::string{answer->str, static_cast<std::size_t>(answer->len)};
    }

    [[noreturn]] static void fail(const char* what) {
        std::fprintf(stderr, "hiredis: %s\n", what);
        std::abort();
    }

  private:
    explicit RawConnection(redisContext* context) : context_{context} {
        if (context_ == nullptr || context_->err != 0) fail("no connection");
    }

    std::unique_ptr<redisContext, Free> context_;
};

/// A lock on `key`, under a token of its own. Threads: one at a time.
class RawLock {
  public:
    RawLock(RawConnection connection, std::string key, std::string token = "0123456789abcdef-1")
        : connection_{std::move(connection)},
          key_{std::move(key)},
          token_{std::move(token)},
          sha1_{connection_.load("if redis.call('GET', KEYS[1]) == ARGV[1] then "
                                 "return redis.call('DEL', KEYS[1]) end return 0")} {}

    [[nodiscard]] bool try_lock() {
        return RawConnection::text(
                   connection_.command<6>({"SET", key_, token_, "NX", "PX", "30000"})) == "OK";
    }
    void lock() {
        if (!try_lock()) RawConnection::fail("the lock is taken");
    }
    void unlock() {
        if (connection_.command<5>({"EVALSHA", sha1_, "1", key_, token_})->integer != 1) {
            RawConnection::fail("the lock was lost");
        }
    }

    [[nodiscard]] RawConnection& connection() noexcept { return connection_; }

  private:
    RawConnection connection_;
    std::string key_;
    std::string token_;
    std::string sha1_;
};

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_RAW_REDIS_HPP
