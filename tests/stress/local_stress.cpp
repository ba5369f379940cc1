// SPDX-License-Identifier: MIT
//
// Every local primitive, and the registry, for as long as one likes, with a checker of what it
// promises: permits are neither lost nor doubled, readers and writers exclude each other, a name is
// one primitive for all who use it, and nobody waits for good. A watchdog says when no step was
// made for ten seconds. CTest runs a few seconds of each; an hour is `local_stress all 3600`.
//
//     local_stress WHICH|all [SECONDS each]
//
// WHICH: semaphore, semaphore-std-bed, word-mutex, read-write, scalable or registry.
//
// Exit status: 0 if all went well, 1 if something was violated or hung, 2 for wrong arguments.

#include <codomyrmex/concurrency/local_semaphore.hpp>
#include <codomyrmex/concurrency/read_write_lock.hpp>
#include <codomyrmex/concurrency/word_mutex.hpp>

#include "support/dice.hpp"
#include "support/registry_crowd.hpp"
#include "support/thread.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using support::Dice;
using Clock = std::chrono::steady_clock;

constexpr int threads = 8;
constexpr auto hung_after = 10s;

/// Runs `step(dice)` on all threads until the time is up, then asks `right()`.
/// Returns: whether that was so.
bool run(const char* name, std::chrono::seconds time, const std::function<void(Dice&)>& step,
         const std::function<bool()>& right) {
    std::atomic<bool> stop{false};
    std::atomic<unsigned long long> steps{0};
    std::vector<support::Thread> workers;
    for (int thread = 0; thread < threads; ++thread) {
        workers.emplace_back([&, thread] {
            Dice dice{thread};
            while (!stop) {
                for (int i = 0; i < 50; ++i)
                    step(dice);
                steps += 50;
            }
        });
    }
    const auto start = Clock::now();
    auto last_step = start;
    unsigned long long seen = 0;
    while (Clock::now() - start < time) {
        std::this_thread::sleep_for(50ms);
        if (const auto now = steps.load(); now != seen) {
            seen = now;
            last_step = Clock::now();
        } else if (Clock::now() - last_step > hung_after) {
            std::printf("%s: hung after %llu steps\n", name, seen);
            std::fflush(stdout);
            std::_Exit(1);
        }
    }
    stop = true;
    workers.clear();
    const bool good = right();
    std::printf("%s: %s, %llu steps\n", name, good ? "right" : "VIOLATED", steps.load());
    std::fflush(stdout);
    return good;
}

std::chrono::microseconds short_time(Dice& dice) {
    return std::chrono::microseconds{dice(120)};
}

template <class Semaphore>
bool stress_semaphore(const char* name, std::chrono::seconds time) {
    constexpr int permits = 3;
    Semaphore semaphore{permits};
    support::Occupancy section;
    return run(
        name, time,
        [&](Dice& dice) {
            switch (dice(4)) {
                case 0:
                    if (!semaphore.try_acquire_for(short_time(dice))) return;
                    break;
                case 1:
                    if (!semaphore.try_acquire()) return;
                    break;
                default:
                    semaphore.acquire();
            }
            section.enter();
            if (dice(16) == 0) std::this_thread::yield();
            section.leave();
            semaphore.release();
        },
        [&] {
            bool all = section.most() <= permits && semaphore.waiting() == 0;
            for (int i = 0; i < permits; ++i)
                all = all && semaphore.try_acquire();
            return all && !semaphore.try_acquire();
        });
}

bool stress_mutex(const char* name, std::chrono::seconds time) {
    WordMutex mutex;
    support::Occupancy section;
    return run(
        name, time,
        [&](Dice& dice) {
            std::unique_lock guard{mutex, std::defer_lock};
            switch (dice(4)) {
                case 0:
                    if (!guard.try_lock_for(short_time(dice))) return;
                    break;
                case 1:
                    if (!guard.try_lock()) return;
                    break;
                default:
                    guard.lock();
            }
            section.enter();
            if (dice(64) == 0) std::this_thread::sleep_for(20us);
            section.leave();
        },
        [&] { return section.most() == 1 && mutex.try_lock(); });
}

template <class Lock>
bool stress_read_write(const char* name, std::chrono::seconds time) {
    Lock lock;
    support::ReadWriteSection section;
    return run(
        name, time,
        [&](Dice& dice) {
            const bool timed = dice(4) == 0;
            if (dice(10) == 0) {
                std::unique_lock guard{lock, std::defer_lock};
                if (timed) {
                    if (!guard.try_lock_for(short_time(dice))) return;
                } else {
                    guard.lock();
                }
                section.enter_write();
                if (dice(64) == 0) std::this_thread::yield();
                section.leave_write();
            } else {
                std::shared_lock guard{lock, std::defer_lock};
                if (timed) {
                    if (!guard.try_lock_for(short_time(dice))) return;
                } else {
                    guard.lock();
                }
                section.enter_read();
                if (dice(64) == 0) std::this_thread::yield();
                section.leave_read();
            }
        },
        [&] {
            const std::unique_lock guard{lock, std::try_to_lock};
            return section.violations() == 0 && guard.owns_lock() && section.writes() >= 0;
        });
}

bool stress_registry(const char* name, std::chrono::seconds time) {
    support::RegistryCrowd crowd;
    return run(
        name, time, [&](Dice& dice) { crowd.step(dice); },
        [&] {
            const std::string verdict = crowd.verdict();
            std::printf("%s", verdict.c_str());
            return verdict.empty() && crowd.made() > 0;
        });
}

}  // namespace

int main(int argc, char** argv) {
    const std::string which = argc > 1 ? argv[1] : "";
    const std::chrono::seconds time{argc > 2 ? std::atoi(argv[2]) : 5};
    const std::vector<std::pair<std::string, std::function<bool(const char*)>>> all{
        {"semaphore",
         [&](const char* name) { return stress_semaphore<LocalSemaphore>(name, time); }},
        {"semaphore-std-bed",
         [&](const char* name) {
             return stress_semaphore<BasicLocalSemaphore<CountingSemaphoreBed>>(name, time);
         }},
        {"word-mutex", [&](const char* name) { return stress_mutex(name, time); }},
        {"read-write",
         [&](const char* name) { return stress_read_write<TimedReadWriteLock>(name, time); }},
        {"scalable",
         [&](const char* name) { return stress_read_write<ScalableReadWriteLock>(name, time); }},
        {"registry", [&](const char* name) { return stress_registry(name, time); }},
    };
    bool known = false;
    bool right = true;
    for (const auto& [name, stress] : all) {
        if (which != "all" && which != name) continue;
        known = true;
        right = stress(name.c_str()) && right;
    }
    if (!known) {
        std::string names;
        for (const auto& [name, stress] : all)
            names += name + "|";
        std::fprintf(stderr, "usage: %s %sall [SECONDS each]\n", argv[0], names.c_str());
        return 2;
    }
    return right ? 0 : 1;
}
