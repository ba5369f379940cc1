// SPDX-License-Identifier: MIT
//
// RedisLock against what one would write with hiredis alone: SET NX PX to lock, a script that
// compares and deletes to unlock. With a server of its own, over TCP and over a unix socket; on one
// processor with the server, where a round trip is short and figures repeat, and on all.

#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/raw_redis.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::RedisServer;

namespace {

constexpr auto slice = 50ms;

/// The round trips of RedisLock's scripts over plain hiredis, to tell their cost from the client's.
class ScriptedLock {
  public:
    explicit ScriptedLock(RawConnection connection) : connection_{std::move(connection)} {
        for (const redis::Script* script : {&redis::acquire_script, &redis::release_script}) {
            if (connection_.load(script->body) != script->sha1) RawConnection::fail("wrong SHA-1");
        }
    }

    void lock() {
        const auto answer = connection_.command<14>(
            {"EVALSHA", redis::acquire_script.sha1, "3", "{raw}", "{raw}:fence", "{raw}:queue",
             token, "", "host:1:1", "30000", "1", "codomyrmex:", "", "1a2b"});
        if (!RawConnection::text(answer).starts_with("1 ")) {
            RawConnection::fail("not acquired");
        }
    }
    void unlock() {
        const auto answer = connection_.command<10>({"EVALSHA", redis::release_script.sha1, "3",
                                                     "{raw}", "{raw}:fence", "{raw}:queue", token,
                                                     "codomyrmex:", "", "1a2c"});
        if (RawConnection::text(answer) != "1 1a2c") RawConnection::fail("not released");
    }

  private:
    static constexpr std::string_view token = "0123456789abcdef0123456789abcdef-12345";
    RawConnection connection_;
};

void compare_over(const std::string& transport, RedisServer& server, const std::string& url,
                  RawConnection (*connect)(RedisServer&), const std::string& target) {
    RawLock raw{connect(server), "raw"};
    ScriptedLock scripted{connect(server)};
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
                                  scripted.lock();
                                  scripted.unlock();
                              });
                          }};
    const Variant ours{"RedisLock", [&] {
                           return time_of(slice, [&] {
                               lock.lock();
                               lock.unlock();
                           });
                       }};
    const Variant waited{"RedisLock, release waited for", [&] {
                             return time_of(slice, [&] {
                                 Lease lease = lock.lease();
                                 if (!lease.release()) RawConnection::fail("not released");
                             });
                         }};
    compare({transport, ours, baseline, Ratio::speed, target});
    compare({transport, waited, baseline, Ratio::speed, is_pinned() ? ">= 0.95" : "-"});
    compare({transport, waited, scripts, Ratio::speed, "-"});
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

void compare_all(const std::string& title, const std::string& target_tcp,
                 const std::string& target_unix) {
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    print_head(title);
    compare_over(
        "TCP", server, server.tcp_url(),
        [](RedisServer& to) { return RawConnection::to_port(to.port()); }, target_tcp);
    compare_over(
        "unix socket", server, server.url(),
        [](RedisServer& to) { return RawConnection::to_socket(to.socket_path()); }, target_unix);
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
                    ">= 1.20", ">= 1.50");
    }
    compare_all("RedisLock: nanoseconds for one cycle, not pinned", "-", "-");
}
