// SPDX-License-Identifier: MIT
//
// RedisLock against what one would write with hiredis alone: SET NX PX to lock, a script that
// compares and deletes to unlock. With a server of its own, over TCP and over a unix socket; on one
// processor with the server, where a round trip is short and figures repeat, and on all.

#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "benchmarks/compare.hpp"
#include "support/redis_server.hpp"

#include <hiredis/hiredis.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::RedisServer;

namespace {

constexpr auto slice = 50ms;

/// A lock in a dozen lines of hiredis: no fence, no renewal, no reconnection.
class RawLock {
  public:
    explicit RawLock(redisContext* context) : context_{context} {
        if (context_ == nullptr || context_->err != 0) std::abort();
        text(command<3>({"SCRIPT", "LOAD", redis::acquire_script.body}));
        text(command<3>({"SCRIPT", "LOAD", redis::release_script.body}));
        sha1_ = text(command<3>({"SCRIPT", "LOAD",
                                 "if redis.call('GET', KEYS[1]) == ARGV[1] then "
                                 "return redis.call('DEL', KEYS[1]) end return 0"}));
    }

    void lock() {
        if (text(command<6>({"SET", "raw", token, "NX", "PX", "30000"})) != "OK") std::abort();
    }
    void unlock() {
        if (command<5>({"EVALSHA", sha1_, "1", "raw", token})->integer != 1) std::abort();
    }

    /// The same round trips with the scripts of RedisLock, to tell their cost from the client's.
    void lock_by_script() {
        if (command<9>({"EVALSHA", redis::acquire_script.sha1, "3", "{raw}", "{raw}:fence",
                        "{raw}:queue", token, "30000", "host:1:1"})
                ->type != REDIS_REPLY_ARRAY) {
            std::abort();
        }
    }
    void unlock_by_script() {
        if (command<6>({"EVALSHA", redis::release_script.sha1, "2", "{raw}", "{raw}:queue", token})
                ->integer != 1) {
            std::abort();
        }
    }

  private:
    struct Free {
        void operator()(redisContext* context) const noexcept { ::redisFree(context); }
        void operator()(redisReply* reply) const noexcept { ::freeReplyObject(reply); }
    };
    using Answer = std::unique_ptr<redisReply, Free>;

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
        if (!answer) std::abort();
        return answer;
    }

    static std::string text(const Answer& answer) {
        return answer->str == nullptr
                   ? std::string{}
                   : std::string{answer->str, static_cast<std::size_t>(answer->len)};
    }

    static constexpr std::string_view token = "0123456789abcdef0123456789abcdef-12345";
    std::unique_ptr<redisContext, Free> context_;
    std::string sha1_;
};

void compare_over(const std::string& transport, RedisServer& server, const std::string& url,
                  redisContext* context, const std::string& target) {
    RawLock raw{context};
    RedisClient client{url};
    RedisLock lock{"benchmark", client};
    const Variant baseline{"hiredis SET NX PX + EVALSHA", [&] {
                               return time_of(slice, [&] {
                                   raw.lock();
                                   raw.unlock();
                               });
                           }};
    const Variant scripts{"hiredis, RedisLock's scripts", [&] {
                              return time_of(slice, [&] {
                                  raw.lock_by_script();
                                  raw.unlock_by_script();
                              });
                          }};
    const Variant ours{"RedisLock", [&] {
                           return time_of(slice, [&] {
                               lock.lock();
                               lock.unlock();
                           });
                       }};
    compare({transport, ours, baseline, Ratio::speed, target});
    compare({transport, ours, scripts, Ratio::speed, "-"});
    compare({transport, scripts, baseline, Ratio::speed, "-"});

    server.command({"CONFIG", "RESETSTAT"});
    constexpr int cycles = 1000;
    for (int i = 0; i < cycles; ++i) {
        lock.lock();
        lock.unlock();
    }
    std::printf("  requests: %.3f a cycle\n",
                static_cast<double>(server.command_stats("evalsha").calls) / cycles);
}

void compare_all(const std::string& title, const std::string& target) {
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    print_head(title);
    compare_over("TCP", server, server.tcp_url(), ::redisConnect("127.0.0.1", server.port()),
                 target);
    compare_over("unix socket", server, server.url(),
                 ::redisConnectUnix(server.socket_path().c_str()), target);
}

}  // namespace

int main() {
    if (!RedisServer::available()) {
        std::puts("no redis-server in PATH");
        return 0;
    }
    {
        const Pinned pinned;
        compare_all("RedisLock: nanoseconds for one cycle, client and server on one processor",
                    ">= 0.95");
    }
    compare_all("RedisLock: nanoseconds for one cycle, not pinned", "-");
}
