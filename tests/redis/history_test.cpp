// SPDX-License-Identifier: MIT
//
// Many processes with many threads fight for one RedisLock while some of them are killed; what
// they recorded is judged afterwards. The judge itself is judged first, on histories made by hand.
//
//   CODOMYRMEX_HISTORY_ACQUISITIONS   how many each thread makes; 60 if not set
//   CODOMYRMEX_HISTORY_SEED           repeats a run: whom to kill and when

#include "support/history.hpp"

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/environment.hpp"
#include "support/fenced_register.hpp"
#include "support/fenced_turn.hpp"
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

namespace {

// --- The judge ---

/// A history made by hand. Times are small numbers; each call makes the next event of that thread.
class Script {
  public:
    Script& call(int thread, std::int64_t time) { return add(thread, time, Event::What::call); }
    Script& acquired(int thread, std::int64_t time, std::uint64_t fence, std::int64_t until) {
        add(thread, time, Event::What::acquired);
        events_.back().fence = fence;
        events_.back().valid_until = until;
        events_.back().set_token("token " + std::to_string(++tokens_));
        return *this;
    }
    Script& checked(int thread, std::int64_t time, std::uint64_t fence, std::int64_t until) {
        add(thread, time, Event::What::checked);
        events_.back().fence = fence;
        events_.back().valid_until = until;
        return *this;
    }
    Script& token(std::string_view text) {
        events_.back().set_token(text);
        return *this;
    }
    Script& released(int thread, std::int64_t time) {
        add(thread, time, Event::What::release);
        return add(thread, time, Event::What::released);
    }

    [[nodiscard]] Verdict verdict() const { return check(events_); }

  private:
    Script& add(int thread, std::int64_t time, Event::What what) {
        Event event;
        event.time = time;
        event.thread = thread;
        event.what = what;
        events_.push_back(event);
        return *this;
    }

    std::vector<Event> events_;
    int tokens_ = 0;
};

}  // namespace

TEST_CASE("A history in which one holds after another is in order") {
    const Verdict verdict = Script{}
                                .call(1, 10)
                                .call(2, 11)
                                .acquired(1, 20, 100, 90)
                                .released(1, 30)
                                .acquired(2, 31, 101, 95)
                                .checked(2, 50, 101, 120)
                                .released(2, 110)
                                .verdict();
    CAPTURE(verdict.to_string());
    CHECK(verdict.violations() == 0);
    REQUIRE(verdict.tenures.size() == 2);
    CHECK(verdict.tenures[0].end == 30);
    CHECK(verdict.tenures[1].end == 110);
    CHECK(verdict.worst_wait == 20ns);
    CHECK(verdict.cut_off == 0);
}

TEST_CASE("Two valid leases that meet are an overlap") {
    SECTION("the second begins before the first is given back") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .call(2, 10)
                                    .acquired(1, 20, 100, 90)
                                    .acquired(2, 40, 101, 95)
                                    .released(1, 41)
                                    .released(2, 60)
                                    .verdict();
        CHECK(verdict.overlaps.size() == 1);
        CHECK(verdict.violations() == 1);
    }
    SECTION("the first was renewed meanwhile") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .call(2, 10)
                                    .acquired(1, 20, 100, 40)
                                    .checked(1, 30, 100, 60)
                                    .acquired(2, 50, 101, 95)
                                    .released(1, 70)
                                    .released(2, 80)
                                    .verdict();
        CHECK(verdict.overlaps.size() == 1);
    }
    SECTION("the first is a long one, and others came and went between") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 900)
                                    .call(2, 21)
                                    .acquired(2, 30, 101, 900)
                                    .released(2, 40)
                                    .call(3, 41)
                                    .acquired(3, 50, 102, 900)
                                    .released(3, 60)
                                    .released(1, 70)
                                    .verdict();
        CHECK(verdict.overlaps.size() == 2);
    }
    SECTION("the first died, and its lease had not run out") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 90)
                                    .call(2, 25)
                                    .acquired(2, 89, 101, 180)
                                    .released(2, 100)
                                    .verdict();
        CHECK(verdict.overlaps.size() == 1);
        CHECK(verdict.cut_off == 1);
    }
}

TEST_CASE("A lease that ran out before the next began is no overlap") {
    SECTION("its holder died") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 90)
                                    .call(2, 25)
                                    .acquired(2, 90, 101, 180)
                                    .released(2, 100)
                                    .verdict();
        CHECK(verdict.violations() == 0);
        CHECK(verdict.cut_off == 1);
    }
    SECTION("its holder was late to give it back") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 90)
                                    .call(2, 25)
                                    .acquired(2, 95, 101, 180)
                                    .released(1, 99)
                                    .released(2, 100)
                                    .verdict();
        CHECK(verdict.violations() == 0);
    }
}

TEST_CASE("Fences that do not increase are found") {
    SECTION("a later holder has a smaller one, though it asked early") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .call(2, 10)
                                    .acquired(1, 20, 100, 90)
                                    .released(1, 30)
                                    .acquired(2, 31, 99, 95)
                                    .released(2, 40)
                                    .verdict();
        CHECK(verdict.order.size() == 1);
        CHECK(verdict.violations() == 1);
    }
    SECTION("a later holder has the same") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 90)
                                    .released(1, 30)
                                    .call(2, 31)
                                    .acquired(2, 32, 100, 95)
                                    .released(2, 40)
                                    .verdict();
        CHECK(verdict.order.size() == 1);
        CHECK(verdict.fences.size() == 2);  // asked later, and one fence twice
    }
    SECTION("two that were granted to calls at the same time have the same") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .call(2, 10)
                                    .acquired(1, 20, 100, 20)
                                    .released(1, 30)
                                    .acquired(2, 31, 100, 95)
                                    .released(2, 40)
                                    .verdict();
        CHECK(verdict.fences.size() == 1);
        CHECK(verdict.violations() == 1);
    }
    SECTION("the one that was granted first was never valid") {
        const Verdict verdict = Script{}
                                    .call(1, 10)
                                    .acquired(1, 20, 100, 20)
                                    .released(1, 30)
                                    .call(2, 31)
                                    .acquired(2, 32, 99, 95)
                                    .released(2, 40)
                                    .verdict();
        CHECK(verdict.fences.size() == 1);
        CHECK(verdict.violations() == 1);
    }
    SECTION("there is none") {
        const Verdict verdict =
            Script{}.call(1, 10).acquired(1, 20, 0, 90).released(1, 30).verdict();
        CHECK(verdict.fences.size() == 1);
    }
}

TEST_CASE("An owner token that comes twice is found") {
    const Verdict verdict = Script{}
                                .call(1, 10)
                                .acquired(1, 20, 100, 90)
                                .token("same")
                                .released(1, 30)
                                .call(2, 31)
                                .acquired(2, 32, 101, 95)
                                .token("same")
                                .released(2, 40)
                                .verdict();
    CHECK(verdict.tokens.size() == 1);
    CHECK(verdict.violations() == 1);
}

TEST_CASE("A history that cannot be is found") {
    CHECK(Script{}.acquired(1, 20, 100, 90).verdict().malformed.size() == 1);
    CHECK(Script{}.call(1, 10).call(1, 11).verdict().malformed.size() == 1);
    CHECK(Script{}.call(1, 10).released(1, 11).verdict().malformed.size() == 1);
    CHECK(Script{}.call(1, 10).acquired(1, 9, 1, 90).verdict().malformed.size() == 1);
    CHECK(Script{}
              .call(1, 10)
              .acquired(1, 20, 1, 90)
              .checked(1, 21, 2, 90)
              .verdict()
              .malformed.size() == 1);
}

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

// --- The run ---

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
    Recorder recorder{plan.history, process, thread};
    FencedRegister resource{plan.resource};
    std::mt19937_64 random{plan.seed + static_cast<std::uint64_t>(process * threads_each + thread)};
    const auto one_in = [&](std::uint64_t n) { return random() % n == 0; };

    for (int done = 0; process == plan.victim || done < plan.acquisitions;) {
        const bool waits = !one_in(4);
        const bool had = fenced_turn(
            recorder, resource,
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

std::size_t events_so_far(const Plan& plan) {
    std::error_code none_yet;
    const auto size = std::filesystem::file_size(plan.history, none_yet);
    return none_yet ? 0 : size / sizeof(Event);
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
    // Some five events an acquisition.
    const auto all = static_cast<std::uint64_t>(processes * threads_each * plan.acquisitions) * 5;
    const std::size_t victims_end = all / 10 + random() % (all / 2);
    CAPTURE(plan.seed, plan.kills_itself, plan.at_acquisition, plan.victim, victims_end);

    const auto start = std::chrono::steady_clock::now();
    std::vector<Process> workers;
    for (int process = 0; process < processes; ++process)
        workers.push_back(Process::run([&] { return work(plan, process); }));

    auto& killed = workers[static_cast<std::size_t>(plan.victim)];
    CHECK(wait_beside(killed, [&] { return events_so_far(plan) >= victims_end; }));
    killed.kill();
    std::vector<ExitStatus> ends;
    for (Process& worker : workers)
        ends.push_back(worker.wait(280s).value_or(ExitStatus{}));
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;

    const Verdict verdict = check(read_history(plan.history));
    const auto accesses = FencedRegister{plan.resource}.accesses();
    const auto updates = std::ranges::count(accesses, 1U, &FencedRegister::Access::wrote);
    std::cout << "history: " << processes << " processes x " << threads_each << " threads x "
              << plan.acquisitions << ", seed " << plan.seed << ": " << verdict.tenures.size()
              << " acquisitions, " << updates << " updates, 2 processes killed (" << verdict.cut_off
              << " holders among them), " << verdict.refused << " refused, " << verdict.failed
              << " failed, " << verdict.lost << " lost, " << verdict.unknown << " unknown, "
              << verdict.violations() << " violations; worst wait "
              << std::chrono::duration<double>(verdict.worst_wait).count() << " s, in all "
              << took.count() << " s\n";

    CAPTURE(verdict.to_string(), verdict.failed, verdict.lost, verdict.unknown);
    CHECK(verdict.violations() == 0);
    CHECK(violations_of(accesses).empty());
    CHECK(keys_without_expiry(server).empty());
    // That it happened as planned.
    for (int process = 0; process < processes; ++process) {
        CAPTURE(process);
        const bool dies = process == plan.victim || process == plan.kills_itself;
        CHECK(ends[static_cast<std::size_t>(process)] ==
              (dies ? ExitStatus{-1, SIGKILL} : ExitStatus{0, 0}));
        const auto made = std::ranges::count(verdict.tenures, process, &Tenure::process);
        if (dies) {
            CHECK(made > 0);
        } else {
            CHECK(made == threads_each * plan.acquisitions);
        }
    }
    CHECK(verdict.cut_off >= 1);
    CHECK(verdict.failed == 0);
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

    const Verdict verdict = check(read_history(plan.history));
    CAPTURE(seen, verdict.tenures.size(), verdict.lost, verdict.to_string());
    CHECK(seen > 0);
    CHECK(verdict.overlaps.size() > 0);
    CHECK(verdict.malformed.empty());
    CHECK(verdict.fences.empty());
    CHECK(verdict.tokens.empty());
    CHECK(violations_of(FencedRegister{plan.resource}.accesses()).empty());
}
