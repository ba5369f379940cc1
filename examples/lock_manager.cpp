// SPDX-License-Identifier: MIT
//
// Locks by name, for names that are known only when the program runs. Prints
//
//     resource_a: 1 holder
//     resource_b: 0 holders
//     active 1, registered 2, acquisitions 3, timeouts 1
//     afterwards: active 0

#include <codomyrmex/concurrency.hpp>

#include <chrono>
#include <iostream>
#include <mutex>
#include <thread>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main() {
    LockManager manager;
    bool right = true;
    {
        const auto guard = manager.lock("resource_a");  // made at its first use

        // A handle is a lock as the standard's guards want it; no look-up when it is locked again.
        auto lock = manager.get_lock("resource_b");
        { const std::scoped_lock once{lock}; }
        { const std::scoped_lock again{lock}; }

        std::jthread{[&] {
            if (manager.try_lock_for("resource_a", 10ms)) right = false;
        }}.join();

        for (const auto& entry : manager.list()) {
            std::cout << entry.name << ": " << entry.held
                      << (entry.held == 1 ? " holder\n" : " holders\n");
        }
        const auto stats = manager.stats();
        std::cout << "active " << stats.active << ", registered " << stats.registered
                  << ", acquisitions " << stats.acquisitions << ", timeouts " << stats.timeouts
                  << '\n';
        right = right && stats.active == 1 && stats.registered == 2 && stats.acquisitions == 3 &&
                stats.timeouts == 1;
    }
    const auto active = manager.stats().active;
    std::cout << "afterwards: active " << active << '\n';
    return right && active == 0 ? 0 : 1;
}
