// SPDX-License-Identifier: MIT
//
// A database that takes three connections, and four processes with three threads each that want to
// use it. A permit of a semaphore in Redis is the right to have a connection open; should a process
// die, its permits come back by themselves. Prints
//
//     120 queries, never more than 3 connections open
//
// Usage: redis_connection_pool [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "support/processes.hpp"
#include "support/redis_url.hpp"

#include <atomic>
#include <exception>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;

struct Database {
    std::atomic<int> open{0}, queries{0};
    std::atomic<bool> overloaded{false};
    void query() {
        if (++open > 3) overloaded = true;
        std::this_thread::yield();
        ++queries;
        --open;
    }
};

int main(int argc, char** argv) try {
    const std::string url = redis_url(argc, argv);
    auto& database = shared<Database>();
    const bool well = run_processes(4, [&](int) {
        RedisClient client{url};
        RedisSemaphore connections{"example:connections", client, 3};
        std::vector<std::jthread> threads;
        for (int thread = 0; thread < 3; ++thread) {
            threads.emplace_back([&] {
                for (int i = 0; i < 10; ++i) {
                    const Permit permit{connections};  // waits here if all three are out
                    database.query();
                }
            });
        }
    });
    std::cout << database.queries << " queries, " << (database.overloaded ? "SOMETIMES" : "never")
              << " more than 3 connections open\n";
    return well && database.queries == 120 && !database.overloaded ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
