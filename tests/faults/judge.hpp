// SPDX-License-Identifier: MIT
//
// The end of a round: its records are checked, added up and dropped, and a picture is drawn of the
// first violation.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_JUDGE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_JUDGE_HPP

#include "faults/checker.hpp"
#include "faults/recorder.hpp"
#include "faults/tally.hpp"
#include "faults/timeline.hpp"
#include "support/redis_server.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace faults {

/// Tells when this machine had no time for us: then what must happen soon may happen late.
class StallWatch {
  public:
    static constexpr std::chrono::milliseconds tolerated{150};

    /// What of [begin, end] it stalled, and `aftermath` longer, as faults of their own.
    [[nodiscard]] std::vector<FaultWindow> within(std::int64_t begin, std::int64_t end,
                                                  std::int64_t aftermath) const {
        const std::lock_guard guard{mutex_};
        std::vector<FaultWindow> windows;
        for (const auto& [from, to] : stalls_) {
            if (to < begin || from > end) continue;
            windows.push_back({"machine stalled",
                               from,
                               to + aftermath,
                               {.delay = true, .disorder = true, .loss = true, .error = true}});
        }
        return windows;
    }

    [[nodiscard]] std::uint64_t count() const {
        const std::lock_guard guard{mutex_};
        return count_;
    }
    [[nodiscard]] std::int64_t worst() const {
        const std::lock_guard guard{mutex_};
        return worst_;
    }

  private:
    void run(const std::stop_token& stop) {
        std::int64_t before = boot_time();
        while (!stop.stop_requested()) {
            std::this_thread::sleep_for(std::chrono::milliseconds{5});
            const std::int64_t now = boot_time();
            if (now - before > std::chrono::nanoseconds{tolerated}.count()) {
                const std::lock_guard guard{mutex_};
                ++count_;
                worst_ = std::max(worst_, now - before);
                stalls_.emplace_back(before, now);
                if (stalls_.size() > 1'000) stalls_.erase(stalls_.begin(), stalls_.begin() + 500);
            }
            before = now;
        }
    }

    mutable std::mutex mutex_;
    std::vector<std::pair<std::int64_t, std::int64_t>> stalls_;
    std::uint64_t count_ = 0;
    std::int64_t worst_ = 0;
    std::jthread thread_{[this](const std::stop_token& stop) { run(stop); }};
};

/// Where pictures go, and how many were drawn.
struct Gallery {
    std::string folder{};
    std::string prefix{};
    std::atomic<int> drawn{0};
    static constexpr int most = 3;
};

/// Checks the history in the file `path` and adds it to `tally`. `excuses`: windows that are no
/// faults of the table.
inline void judge(const std::string& path, const Rules& rules,
                  const std::vector<FaultWindow>& windows, std::vector<FaultWindow> excuses,
                  const std::string& arena, Gallery& gallery, Tally& tally) {
    Blame blame{windows};
    excuses.insert(excuses.end(), windows.begin(), windows.end());
    Checker checker{rules, excuses};
    checker.on_delay([&](std::int64_t time, std::int64_t delay) {
        auto& worst = blame.at(time).worst_delay;
        worst = std::max(worst, delay);
    });
    for_each_record(path, [&](const Record& record) {
        checker.add(record);
        const bool ours = record.op != Op::killed && record.op != Op::stopped &&
                          record.op != Op::continued && record.step == Step::answer;
        if (ours) ++blame.at(record.time).operations;
    });
    const Report report = checker.finish();
    for (const Violation& one : report.first)
        ++blame.at(one.time).violations;
    const auto rows = blame.rows();
    tally.operations += report.operations;
    tally.acquired += report.acquired;
    tally.writes += report.writes;
    tally.turned_away += report.turned_away;
    for (const std::uint64_t excused : report.excused)
        tally.excused += excused;
    for (const auto& [name, row] : rows)
        tally.rows[name] += row;
    for (const Violation& one : report.first) {
        std::string fault = Blame::nothing;
        std::int64_t latest = 0;
        for (const FaultWindow& window : windows) {
            if (window.begin > one.time || window.begin < latest) continue;
            latest = window.begin;
            fault = window.fault;
        }
        tally.find({std::string{to_string(one.check)}, arena + ", " + fault,
                    "name " + std::to_string(one.name) + ": " + one.text});
    }
    tally.violations += report.total() - report.first.size();
    if (report.first.empty() || gallery.drawn.fetch_add(1) >= Gallery::most) return;
    const Violation& first =
        *std::ranges::min_element(report.first, {}, [](const Violation& one) { return one.time; });
    const std::string file = gallery.folder + "/" + gallery.prefix + "-" + arena + "-" +
                             std::to_string(gallery.drawn.load()) + ".svg";
    std::ofstream{file} << draw_timeline(checker.history(first.name), first, excuses,
                                         std::chrono::nanoseconds{rules.ttl}.count());
    tally.keep({"picture", arena, file});
}

/// Looks at what is left in a server with nobody alive: nothing without an expiry, no more keys
/// than `most`. Then takes away the holders and the waiters that died.
inline void look_at_keys(test_support::RedisServer& server, std::uint64_t most,
                         const std::string& arena, Tally& tally) {
    const auto keys = server.command({"KEYS", "codomyrmex:*"});
    tally.keys = std::max<std::uint64_t>(tally.keys, keys.elements.size());
    if (keys.elements.size() > most) {
        tally.find({"keys", arena,
                    std::to_string(keys.elements.size()) + " keys are left; there should be " +
                        std::to_string(most) + " at most"});
    }
    std::vector<std::string> gone{"DEL"};
    for (const auto& key : keys.elements) {
        if (server.command({"PTTL", key.text}).number == -1) {
            tally.find({"no expiry", arena, "the key " + key.text + " lives for ever"});
        }
        if (!key.text.ends_with(":fence")) gone.push_back(key.text);
    }
    if (gone.size() > 1) server.command(gone);
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_JUDGE_HPP
