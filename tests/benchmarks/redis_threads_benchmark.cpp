// SPDX-License-Identifier: MIT
//
// N threads on N locks through one client, and so over one connection, against plain hiredis with
// a connection for each thread. Run it under `taskset -c 0` too: there a round trip is short and
// figures repeat. With `--busy 2` two processes compute beside it, which a client that yields to
// its other threads must survive.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/options.hpp"
#include "benchmarks/plot.hpp"
#include "benchmarks/raw_redis.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <fstream>
#include <list>
#include <map>
#include <string>
#include <vector>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using test_support::Process;
using test_support::RedisServer;

namespace {

struct Settings {
    int busy = 0;
    int rounds = 9;
    int slice = 200;
    int most = 64;
};

/// What is asked for in which setting.
std::string target_of(int threads, bool pinned, int busy) {
    static const std::map<int, std::string> same{
        {1, ">= 0.97"}, {2, ">= 1.3"}, {8, ">= 2.7"}, {32, ">= 3.7"}};
    static const std::map<int, std::string> free{{8, ">= 1.4"}, {32, ">= 2.0"}};
    static const std::map<int, std::string> beside{{8, ">= 1.0"}, {32, ">= 2.0"}};
    static const std::map<int, std::string> none;
    const auto& targets = busy == 0 ? (pinned ? same : free) : busy == 2 && pinned ? beside : none;
    const auto found = targets.find(threads);
    return found == targets.end() ? "-" : found->second;
}

Spread compare_with(int threads, const Settings& settings, RedisServer& server) {
    const std::chrono::milliseconds slice{settings.slice};
    RedisClient client{server.tcp_url()};
    std::list<RedisLock> locks;
    std::vector<RedisLock*> ours;
    std::list<RawLock> raws;
    std::vector<RawLock*> theirs;
    for (int i = 0; i < threads; ++i) {
        const std::string name = std::to_string(i);
        ours.push_back(&locks.emplace_back(name, client));
        theirs.push_back(&raws.emplace_back(RawConnection::to_port(server.port()), "raw" + name));
    }
    const auto cycle = [](auto& lock) {
        lock.lock();
        lock.unlock();
    };
    return compare({std::to_string(threads) + " threads",
                    {"RedisLock",
                     [&] {
                         return time_of(slice, threads, [&](int thread) {
                             cycle(*ours[static_cast<std::size_t>(thread)]);
                         });
                     }},
                    {"hiredis, a connection each",
                     [&] {
                         return time_of(slice, threads, [&](int thread) {
                             cycle(*theirs[static_cast<std::size_t>(thread)]);
                         });
                     }},
                    Ratio::speed,
                    target_of(threads, is_pinned(), settings.busy),
                    settings.rounds});
}

}  // namespace

int main(int count, char** words) {
    Settings settings;
    read_options(count, words,
                 {{"--busy", settings.busy, 0, "processes that compute beside"},
                  {"--rounds", settings.rounds, 1, "rounds of each comparison"},
                  {"--slice", settings.slice, 1, "milliseconds of each in a round"},
                  {"--most", settings.most, 1, "the largest number of threads"}});
    if (!RedisServer::available()) {
        std::puts("no redis-server in PATH");
        return 0;
    }
    std::vector<Process> busy;
    for (int i = 0; i < settings.busy; ++i) {
        busy.push_back(Process::run([] {
            for (volatile unsigned number = 0;;)
                number = number + 1;
            return 0;
        }));
    }
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    print_head("One client: nanoseconds for one cycle of one of N threads, over TCP, " +
               std::string{is_pinned() ? "all on one processor" : "not pinned"} + ", beside " +
               std::to_string(settings.busy) + " busy processes");
    Line median{"median", {}};
    Line least{"least", {}};
    Line most{"most", {}};
    Line equal{"hiredis", {}};
    for (int threads = 1; threads <= settings.most; threads *= 2) {
        const Spread ratio = compare_with(threads, settings, server);
        median.points.emplace_back(threads, ratio.median);
        least.points.emplace_back(threads, ratio.least);
        most.points.emplace_back(threads, ratio.most);
        equal.points.emplace_back(threads, 1);
    }
    const std::string path = std::string{BENCHMARK_OUTPUT} + "/redis_threads" +
                             (is_pinned() ? "_pinned" : "") + (settings.busy != 0 ? "_busy" : "") +
                             ".svg";
    std::ofstream{path} << svg(
        "codomyrmex-concurrency: one client, many threads", "threads", "cycles a second to hiredis",
        {{is_pinned() ? "all on one processor" : "not pinned", {median, least, most, equal}}});
    std::printf("\nDrawn into %s\n", path.c_str());
}
