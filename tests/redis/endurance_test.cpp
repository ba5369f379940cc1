// SPDX-License-Identifier: MIT
//
// What must hold up for long, or in large numbers: connections that are killed all the time under a
// load of many threads; ten thousand leases kept by one client; thirty-two processes in one line.
// Prints what it saw.
//
//   CODOMYRMEX_ENDURANCE_SECONDS   how long connections are killed; 10 if not set
//   CODOMYRMEX_ENDURANCE_LIVES     for how many times their time to live leases are kept; 3

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "faults/fenced_turn.hpp"
#include "faults/recorder.hpp"
#include "faults/report.hpp"
#include "support/boot_time.hpp"
#include "support/catch2.hpp"
#include "support/environment.hpp"
#include "support/fenced_register.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"
#include "support/threads.hpp"
#include "support/waiting_line.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <list>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using support::eventually;

namespace {

/// The machine may be busy. What these tests look for takes ten seconds, or for ever.
constexpr std::chrono::seconds lateness{3};

double seconds(std::chrono::nanoseconds time) {
    return std::chrono::duration<double>(time).count();
}

/// The longest of what many threads saw.
class Longest {
  public:
    void add(std::chrono::nanoseconds time) noexcept {
        std::int64_t now = longest_.load();
        while (now < time.count() && !longest_.compare_exchange_weak(now, time.count())) {
        }
    }
    [[nodiscard]] std::chrono::nanoseconds get() const noexcept {
        return std::chrono::nanoseconds{longest_.load()};
    }

  private:
    std::atomic<std::int64_t> longest_{0};
};

/// Calls `action` and adds how long it took.
template <class Action>
auto timed(Longest& longest, Action action) {
    const auto begin = std::chrono::steady_clock::now();
    auto result = action();
    longest.add(std::chrono::steady_clock::now() - begin);
    return result;
}

}  // namespace

TEST_CASE("connections that are killed all the time leave no violation, and no call hangs") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr int client_count = 4;
    constexpr int threads_each = 16;
    constexpr std::size_t lock_count = 4;
    constexpr std::chrono::seconds limit{5};
    const std::chrono::seconds duration{number_from("CODOMYRMEX_ENDURANCE_SECONDS", 10)};
    RedisServer server;
    const TempDir directory;
    const auto history = [&](std::size_t lock) {
        return directory.file("history" + std::to_string(lock));
    };
    const auto resource = [&](std::size_t lock) {
        return directory.file("resource" + std::to_string(lock));
    };
    const ClientOptions options{.patience = limit};
    std::list<RedisClient> clients;
    Longest waits;
    Longest releases;
    std::atomic<int> working{0};
    std::atomic<bool> done{false};
    std::vector<std::jthread> threads;
    for (int client = 0; client < client_count; ++client) {
        clients.emplace_back(server.url(), options);
        for (int thread = 0; thread < threads_each; ++thread) {
            ++working;
            threads.emplace_back([&, client, thread, &own = clients.back()] {
                const std::size_t which = static_cast<std::size_t>(thread) % lock_count;
                faults::Recorder recorder{history(which), client, thread};
                FencedRegister shared{resource(which)};
                RedisLock lock{"endurance " + std::to_string(which), own, {.ttl = 2s}};
                while (!done) {
                    faults::fenced_turn(
                        recorder, shared, limit,
                        [&](std::error_code& error) {
                            return timed(waits, [&] { return lock.try_lease_for(limit, error); });
                        },
                        [] {},
                        [&](Lease& lease, std::error_code& error) {
                            return timed(releases, [&] { return lease.release(error); });
                        });
                }
                --working;
            });
        }
    }
    const Deadline end = Deadline::after(duration);
    int kills = 0;
    long long killed = 0;
    while (!end.expired()) {
        std::this_thread::sleep_for(50ms);
        killed += server.command({"CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"}).number;
        killed += server.command({"CLIENT", "KILL", "TYPE", "pubsub"}).number;
        ++kills;
    }
    done = true;
    const bool all_ended = eventually([&] { return working == 0; }, 60s);
    REQUIRE(all_ended);
    threads.clear();

    std::uint64_t acquired = 0;
    std::uint64_t failed = 0;
    std::uint64_t refused = 0;
    std::uint64_t lost = 0;
    std::uint64_t unknown = 0;
    for (std::size_t lock = 0; lock < lock_count; ++lock) {
        const faults::Turns turns = faults::judge_turns(history(lock));
        const faults::Report& report = turns.report;
        CAPTURE(lock, report.to_string());
        CHECK(report.total() == 0);
        CHECK(violations_of(FencedRegister{resource(lock)}.accesses()).empty());
        CHECK(report.acquired > 10);
        CHECK(report.cut_off == 0);
        acquired += report.acquired;
        failed += report.failed;
        refused += report.refused;
        lost += report.lost;
        unknown += report.unknown;
    }
    std::cout << "killed connections: " << client_count * threads_each << " threads, "
              << client_count << " clients, " << lock_count << " locks, " << duration.count()
              << " s: " << killed << " connections in " << kills << " rounds, " << acquired
              << " acquisitions, " << refused << " refused, " << failed << " failed, " << lost
              << " lost, " << unknown << " unknown; the longest wait " << seconds(waits.get())
              << " s of " << limit.count() << ", release " << seconds(releases.get()) << " s\n";
    CHECK(waits.get() < limit + lateness);
    CHECK(releases.get() < limit + lateness);
    CHECK(failed == 0);
    // Nothing is left that does not go by itself.
    CHECK(eventually(
        [&] {
            return server.command({"KEYS", "codomyrmex:lock:{*}"}).elements.empty();
        },
        60s));
}

TEST_CASE("ten thousand leases of one client are renewed, and none is lost") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr std::size_t count = 10'000;
    constexpr std::chrono::seconds ttl{3};
    const std::uint64_t lives = number_from("CODOMYRMEX_ENDURANCE_LIVES", 3);
    RedisServer server;
    RedisClient client{server.url()};
    std::vector<Lease> leases;
    for (std::size_t i = 0; i < count; ++i)
        leases.push_back(RedisLock{std::to_string(i), client, {.ttl = ttl}}.lease());
    const ClientStats before = client.stats();
    const auto begin = std::chrono::steady_clock::now();
    std::this_thread::sleep_for(ttl * lives);
    const ClientStats after = client.stats();
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    const auto renewals = static_cast<double>(after.renewals - before.renewals);
    const auto writes = static_cast<double>(after.writes - before.writes);
    std::cout << "leases: " << count << " of " << ttl.count() << " s, " << took.count()
              << " s: " << after.leases_lost << " lost, " << renewals / count
              << " rounds of renewals, " << writes / renewals * count << " writes a round\n";
    CHECK(after.leases_lost == 0);
    CHECK(after.leases_watched == count);
    CHECK(std::ranges::all_of(leases, &Lease::valid));
    // Due at a third: three in each life, and a machine that is busy may miss one.
    CHECK(renewals >= static_cast<double>(count * lives * 2));
    CHECK(writes / renewals < 1.0 / 16);
    CHECK(server.command({"DBSIZE"}).number == static_cast<long long>(2 * count));
}

TEST_CASE("a hand-over among thirty-two processes costs no more than among two") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr int processes = 32;
    constexpr int turns = 100;
    RedisServer server;
    CHECK(take_turns(server, processes, turns));
    const auto each = static_cast<double>(scripts_run(server)) / (processes * turns);
    std::cout << "line: " << processes << " processes, " << turns << " turns each: " << each
              << " commands for an acquisition\n";
    CHECK(each >= 2);
    CHECK(each <= 2.2);
}

TEST_CASE("in a line of thirty-two, who dies or stops delays the rest by its time and no more") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr int processes = 31;
    constexpr int killed = 5;
    constexpr int stopped = 20;
    constexpr std::chrono::milliseconds ttl{1000};
    const ClientOptions options{.grant_ttl = 500ms};
    RedisServer server;
    WaitingLine line{server, processes, options, ttl};
    line.at(killed).kill();
    line.at(stopped).stop();
    const std::chrono::nanoseconds begin{boot_time()};
    line.holder().kill();
    CHECK(line.all_end_well({killed, stopped}));
    const std::vector<Served> served = line.served();

    std::vector<std::string> order;
    for (int place = 0; place < processes; ++place) {
        if (place != killed && place != stopped) order.push_back(std::to_string(place));
    }
    std::vector<std::string> seen;
    for (const Served& each : served)
        seen.push_back(each.who);
    REQUIRE(seen == order);

    const auto delay_before = [&](int place) {
        const auto at = std::ranges::find(seen, std::to_string(place)) - seen.begin();
        const auto here = served[static_cast<std::size_t>(at)].time;
        return here - (at == 0 ? begin : served[static_cast<std::size_t>(at - 1)].time);
    };
    const auto after_holder = delay_before(0);
    const auto after_killed = delay_before(killed + 1);
    const auto after_stopped = delay_before(stopped + 1);
    std::cout << "line: a holder that was killed cost " << seconds(after_holder) << " s of its "
              << seconds(ttl) << ", a waiter that was killed " << seconds(after_killed)
              << " s, one that was stopped " << seconds(after_stopped) << " s of its "
              << seconds(options.grant_ttl) << ", the last was served after "
              << seconds(served.back().time - begin) << " s\n";
    CHECK(after_holder < ttl + lateness);
    CHECK(after_killed < options.grant_ttl + lateness);
    // Its grant runs out, and then the next one asks.
    CHECK(after_stopped < 2 * options.grant_ttl + lateness);
    CHECK(std::ranges::is_sorted(served, {}, &Served::fence));

    // It comes in the end, behind all others.
    line.at(stopped).cont();
    CHECK(line.at(stopped).wait() == ExitStatus{0, 0});
    CHECK(line.served().back().who == std::to_string(stopped));
    CHECK(line.served().back().fence > served.back().fence);
    CHECK(eventually([&] { return server.command({"EXISTS", waited_for_key()}).number == 0; }));
}
