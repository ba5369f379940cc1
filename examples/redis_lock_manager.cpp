// SPDX-License-Identifier: MIT
//
// The registry over Redis: the same code as over local locks, and guards that know their lease. Two
// managers stand for two processes. Prints
//
//     order 17 is being shipped elsewhere
//     order 17 is ours now, under a larger fencing token
//
// Usage: redis_lock_manager [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <chrono>
#include <iostream>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main(int argc, char** argv) try {
    RedisClient client{redis_url(argc, argv)};
    LockManager here{RedisBackend{client, {.ttl = 10s}}};
    LockManager elsewhere{RedisBackend{client, {.ttl = 10s}}};

    auto theirs = elsewhere.lock("example:order:17");
    const auto first = theirs.fence();

    const auto refused = here.try_lock_for("example:order:17", 20ms);
    if (!refused) std::cout << "order 17 is being shipped elsewhere\n";

    theirs.unlock();
    const auto ours = here.lock("example:order:17");
    if (ours.valid() && ours.fence() > first) {
        std::cout << "order 17 is ours now, under a larger fencing token\n";
    }
    return !refused && ours.valid() && ours.fence() > first ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
