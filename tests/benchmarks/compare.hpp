// SPDX-License-Identifier: MIT
//
// How the benchmarks measure: what is compared runs in turns, in slices too short for the machine
// to change its mind between them and in an order shuffled each round; of each round counts the
// ratio. A second slice of the baseline in each round shows how far equals differ here and now.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_COMPARE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_COMPARE_HPP

#include "benchmarks/progress.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <latch>
#include <random>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace benchmarks {

using Clock = std::chrono::steady_clock;

/// Nanoseconds that one `operation()` takes, on this thread, over one slice of time.
template <class Operation>
double time_of(std::chrono::nanoseconds slice, Operation operation) {
    std::uint64_t count = 0;
    std::uint64_t batch = 1;
    const auto start = Clock::now();
    auto now = start;
    while (now - start < slice) {
        const auto begin = now;
        for (std::uint64_t i = 0; i < batch; ++i)
            operation();
        count += batch;
        now = Clock::now();
        if (now - begin < slice / 100) batch *= 2;
    }
    return std::chrono::duration<double, std::nano>(now - start).count() /
           static_cast<double>(count);
}

/// The same for `operation(thread)` on several threads at once: nanoseconds between two ends.
template <class Operation>
double time_of(std::chrono::nanoseconds slice, int thread_count, Operation operation) {
    std::latch ready{thread_count + 1};
    std::atomic<bool> stop{false};
    std::atomic<std::uint64_t> total{0};
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < thread_count; ++thread) {
        threads.emplace_back([&, thread] {
            std::uint64_t count = 0;
            ready.arrive_and_wait();
            for (; !stop.load(std::memory_order_relaxed); ++count)
                operation(thread);
            total += count;
        });
    }
    ready.arrive_and_wait();
    const auto start = Clock::now();
    std::this_thread::sleep_for(slice);
    stop = true;
    const auto end = Clock::now();
    threads.clear();
    return std::chrono::duration<double, std::nano>(end - start).count() /
           static_cast<double>(total.load());
}

/// How much more two threads can do here than one: 2 if there are two processors and nobody else
/// uses them.
inline double parallelism() {
    std::vector<double> ratios;
    for (int round = 0; round < 5; ++round) {
        const auto work = [](int) {
            for (volatile unsigned number = 0; number < 1000;)
                number = number + 1;
        };
        const double one = time_of(std::chrono::milliseconds{50}, 1, work);
        ratios.push_back(one / time_of(std::chrono::milliseconds{50}, 2, work));
    }
    std::ranges::sort(ratios);
    return ratios[ratios.size() / 2];
}

/// Keeps this process, and what it starts, on one processor while it lives; does nothing where
/// that cannot be asked for.
class Pinned {
  public:
#if defined(__linux__)
    Pinned() {
        if (::sched_getaffinity(0, sizeof before_, &before_) != 0) return;
        std::size_t first = 0;
        while (!CPU_ISSET(first, &before_))
            ++first;
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(first, &one);
        pinned_ = ::sched_setaffinity(0, sizeof one, &one) == 0;
    }
    ~Pinned() {
        if (pinned_) ::sched_setaffinity(0, sizeof before_, &before_);
    }

  private:
    cpu_set_t before_{};
    bool pinned_ = false;

  public:
#else
    Pinned() {}
    ~Pinned() {}
#endif
    Pinned(const Pinned&) = delete;
    Pinned& operator=(const Pinned&) = delete;
};

/// Whether this process may run on one processor only, as under `taskset -c 0`.
inline bool is_pinned() {
#if defined(__linux__)
    cpu_set_t allowed;
    return ::sched_getaffinity(0, sizeof allowed, &allowed) == 0 && CPU_COUNT(&allowed) == 1;
#else
    return false;
#endif
}

/// Something that can be timed: runs for one slice, returns the nanoseconds of one operation.
struct Variant {
    std::string name;
    std::function<double()> measure;
};

/// How a ratio is to be read.
enum class Ratio { time, speed };

struct Comparison {
    std::string what;  ///< what is done, by how many threads
    Variant ours;
    Variant baseline;
    Ratio ratio;
    std::string target;  ///< as text: a benchmark shows, it does not judge
    int rounds = 41;
};

/// The middle one and both ends.
struct Spread {
    double median = 0;
    double least = 0;
    double most = 0;

    explicit Spread(std::vector<double> values) {
        std::ranges::sort(values);
        median = values[values.size() / 2];
        least = values.front();
        most = values.back();
    }
};

inline void print_head(const std::string& title) {
    std::printf("\n%s\n\n%-44s %11s  %-33s %11s  %-24s %-12s %s\n", title.c_str(), "", "ours ns",
                "baseline", "ns", "ratio (least to most)", "target", "A/A");
}

/// Measures and prints one line of the table. Returns: the ratio.
inline Spread compare(const Comparison& comparison) {
    enum { ours, baseline, again };
    std::array<std::vector<double>, 3> times;
    std::vector<double> ratios;
    std::vector<double> noise;
    std::mt19937 random{1};
    std::array<int, 3> order{ours, baseline, again};
    Progress progress{comparison.ours.name + ", " + comparison.what, comparison.rounds + 1};
    for (int round = -1; round < comparison.rounds; ++round) {
        progress.step();
        std::ranges::shuffle(order, random);
        std::array<double, 3> took{};
        for (const int variant : order) {
            took[static_cast<std::size_t>(variant)] =
                variant == ours ? comparison.ours.measure() : comparison.baseline.measure();
        }
        if (round < 0) continue;  // to warm up
        for (std::size_t i = 0; i < took.size(); ++i)
            times[i].push_back(took[i]);
        const double time = took[ours] / took[baseline];
        ratios.push_back(comparison.ratio == Ratio::time ? time : 1 / time);
        noise.push_back(took[again] / took[baseline]);
    }
    const Spread ratio{ratios};
    const Spread same{noise};
    std::array<char, 64> text{};
    std::snprintf(text.data(), text.size(), "%s %.3f (%.2f to %.2f)",
                  comparison.ratio == Ratio::time ? "time " : "speed", ratio.median, ratio.least,
                  ratio.most);
    std::printf("%-44s %11.1f  %-33s %11.1f  %-24s %-12s %.3f (%.2f to %.2f)\n",
                (comparison.ours.name + ", " + comparison.what).c_str(), Spread{times[ours]}.median,
                comparison.baseline.name.c_str(), Spread{times[baseline]}.median, text.data(),
                comparison.target.c_str(), same.median, same.least, same.most);
    std::fflush(stdout);
    return ratio;
}

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_COMPARE_HPP
