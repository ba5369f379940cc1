// SPDX-License-Identifier: MIT
//
// Many processes with many threads fight for one RedisLock while some of them are killed; what
// they recorded is judged afterwards.
//
//   CODOMYRMEX_HISTORY_ACQUISITIONS   how many each thread makes; 60 if not set
//   CODOMYRMEX_HISTORY_SEED           repeats a run: whom to kill and when

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "faults/acquisition.hpp"
#include "faults/fenced_turn.hpp"
#include "faults/record.hpp"
#include "faults/recorder.hpp"
#include "faults/report.hpp"
#include "support/catch2.hpp"
#include "support/environment.hpp"
#include "support/fenced_register.hpp"
#include "support/process.hpp"
#include "support/redis_server.hpp"
#include "support/temp_dir.hpp"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;
using faults::Acquisition;
using faults::Check;
using State = faults::Acquisition::State;

TEST_CASE("A fenced register turns a smaller fence away and takes an equal one") {
    const TempDir dir;
    FencedRegister one{dir.file("register")};
    FencedRegister other{dir.file("register")};
    CHECK(one.read(10) == 0U);
    CHECK(one.write(10, 1));
    CHECK(other.read(12) == 1U);
    CHECK_FALSE(one.write(10, 2));
    CHECK_FALSE(one.read(11).has_value());
    CHECK(other.write(12, 2));
    CHECK(one.read(13) == 2U);
    CHECK(violations_of(one.accesses()).empty());
}

TEST_CASE("A register that took a smaller fence, or lost an update, is found") {
    CHECK(violations_of({{10, 0, 0, 0}, {10, 1, 1, 0}, {9, 1, 0, 0}}).size() == 1);
    CHECK(violations_of({{10, 0, 0, 0}, {11, 0, 0, 0}, {11, 1, 1, 0}, {12, 1, 1, 0}}).size() == 1);
    CHECK(violations_of({{10, 0, 0, 0}, {10, 1, 1, 0}, {11, 0, 0, 0}}).size() == 1);
}

namespace {

constexpr int processes = 8;
constexpr int threads_each = 4;
constexpr std::chrono::milliseconds ttl = 500ms;

struct Plan {
    std::string url;
    std::string history;
    std::string resource;
    std::uint64_t seed = 0;
    int acquisitions = 0;    // of each thread, but
    int victim = -1;         // this process goes on until it is killed, and
    int kills_itself = -1;   // this process, in its critical section,
    int at_acquisition = 0;  // in this acquisition of its first thread
};

/// One thread of one process: takes the lock and adds one to the resource, again and again.
void take_turns(const Plan& plan, int process, int thread, RedisLock& lock) {
    faults::Recorder recorder{plan.history, process, thread};
    FencedRegister resource{plan.resource};
    std::mt19937_64 random{plan.seed + static_cast<std::uint64_t>(process * threads_each + thread)};
    const auto one_in = [&](std::uint64_t n) { return random() % n == 0; };

    for (int done = 0; process == plan.victim || done < plan.acquisitions;) {
        const bool waits = !one_in(4);
        const bool had = faults::fenced_turn(
            recorder, resource, waits ? 2s : 0s,
            [&](std::error_code& error) {
                return waits ? lock.try_lease_for(2s, error) : lock.try_lease(error);
            },
            [&] {
                ++done;
                if (process == plan.kills_itself && thread == 0 && done == plan.at_acquisition) {
                    ::kill(::getpid(), SIGKILL);
                }
                // Long enough, now and then, to need a renewal.
                if (one_in(1000)) std::this_thread::sleep_for(ttl / 2);
            },
            [](Lease& lease, std::error_code& error) { return lease.release(error); });
        if (!had) {
            std::this_thread::sleep_for(std::chrono::microseconds{random() % 5000});
            continue;
        }
        // Let another have it: who released is the first to ask again.
        if (!one_in(4)) std::this_thread::sleep_for(std::chrono::microseconds{random() % 1000});
    }
}

/// One process: two of its threads share a lock, the others have one each.
int work(const Plan& plan, int process) {
    RedisClient client{plan.url};
    RedisLock shared{"history", client, {.ttl = ttl}};
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < threads_each; ++thread) {
        threads.emplace_back([&, thread] {
            if (thread < 2) return take_turns(plan, process, thread, shared);
            RedisLock own{"history", client, {.ttl = ttl}};
            take_turns(plan, process, thread, own);
        });
    }
    return 0;
}

std::size_t records_so_far(const Plan& plan) {
    std::error_code none_yet;
    const auto size = std::filesystem::file_size(plan.history, none_yet);
    return none_yet ? 0 : size / sizeof(faults::Record);
}

/// Looks every 2 ms whether `ready()`; false if the process ends or too much time passes first.
template <class Ready>
bool wait_beside(Process& process, Ready ready) {
    const auto end = std::chrono::steady_clock::now() + 120s;
    while (!ready()) {
        if (process.wait(2ms) || std::chrono::steady_clock::now() > end) return false;
    }
    return true;
}

/// The keys that would stay for ever.
std::vector<std::string> keys_without_expiry(RedisServer& server) {
    std::vector<std::string> found;
    for (const auto& key : server.command({"KEYS", "*"}).elements) {
        if (server.command({"PTTL", key.text}).number == -1) found.push_back(key.text);
    }
    return found;
}

}  // namespace

TEST_CASE("Processes that fight for a lock and are killed leave a history without a violation") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const TempDir dir;
    Plan plan{.url = server.url(),
              .history = dir.file("history"),
              .resource = dir.file("resource"),
              .seed = number_from("CODOMYRMEX_HISTORY_SEED", std::random_device{}()),
              .acquisitions = static_cast<int>(number_from("CODOMYRMEX_HISTORY_ACQUISITIONS", 60))};
    std::mt19937_64 random{plan.seed};
    plan.kills_itself = static_cast<int>(random() % processes);
    plan.at_acquisition =
        1 + static_cast<int>(random() % static_cast<std::uint64_t>(plan.acquisitions));
    plan.victim =
        (plan.kills_itself + 1 + static_cast<int>(random() % (processes - 1))) % processes;
    // Some six records an acquisition.
    const auto all = static_cast<std::uint64_t>(processes * threads_each * plan.acquisitions) * 6;
    const std::size_t victims_end = all / 10 + random() % (all / 2);
    CAPTURE(plan.seed, plan.kills_itself, plan.at_acquisition, plan.victim, victims_end);

    const auto start = std::chrono::steady_clock::now();
    std::vector<Process> workers;
    for (int process = 0; process < processes; ++process)
        workers.push_back(Process::run([&] { return work(plan, process); }));

    auto& killed = workers[static_cast<std::size_t>(plan.victim)];
    CHECK(wait_beside(killed, [&] { return records_so_far(plan) >= victims_end; }));
    killed.kill();
    std::vector<ExitStatus> ends;
    for (Process& worker : workers)
        ends.push_back(worker.wait(280s).value_or(ExitStatus{}));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
    faults::Recorder deaths{plan.history, -1, 0};
    for (const int process : {plan.victim, plan.kills_itself})
        deaths.process(faults::Op::killed, process);

    const faults::Turns turns = faults::judge_turns(plan.history);
    const faults::Report& report = turns.report;
    const auto holders_killed =
        std::ranges::count(turns.acquired, State::holding, &Acquisition::state);
    const auto accesses = FencedRegister{plan.resource}.accesses();
    const auto updates = std::ranges::count(accesses, 1U, &FencedRegister::Access::wrote);
    std::cout << "history: " << processes << " processes x " << threads_each << " threads x "
              << plan.acquisitions << ", seed " << plan.seed << ": " << updates
              << " updates, 2 processes killed (" << holders_killed
              << " holders among them), in all " << took.count() << " s: " << report.to_string();

    CAPTURE(report.to_string());
    CHECK(report.total() == 0);
    CHECK(violations_of(accesses).empty());
    CHECK(keys_without_expiry(server).empty());
    // That it happened as planned.
    for (int process = 0; process < processes; ++process) {
        CAPTURE(process);
        const bool dies = process == plan.victim || process == plan.kills_itself;
        CHECK(ends[static_cast<std::size_t>(process)] ==
              (dies ? ExitStatus{-1, SIGKILL} : ExitStatus{0, 0}));
        const auto made = std::ranges::count(turns.acquired, process, &Acquisition::process);
        if (dies) {
            CHECK(made > 0);
        } else {
            CHECK(made == threads_each * plan.acquisitions);
        }
    }
    CHECK(holders_killed >= 1);
    CHECK(report.failed == 0);
}

TEST_CASE("A lock whose key is taken away is caught in the history, and its fences still hold") {
    if (!RedisServer::available()) SKIP("no redis-server");
    RedisServer server;
    const TempDir dir;
    const Plan plan{.url = server.url(),
                    .history = dir.file("history"),
                    .resource = dir.file("resource"),
                    .seed = number_from("CODOMYRMEX_HISTORY_SEED", 1),
                    .acquisitions = 150};
    std::vector<Process> workers;
    for (int process = 0; process < 3; ++process)
        workers.push_back(Process::run([&] { return work(plan, process); }));
    std::size_t seen = 0;
    for (Process& worker : workers) {
        const auto end = std::chrono::steady_clock::now() + 100s;
        while (!worker.wait(100us) && std::chrono::steady_clock::now() < end) {
            seen += static_cast<std::size_t>(
                server.command({"DEL", "codomyrmex:lock:{history}"}).number);
        }
        CHECK(worker.wait(0s) == ExitStatus{0, 0});
    }

    const faults::Report report = faults::judge_turns(plan.history).report;
    CAPTURE(seen, report.to_string());
    CHECK(seen > 0);
    CHECK(report.of(Check::overlap) > 0);
    CHECK(report.of(Check::malformed) == 0);
    CHECK(report.of(Check::fence) == 0);
    CHECK(report.of(Check::token) == 0);
    CHECK(violations_of(FencedRegister{plan.resource}.accesses()).empty());
}
