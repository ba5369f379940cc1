// SPDX-License-Identifier: MIT
//
// One lock between processes and machines. Four workers, each with a connection of its own as in a
// process of its own, count in steps that are not atomic. Prints
//
//     counted to 100, as it should be
//
// Usage: redis_lock [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <atomic>
#include <chrono>
#include <iostream>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main(int argc, char** argv) try {
    const std::string url = redis_url(argc, argv);
    // Only a RedisLock orders these loads and stores; std::atomic is for the compiler.
    std::atomic<int> shared_state{0};

    std::atomic<bool> failed{false};
    const auto worker = [&] {
        try {
            RedisClient client{url};  // one for all locks of a process
            RedisLock lock{"example:counter", client, {.ttl = 10s}};
            for (int i = 0; i < 25; ++i) {
                const std::scoped_lock guard{lock};  // renewed for as long as it is held
                const int seen = shared_state.load();
                std::this_thread::yield();
                shared_state.store(seen + 1);
            }
        } catch (const LockError& error) {
            std::cerr << error.what() << '\n';
            failed = true;
        }
    };
    {
        std::vector<std::jthread> workers;
        for (int i = 0; i < 4; ++i)
            workers.emplace_back(worker);
    }
    const bool right = !failed && shared_state == 100;
    std::cout << "counted to " << shared_state << (right ? ", as it should be\n" : ": WRONG\n");
    return right ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
