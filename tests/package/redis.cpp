// SPDX-License-Identifier: MIT
//
// What a user of the Redis half writes. Nothing connects unless a URL is given.

#include <codomyrmex/concurrency/redis.hpp>

#include <mutex>

int main(int argc, char** argv) {
    codomyrmex::concurrency::RedisClient client{argc > 1 ? argv[1] : "redis://localhost:6379"};
    codomyrmex::concurrency::RedisLock lock{"my_resource", client};
    if (argc > 1) const std::scoped_lock guard{lock};
}
