// SPDX-License-Identifier: MIT
//
// What a client keeps in memory of each lease that it holds. What else an idle client costs is
// measured by redis_idle_benchmark.

#include <codomyrmex/concurrency/redis/lock.hpp>

#include "support/catch2.hpp"
#include "support/redis_server.hpp"

#include <chrono>
#include <cstdlib>
#include <string>
#include <vector>
#if defined(__GLIBC__)
#include <malloc.h>
#endif

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using test_support::RedisServer;

namespace {

/// Bytes that the allocator gave and did not get back, with its own words; 0 where it does not
/// tell.
long allocated() {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 33)
    return static_cast<long>(::mallinfo2().uordblks);
#else
    return 0;
#endif
}

}  // namespace

TEST_CASE("A lease that is held takes less than a kibibyte of its client's memory") {
    if (!RedisServer::available()) SKIP("no redis-server");
    constexpr long count = 1'000;
    RedisServer server;
    RedisClient client{server.url()};
    std::vector<Lease> leases;
    leases.reserve(count + 1);
    const auto hold = [&](long index) {
        const std::string name = "a lock of some name, number " + std::to_string(1'000'000 + index);
        leases.push_back(RedisLock{name, client, {.ttl = 10min}}.lease());
    };
    // With this come the connection, the thread and all that there is but once.
    hold(count);
    const long before = allocated();
    for (long i = 0; i < count; ++i)
        hold(i);
    const long each = (allocated() - before) / count;
    // As with a sanitizer, which has an allocator of its own.
    if (each == 0) SKIP("the allocator does not tell how much it gave");
    CAPTURE(each);
    CHECK(each > 100);
    CHECK(each < 1024);
}
