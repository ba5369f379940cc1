// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/redis/server_clock.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <string>

namespace {

using namespace codomyrmex::concurrency::redis;
using namespace std::chrono_literals;

constexpr BootTime boot{1h};

ServerTime server_time(std::int64_t seconds) {
    return ServerTime{std::chrono::seconds{seconds}};
}

}  // namespace

TEST_CASE("As long as nothing was learnt the server's time is not known") {
    const ServerClock clock;
    CHECK(clock.at(boot) == "");
    CHECK(clock.at(BootTime{}) == "");
}

TEST_CASE("The server's time goes on as this machine's does, in nanoseconds") {
    ServerClock clock;
    clock.learn(server_time(1'700'000'000), boot);
    CHECK(clock.at(boot) == "1700000000000000000");
    CHECK(clock.at(boot + 1ns) == "1700000000000000001");
    CHECK(clock.at(boot + 90s) == "1700000090000000000");
    CHECK(clock.at(boot - 1h) == "1699996400000000000");
}

TEST_CASE("The last answer counts, also where the server's clock was set back") {
    ServerClock clock;
    clock.learn(server_time(1'700'000'000), boot);
    clock.learn(server_time(1'600'000'000), boot + 1s);
    CHECK(clock.at(boot + 1s) == "1600000000000000000");
    clock.learn(server_time(1'800'000'000), boot + 2s);
    CHECK(clock.at(boot + 3s) == "1800000001000000000");
}

TEST_CASE("The estimate is never slow, however long the way took") {
    // The request left at `boot`, and the server read its clock a second later.
    ServerClock clock;
    clock.learn(server_time(1'700'000'001), boot);
    CHECK(clock.at(boot + 1s) >= "1700000001000000000");
    CHECK(clock.at(boot + 1s) == "1700000002000000000");
}

TEST_CASE("What does not have 19 digits is said to be unknown, not sent") {
    ServerClock clock;
    clock.learn(server_time(999'999'999), boot);  // in 2001
    CHECK(clock.at(boot) == "");
    CHECK(clock.at(boot + 1s) == "1000000000000000000");
    clock.learn(ServerTime{1ns}, boot);  // long before this machine's boot
    CHECK(clock.at(BootTime{}) == "");
}

TEST_CASE("Threads that learn and ask at once see one of the estimates") {
    ServerClock clock;
    clock.learn(server_time(1'700'000'000), boot);
    std::atomic<int> others{0};
    support::run_together(4, [&](int index) {
        for (int i = 0; i < 1000; ++i) {
            if (index < 2) {
                clock.learn(server_time(1'700'000'000 + index), boot);
            } else {
                const std::string seen = clock.at(boot);
                const bool one_of_them =
                    seen == "1700000000000000000" || seen == "1700000001000000000";
                if (!one_of_them) ++others;
            }
        }
    });
    CHECK(others == 0);
}
