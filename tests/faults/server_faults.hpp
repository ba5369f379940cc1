// SPDX-License-Identifier: MIT
//
// What befalls a redis-server: its process, its data, its clock, and the states in which it refuses
// what it is asked. Each kind works on a private server and leaves it as it was, except for the
// data that it is the point of the fault to lose. The objects named must outlive the kinds made of
// them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SERVER_FAULTS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SERVER_FAULTS_HPP

#include "faults/nemesis.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <functional>
#include <initializer_list>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace faults {

namespace detail {

using test_support::RedisReply;
using test_support::RedisServer;

/// A command that must not be refused.
inline RedisReply must(RedisServer& server, const std::vector<std::string>& words) {
    RedisReply reply = server.command(words);
    if (reply.is_error()) throw std::runtime_error{words.front() + ": " + reply.text};
    return reply;
}

inline void configure(RedisServer& server, const std::string& name, const std::string& value) {
    must(server, {"CONFIG", "SET", name, value});
}

/// Waits until `ready()`, at most 20 s.
template <class Ready>
void await(const std::string& what, Ready ready) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!ready()) {
        if (std::chrono::steady_clock::now() >= until) throw std::runtime_error{"never: " + what};
        std::this_thread::sleep_for(std::chrono::milliseconds{2});
    }
}

/// Sends one command on a connection of its own, and does not wait for the reply.
inline test_support::Fd send_only(const RedisServer& server,
                                  std::initializer_list<std::string_view> words) {
    test_support::Fd socket{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    const std::string path = server.socket_path();
    std::memcpy(address.sun_path, path.c_str(), std::min(path.size(), sizeof address.sun_path - 1));
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        test_support::throw_errno("connect " + path);
    }
    std::string request = "*" + std::to_string(words.size()) + "\r\n";
    for (const std::string_view word : words) {
        request += "$" + std::to_string(word.size()) + "\r\n" + std::string{word} + "\r\n";
    }
    if (::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
        static_cast<ssize_t>(request.size())) {
        test_support::throw_errno("send");
    }
    return socket;
}

}  // namespace detail

// --- The process.

/// SIGSTOP, then SIGCONT: it answers nobody, and its clock goes on.
[[nodiscard]] inline FaultKind server_stopped(test_support::RedisServer& server,
                                              std::chrono::nanoseconds duration) {
    return {"server stopped", duration, trouble, [&server] { server.stop(); },
            [&server] { server.cont(); }};
}

/// SIGKILL, then started again. `keeps_data`: it was started with an append-only file, which has
/// all that was answered, for it is written before the answer and SIGKILL does not take it away.
[[nodiscard]] inline FaultKind server_restarted(test_support::RedisServer& server, bool keeps_data,
                                                std::chrono::nanoseconds duration) {
    return {keeps_data ? "server restarted with its data" : "server restarted without data",
            duration, keeps_data ? trouble : forgets, [&server] { server.kill(); },
            [&server] { server.restart(); }};
}

/// A failover to a replica that missed the writes of the last `duration`. What the replica has
/// becomes what the server has, at the server's own address, as clients of a Sentinel would see.
/// Requires: both servers on TCP, without data of their own on disk.
[[nodiscard]] inline FaultKind failed_over(test_support::RedisServer& server,
                                           test_support::RedisServer& replica,
                                           std::chrono::nanoseconds duration) {
    const auto follow = [](test_support::RedisServer& who, test_support::RedisServer& whom) {
        detail::configure(whom, "repl-diskless-sync-delay", "0");
        detail::must(who, {"REPLICAOF", "127.0.0.1", std::to_string(whom.port())});
        detail::await("replication", [&] {
            return who.info("master_link_status") == "up" &&
                   who.info("master_sync_in_progress") == "0";
        });
    };
    return {"failover that lost writes", duration, forgets,
            [&server, &replica, follow] {
                follow(replica, server);
                detail::must(server, {"WAIT", "1", "1000"});
                detail::must(replica, {"REPLICAOF", "NO", "ONE"});
            },
            [&server, &replica, follow] {
                server.kill();
                server.restart();
                follow(server, replica);
                detail::must(server, {"REPLICAOF", "NO", "ONE"});
            }};
}

// --- Data.

[[nodiscard]] inline FaultKind flushed(test_support::RedisServer& server) {
    return {"FLUSHALL", {}, forgets, [&server] { detail::must(server, {"FLUSHALL"}); }, {}};
}

[[nodiscard]] inline FaultKind scripts_flushed(test_support::RedisServer& server) {
    return {"SCRIPT FLUSH",
            {},
            Allows{},
            [&server] {
                detail::must(server, {"SCRIPT", "FLUSH"});
            },
            {}};
}

/// Memory is short and the policy evicts: foreign keys come in until keys have had to go.
[[nodiscard]] inline FaultKind evicting(test_support::RedisServer& server, std::string policy,
                                        std::chrono::nanoseconds duration) {
    return {"eviction, " + policy, duration, forgets,
            [&server, policy] {
                const auto evicted = server.info("evicted_keys");
                detail::configure(server, "maxmemory-policy", policy);
                const auto limit = std::stoull(server.info("used_memory")) + 200'000;
                detail::configure(server, "maxmemory", std::to_string(limit));
                const std::string value(2'000, 'x');
                for (int i = 0; i < 5'000 && server.info("evicted_keys") == evicted; ++i) {
                    // A policy that finds nothing to evict refuses the write: also a fault.
                    server.command({"SET", "foreign:" + std::to_string(i), value, "PX", "60000"});
                }
            },
            [&server] {
                detail::configure(server, "maxmemory", "0");
                detail::configure(server, "maxmemory-policy", "noeviction");
                detail::must(server, {"EVAL",
                                      "for _, key in ipairs(redis.call('KEYS', 'foreign:*')) do "
                                      "redis.call('DEL', key) end",
                                      "0"});
            }};
}

// --- Connections.

/// Nobody is answered until it is over.
[[nodiscard]] inline FaultKind clients_paused(test_support::RedisServer& server,
                                              std::chrono::milliseconds duration) {
    return {"CLIENT PAUSE",
            duration,
            trouble,
            [&server, duration] {
                detail::must(server, {"CLIENT", "PAUSE", std::to_string(duration.count()), "ALL"});
            },
            {}};
}

/// Every connection but our own is cut, subscribed ones too.
[[nodiscard]] inline FaultKind clients_killed(test_support::RedisServer& server) {
    return {"CLIENT KILL",
            {},
            trouble,
            [&server] {
                for (const char* type : {"normal", "pubsub"})
                    detail::must(server, {"CLIENT", "KILL", "TYPE", type, "SKIPME", "yes"});
            },
            {}};
}

/// No further connection is taken. Those that stand go on.
[[nodiscard]] inline FaultKind clients_limited(test_support::RedisServer& server,
                                               std::chrono::nanoseconds duration) {
    return {"max clients", duration, trouble,
            [&server] { detail::configure(server, "maxclients", "1"); },
            [&server] { detail::configure(server, "maxclients", "1000"); }};
}

// --- States in which it refuses.

/// A script of somebody else's runs and runs: BUSY.
[[nodiscard]] inline FaultKind busy(test_support::RedisServer& server,
                                    std::chrono::nanoseconds duration) {
    const auto connection = std::make_shared<test_support::Fd>();
    return {"BUSY script", duration, trouble,
            [&server, connection] {
                detail::configure(server, "lua-time-limit", "5");
                *connection = detail::send_only(server, {"EVAL", "while true do end", "0"});
                detail::await("BUSY",
                              [&] { return server.command({"PING"}).text.starts_with("BUSY"); });
            },
            [&server, connection] {
                detail::must(server, {"SCRIPT", "KILL"});
                detail::await("no longer BUSY",
                              [&] { return !server.command({"PING"}).text.starts_with("BUSY"); });
                connection->reset();
                detail::configure(server, "lua-time-limit", "5000");
            }};
}

/// No memory, and nothing may be evicted: writes are refused.
[[nodiscard]] inline FaultKind out_of_memory(test_support::RedisServer& server,
                                             std::chrono::nanoseconds duration) {
    return {"OOM", duration, trouble,
            [&server] {
                detail::configure(server, "maxmemory-policy", "noeviction");
                detail::configure(server, "maxmemory", "1");
            },
            [&server] { detail::configure(server, "maxmemory", "0"); }};
}

/// Its last snapshot failed, so writes are refused: MISCONF.
[[nodiscard]] inline FaultKind misconfigured(test_support::RedisServer& server,
                                             std::chrono::nanoseconds duration) {
    const auto dump = [&server] {
        return std::filesystem::path{server.socket_path()}.parent_path() / "dump.rdb";
    };
    const auto save = [&server](const std::string& outcome) {
        detail::await("a snapshot: " + outcome, [&] {
            if (server.info("rdb_bgsave_in_progress") == "1") return false;
            if (server.info("rdb_last_bgsave_status") == outcome) return true;
            server.command({"BGSAVE"});
            return false;
        });
    };
    return {"MISCONF", duration, trouble,
            [&server, dump, save] {
                detail::configure(server, "save", "3600 1");
                // A snapshot cannot take the place of a folder, whoever we are.
                std::filesystem::remove_all(dump());
                std::filesystem::create_directory(dump());
                save("err");
            },
            [&server, dump, save] {
                std::filesystem::remove_all(dump());
                save("ok");
                detail::configure(server, "save", "");
                std::filesystem::remove_all(dump());
            }};
}

// --- Its clock.

/// The wall clock of a server that was started with environment().
class ServerClock {
  public:
    /// `shim`: the library built from clock_shim.cpp.
    ServerClock(std::string shim, std::string file)
        : shim_{std::move(shim)}, path_{std::move(file)} {
        const test_support::Fd opened{
            ::open(path_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_TRUNC, 0600)};
        if (!opened) test_support::throw_errno("open " + path_);
        if (::ftruncate(opened.get(), sizeof(std::int64_t)) != 0) {
            test_support::throw_errno("ftruncate");
        }
        void* const bytes = ::mmap(nullptr, sizeof(std::int64_t), PROT_READ | PROT_WRITE,
                                   MAP_SHARED, opened.get(), 0);
        if (bytes == MAP_FAILED) test_support::throw_errno("mmap");
        step_ = static_cast<volatile std::int64_t*>(bytes);
    }
    ServerClock(const ServerClock&) = delete;
    ServerClock& operator=(const ServerClock&) = delete;
    ~ServerClock() { ::munmap(const_cast<std::int64_t*>(step_), sizeof(std::int64_t)); }

    [[nodiscard]] std::vector<std::string> environment() const {
        return {"LD_PRELOAD=" + shim_, "CODOMYRMEX_CLOCK_FILE=" + path_};
    }

    /// How far it is from the true time, from now on.
    void set(std::chrono::nanoseconds step) { *step_ = step.count(); }

  private:
    std::string shim_;
    std::string path_;
    volatile std::int64_t* step_ = nullptr;
};

/// The server's clock is set, and set right again. Forward: its leases run out at once. Back: they
/// last so much longer, until it is set right.
[[nodiscard]] inline FaultKind clock_stepped(ServerClock& clock, std::chrono::nanoseconds step,
                                             std::chrono::nanoseconds duration) {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(step).count();
    return {"server clock " + std::to_string(seconds) + " s", duration, forgets,
            [&clock, step] { clock.set(step); }, [&clock] { clock.set({}); }};
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_SERVER_FAULTS_HPP
