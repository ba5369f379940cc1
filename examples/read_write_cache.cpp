// SPDX-License-Identifier: MIT
//
// A cache that is read all the time and written now and then, under a ReadWriteLock: readers go in
// side by side, and a writer that waits is not starved by them. Prints
//
//     20 updates; the readers saw whole ones only

#include <codomyrmex/concurrency.hpp>

#include <atomic>
#include <iostream>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;

struct Quote {
    int version = 0;
    std::string text{"0"};  // the version in digits: a half-written quote would not match
    [[nodiscard]] bool whole() const { return text == std::to_string(version); }
};

int main() {
    ReadWriteLock lock;
    Quote quote;
    std::atomic<bool> torn{false};
    std::atomic<int> reading{0};
    {
        std::vector<std::jthread> readers;
        for (int reader = 0; reader < 4; ++reader) {
            readers.emplace_back([&](const std::stop_token& stop) {
                for (++reading; !stop.stop_requested();) {
                    const auto guard = lock.read();
                    if (!quote.whole()) torn = true;
                }
            });
        }
        while (reading < 4)
            std::this_thread::yield();
        for (int i = 0; i < 20; ++i) {
            const auto guard = lock.write();
            ++quote.version;
            quote.text = std::to_string(quote.version);
        }
    }
    const bool right = quote.version == 20 && !torn;
    std::cout << quote.version << " updates; the readers saw " << (torn ? "HALF" : "whole")
              << " ones only\n";
    return right ? 0 : 1;
}
