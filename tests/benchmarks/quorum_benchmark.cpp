// SPDX-License-Identifier: MIT
//
// QuorumLock over three and five masters against RedisLock over one, all with the same delay on the
// way back, as between machines. What is waited for is the way, so the quorum asks all at once.
//
//   CODOMYRMEX_QUORUM_DELAY_US   the delay in microseconds; 1000 if not set

#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

#include "benchmarks/compare.hpp"
#include "benchmarks/delay_line.hpp"
#include "support/quorum_nodes.hpp"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

using namespace benchmarks;
using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace test_support;

namespace {

constexpr auto slice = 200ms;

template <class Lock>
Variant waited(const std::string& name, Lock& lock) {
    return {name + ", release waited for", [&lock] {
                return time_of(slice, [&lock] {
                    auto lease = lock.lease();
                    if (!lease.release()) std::abort();
                });
            }};
}

template <class Lock>
Variant not_waited(const std::string& name, Lock& lock) {
    return {name + ", not waited for", [&lock] {
                return time_of(slice, [&lock] {
                    lock.lock();
                    lock.unlock();
                });
            }};
}

std::chrono::microseconds delay() {
    const char* const text = std::getenv("CODOMYRMEX_QUORUM_DELAY_US");
    return std::chrono::microseconds{text == nullptr ? 1000 : std::strtol(text, nullptr, 10)};
}

}  // namespace

int main() {
    if (!RedisServer::available()) {
        std::puts("no redis-server in PATH");
        return 0;
    }
    const auto way = delay();
    QuorumNodes nodes{5};
    std::vector<std::string> sockets;
    for (std::size_t node = 0; node < nodes.size(); ++node)
        sockets.push_back(nodes.server(node).socket_path());
    const DelayLine line{sockets, way};
    std::vector<RedisClient> clients;
    for (std::size_t node = 0; node < nodes.size(); ++node)
        clients.emplace_back(line.url(node));
    RedisLock one{"benchmark", clients[0]};
    const QuorumOptions options{.min_uptime = 0ms};
    QuorumClient three{{clients[0], clients[1], clients[2]}, options};
    QuorumClient five{clients, options};
    QuorumLock of_three{"three", three};
    QuorumLock of_five{"five", five};

    print_head("QuorumLock: nanoseconds for one cycle, " + std::to_string(way.count()) +
               " us to each master; the ratio is of cycles a second");
    const auto row = [](const Variant& ours, const Variant& baseline, const char* target) {
        compare({"1 thread", ours, baseline, Ratio::speed, target, 9});
    };
    row(waited("3 masters", of_three), waited("1 master", one), "-");
    row(waited("5 masters", of_five), waited("1 master", one), ">= 0.88");
    row(not_waited("3 masters", of_three), waited("1 master", one), "-");
    row(not_waited("5 masters", of_five), waited("1 master", one), ">= 1.7");
    row(not_waited("5 masters", of_five), not_waited("1 master", one), "-");
    const QuorumStats stats = five.stats();
    std::printf("  5 masters: %llu rounds, %llu of them with a fence to write back\n",
                static_cast<unsigned long long>(stats.rounds),
                static_cast<unsigned long long>(stats.write_backs));
}
