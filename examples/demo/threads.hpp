// SPDX-License-Identifier: MIT
//
// The four use cases of the demo that need no second process: exclusion between threads, a rate
// limit, a read-mostly cache, a connection pool. Each checks its own invariant while it runs.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_THREADS_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_THREADS_HPP

#include <codomyrmex/concurrency.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "report.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace demo {

namespace cc = codomyrmex::concurrency;

/// Runs `body(index, waits)` on so many threads. Returns: all their waits.
template <class Body>
Waits on_threads(std::size_t count, Body body) {
    std::vector<Waits> waits(count);
    {
        std::vector<std::jthread> threads;
        for (std::size_t i = 0; i < count; ++i) {
            threads.emplace_back([&, i] { body(i, waits[i]); });
        }
    }
    Waits all;
    for (const Waits& each : waits)
        all.insert(all.end(), each.begin(), each.end());
    return all;
}

/// Calls `take()` and notes how long that took. Returns: what it returned, a guard.
template <class Take>
auto timed(Waits& waits, Take take) {
    const auto begin = Clock::now();
    auto guard = take();
    waits.push_back(Clock::now() - begin);
    return guard;
}

/// Four threads count words in one std::map.
inline Result shared_structure() {
    cc::LocalLock lock{"words"};
    std::map<std::string, std::size_t> words;
    constexpr std::size_t each = 20'000;
    const std::array<std::string, 3> text{"lock", "lease", "fence"};
    Result result{.primitive = "LocalLock", .operations = 4 * each};
    result.waits = on_threads(4, [&](std::size_t, Waits& waits) {
        for (std::size_t i = 0; i < each; ++i) {
            const auto guard = timed(waits, [&] { return std::unique_lock{lock}; });
            ++words[text[i % text.size()]];
        }
    });
    std::size_t sum = 0;
    for (const auto& [word, count] : words)
        sum += count;
    result.verdict = sum == 4 * each ? Verdict::right : Verdict::wrong;
    result.finding = std::to_string(sum) + " of " + std::to_string(4 * each) + " words counted";
    return result;
}

/// Eight threads call a service that allows three calls at a time.
inline Result rate_limit() {
    cc::LocalSemaphore limit{3};
    std::atomic<int> inside{0};
    std::atomic<int> most{0};
    constexpr std::size_t each = 100;
    Result result{.primitive = "LocalSemaphore", .operations = 8 * each};
    result.waits = on_threads(8, [&](std::size_t, Waits& waits) {
        for (std::size_t i = 0; i < each; ++i) {
            const auto permit = timed(waits, [&] { return cc::Permit{limit}; });
            const int now = ++inside;
            for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {
            }
            std::this_thread::sleep_for(std::chrono::microseconds{200});
            --inside;
        }
    });
    result.verdict = most <= 3 && limit.available() == 3 ? Verdict::right : Verdict::wrong;
    result.finding = "at most " + std::to_string(most.load()) + " calls at a time, 3 allowed";
    return result;
}

/// Three threads read pairs that one thread changes; a torn pair would show.
inline Result read_mostly_cache() {
    cc::ReadWriteLock lock;
    std::array<std::size_t, 64> cache{};
    std::atomic<std::size_t> torn{0};
    constexpr std::size_t reads = 20'000;
    constexpr std::size_t writes = 500;
    Result result{.primitive = "ReadWriteLock", .operations = 3 * reads + writes};
    result.waits = on_threads(4, [&](std::size_t index, Waits& waits) {
        for (std::size_t i = 0; i < (index == 0 ? writes : reads); ++i) {
            if (index == 0) {
                const auto guard = timed(waits, [&] { return lock.write(); });
                for (std::size_t& cell : cache)
                    ++cell;
            } else {
                const auto guard = timed(waits, [&] { return lock.read(); });
                if (cache.front() != cache.back()) ++torn;
            }
        }
    });
    result.verdict = torn == 0 && cache.back() == writes ? Verdict::right : Verdict::wrong;
    result.finding = std::to_string(torn.load()) + " torn reads beside " +
                     std::to_string(cache.back()) + " of " + std::to_string(writes) + " writes";
    return result;
}

/// Eight threads share four connections; with a server, each use is a PING on a real one.
inline Result connection_pool(const std::string& url) {
    struct Connection {
        std::unique_ptr<cc::RedisClient> client{};
        std::atomic<bool> used{false};
    };
    std::array<Connection, 4> pool;
    if (!url.empty()) {
        for (Connection& each : pool)
            each.client = std::make_unique<cc::RedisClient>(url);
    }
    cc::LockManager manager;
    std::atomic<std::size_t> failures{0};  // a permit without a free connection
    constexpr std::size_t each = 200;
    Result result{.primitive = "manager.permit", .operations = 8 * each};
    result.waits = on_threads(8, [&](std::size_t, Waits& waits) {
        for (std::size_t i = 0; i < each; ++i) {
            const auto permit = timed(waits, [&] { return manager.permit("pool", 4); });
            Connection* mine = nullptr;
            for (Connection& connection : pool) {
                if (!connection.used.exchange(true)) {
                    mine = &connection;
                    break;
                }
            }
            if (mine == nullptr) {
                ++failures;
                continue;
            }
            if (mine->client) mine->client->ping();
            mine->used = false;
        }
    });
    result.verdict = failures == 0 ? Verdict::right : Verdict::wrong;
    result.finding = std::to_string(failures.load()) + " of " + std::to_string(8 * each) +
                     " uses found no free connection among 4" +
                     (url.empty() ? "" : "; each was a PING");
    return result;
}

}  // namespace demo

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_THREADS_HPP
