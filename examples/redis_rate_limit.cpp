// SPDX-License-Identifier: MIT
//
// A service that stands five calls in any tenth of a second, from all processes together. Each call
// keeps a permit for that long, so a sixth waits until the first is old enough. Prints
//
//     30 calls, never more than 5 within 100 ms
//
// Usage: redis_rate_limit [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "support/processes.hpp"
#include "support/redis_url.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <iostream>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using std::chrono::steady_clock;

struct Service {
    std::array<steady_clock::time_point, 30> calls{};
    std::atomic<std::size_t> count{0};
};

int main(int argc, char** argv) try {
    const std::string url = redis_url(argc, argv);
    auto& service = shared<Service>();
    const bool well = run_processes(3, [&](int) {
        RedisClient client{url};
        RedisSemaphore rate{"example:rate", client, 5};
        std::vector<std::jthread> kept;  // permits whose time is not over
        for (int i = 0; i < 10; ++i) {
            kept.emplace_back([permit = Permit{rate}, &service] {
                service.calls.at(service.count++) = steady_clock::now();  // the call
                std::this_thread::sleep_for(100ms);
            });
        }
    });
    auto calls = service.calls;
    std::ranges::sort(calls);
    bool too_many = false;
    for (std::size_t i = 5; i < calls.size(); ++i)
        too_many = too_many || calls[i] - calls[i - 5] < 100ms;
    std::cout << service.count << " calls, " << (too_many ? "SOMETIMES" : "never")
              << " more than 5 within 100 ms\n";
    return well && service.count == calls.size() && !too_many ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
