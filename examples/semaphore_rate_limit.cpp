// SPDX-License-Identifier: MIT
//
// A rate limit: twelve threads want to call a service that stands three calls at a time. Whoever
// cannot get a permit in time goes without. Prints
//
//     24 calls, never more than 3 at a time
//     busy: come back later

#include <codomyrmex/concurrency.hpp>

#include <atomic>
#include <chrono>
#include <iostream>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main() {
    LocalSemaphore semaphore{3};
    std::atomic<int> calls{0}, at_a_time{0};
    std::atomic<bool> too_many{false};
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 12; ++thread) {
            threads.emplace_back([&] {
                for (int i = 0; i < 2; ++i) {
                    const Permit permit{semaphore};
                    if (++at_a_time > 3) too_many = true;
                    std::this_thread::sleep_for(2ms);  // the call
                    ++calls;
                    --at_a_time;
                }
            });
        }
    }
    std::cout << calls << " calls, " << (too_many ? "SOMETIMES" : "never")
              << " more than 3 at a time\n";

    const Permit a{semaphore}, b{semaphore}, c{semaphore};
    const Permit d{semaphore, 10ms};
    if (!d) std::cout << "busy: come back later\n";
    return calls == 24 && !too_many && !d ? 0 : 1;
}
