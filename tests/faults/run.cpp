// SPDX-License-Identifier: MIT
//
// The fault run: processes fight over locks on private servers while faults strike at random, and
// all that they recorded is checked. Prints its seed, a line for each round of all arenas, and last
// a table of the faults. The exit code is 0 if nothing was violated, else 1.
//
//   faults_run --minutes 30 --seed 7
//   faults_run --worker some/mutant --expect-violation

#include "faults/arena.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <map>
#include <mutex>
#include <random>
#include <sstream>
#include <stop_token>
#include <string>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace {

using namespace faults;
using namespace std::chrono_literals;

/// Takes the rounds of all arenas as they end.
class Ledger {
  public:
    explicit Ledger(std::size_t arenas) : arenas_{arenas} {}

    void add(Round round) {
        const std::lock_guard guard{mutex_};
        total_ += round.tally;
        ++rounds_;
        fresh_ = true;
        changed_.notify_all();
    }
    void failed(const std::string& arena, const std::string& what) {
        const std::lock_guard guard{mutex_};
        total_.find({"run", arena, what});
        fresh_ = true;
        changed_.notify_all();
    }
    void ended() {
        const std::lock_guard guard{mutex_};
        --arenas_;
        changed_.notify_all();
    }

    /// Waits for news, at most `time`. Returns: false once all arenas have ended.
    bool wait(std::chrono::milliseconds time) {
        std::unique_lock guard{mutex_};
        changed_.wait_for(guard, time, [this] { return fresh_ || arenas_ == 0; });
        fresh_ = false;
        return arenas_ != 0;
    }

    [[nodiscard]] Tally total() const {
        const std::lock_guard guard{mutex_};
        return total_;
    }
    [[nodiscard]] std::int64_t rounds() const {
        const std::lock_guard guard{mutex_};
        return rounds_;
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t arenas_;
    bool fresh_ = false;
    std::int64_t rounds_ = 0;
    Tally total_;
};

/// What is written to the terminal, or to a file.
struct Screen {
    bool terminal = ::isatty(STDOUT_FILENO) != 0;
    bool colours = terminal && std::getenv("NO_COLOR") == nullptr;

    [[nodiscard]] std::string red(const std::string& text) const {
        return colours ? "\033[31m" + text + "\033[0m" : text;
    }
    [[nodiscard]] std::string bold(const std::string& text) const {
        return colours ? "\033[1m" + text + "\033[0m" : text;
    }
};

std::string resident() {
    std::ifstream status{"/proc/self/statm"};
    std::int64_t all = 0;
    std::int64_t now = 0;
    status >> all >> now;
    return std::to_string(now * ::sysconf(_SC_PAGESIZE) / 1'000'000) + " MB";
}

std::size_t open_files() {
    std::error_code none;
    const std::filesystem::directory_iterator files{"/proc/self/fd", none};
    return static_cast<std::size_t>(std::distance(begin(files), end(files)));
}

std::string with_commas(std::uint64_t number) {
    std::string text = std::to_string(number);
    for (auto at = static_cast<std::ptrdiff_t>(text.size()) - 3; at > 0; at -= 3)
        text.insert(static_cast<std::size_t>(at), 1, ',');
    return text;
}

// How a user stops a run.
std::atomic<bool> interrupted{false};  // NOLINT(cppcoreguidelines-avoid-non-const-global-variables)

struct Settings {
    RunOptions run{};
    double minutes = 1;
    bool expect_violation = false;
    bool quiet = false;
    std::string out = ".";
    std::vector<std::string> arenas{"scenarios", "network", "people", "amnesia", "clock"};
};

/// Plays rounds on this thread until the run is over.
template <class Make>
void play(const std::string& name, Make make, const std::stop_token& stop, Ledger& ledger) {
    try {
        auto arena = make();
        for (std::int64_t round = 1; !stop.stop_requested(); ++round)
            ledger.add(arena.round(round, stop));
    } catch (const std::exception& error) {
        ledger.failed(name, error.what());
    }
    ledger.ended();
}

int run(const Settings& settings) {
    const Screen screen;
    if (!settings.quiet) {
        std::cout << screen.bold("seed " + std::to_string(settings.run.seed)) << ", "
                  << settings.run.worker << std::endl;
    }
    StallWatch stalls;
    Gallery gallery{settings.out, "faults-" + std::to_string(settings.run.seed)};
    Ledger ledger{settings.arenas.size()};
    std::stop_source stop;
    std::vector<std::jthread> threads;
    const auto wanted = [&](const char* name) {
        return std::ranges::find(settings.arenas, name) != settings.arenas.end();
    };
    const auto began = std::chrono::steady_clock::now();
    if (wanted("scenarios")) {
        threads.emplace_back([&] {
            play(
                "scenarios",
                [&] {
                    return Theatre{settings.run, stalls, gallery};
                },
                stop.get_token(), ledger);
        });
    }
    for (const Ground ground : {Ground::network, Ground::people, Ground::amnesia, Ground::clock}) {
        if (!wanted(to_string(ground))) continue;
        threads.emplace_back([&, ground] {
            play(
                to_string(ground),
                [&] {
                    return Arena{ground, settings.run, stalls, gallery};
                },
                stop.get_token(), ledger);
        });
    }

    const auto elapsed = [&] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    };
    const auto progress = [&] {
        const Tally total = ledger.total();
        std::ostringstream line;
        line << static_cast<std::int64_t>(elapsed()) << " s: " << with_commas(total.operations)
             << " operations, " << with_commas(total.faults()) << " faults, "
             << (total.violations == 0 ? "0 violations"
                                       : screen.red(with_commas(total.violations) + " violations"))
             << "; " << ledger.rounds() << " rounds, " << total.keys << " keys at most, "
             << resident() << ", " << open_files() << " files";
        if (screen.terminal)
            std::cout << "\r\033[K" << line.str() << std::flush;
        else
            std::cout << line.str() << std::endl;
    };
    auto next_line = std::chrono::steady_clock::now();
    while (ledger.wait(200ms)) {
        const bool found = ledger.total().violations != 0;
        if (elapsed() >= settings.minutes * 60 || interrupted ||
            (settings.expect_violation && found)) {
            stop.request_stop();
        }
        if (settings.quiet || settings.expect_violation ||
            std::chrono::steady_clock::now() < next_line)
            continue;
        if (ledger.rounds() == 0) continue;
        progress();
        next_line = std::chrono::steady_clock::now() + (screen.terminal ? 1s : 5s);
    }
    threads.clear();

    const Tally total = ledger.total();
    if (settings.expect_violation) {
        if (total.findings.empty()) {
            std::cout << "NOT caught in " << static_cast<std::int64_t>(elapsed()) << " s, "
                      << with_commas(total.operations) << " operations" << std::endl;
            return 1;
        }
        const Finding& first = total.findings.front();
        std::cout << "caught by \"" << first.check << "\" in " << first.where << ": " << first.text
                  << std::endl;
        return 0;
    }
    progress();
    if (screen.terminal) std::cout << '\n';
    std::cout << '\n'
              << total.table() << '\n'
              << with_commas(total.acquired) << " holds, " << with_commas(total.deeds.renewals)
              << " renewals, " << with_commas(total.deeds.local_handovers)
              << " handed over in a process, " << with_commas(total.deeds.grants)
              << " from process to process, " << with_commas(total.deeds.lost) << " lost; "
              << with_commas(total.writes) << " writes taken, " << with_commas(total.turned_away)
              << " turned away by their fence; " << with_commas(total.excused)
              << " times a fault excused what is a violation without it; this machine stalled "
              << stalls.count() << " times, " << stalls.worst() / 1'000'000 << " ms at most\n";
    for (const Finding& finding : total.findings) {
        std::cout << screen.red(finding.check) << ", " << finding.where << ": " << finding.text
                  << '\n';
    }
    std::cout << (total.violations == 0 ? "No violation"
                                        : screen.red(with_commas(total.violations) + " violations"))
              << " in " << with_commas(total.operations) << " operations under "
              << with_commas(total.faults()) << " faults, seed " << settings.run.seed << std::endl;
    return total.violations == 0 ? 0 : 1;
}

}  // namespace

int main(int argc, char** argv) {
    Settings settings;
    settings.run.seed = static_cast<std::int64_t>(std::random_device{}());
    settings.run.worker = CODOMYRMEX_FAULTS_WORKER;
    settings.run.clock_shim = CODOMYRMEX_CLOCK_SHIM;
    std::int64_t round_ms = settings.run.round.count();

    CLI::App app{"Locks under faults: processes fight, faults strike, every record is checked."};
    app.add_option("--minutes", settings.minutes, "How long")->capture_default_str();
    app.add_option("--seed", settings.run.seed, "Repeats the choice of faults");
    app.add_option("--round", round_ms, "Milliseconds of a round")
        ->check(CLI::Range(1'000, 60'000));
    app.add_option("--processes", settings.run.processes, "Workers of an arena")
        ->check(CLI::Range(1, 16));
    app.add_option("--threads", settings.run.threads, "Threads of a worker")
        ->check(CLI::Range(1, static_cast<int>(most_threads)));
    app.add_option("--arenas", settings.arenas, "Which")
        ->delimiter(',')
        ->check(CLI::IsMember({"scenarios", "network", "people", "amnesia", "clock"}));
    app.add_option("--out", settings.out, "Folder for pictures of violations")
        ->check(CLI::ExistingDirectory);
    app.add_option("--worker", settings.run.worker, "Another worker, built against a mutant")
        ->check(CLI::ExistingFile);
    app.add_flag("--expect-violation", settings.expect_violation,
                 "Ends at the first violation; fails if there is none");
    app.add_flag("--quiet", settings.quiet, "Says nothing before the end");
    CLI11_PARSE(app, argc, argv);
    settings.run.round = std::chrono::milliseconds{round_ms};
    for (const int signal : {SIGINT, SIGTERM})
        std::signal(signal, [](int) { interrupted = true; });
    try {
        return run(settings);
    } catch (const std::exception& error) {
        std::cerr << "faults_run: " << error.what() << '\n';
        return 2;
    }
}
