// SPDX-License-Identifier: MIT
//
// A pool of three connections for ten workers. A permit is the right to take one, so that taking
// one cannot fail. Prints
//
//     200 queries over 3 connections, none used by two at a time

#include <codomyrmex/concurrency.hpp>

#include <atomic>
#include <iostream>
#include <mutex>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;

struct Connection {
    std::atomic<int> users{0};
    std::atomic<int> queries{0};
};

int main() {
    std::vector<Connection> connections(3);
    std::vector<Connection*> free{&connections[0], &connections[1], &connections[2]};
    LocalLock lock{"free connections"};
    LocalSemaphore permits{3};
    std::atomic<bool> shared{false};

    const auto query = [&] {
        const Permit permit{permits};  // waits here if all three are in use
        Connection* mine = nullptr;
        {
            const std::scoped_lock guard{lock};
            mine = free.back();
            free.pop_back();
        }
        if (++mine->users != 1) shared = true;
        ++mine->queries;
        std::this_thread::yield();
        --mine->users;
        const std::scoped_lock guard{lock};
        free.push_back(mine);  // before the permit goes back, which is destroyed last
    };
    {
        std::vector<std::jthread> workers;
        for (int worker = 0; worker < 10; ++worker) {
            workers.emplace_back([&] {
                for (int i = 0; i < 20; ++i)
                    query();
            });
        }
    }
    const int queries = connections[0].queries + connections[1].queries + connections[2].queries;
    std::cout << queries << " queries over 3 connections, " << (shared ? "SOME" : "none")
              << " used by two at a time\n";
    return queries == 200 && !shared ? 0 : 1;
}
