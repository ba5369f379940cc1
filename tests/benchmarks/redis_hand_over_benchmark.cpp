// SPDX-License-Identifier: MIT
//
// A lock that many want: how soon the next has it, at the price of how many commands, and who gets
// it. RedisLock against what is written with hiredis where there is no queue: asking again every
// 100 ms, or after a random 0 to 5 ms; and against the least that it can cost: a baton that is
// pushed into a list and popped by whoever has waited longest, which a process that dies takes with
// it. Then what needs no hand-over between processes: threads of one, retention, a batch.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/backend.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/contest.hpp"
#include "benchmarks/options.hpp"
#include "benchmarks/plot.hpp"
#include "benchmarks/progress.hpp"
#include "benchmarks/raw_redis.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <string_view>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::RedisServer;

namespace {

// --- The ways to wait.

/// Asks until it is free, with `pause()` between.
class PollingLock {
  public:
    PollingLock(int port, int self, std::function<std::chrono::microseconds()> pause)
        : lock_{RawConnection::to_port(port), "raw", "token-" + std::to_string(self)},
          pause_{std::move(pause)} {}

    void lock() {
        while (!lock_.try_lock())
            std::this_thread::sleep_for(pause_());
    }
    void unlock() { lock_.unlock(); }

  private:
    RawLock lock_;
    std::function<std::chrono::microseconds()> pause_;
};

/// A list with one element in it while nobody has it.
class Baton {
  public:
    explicit Baton(int port) : connection_{RawConnection::to_port(port)} {}

    static void lay_down(RedisServer& server) {
        server.command({"DEL", "baton"});
        server.command({"RPUSH", "baton", "1"});
    }
    void lock() { connection_.command<3>({"BLPOP", "baton", "0"}); }
    void unlock() { connection_.command<3>({"RPUSH", "baton", "1"}); }

  private:
    RawConnection connection_;
};

/// A way to wait for a lock.
struct Way {
    std::string name;
    std::vector<std::string> commands;  ///< what its clients send; their scripts send none of these
    std::function<void(RedisServer&, const Contest&, Arena&, int)> body;
};

Way ours() {
    return {"RedisLock",
            {"evalsha", "eval", "ping", "subscribe", "client|setname", "select"},
            [](RedisServer& server, const Contest& contest, Arena& arena, int process) {
                RedisClient client{server.tcp_url()};
                std::vector<std::jthread> threads;
                for (int thread = 0; thread < contest.threads; ++thread) {
                    threads.emplace_back([&, thread] {
                        RedisLock lock{"name", client};
                        contend(arena, contest, process * contest.threads + thread, lock);
                    });
                }
            }};
}

Way polling(std::string name, std::chrono::microseconds least, std::chrono::microseconds most) {
    return {std::move(name),
            {"evalsha", "set", "script|load"},
            [=](RedisServer& server, const Contest& contest, Arena& arena, int process) {
                std::mt19937 random{static_cast<unsigned>(::getpid())};
                std::uniform_int_distribution<std::int64_t> pause{least.count(), most.count()};
                PollingLock lock{server.port(), process,
                                 [&] { return std::chrono::microseconds{pause(random)}; }};
                contend(arena, contest, process, lock);
            }};
}

Way baton() {
    return {"baton in a list (the floor)",
            {"blpop", "rpush"},
            [](RedisServer& server, const Contest& contest, Arena& arena, int process) {
                Baton lock{server.port()};
                contend(arena, contest, process, lock);
            }};
}

// --- The measurement.

/// The middle of many round trips of this moment, in nanoseconds.
double round_trip(RawConnection& connection) {
    std::vector<double> took;
    for (int i = 0; i < 500; ++i) {
        const std::int64_t begin = monotonic_now();
        connection.command<1>({"PING"});
        took.push_back(static_cast<double>(monotonic_now() - begin));
    }
    return Spread{std::move(took)}.median;
}

/// A way in a contest, and what was seen of it, round by round.
struct Series {
    Way way;
    Contest contest;
    std::vector<double> rates{};
    std::vector<double> fairness{};
    std::vector<double> commands{};  ///< for each acquisition
    std::vector<double> medians{};   ///< of each round's hand-overs, in round trips
    std::vector<double> hand_overs{};

    void run(RedisServer& server, RawConnection& connection, std::chrono::nanoseconds slice) {
        server.command({"FLUSHALL"});
        Baton::lay_down(server);
        const double trip = round_trip(connection);
        std::vector<std::uint64_t> sent;
        const Score score = hold(
            contest, slice,
            [&](Arena& arena, int process) { way.body(server, contest, arena, process); },
            [&] {
                sent.push_back(std::accumulate(way.commands.begin(), way.commands.end(),
                                               std::uint64_t{0},
                                               [&](std::uint64_t sum, auto& name) {
                                                   return sum + server.command_stats(name).calls;
                                               }));
            });
        rates.push_back(score.rate);
        fairness.push_back(score.fairness);
        if (score.acquisitions != 0) {
            commands.push_back(static_cast<double>(sent.back() - sent.front()) /
                               static_cast<double>(score.acquisitions));
        }
        std::vector<double> trips;
        for (const std::int64_t took : score.hand_overs)
            trips.push_back(static_cast<double>(took) / trip);
        if (trips.empty()) return;
        hand_overs.insert(hand_overs.end(), trips.begin(), trips.end());
        medians.push_back(Spread{std::move(trips)}.median);
    }

    /// Of all rounds' hand-overs together; 0 if there were none.
    [[nodiscard]] double percentile(double part) const {
        if (hand_overs.empty()) return 0;
        std::vector<double> sorted = hand_overs;
        std::ranges::sort(sorted);
        const auto place = static_cast<std::size_t>(part * static_cast<double>(sorted.size()));
        return sorted[std::min(place, sorted.size() - 1)];
    }
};

double median_of(const std::vector<double>& values) {
    return values.empty() ? 0 : Spread{values}.median;
}

/// Of each round, one to the other.
Spread ratio_of(const Series& one, const Series& other) {
    std::vector<double> ratios;
    for (std::size_t i = 0; i < one.rates.size(); ++i)
        ratios.push_back(one.rates[i] / other.rates[i]);
    return Spread{std::move(ratios)};
}

/// So many contenders: all that is compared with each other, and so is measured near in time.
struct Group {
    Series* alone = nullptr;  ///< one process
    std::vector<Series*> waiting{};
    std::vector<Series*> fighting{};
    Series* threads = nullptr;  ///< of one process
    std::vector<Series*> all{};
};

/// All that is measured.
class Contests {
  public:
    Contests() {
        for (const int contenders : {2, 8, 32}) {
            Group& group = groups_.emplace_back();
            const auto add = [&](Way way, const Contest& contest) {
                auto& made =
                    series_.emplace_back(std::make_unique<Series>(Series{std::move(way), contest}));
                return group.all.emplace_back(made.get());
            };
            group.alone = add(ours(), {});
            group.threads = add(ours(), {.threads = contenders});
            for (const Way& way : {ours(), polling("asking every 100 ms", 100ms, 100ms),
                                   polling("asking after 0 to 5 ms", 0ms, 5ms), baton()}) {
                group.waiting.push_back(add(way, {.processes = contenders, .all_wait = true}));
                group.fighting.push_back(add(way, {.processes = contenders}));
            }
        }
    }

    void run(RedisServer& server, int rounds, std::chrono::nanoseconds slice) {
        RawConnection connection = RawConnection::to_port(server.port());
        std::mt19937 random{1};
        Progress progress{"contests", rounds * static_cast<int>(series_.size())};
        for (int round = 0; round < rounds; ++round) {
            for (const Group& group : groups_) {
                std::vector<Series*> order = group.all;
                std::ranges::shuffle(order, random);
                for (Series* each : order) {
                    progress.step();
                    each->run(server, connection, slice);
                }
            }
        }
    }

    void print() const {
        std::printf(
            "\nHand-over when all others wait, in round trips\n\n%-11s %-28s %9s %-18s %9s "
            "%9s  %s\n",
            "processes", "", "p50", "(rounds' least-most)", "p99", "seen", "target p50, p99");
        for (const Series* each : waiting()) {
            const Spread medians{each->medians.empty() ? std::vector<double>{0} : each->medians};
            std::printf("%-11d %-28s %9.1f (%7.1f to %7.1f) %9.1f %9zu  %s\n",
                        each->contest.processes, each->way.name.c_str(), each->percentile(0.5),
                        medians.least, medians.most, each->percentile(0.99),
                        each->hand_overs.size(), is_ours(*each) ? "<= 5, <= 12" : "-");
        }
        std::printf("\nAll compete, the section is empty\n\n%-11s %-28s %14s %-25s %9s %12s  %s\n",
                    "processes", "", "acquisitions/s", "to uncontended RedisLock", "commands",
                    "least/most", "target ratio, commands, least/most");
        for (const Group& group : groups_) {
            print_line(1, *group.alone, ratio_of(*group.alone, *group.alone), "-");
            for (const Series* each : group.fighting) {
                print_line(each->contest.processes, *each, ratio_of(*each, *group.alone),
                           is_ours(*each) ? ">= 0.6, <= 2.1, >= 0.9" : "-");
            }
        }
        std::printf(
            "\nThreads of one process, one client, the section is empty\n\n%-11s %-28s "
            "%14s %-25s %9s %12s  %s\n",
            "threads", "", "acquisitions/s", "to so many processes", "commands", "least/most",
            "target ratio, commands");
        for (const Group& group : groups_) {
            print_line(group.threads->contest.threads, *group.threads,
                       ratio_of(*group.threads,
                                **std::ranges::find_if(group.fighting,
                                                       [](auto* of) { return is_ours(*of); })),
                       ">= 5, <= 0.1");
        }
    }

    [[nodiscard]] std::vector<Panel> panels() const {
        // Asking every 100 ms would flatten all others.
        const auto panel = [](const std::string& title, const std::vector<Series*>& from,
                              auto value) {
            Panel made{title, {}};
            for (const Series* each : from) {
                if (each->way.name.find("100 ms") != std::string::npos) continue;
                auto line = std::ranges::find(made.lines, each->way.name, &Line::name);
                if (line == made.lines.end())
                    line = made.lines.insert(line, Line{each->way.name, {}});
                line->points.emplace_back(each->contest.processes, value(*each));
            }
            return made;
        };
        return {panel("hand-over, p50, round trips", waiting(),
                      [](const Series& each) { return each.percentile(0.5); }),
                panel("hand-over, p99, round trips", waiting(),
                      [](const Series& each) { return each.percentile(0.99); }),
                panel("all compete: acquisitions a second", fighting(),
                      [](const Series& each) { return median_of(each.rates); }),
                panel("all compete: commands for each acquisition", fighting(),
                      [](const Series& each) { return median_of(each.commands); })};
    }

  private:
    [[nodiscard]] std::vector<Series*> waiting() const { return gather(&Group::waiting); }
    [[nodiscard]] std::vector<Series*> fighting() const { return gather(&Group::fighting); }
    [[nodiscard]] std::vector<Series*> gather(std::vector<Series*> Group::*of) const {
        std::vector<Series*> all;
        for (const Group& group : groups_)
            all.insert(all.end(), (group.*of).begin(), (group.*of).end());
        return all;
    }

    [[nodiscard]] static bool is_ours(const Series& series) {
        return series.way.name == "RedisLock";
    }

    static void print_line(int contenders, const Series& series, const Spread& ratio,
                           const char* target) {
        std::printf("%-11d %-28s %14.0f %7.2f (%6.2f to %6.2f) %9.2f %12.2f  %s\n", contenders,
                    series.way.name.c_str(), median_of(series.rates), ratio.median, ratio.least,
                    ratio.most, median_of(series.commands), median_of(series.fairness), target);
    }

    std::vector<std::unique_ptr<Series>> series_;
    std::vector<Group> groups_;
};

void compare_retention(RedisServer& server, int rounds) {
    RedisClient client{server.tcp_url()};
    RedisLock lock{"retained", client, {.retain = 30s}};
    RawLock raw{RawConnection::to_port(server.port()), "raw"};
    const auto cycle = [](auto& one) {
        return time_of(50ms, [&] {
            one.lock();
            one.unlock();
        });
    };
    compare({"locked again under retention",
             {"RedisLock", [&] { return cycle(lock); }},
             {"hiredis SET NX PX + EVALSHA", [&] { return cycle(raw); }},
             Ratio::speed,
             ">= 50",
             rounds});
}

void compare_batch(RedisServer& server, int rounds) {
    RedisClient client{server.tcp_url()};
    LockManager manager{RedisBackend{client}};
    std::vector<std::string> names;
    for (int i = 0; i < 16; ++i)
        names.push_back("batch " + std::to_string(i));
    const std::vector<std::string_view> views(names.begin(), names.end());
    compare({"16 names in one lock_all",
             {"LockManager",
              [&] { return time_of(50ms, [&] { const auto all = manager.lock_all(views); }); }},
             {"16 cycles one by one",
              [&] {
                  return time_of(50ms, [&] {
                      for (const std::string& name : names)
                          const auto one = manager.lock(name);
                  });
              }},
             Ratio::speed,
             ">= 5",
             rounds});
}

}  // namespace

int main(int count, char** words) {
    int rounds = 9;
    int slice = 300;
    read_options(count, words,
                 {{"--rounds", rounds, 1, "rounds of each contest"},
                  {"--slice", slice, 1, "milliseconds of each in a round"}});
    if (!RedisServer::available()) {
        std::puts("no redis-server in PATH");
        return 0;
    }
    RedisServer server{test_support::RedisServerOptions{.tcp = true}};
    std::printf("RedisLock, contended, over TCP, %s; %d rounds of %d ms\n",
                is_pinned() ? "all on one processor" : "not pinned", rounds, slice);
    std::fflush(stdout);
    Contests contests;
    contests.run(server, rounds, std::chrono::milliseconds{slice});
    contests.print();

    // These have threads, so they come when there is nothing to fork any more.
    print_head("What needs no word to the server, or fewer: nanoseconds for one cycle");
    compare_retention(server, rounds * 4 + 5);
    compare_batch(server, rounds * 4 + 5);

    const std::string path = std::string{BENCHMARK_OUTPUT} + "/redis_hand_over" +
                             (is_pinned() ? "_pinned" : "") + ".svg";
    std::ofstream{path} << svg("codomyrmex-concurrency: a lock that many processes want",
                               "processes", "", contests.panels());
    std::printf("\nDrawn into %s\n", path.c_str());
}
