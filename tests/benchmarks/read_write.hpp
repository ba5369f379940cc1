// SPDX-License-Identifier: MIT
//
// What the benchmarks do with read-write locks: reads and writes in a given mixture, and a writer
// that wants in while readers overlap.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_READ_WRITE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_READ_WRITE_HPP

#include "benchmarks/compare.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

namespace benchmarks {

/// Reads or writes, as chance has it, so many reads in a hundred. On a cache line of its own.
class alignas(64) Mix {
  public:
    Mix(unsigned reads_percent, unsigned seed) : reads_{reads_percent}, random_{seed * 7919 + 1} {}

    template <class Lock>
    void step(Lock& lock) {
        random_ = random_ * 1'664'525 + 1'013'904'223;
        if ((random_ >> 8) % 100 < reads_) {
            lock.lock_shared();
            lock.unlock_shared();
        } else {
            lock.lock();
            lock.unlock();
        }
    }

  private:
    unsigned reads_;
    unsigned random_;
};

/// How long a writer waits while eight readers hold the lock, each for 200 us and again at once,
/// so that there is always one inside. Microseconds, sorted; those that did not get in before the
/// readers were sent away, after three seconds, are not there.
template <class Lock>
std::vector<double> writer_latency() {
    constexpr int readers = 8;
    constexpr std::size_t writes = 200;
    Lock lock;
    std::atomic<bool> stop{false};
    std::atomic<bool> done{false};
    std::vector<std::jthread> threads;
    for (int i = 0; i < readers; ++i) {
        threads.emplace_back([&, i] {
            std::this_thread::sleep_for(std::chrono::microseconds{i * 25});
            while (!stop) {
                lock.lock_shared();
                std::this_thread::sleep_for(std::chrono::microseconds{200});
                lock.unlock_shared();
            }
        });
    }
    std::vector<double> waits;
    threads.emplace_back([&] {
        while (waits.size() < writes && !stop) {
            std::this_thread::sleep_for(std::chrono::milliseconds{2});
            const auto start = Clock::now();
            lock.lock();
            const auto end = Clock::now();
            lock.unlock();
            if (!stop) {
                waits.push_back(std::chrono::duration<double, std::micro>(end - start).count());
            }
        }
        done = true;
    });
    const auto end = Clock::now() + std::chrono::seconds{3};
    while (!done && Clock::now() < end)
        std::this_thread::sleep_for(std::chrono::milliseconds{1});
    stop = true;
    threads.clear();
    std::ranges::sort(waits);
    return waits;
}

inline void print_writer_latency(const std::string& name, const std::vector<double>& waits) {
    if (waits.empty()) {
        std::printf("%-24s never in 3 s\n", name.c_str());
    } else {
        const auto at = [&](std::size_t percent) {
            return waits[std::min(waits.size() - 1, waits.size() * percent / 100)];
        };
        std::printf("%-24s p50 %8.0f   p99 %8.0f   max %8.0f   (%zu writes)\n", name.c_str(),
                    at(50), at(99), waits.back(), waits.size());
    }
    std::fflush(stdout);
}

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_READ_WRITE_HPP
