// SPDX-License-Identifier: MIT
//
// The distributed use case of the demo: processes that read, modify and write one file. Under a
// RedisLock the count is exact, though one of them is killed with -9 in its critical section;
// without the lock it is not. Each process notes when it held the lock, for the time line.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PROCESSES_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PROCESSES_HPP

#include <codomyrmex/concurrency/redis.hpp>

#include "private_redis.hpp"
#include "report.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace demo {

namespace cc = codomyrmex::concurrency;

constexpr std::chrono::milliseconds demo_ttl{1000};

/// What a worker process is told on its command line.
struct Job {
    std::string url{};   // empty: without the lock
    std::string file{};  // holds the count
    std::string log{};   // "wait from to" in nanoseconds for each time it held the lock
    int rounds = 0;
    int die_in = -1;  // the round in which it stops for good, holding the lock
};

inline std::int64_t now_ns() {
    return std::chrono::nanoseconds{Clock::now().time_since_epoch()}.count();
}

inline std::size_t read_count(const std::string& file) {
    std::size_t count = 0;
    std::ifstream{file} >> count;
    return count;
}

// With a width that does not change, so that no reader meets half a number.
inline void write_count(const std::string& file, std::size_t count) {
    std::fstream stream{file, std::ios::in | std::ios::out};
    std::string text = std::to_string(count);
    text.insert(0, 12 - std::min<std::size_t>(12, text.size()), '0');
    stream << text;
}

/// The body of a worker process.
inline int work(const Job& job) {
    std::optional<cc::RedisLock> lock;
    if (!job.url.empty()) lock.emplace("demo:count", job.url, cc::LeaseOptions{.ttl = demo_ttl});
    std::ofstream log{job.log, std::ios::app};
    for (int round = 0; round < job.rounds; ++round) {
        // Work that needs no lock, so that the processes take turns.
        std::this_thread::sleep_for(std::chrono::milliseconds{job.url.empty() ? 0 : 4});
        const std::int64_t asked = now_ns();
        const cc::Lease lease = lock ? lock->lease() : cc::Lease{};
        const std::int64_t began = now_ns();
        const std::size_t seen = read_count(job.file);
        if (round == job.die_in) {
            log << began - asked << ' ' << began << " killed" << std::endl;
            for (;;)
                std::this_thread::sleep_for(std::chrono::hours{1});
        }
        std::this_thread::sleep_for(std::chrono::microseconds{300});
        write_count(job.file, seen + 1);
        log << began - asked << ' ' << began << ' ' << now_ns() << std::endl;
    }
    return 0;
}

/// What one process did, read from its log.
struct History {
    struct Turn {
        std::int64_t wait = 0;
        std::int64_t from = 0;
        std::optional<std::int64_t> to{};  // nothing: killed
    };
    std::vector<Turn> turns{};

    static History of(const std::string& file) {
        History history;
        std::ifstream log{file};
        Turn turn;
        for (std::string end; log >> turn.wait >> turn.from >> end;) {
            turn.to.reset();
            if (end != "killed") turn.to = std::stoll(end);
            history.turns.push_back(turn);
        }
        return history;
    }
};

inline void print_time_line(const std::vector<History>& histories) {
    constexpr std::int64_t width = 72;
    std::int64_t first = std::numeric_limits<std::int64_t>::max();
    std::int64_t last = 0;
    for (const History& each : histories) {
        for (const auto& turn : each.turns) {
            first = std::min(first, turn.from);
            last = std::max(last, turn.to.value_or(turn.from));
        }
    }
    const std::int64_t span = std::max<std::int64_t>(last - first, 1);
    const auto column = [&](std::int64_t time) {
        return static_cast<std::size_t>(
            std::clamp<std::int64_t>((time - first) * width / span, 0, width - 1));
    };
    std::cout << "\nWho held the lock, over " << span / 1'000'000
              << " ms: # held, X killed with -9 "
              << "while holding,\n~ its lease, which has " << demo_ttl.count()
              << " ms to run out\n";
    for (std::size_t i = 0; i < histories.size(); ++i) {
        std::string line(width, '.');
        for (const auto& turn : histories[i].turns) {
            const std::size_t from = column(turn.from);
            const auto lease = std::chrono::nanoseconds{demo_ttl}.count();
            const std::size_t to = column(turn.to.value_or(turn.from + lease));
            std::fill(line.begin() + static_cast<std::ptrdiff_t>(from),
                      line.begin() + static_cast<std::ptrdiff_t>(to) + 1, turn.to ? '#' : '~');
            if (!turn.to) line[from] = 'X';
        }
        std::cout << "  process " << i + 1 << "  " << line << '\n';
    }
}

struct Outcome {
    std::size_t count = 0;     // in the file
    std::size_t expected = 0;  // writes that were finished
    std::vector<History> histories{};
};

/// Starts the workers, kills the one that stops inside, waits for the others.
inline Outcome run_workers(const std::string& program, const std::string& url, int rounds,
                           bool with_kill) {
    constexpr int processes = 4;
    const Folder folder;
    const std::string file = folder.file("count");
    std::ofstream{file} << "000000000000";
    std::vector<Child> children;
    for (int i = 0; i < processes; ++i) {
        children.emplace_back(
            std::vector<std::string>{program, "worker", "--redis", url, "--file", file, "--log",
                                     folder.file("log" + std::to_string(i)), "--rounds",
                                     std::to_string(rounds), "--die-in",
                                     with_kill && i == 1 ? std::to_string(rounds / 4) : "-1"},
            "");
    }
    if (with_kill) {
        const auto stopped = [&] {
            const History history = History::of(folder.file("log1"));
            return !history.turns.empty() && !history.turns.back().to;
        };
        while (!stopped() && children[1].running()) {
            std::this_thread::sleep_for(std::chrono::milliseconds{5});
        }
        children[1].kill(SIGKILL);
    }
    for (Child& child : children)
        child.wait();
    Outcome outcome;
    outcome.count = read_count(file);
    for (int i = 0; i < processes; ++i) {
        outcome.histories.push_back(History::of(folder.file("log" + std::to_string(i))));
        for (const auto& turn : outcome.histories.back().turns)
            outcome.expected += turn.to ? 1U : 0U;
    }
    return outcome;
}

/// `histories`: for the time line.
inline Result shared_file(const std::string& program, const std::string& url,
                          std::vector<History>& histories) {
    Result result{.primitive = "RedisLock"};
    if (url.empty()) {
        result.verdict = Verdict::skipped;
        result.finding = "no Redis server, and local locks do not reach other processes";
        return result;
    }
    constexpr int rounds = 80;
    const Outcome bare = run_workers(program, "", 200, false);
    Outcome locked = run_workers(program, url, rounds, true);
    // Three that finish, and one that did a quarter before it was killed.
    constexpr std::size_t planned = 3 * rounds + rounds / 4;
    result.operations = locked.expected;
    for (const History& each : locked.histories) {
        for (const auto& turn : each.turns)
            result.waits.emplace_back(turn.wait);
    }
    const bool exact = locked.count == locked.expected && locked.expected == planned;
    const bool contrast = bare.count < bare.expected;
    result.verdict = exact && contrast ? Verdict::right : Verdict::wrong;
    result.finding = "4 processes, 1 killed inside: " + std::to_string(locked.count) + " of " +
                     std::to_string(planned) + " counted; without the lock " +
                     std::to_string(bare.count) + " of " + std::to_string(bare.expected);
    histories = std::move(locked.histories);
    return result;
}

}  // namespace demo

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PROCESSES_HPP
