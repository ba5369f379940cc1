// SPDX-License-Identifier: MIT
//
// The local primitives beside those of the standard, and of Abseil, TBB and Boost where the build
// found them, by 1 to 8 threads. Prints a table of ratios to the standard's for each question, and
// draws it all into local_peers.svg in the build folder. Takes Google Benchmark's options; figures
// that are to be compared are measured in turns, in random order, and the median counts.

#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/read_write_lock.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/plot.hpp"
#include "benchmarks/read_write.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#if defined(BENCHMARK_ABSL)
#include <absl/synchronization/mutex.h>
#endif
#if defined(BENCHMARK_BOOST)
#include <boost/thread/shared_mutex.hpp>
#endif
#if defined(BENCHMARK_TBB)
#include <oneapi/tbb/rw_mutex.h>
#include <oneapi/tbb/spin_rw_mutex.h>
#endif

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

constexpr std::array thread_counts{1, 2, 4, 8};

#if defined(BENCHMARK_ABSL)
/// Abseil's mutex by the standard's verbs.
class AbslMutex {
  public:
    void lock() { mutex_.Lock(); }
    void unlock() { mutex_.Unlock(); }
    void lock_shared() { mutex_.ReaderLock(); }
    void unlock_shared() { mutex_.ReaderUnlock(); }

  private:
    absl::Mutex mutex_;
};
#endif

// A question is what is done; whose name begins with "std::" is the measure of the others.

/// In the order in which they are asked; they are answered at random.
std::vector<std::string>& questions() {
    static std::vector<std::string> all;
    return all;
}

template <class Step>
void add(const std::string& question, const std::string& name, Step step) {
    if (std::ranges::find(questions(), question) == questions().end()) {
        questions().push_back(question);
    }
    auto* const benchmark = benchmark::RegisterBenchmark((question + "/" + name).c_str(),
                                                         [step](benchmark::State& state) {
                                                             auto mine = step(state.thread_index());
                                                             for (auto _ : state)
                                                                 mine();
                                                         });
    for (const int threads : thread_counts)
        benchmark->Threads(threads);
    benchmark->UseRealTime();
}

template <class Lock>
void add_exclusive(const std::string& name) {
    add("lock and unlock", name, [lock = std::make_shared<Lock>()](int) {
        return [&object = *lock] {
            object.lock();
            object.unlock();
        };
    });
}

template <class Lock>
void add_mixed(unsigned reads, const std::string& name) {
    add(std::to_string(reads) + "% reads", name, [reads, lock = std::make_shared<Lock>()](int t) {
        return [&object = *lock, mix = Mix{reads, static_cast<unsigned>(t)}]() mutable {
            mix.step(object);
        };
    });
}

template <class Semaphore>
void add_permits(const std::string& name) {
    add("acquire and release, 2 permits", name, [semaphore = std::make_shared<Semaphore>(2)](int) {
        return [&object = *semaphore] {
            // libstdc++'s loses wake-ups: without a limit it would hang now and then.
            if (!object.try_acquire()) {
                while (!object.try_acquire_for(20ms)) {
                }
            }
            object.release();
        };
    });
}

std::vector<std::string> names() {
    std::vector<std::string> all;
    for (int i = 0; i < 1024; ++i)
        all.push_back("service/resource/" + std::to_string(100'000 + i * 7919 % 1024));
    return all;
}

/// What one writes without a registry.
struct MutexAndMap {
    std::mutex& get(std::string_view name) {
        const std::scoped_lock guard{mutex};
        auto& entry = map[std::string{name}];
        if (!entry) entry = std::make_unique<std::mutex>();
        return *entry;
    }
    std::mutex mutex{};
    std::unordered_map<std::string, std::unique_ptr<std::mutex>> map{};
};

template <class Registry, class Use>
void add_names(const std::string& name, Use use) {
    add("one of 1,024 names", name,
        [use, registry = std::make_shared<Registry>(),
         all = std::make_shared<std::vector<std::string>>(names())](int thread) {
            auto i = static_cast<std::size_t>(thread) * 128;
            return [use, i, &object = *registry, &list = *all]() mutable {
                use(object, list[i++ % list.size()]);
            };
        });
}

void add_all() {
    add_exclusive<std::mutex>("std::mutex");
    add_exclusive<LocalLock>("LocalLock");
    add_exclusive<std::timed_mutex>("std::timed_mutex");
    add_exclusive<TimedLocalLock>("TimedLocalLock");
    add_exclusive<WordMutex>("WordMutex");
#if defined(BENCHMARK_ABSL)
    add_exclusive<AbslMutex>("absl::Mutex");
#endif
    for (const unsigned reads : {100U, 99U, 90U, 50U}) {
        add_mixed<std::shared_mutex>(reads, "std::shared_mutex");
        add_mixed<ReadWriteLock>(reads, "ReadWriteLock");
        add_mixed<ScalableReadWriteLock>(reads, "ScalableReadWriteLock");
#if defined(BENCHMARK_ABSL)
        add_mixed<AbslMutex>(reads, "absl::Mutex");
#endif
#if defined(BENCHMARK_TBB)
        add_mixed<tbb::spin_rw_mutex>(reads, "tbb::spin_rw_mutex");
        add_mixed<tbb::rw_mutex>(reads, "tbb::rw_mutex");
#endif
#if defined(BENCHMARK_BOOST)
        add_mixed<boost::shared_mutex>(reads, "boost::shared_mutex");
#endif
    }
    add_permits<std::counting_semaphore<>>("std::counting_semaphore");
    add_permits<BasicLocalSemaphore<ConditionVariableBed>>("LocalSemaphore");
    add_permits<BasicLocalSemaphore<CountingSemaphoreBed>>("the same, CountingSemaphoreBed");
    add_names<MutexAndMap>("std::mutex and map", [](auto& map, const std::string& name) {
        benchmark::DoNotOptimize(&map.get(name));
    });
    add_names<LockManager<>>("LockManager get_lock", [](auto& manager, const std::string& name) {
        const auto handle = manager.get_lock(name);
    });
    add_names<LockManager<>>("LockManager lock", [](auto& manager, const std::string& name) {
        const auto guard = manager.lock(name);
    });
}

/// Keeps the nanoseconds of each run.
class Collector : public benchmark::BenchmarkReporter {
  public:
    bool ReportContext(const Context&) override { return true; }

    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            if (run.run_type != Run::RT_Iteration) continue;
            const std::string& path = run.run_name.function_name;
            const auto slash = path.find('/');
            const std::string question = path.substr(0, slash);
            const std::string name = path.substr(slash + 1);
            auto& list = answers[question];
            if (std::ranges::find(list, name) == list.end()) list.push_back(name);
            // The iterations are those of all threads together, the time is not.
            const double time =
                run.real_accumulated_time * 1e9 / static_cast<double>(run.iterations);
            times[{question, name, run.threads}].push_back(time);
        }
    }

    [[nodiscard]] double median(const std::string& question, const std::string& name,
                                int threads) const {
        const auto found = times.find({question, name, threads});
        return found == times.end() ? 0 : Spread{found->second}.median;
    }

    // In random order.
    std::map<std::string, std::vector<std::string>> answers{};
    std::map<std::tuple<std::string, std::string, std::int64_t>, std::vector<double>> times{};
};

void print_and_draw(Collector& collector) {
    std::vector<Panel> panels;
    for (const std::string& question : questions()) {
        auto& list = collector.answers[question];
        if (list.empty()) continue;
        std::ranges::sort(list);
        const auto measure = std::ranges::find_if(
            list, [](const std::string& name) { return name.starts_with("std::"); });
        std::printf("\n%-32s", question.c_str());
        for (const int threads : thread_counts)
            std::printf("  %d thread%s ns  speed", threads, threads == 1 ? " " : "s");
        std::printf("\n");
        Panel panel{question, {}};
        for (const std::string& name : list) {
            Line line{name, {}};
            std::printf("%-32s", name.c_str());
            for (const int threads : thread_counts) {
                const double time = collector.median(question, name, threads);
                if (time == 0) continue;
                const double base =
                    measure == list.end() ? 0 : collector.median(question, *measure, threads);
                std::printf("  %12.1f %6.2f", time, base / time);
                line.points.emplace_back(threads, 1000 / time);
            }
            std::printf("\n");
            panel.lines.push_back(std::move(line));
        }
        panels.push_back(std::move(panel));
    }
    const std::string path = std::string{BENCHMARK_OUTPUT} + "/local_peers.svg";
    std::ofstream{path} << svg("codomyrmex-concurrency: local primitives", "threads",
                               "million operations a second, all threads together", panels);
    std::printf("\nDrawn into %s\n", path.c_str());
}

void print_latencies() {
    std::printf("\nA writer behind 8 readers that overlap, microseconds\n\n");
    print_writer_latency("ReadWriteLock", writer_latency<ReadWriteLock>());
    print_writer_latency("ScalableReadWriteLock", writer_latency<ScalableReadWriteLock>());
    print_writer_latency("std::shared_mutex", writer_latency<std::shared_mutex>());
#if defined(BENCHMARK_ABSL)
    print_writer_latency("absl::Mutex", writer_latency<AbslMutex>());
#endif
#if defined(BENCHMARK_TBB)
    print_writer_latency("tbb::spin_rw_mutex", writer_latency<tbb::spin_rw_mutex>());
    print_writer_latency("tbb::rw_mutex", writer_latency<tbb::rw_mutex>());
#endif
#if defined(BENCHMARK_BOOST)
    print_writer_latency("boost::shared_mutex", writer_latency<boost::shared_mutex>());
#endif
}

}  // namespace

int main(int argc, char** argv) {
    // First, so that options of the command line win.
    std::array defaults{std::string{"--benchmark_repetitions=5"},
                        std::string{"--benchmark_enable_random_interleaving=true"},
                        std::string{"--benchmark_min_time=0.05"}};
    std::vector<char*> arguments{argv[0]};
    for (std::string& option : defaults)
        arguments.push_back(option.data());
    arguments.insert(arguments.end(), argv + 1, argv + argc);
    int count = static_cast<int>(arguments.size());
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;
    std::printf(
        "Two threads do %.2f times the work of one.\nns: between two ends of an operation, by "
        "whichever thread; speed: to the standard's\n",
        parallelism());
    std::fflush(stdout);
    add_all();
    Collector collector;
    benchmark::RunSpecifiedBenchmarks(&collector);
    print_and_draw(collector);
    print_latencies();
    return 0;
}
