// SPDX-License-Identifier: MIT
//
// The local primitives against those of the standard that they are made of, and the registry
// against a map behind a mutex.

#include <codomyrmex/concurrency/local_lock.hpp>
#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/read_write_lock.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/read_write.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <semaphore>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

constexpr auto slice = 20ms;
constexpr auto threads_slice = 100ms;
constexpr int many = 8;

/// A pair of calls on a fresh object, by one thread.
template <class Lock, class Cycle, class... Arguments>
Variant alone(std::string name, Cycle cycle, Arguments... arguments) {
    const auto lock = std::make_shared<Lock>(arguments...);
    return {std::move(name),
            [=] { return time_of(slice, [&, &object = *lock] { cycle(object); }); }};
}

/// The same by many threads on one object.
template <class Lock, class Cycle, class... Arguments>
Variant together(std::string name, Cycle cycle, Arguments... arguments) {
    const auto lock = std::make_shared<Lock>(arguments...);
    return {std::move(name), [=] {
                return time_of(threads_slice, many, [&, &object = *lock](int) { cycle(object); });
            }};
}

constexpr auto exclusively = [](auto& lock) {
    lock.lock();
    lock.unlock();
};
constexpr auto shared = [](auto& lock) {
    lock.lock_shared();
    lock.unlock_shared();
};
constexpr auto permit = [](auto& semaphore) {
    semaphore.acquire();
    semaphore.release();
};
/// libstdc++'s loses wake-ups: without a limit the benchmark would hang now and then.
constexpr auto permit_in_slices = [](auto& semaphore) {
    if (!semaphore.try_acquire()) {
        while (!semaphore.try_acquire_for(20ms)) {
        }
    }
    semaphore.release();
};

/// So many threads of which each writes once in so many turns.
template <class Lock>
Variant mixed(std::string name, int threads, unsigned reads_percent) {
    const auto lock = std::make_shared<Lock>();
    return {std::move(name), [=] {
                std::vector<Mix> mixes;
                for (int thread = 0; thread < threads; ++thread)
                    mixes.emplace_back(reads_percent, static_cast<unsigned>(thread));
                return time_of(threads_slice, threads, [&, &object = *lock](int thread) {
                    mixes[static_cast<std::size_t>(thread)].step(object);
                });
            }};
}

void compare_mixed(unsigned reads_percent, int threads, const std::string& target) {
    compare({std::to_string(reads_percent) + "% reads, " + std::to_string(threads) + " threads",
             mixed<ScalableReadWriteLock>("ScalableReadWriteLock", threads, reads_percent),
             mixed<std::shared_mutex>("std::shared_mutex", threads, reads_percent), Ratio::speed,
             target, 15});
}

// --- Names ---

constexpr std::size_t name_count = 1024;

/// Names in an order that no cache foresees; longer than what a std::string keeps inside itself.
class Names {
  public:
    Names() {
        for (std::size_t i = 0; i < name_count; ++i)
            names_.push_back("service/resource/" + std::to_string(100'000 + i));
        std::ranges::shuffle(names_, std::mt19937{1});
    }
    [[nodiscard]] std::string_view operator[](std::size_t i) const {
        return names_[i % name_count];
    }
    [[nodiscard]] const std::vector<std::string>& all() const { return names_; }

  private:
    std::vector<std::string> names_;
};

/// What one writes without a registry.
class MutexAndMap {
  public:
    [[nodiscard]] std::mutex& get(std::string_view name) {
        const std::scoped_lock guard{mutex_};
        auto& entry = map_[std::string{name}];
        if (!entry) entry = std::make_unique<std::mutex>();
        return *entry;
    }

  private:
    std::mutex mutex_;
    std::unordered_map<std::string, std::unique_ptr<std::mutex>> map_;
};

/// Which name comes next: each in turn, as all threads do it, or any.
enum class Order { in_turn, any };

template <class Registry, class Use>
std::function<double()> by_name(int threads, Registry& registry, const Names& names, Use use,
                                Order order = Order::in_turn) {
    return [&registry, &names, threads, use, order] {
        const auto next = [order](std::size_t i) {
            return order == Order::in_turn ? i + 1 : i * 6'364'136'223'846'793'005U + 1;
        };
        // The lowest bits of the latter are not chance.
        const std::size_t shift = order == Order::in_turn ? 0 : 40;
        if (threads == 1) {
            std::size_t i = 0;
            return time_of(slice, [&] { use(registry, names[(i = next(i)) >> shift]); });
        }
        struct alignas(64) Counter {
            std::size_t value = 0;
        };
        std::array<Counter, many> counters;
        for (std::size_t thread = 0; thread < many; ++thread)
            counters[thread].value = thread * name_count / many;
        return time_of(threads_slice, threads, [&](int thread) {
            std::size_t& i = counters[static_cast<std::size_t>(thread)].value;
            use(registry, names[(i = next(i)) >> shift]);
        });
    };
}

void compare_by_name() {
    const Names names;
    LockManager manager;
    MutexAndMap map;
    const auto look_up = [](auto& registry, std::string_view name) {
        const auto handle = registry.get_lock(name);
    };
    const auto look_up_in_map = [](MutexAndMap& registry, std::string_view name) {
        std::mutex* volatile found = &registry.get(name);
        (void)found;
    };
    const auto lock = [](auto& registry, std::string_view name) {
        const auto guard = registry.lock(name);
    };
    const auto lock_in_map = [](MutexAndMap& registry, std::string_view name) {
        const std::scoped_lock guard{registry.get(name)};
    };
    {
        const Pinned pinned;
        compare({"1 thread",
                 {"LockManager get_lock", by_name(1, manager, names, look_up)},
                 {"mutex + unordered_map", by_name(1, map, names, look_up_in_map)},
                 Ratio::speed,
                 "<= 45 ns"});
        compare({"1 thread",
                 {"LockManager lock", by_name(1, manager, names, lock)},
                 {"the same, and its mutex", by_name(1, map, names, lock_in_map)},
                 Ratio::speed,
                 "-"});
    }
    compare({"8 threads",
             {"LockManager get_lock", by_name(many, manager, names, look_up)},
             {"mutex + unordered_map", by_name(many, map, names, look_up_in_map)},
             Ratio::speed,
             ">= 7",
             15});
    compare({"8 threads, at random",
             {"LockManager get_lock", by_name(many, manager, names, look_up, Order::any)},
             {"mutex + unordered_map", by_name(many, map, names, look_up_in_map, Order::any)},
             Ratio::speed,
             "-",
             15});
    compare({"8 threads",
             {"LockManager lock", by_name(many, manager, names, lock)},
             {"the same, and its mutex", by_name(many, map, names, lock_in_map)},
             Ratio::speed,
             "-",
             15});
}

}  // namespace

int main() {
    // What threads can gain at most: two virtual processors may be one in truth.
    std::printf("Two threads do %.2f times the work of one.\n", parallelism());
    print_head("Local primitives: nanoseconds for one cycle (1 thread: pinned; 8 threads: not)");
    {
        const Pinned pinned;
        compare({"1 thread", alone<LocalLock>("LocalLock", exclusively),
                 alone<std::mutex>("std::mutex", exclusively), Ratio::time, "<= 1.03"});
        compare({"1 thread", alone<TimedLocalLock>("TimedLocalLock", exclusively),
                 alone<std::timed_mutex>("std::timed_mutex", exclusively), Ratio::time, "<= 1.03"});
        // Of one permit, so that each release finds none free: there libstdc++ calls the kernel.
        compare({"1 thread", alone<LocalSemaphore>("LocalSemaphore of 1", permit, 1),
                 alone<std::counting_semaphore<>>("std::counting_semaphore", permit, 1),
                 Ratio::speed, ">= 20"});
        compare({"1 thread", alone<LocalSemaphore>("LocalSemaphore of 2", permit, 2),
                 alone<std::counting_semaphore<>>("std::counting_semaphore", permit, 2),
                 Ratio::speed, "-"});
        compare({"1 thread", alone<ReadWriteLock>("ReadWriteLock write", exclusively),
                 alone<std::shared_mutex>("std::shared_mutex", exclusively), Ratio::time,
                 "<= 1.15"});
        compare({"1 thread", alone<ReadWriteLock>("ReadWriteLock read", shared),
                 alone<std::shared_mutex>("std::shared_mutex", shared), Ratio::time, "<= 1.15"});
        compare({"1 thread", alone<ScalableReadWriteLock>("ScalableReadWriteLock read", shared),
                 alone<std::shared_mutex>("std::shared_mutex", shared), Ratio::time, "-"});
        compare({"1 thread",
                 alone<ScalableReadWriteLock>("ScalableReadWriteLock write", exclusively),
                 alone<std::shared_mutex>("std::shared_mutex", exclusively), Ratio::time, "-"});
        compare({"1 thread", alone<WordMutex>("WordMutex", exclusively),
                 alone<std::timed_mutex>("std::timed_mutex", exclusively), Ratio::time, "-"});
    }
    compare({"8 threads", together<LocalLock>("LocalLock", exclusively),
             together<std::mutex>("std::mutex", exclusively), Ratio::time, "<= 1.03", 15});
    compare({"8 threads", together<TimedLocalLock>("TimedLocalLock", exclusively),
             together<std::timed_mutex>("std::timed_mutex", exclusively), Ratio::time, "<= 1.03",
             15});
    compare({"8 threads", together<WordMutex>("WordMutex", exclusively),
             together<std::timed_mutex>("std::timed_mutex", exclusively), Ratio::time, "-", 15});
    compare({"8 threads", together<LocalSemaphore>("LocalSemaphore of 1", permit, 1),
             together<std::counting_semaphore<>>("std::counting_semaphore", permit_in_slices, 1),
             Ratio::speed, ">= 1.8", 15});
    compare({"8 threads", together<LocalSemaphore>("LocalSemaphore of 2", permit, 2),
             together<std::counting_semaphore<>>("std::counting_semaphore", permit_in_slices, 2),
             Ratio::speed, "-", 15});
    compare_mixed(100, 4, "-");
    compare_mixed(100, 8, "-");
    compare_mixed(99, 4, ">= 2.2");
    compare_mixed(99, 8, ">= 2.2");

    std::printf("\nA writer behind 8 readers that overlap, microseconds (target: p50 <= 1000)\n\n");
    print_writer_latency("ReadWriteLock", writer_latency<ReadWriteLock>());
    print_writer_latency("TimedReadWriteLock", writer_latency<TimedReadWriteLock>());
    print_writer_latency("ScalableReadWriteLock", writer_latency<ScalableReadWriteLock>());
    print_writer_latency("std::shared_mutex", writer_latency<std::shared_mutex>());

    print_head("Registry: nanoseconds for one of 1,024 names (1 thread: pinned; 8 threads: not)");
    compare_by_name();
}
