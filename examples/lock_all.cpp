// SPDX-License-Identifier: MIT
//
// Several locks at once: all or none, in whatever order they are named, without deadlock. Threads
// move money between accounts that they name in opposite orders. Prints
//
//     4000 transfers between 3 accounts, 300 in all: as before
//     all or none: none, while another has carol

#include <codomyrmex/concurrency.hpp>

#include <chrono>
#include <iostream>
#include <map>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main() {
    LockManager manager;
    std::map<std::string, int> accounts{{"alice", 100}, {"bob", 100}, {"carol", 100}};
    std::map<std::string, int> transfers{{"alice", 0}, {"bob", 0}, {"carol", 0}};
    const auto transfer = [&](const std::string& from, const std::string& to) {
        for (int i = 0; i < 1000; ++i) {
            const auto both = manager.lock_all({from, to});
            --accounts.at(from);
            ++accounts.at(to);
            ++transfers.at(from);
        }
    };
    {
        std::jthread a{transfer, "alice", "bob"};
        std::jthread b{transfer, "bob", "alice"};
        std::jthread c{transfer, "bob", "carol"};
        std::jthread d{transfer, "carol", "alice"};
    }
    int total = 0, moved = 0;
    for (const auto& [name, balance] : accounts) {
        total += balance;
        moved += transfers.at(name);
    }
    std::cout << moved << " transfers between 3 accounts, " << total
              << " in all: " << (total == 300 ? "as before" : "WRONG") << '\n';

    const auto carol = manager.lock("carol");
    bool none = false;
    std::jthread{[&] {
        const auto both = manager.try_lock_all_for({"bob", "carol"}, 10ms);
        none = !both && manager.try_lock("bob");
    }}.join();
    std::cout << "all or none: " << (none ? "none" : "WRONG") << ", while another has carol\n";
    return moved == 4000 && total == 300 && none ? 0 : 1;
}
