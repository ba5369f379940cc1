// SPDX-License-Identifier: MIT
//
// A cache that three processes read all the time and one renews, under a read-write lock in Redis.
// Who wrote stays a reader and sees what it wrote, with no other writer in between. Prints
//
//     20 updates; the readers saw whole ones only
//
// Usage: redis_read_cache [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/processes.hpp"
#include "support/redis_url.hpp"

#include <atomic>
#include <iostream>
#include <string>
#include <thread>

using namespace codomyrmex::concurrency;

// Only the lock keeps the two halves together; std::atomic is for the compiler.
struct Cache {
    std::atomic<int> left{0}, right{0}, readers{0};
    std::atomic<bool> torn{false}, done{false};
};

int main(int argc, char** argv) try {
    const std::string url = redis_url(argc, argv);
    auto& cache = shared<Cache>();
    const bool well = run_processes(4, [&](int process) {
        RedisClient client{url};
        RedisReadWriteLock lock{"example:cache", client};
        const auto look = [&] { cache.torn = cache.torn || cache.left != cache.right; };
        if (process != 0) {
            for (++cache.readers; !cache.done;) {
                const Lease reader = lock.read();
                look();
            }
            return;
        }
        while (cache.readers < 3)
            std::this_thread::yield();
        for (int i = 0; i < 20; ++i) {
            Lease lease = lock.write();  // not starved by the readers
            ++cache.left;
            ++cache.right;
            lock.downgrade(lease);
            look();
        }
        cache.done = true;
    });
    std::cout << cache.right << " updates; the readers saw " << (cache.torn ? "HALF" : "whole")
              << " ones only\n";
    return well && cache.right == 20 && !cache.torn ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
