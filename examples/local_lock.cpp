// SPDX-License-Identifier: MIT
//
// Exclusion among the threads of one process. Four threads move money between two accounts under
// a LocalLock; a fifth party that only waits so long uses a TimedLocalLock. Prints
//
//     100000 transfers, 1000 in all: as before
//     the report is being written, trying again later

#include <codomyrmex/concurrency.hpp>

#include <chrono>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main() {
    LocalLock lock{"accounts"};
    int checking = 700, savings = 300, transfers = 0;
    {
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 4; ++thread) {
            threads.emplace_back([&, amount = thread % 2 == 0 ? 1 : -1] {
                for (int i = 0; i < 25'000; ++i) {
                    const std::scoped_lock guard{lock};
                    checking += amount;
                    savings -= amount;
                    ++transfers;
                }
            });
        }
    }
    const bool intact = checking + savings == 1000 && transfers == 100'000;
    std::cout << transfers << " transfers, " << checking + savings
              << " in all: " << (intact ? "as before" : "WRONG") << '\n';

    TimedLocalLock report{"report"};
    bool gave_up = false;
    const std::unique_lock writing{report};
    std::jthread{[&] {
        if (const std::unique_lock guard{report, 20ms}; !guard) {
            std::cout << "the " << report.name() << " is being written, trying again later\n";
            gave_up = true;
        }
    }}.join();
    return intact && gave_up ? 0 : 1;
}
