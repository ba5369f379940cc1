// SPDX-License-Identifier: MIT
//
// Processes that wait for one RedisLock: in a line of a known order behind a holder, with the order
// in which they were served; or all against all, taking turns. Call from a process without threads.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_WAITING_LINE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_WAITING_LINE_HPP

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/boot_time.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace test_support {

/// The lock that is waited for, as it stands in Redis.
inline constexpr const char* waited_for = "name";
inline const std::string& waited_for_key() {
    static const std::string key = "codomyrmex:lock:{name}";
    return key;
}

/// How many stand in the server's line.
[[nodiscard]] inline long long waiting(RedisServer& server) {
    return server.command({"ZCARD", waited_for_key() + ":queue"}).number;
}

/// How many scripts were called: all that clients send for a lock, but to subscribe.
[[nodiscard]] inline std::uint64_t scripts_run(RedisServer& server) {
    return server.command_stats("evalsha").calls + server.command_stats("eval").calls;
}

/// What processes wrote into a file, a line each.
[[nodiscard]] inline std::vector<std::string> lines_of(const std::string& path) {
    std::ifstream file{path};
    std::vector<std::string> lines;
    for (std::string line; std::getline(file, line);)
        lines.push_back(line);
    return lines;
}

inline void write_line(const std::string& path, const std::string& line) {
    std::ofstream{path, std::ios::app} << line + "\n" << std::flush;
}

/// Somebody had the lock.
struct Served {
    std::string who{};
    std::uint64_t fence = 0;
    std::chrono::nanoseconds time{};  ///< since boot

    [[nodiscard]] static Served from(const std::string& line) {
        Served served;
        std::int64_t time = 0;
        std::istringstream{line} >> served.who >> served.fence >> time;
        served.time = std::chrono::nanoseconds{time};
        return served;
    }
};

/// A process that waits for the lock, writes into `path` that it has it, and gives it back.
[[nodiscard]] inline Process waiter(const std::string& url, const std::string& path,
                                    const std::string& who,
                                    codomyrmex::concurrency::ClientOptions options = {}) {
    using namespace codomyrmex::concurrency;
    return Process::run([=] {
        RedisClient client{url, options};
        RedisLock lock{waited_for, client};
        const Lease lease = lock.lease();
        write_line(path,
                   who + ' ' + std::to_string(lease.fence()) + ' ' + std::to_string(boot_time()));
        return lease.valid() ? 0 : 1;
    });
}

/// A holder, and those who wait for it to open the way, in the order in which they came.
class WaitingLine {
  public:
    /// Starts them one after another: each stands in line before the next comes.
    /// Throws: std::runtime_error if they do not.
    WaitingLine(RedisServer& server, int count,
                const codomyrmex::concurrency::ClientOptions& options = {},
                std::chrono::milliseconds holders_ttl = std::chrono::seconds{30}) {
        using namespace codomyrmex::concurrency;
        holder_ = Process::run([&] {
            RedisClient client{server.url(), options};
            RedisLock lock{waited_for, client, {.ttl = holders_ttl}};
            const Lease lease = lock.lease();
            write_line(directory_.file("held"), std::to_string(lease.fence()));
            const auto go = [&] { return !lines_of(directory_.file("go")).empty(); };
            return support::eventually(go, std::chrono::minutes{5}) ? 0 : 1;
        });
        require([&] { return !lines_of(directory_.file("held")).empty(); });
        for (int i = 0; i < count; ++i) {
            waiters_.push_back(
                waiter(server.url(), directory_.file("order"), std::to_string(i), options));
            require([&] { return waiting(server) == i + 1; });
        }
    }

    [[nodiscard]] Process& holder() noexcept { return holder_; }
    [[nodiscard]] Process& at(int place) { return waiters_.at(static_cast<std::size_t>(place)); }

    /// The holder gives the lock back and ends.
    void open() { write_line(directory_.file("go"), "go"); }

    /// Those who have had it so far, in order.
    [[nodiscard]] std::vector<Served> served() const {
        std::vector<Served> all;
        for (const std::string& line : lines_of(directory_.file("order")))
            all.push_back(Served::from(line));
        return all;
    }

    /// Whether each process, the holder and those but in `except`, ends well.
    [[nodiscard]] bool all_end_well(const std::vector<int>& except = {}) {
        bool well = true;
        for (int place = 0; place < static_cast<int>(waiters_.size()); ++place) {
            if (std::ranges::find(except, place) != except.end()) continue;
            const auto status = at(place).wait(std::chrono::minutes{1});
            well = well && status && status->success();
        }
        return well;
    }

  private:
    template <class Condition>
    static void require(Condition condition) {
        if (!support::eventually(condition)) {
            throw std::runtime_error{"a process did not take its place in line"};
        }
    }

    TempDir directory_;
    Process holder_;
    std::vector<Process> waiters_;
};

/// Lets so many processes take the lock and give it back so many times each, all at once.
/// Returns: whether all ended well.
[[nodiscard]] inline bool take_turns(RedisServer& server, int processes, int turns) {
    using namespace codomyrmex::concurrency;
    std::vector<Process> others;
    for (int i = 0; i < processes; ++i) {
        others.push_back(Process::run([url = server.url(), turns] {
            RedisClient client{url};
            RedisLock lock{waited_for, client};
            for (int turn = 0; turn < turns; ++turn) {
                lock.lock();
                lock.unlock();
            }
            return 0;
        }));
    }
    return std::ranges::all_of(others, [](Process& each) {
        const auto status = each.wait(std::chrono::minutes{1});
        return status && status->success();
    });
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_WAITING_LINE_HPP
