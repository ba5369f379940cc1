// SPDX-License-Identifier: MIT
//
// Shows why LocalSemaphore does not sleep on libstdc++'s std::counting_semaphore. Eight threads
// acquire and release in bursts and meet after each; a watchdog says when no step was made for five
// seconds. Who has finished its burst holds nothing, so a thread that does not come to the meeting
// sleeps while permits are free: its wake-up was lost. Kept out of CI: the bare
// std::counting_semaphore is expected to hang, but not at a given moment.
//
//     counting_semaphore_stress std|ours|ours-std-bed [SECONDS]
//
// Exit status: 0 if it was alive to the end, 1 if it hung, 2 if the arguments are wrong.

#include <codomyrmex/concurrency/local_semaphore.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <semaphore>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr int threads = 8;
constexpr int permits = 1;
constexpr int burst = 20;
constexpr auto hung_after = 5s;

struct alignas(64) Counter {
    std::atomic<unsigned long long> value{0};
};

/// Where all threads wait for the last. Made of what is known to be sound; the last to come says
/// whether they go on.
class Meeting {
  public:
    bool go_on(const std::atomic<bool>& stop) {
        std::unique_lock guard{mutex_};
        if (++come_ == threads) {
            come_ = 0;
            ++number_;
            go_on_ = !stop;
            everybody_.notify_all();
        } else {
            everybody_.wait(guard, [this, number = number_] { return number_ != number; });
        }
        return go_on_;
    }

  private:
    std::mutex mutex_;
    std::condition_variable everybody_;
    int come_ = 0;
    unsigned number_ = 0;
    bool go_on_ = true;
};

template <class Semaphore>
int run(std::chrono::seconds limit) {
    // Not destroyed when the semaphore hangs, for the threads cannot be joined then.
    auto& semaphore = *new Semaphore{permits};
    auto& operations = *new std::array<Counter, threads>{};
    auto& meeting = *new Meeting;
    auto& stop = *new std::atomic<bool>{false};

    std::vector<std::thread> workers;
    for (auto& counter : operations) {
        workers.emplace_back([&] {
            do {
                for (int i = 0; i < burst; ++i) {
                    semaphore.acquire();
                    // Now and then the holder steps aside, so that the others come to sleep.
                    if (i % 7 == 0) std::this_thread::yield();
                    semaphore.release();
                    counter.value.fetch_add(1, std::memory_order_relaxed);
                }
            } while (meeting.go_on(stop));
        });
    }

    const auto total = [&] {
        unsigned long long sum = 0;
        for (const auto& counter : operations)
            sum += counter.value;
        return sum;
    };
    const auto seconds = [](Clock::duration time) {
        return std::chrono::duration<double>(time).count();
    };

    const auto start = Clock::now();
    auto last_step = start;
    unsigned long long seen = 0;
    while (Clock::now() - start < limit) {
        std::this_thread::sleep_for(100ms);
        const auto now = total();
        if (now != seen) {
            seen = now;
            last_step = Clock::now();
        } else if (Clock::now() - last_step > hung_after) {
            std::printf("hung after %.1f s, %llu operations\n", seconds(last_step - start), seen);
            std::fflush(stdout);
            std::_Exit(1);
        }
    }
    stop = true;
    for (auto& worker : workers)
        worker.join();
    std::printf("alive after %.1f s, %llu operations\n", seconds(Clock::now() - start), total());
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    using namespace codomyrmex::concurrency;
    const std::string which = argc > 1 ? argv[1] : "";
    const std::chrono::seconds limit{argc > 2 ? std::atoi(argv[2]) : 60};
    if (which == "std") return run<std::counting_semaphore<>>(limit);
    if (which == "ours") return run<LocalSemaphore>(limit);
    if (which == "ours-std-bed") return run<BasicLocalSemaphore<CountingSemaphoreBed>>(limit);
    std::fprintf(stderr, "usage: %s std|ours|ours-std-bed [SECONDS]\n", argv[0]);
    return 2;
}
