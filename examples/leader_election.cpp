// SPDX-License-Identifier: MIT
//
// Leader election: whoever holds the lease leads, until it is told to stop. Three candidates, each
// with a client of its own, as three machines would be; the leader is deposed twice, notices by its
// stop token, and the next in line takes over under a larger term. Prints
//
//     3 leaders, one at a time, each in a later term
//
// Usage: leader_election [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <condition_variable>
#include <cstdint>
#include <iostream>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

std::mutex mutex;
std::condition_variable_any changed;
std::vector<std::uint64_t> terms;  // of the leaders, in the order in which they came to power

// What a leader does: its work, until it is one no longer or is to end.
void lead(const Lease& lease, const std::stop_token& end) {
    const std::stop_callback ended{end, [] {
                                       const std::lock_guard guard{mutex};
                                       changed.notify_all();
                                   }};
    std::unique_lock guard{mutex};
    terms.push_back(lease.fence());  // to go with each of its orders, for older ones are refused
    changed.notify_all();
    changed.wait(guard, lease.stop_token(), [&] { return end.stop_requested(); });
}

void stand_for_election(const std::stop_token& end, const std::string& url) {
    RedisClient client{url};
    RedisLock office{"example:leader", client, {.ttl = 1s, .label = "candidate"}};
    if (const Lease lease = office.lease(end)) lead(lease, end);
}

int main(int argc, char** argv) try {
    const std::string url{redis_url(argc, argv)};
    RedisClient voter{url};
    std::vector<std::jthread> candidates;
    for (int i = 0; i < 3; ++i)
        candidates.emplace_back(stand_for_election, url);
    for (std::size_t leader = 1; leader <= 3; ++leader) {
        std::unique_lock guard{mutex};
        if (!changed.wait_for(guard, 20s, [&] { return terms.size() == leader; })) return 1;
        guard.unlock();
        if (leader == 3) break;
        if (const auto seen = voter.holder("example:leader"))
            voter.force_release("example:leader", *seen);
    }
    for (std::jthread& candidate : candidates)
        candidate.request_stop();
    candidates.clear();
    const bool later = terms[0] < terms[1] && terms[1] < terms[2];
    std::cout << terms.size() << " leaders, one at a time, "
              << (later ? "each in a later term\n" : "NOT in later terms\n");
    return later ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
