// SPDX-License-Identifier: MIT
//
// Processes, or the threads of one, that fight for a lock, and what is seen of it: how soon after
// one gave it up the next has it, how often it is taken, and by whom. They agree through memory
// that they share and on one clock, so what is measured costs them no message.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_CONTEST_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_CONTEST_HPP

#include "support/process.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <new>
#include <numeric>
#include <stdexcept>
#include <string>
#include <sys/mman.h>
#include <thread>
#include <utility>
#include <vector>

namespace benchmarks {

/// What the contenders share.
struct Arena {
    static constexpr std::size_t most_contenders = 64;
    static constexpr std::size_t most_hand_overs = 1U << 16U;
    static constexpr int nobody = -1;

    std::atomic<int> connected{0};
    std::atomic<bool> go{false};
    std::atomic<bool> counting{false};
    std::atomic<bool> stop{false};
    std::atomic<int> waiting{0};
    std::atomic<int> last{nobody};           ///< who held it last
    std::atomic<std::int64_t> given_up{0};   ///< when that one called unlock()
    std::atomic<std::uint64_t> turns{0};     ///< acquisitions, the warming up included
    std::atomic<std::size_t> hand_overs{0};  ///< seen while counting, some of them in `took`
    std::array<std::atomic<std::uint64_t>, most_contenders> acquired{};  ///< while counting
    std::array<std::int64_t, most_hand_overs> took{};                    ///< nanoseconds
};

/// An arena that the children of a fork() share with their parent.
class SharedArena {
  public:
    SharedArena()
        : memory_{::mmap(nullptr, sizeof(Arena), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
                         -1, 0)} {
        if (memory_ == MAP_FAILED) test_support::throw_errno("mmap");
        arena_ = new (memory_) Arena;
    }
    SharedArena(const SharedArena&) = delete;
    SharedArena& operator=(const SharedArena&) = delete;
    ~SharedArena() { ::munmap(memory_, sizeof(Arena)); }

    [[nodiscard]] Arena& operator*() const noexcept { return *arena_; }
    [[nodiscard]] Arena* operator->() const noexcept { return arena_; }

  private:
    void* memory_;
    Arena* arena_ = nullptr;
};

/// How they fight.
struct Contest {
    int processes = 1;
    int threads = 1;        ///< in each process
    bool all_wait = false;  ///< who has it keeps it until all others wait; else for no time at all

    [[nodiscard]] int contenders() const noexcept { return processes * threads; }
};

/// What came of it.
struct Score {
    double rate = 0;      ///< acquisitions a second
    double fairness = 0;  ///< the least served to the most served
    std::uint64_t acquisitions = 0;
    std::vector<std::int64_t> hand_overs{};  ///< nanoseconds, from one contender to another
};

[[nodiscard]] inline std::int64_t monotonic_now() {
    return std::chrono::steady_clock::now().time_since_epoch().count();
}

/// One contender: takes `lock` again and again, until the arena is stopped.
template <class Lock>
void contend(Arena& arena, const Contest& contest, int self, Lock& lock) {
    using namespace std::chrono_literals;
    lock.lock();
    lock.unlock();
    ++arena.connected;
    while (!arena.go)
        std::this_thread::sleep_for(200us);
    while (!arena.stop) {
        ++arena.waiting;
        lock.lock();
        const std::int64_t now = monotonic_now();
        --arena.waiting;
        const std::uint64_t turn = ++arena.turns;
        if (arena.counting) {
            ++arena.acquired[static_cast<std::size_t>(self)];
            const int last = arena.last;
            if (last != self && last != Arena::nobody) {
                const std::size_t place = arena.hand_overs++;
                if (place < Arena::most_hand_overs) arena.took[place] = now - arena.given_up;
            }
        }
        if (contest.all_wait) {
            while (arena.waiting != contest.contenders() - 1 && !arena.stop)
                std::this_thread::sleep_for(100us);
            // Until their requests have come to rest.
            std::this_thread::sleep_for(1ms);
        }
        arena.last = self;
        arena.given_up = monotonic_now();
        lock.unlock();
        if (contest.all_wait) {
            while (arena.turns == turn && !arena.stop)
                std::this_thread::sleep_for(300us);
        }
    }
}

/// Runs `body(arena, process)` in as many processes as there shall be, each of which lets its
/// contenders contend(); counts for `slice`, between two calls of `look()`.
/// Requires: this process has no other threads.
[[nodiscard]] inline Score hold(const Contest& contest, std::chrono::nanoseconds slice,
                                const std::function<void(Arena&, int)>& body,
                                const std::function<void()>& look) {
    using namespace std::chrono_literals;
    using test_support::Process;
    const SharedArena arena;
    std::vector<Process> processes;
    for (int process = 0; process < contest.processes; ++process) {
        processes.push_back(Process::run([&] {
            body(*arena, process);
            return 0;
        }));
    }
    while (arena->connected != contest.contenders()) {
        if (!std::ranges::all_of(processes, &Process::running)) {
            throw std::runtime_error{"a contender ended before its time"};
        }
        std::this_thread::sleep_for(1ms);
    }
    arena->go = true;
    std::this_thread::sleep_for(100ms);
    look();
    const std::int64_t begin = monotonic_now();
    arena->counting = true;
    std::this_thread::sleep_for(slice);
    arena->counting = false;
    const std::int64_t end = monotonic_now();
    look();
    arena->stop = true;
    for (Process& process : processes) {
        if (!process.wait(60s)) throw std::runtime_error{"a contender did not end"};
    }
    Score score;
    const auto first = arena->acquired.begin();
    const std::vector<std::uint64_t> each(first, first + contest.contenders());
    score.acquisitions = std::accumulate(each.begin(), each.end(), std::uint64_t{0});
    score.rate = static_cast<double>(score.acquisitions) * 1e9 / static_cast<double>(end - begin);
    if (score.acquisitions != 0) {
        score.fairness = static_cast<double>(std::ranges::min(each)) /
                         static_cast<double>(std::ranges::max(each));
    }
    const std::size_t seen = std::min(arena->hand_overs.load(), Arena::most_hand_overs);
    score.hand_overs.assign(arena->took.begin(),
                            arena->took.begin() + static_cast<std::ptrdiff_t>(seen));
    return score;
}

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_CONTEST_HPP
