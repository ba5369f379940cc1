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

        // When nobody else was kept out any more.
        [[nodiscard]] std::int64_t end() const {
            return to.value_or(from + std::chrono::nanoseconds{demo_ttl}.count());
        }
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

/// One line for each process over the time from `first` to `last`. In each column there is one
/// sign: that of the process that held the lock longest in that time.
inline void print_lines(const std::vector<History>& histories, std::int64_t first,
                        std::int64_t last) {
    constexpr std::size_t width = 72;
    const std::int64_t span = std::max<std::int64_t>(last - first, 1);
    const auto begin_of = [&](std::size_t column) {
        return first + span * static_cast<std::int64_t>(column) / static_cast<std::int64_t>(width);
    };
    std::vector<std::string> lines(histories.size(), std::string(width, '.'));
    for (std::size_t column = 0; column < width; ++column) {
        const std::int64_t from = begin_of(column);
        const std::int64_t to = begin_of(column + 1);
        std::int64_t longest = 0;
        std::size_t holder = 0;
        char sign = '.';
        for (std::size_t i = 0; i < histories.size(); ++i) {
            std::int64_t held = 0;
            char its_sign = '#';
            for (const auto& turn : histories[i].turns) {
                const std::int64_t part =
                    std::min(turn.end(), to) - std::max<std::int64_t>(turn.from, from);
                if (part <= 0) continue;
                held += part;
                if (!turn.to) its_sign = turn.from >= from ? 'X' : '~';
            }
            if (its_sign == 'X' || (held > longest && sign != 'X')) {
                longest = held;
                holder = i;
                sign = its_sign;
            }
        }
        lines[holder][column] = sign;
    }
    for (std::size_t i = 0; i < lines.size(); ++i)
        std::cout << "  process " << i + 1 << "  " << lines[i] << '\n';
}

inline void print_time_line(const std::vector<History>& histories) {
    std::vector<History::Turn> turns;
    for (const History& each : histories)
        turns.insert(turns.end(), each.turns.begin(), each.turns.end());
    if (turns.empty()) return;
    std::ranges::sort(turns, {}, &History::Turn::from);
    const std::int64_t first = turns.front().from;
    const std::int64_t last = std::max(turns.back().from, turns.back().to.value_or(first));
    std::cout << "\nWho held the lock when, over " << (last - first) / 1'000'000
              << " ms: # held, X killed with -9 while holding,\n~ its lease, which has "
              << demo_ttl.count() << " ms to run out. A sign is who held it longest in "
              << (last - first) / 72'000'000 << " ms.\n";
    print_lines(histories, first, last);
    const std::int64_t end = turns[std::min<std::size_t>(turns.size(), 16) - 1].end();
    const std::int64_t detail_end = std::min(end, last);
    std::cout << "The first " << (detail_end - first) / 1'000'000 << " ms of that:\n";
    print_lines(histories, first, detail_end);
}

/// Whether two processes held the lock at the same time.
inline bool overlap(const std::vector<History>& histories) {
    std::vector<History::Turn> turns;
    for (const History& each : histories)
        turns.insert(turns.end(), each.turns.begin(), each.turns.end());
    std::ranges::sort(turns, {}, &History::Turn::from);
    const auto meet = [](const History::Turn& a, const History::Turn& b) {
        return a.to.value_or(a.from) > b.from;
    };
    return std::ranges::adjacent_find(turns, meet) != turns.end();
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
    const bool alone = !overlap(locked.histories);
    const bool exact = alone && locked.count == locked.expected && locked.expected == planned;
    const bool contrast = bare.count < bare.expected;
    result.verdict = exact && contrast ? Verdict::right : Verdict::wrong;
    result.finding =
        "4 processes, 1 killed inside: " + std::to_string(locked.count) + " of " +
        std::to_string(planned) + (alone ? " counted" : " counted, TWO HELD IT AT ONCE") +
        "; without the lock " + std::to_string(bare.count) + " of " + std::to_string(bare.expected);
    histories = std::move(locked.histories);
    return result;
}

}  // namespace demo

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PROCESSES_HPP
