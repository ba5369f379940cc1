// SPDX-License-Identifier: MIT
//
// Work that stops when its lease is lost. Here max_hold ends the lease, as it does for a holder
// that hangs; an unreachable server or somebody who deletes the key would end it just so. Prints
//
//     working
//     the lease is gone: stopped after some steps
//     release() says that it was lost
//
// Usage: lease_lost [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <chrono>
#include <iostream>
#include <stop_token>
#include <thread>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

// Long work in small steps, which looks at the token between them.
static int work(const std::stop_token& stop) {
    int steps = 0;
    for (; steps < 10'000 && !stop.stop_requested(); ++steps) {
        std::this_thread::sleep_for(1ms);
    }
    return steps;
}

int main(int argc, char** argv) try {
    RedisClient client{redis_url(argc, argv)};
    RedisLock lock{"example:job", client, {.ttl = 400ms, .max_hold = 50ms}};

    Lease lease = lock.lease();
    std::cout << "working\n";
    const int steps = work(lease.stop_token());
    const bool stopped = steps > 0 && steps < 10'000 && !lease.valid();
    if (stopped) std::cout << "the lease is gone: stopped after some steps\n";

    const bool ours = lease.release();
    if (!ours) std::cout << "release() says that it was lost\n";
    return stopped && !ours ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
