// SPDX-License-Identifier: MIT
//
// A lock over three Redis masters goes on when one of them is gone. Starts masters of its own, ends
// one in the middle, and prints
//
//     with 3 masters: held, then given back by a majority
//     with 2 masters: held, under a larger fencing token
//     with 1 master:  no majority answers

#include <codomyrmex/concurrency/redis.hpp>

#include "demo/private_redis.hpp"

#include <chrono>
#include <cstdint>
#include <iostream>
#include <memory>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

int main() try {
    std::vector<std::unique_ptr<demo::PrivateRedis>> masters;
    std::vector<RedisClient> clients;
    for (int i = 0; i < 3; ++i) {
        masters.push_back(std::make_unique<demo::PrivateRedis>());
        clients.emplace_back(masters.back()->url());
    }
    // These masters are seconds old. Where yours may lose what they granted when they restart,
    // leave min_uptime alone: who is younger than a lease has no vote then.
    QuorumLock ledger{"ledger", {clients, {.patience = 1s, .min_uptime = 0ms}}, {.ttl = 10s}};

    QuorumLease lease = ledger.lease();
    const std::uint64_t first = lease.fence();
    const bool ours = lease.release();
    std::cout << "with 3 masters: held, then " << (ours ? "given back by a majority\n" : "LOST\n");

    masters.pop_back();
    lease = ledger.lease();
    const bool larger = lease.fence() > first;
    std::cout << "with 2 masters: held, under a " << (larger ? "larger" : "SMALLER")
              << " fencing token\n";
    lease.release();

    masters.pop_back();
    std::error_code error;
    ledger.lock(error);
    const bool told = error == LockErrc::backend_unavailable;
    std::cout << "with 1 master:  " << (told ? "no majority answers\n" : "WRONG\n");
    return ours && larger && told ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
