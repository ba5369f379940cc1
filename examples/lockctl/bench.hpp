// SPDX-License-Identifier: MIT
//
// lockctl bench: what locks cost on this server, over this network. Uses a lock of its own name.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_BENCH_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_BENCH_HPP

#include <codomyrmex/concurrency/histogram.hpp>
#include <codomyrmex/concurrency/redis.hpp>

#include "output.hpp"

#include <chrono>
#include <iomanip>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <unistd.h>
#include <vector>

namespace lockctl {

namespace lib = codomyrmex::concurrency;

struct Measurement {
    std::string what{};
    double per_second = 0;
    lib::HistogramSnapshot times{};
};

/// Calls `step(record)` again and again for so long.
template <class Step>
Measurement measure(std::string what, std::chrono::duration<double> time, Step step) {
    using clock = std::chrono::steady_clock;
    lib::Histogram times;
    const auto begin = clock::now();
    while (clock::now() - begin < time) {
        const auto before = clock::now();
        step();
        times.record(clock::now() - before);
    }
    const double seconds = std::chrono::duration<double>{clock::now() - begin}.count();
    Measurement measurement{std::move(what), 0, times.snapshot()};
    measurement.per_second = static_cast<double>(measurement.times.count()) / seconds;
    return measurement;
}

/// Two clients take one lock by turns, as processes would; each acquisition is a hand-over.
inline Measurement measure_hand_over(const std::string& url, const lib::ClientOptions& options,
                                     const std::string& name, std::chrono::duration<double> time) {
    lib::RedisClient mine{url, options};
    lib::RedisClient others{url, options};
    lib::RedisLock lock{name, mine};
    std::jthread other{[&](const std::stop_token& stop) {
        lib::RedisLock wanted{name, others};
        while (!stop.stop_requested()) {
            if (wanted.lock(stop)) wanted.unlock();
        }
    }};
    Measurement measurement = measure("lock, contended by another", time, [&] {
        lock.lock();
        lock.unlock();
    });
    return measurement;
}

inline void run_bench(const std::string& url, const lib::ClientOptions& options,
                      std::chrono::duration<double> time, bool json) {
    const std::string name = "lockctl bench " + std::to_string(::getpid());
    lib::RedisClient client{url, options};
    lib::RedisLock lock{name, client};
    client.ping();
    std::vector<Measurement> all;
    all.push_back(measure("ping", time, [&] { client.ping(); }));
    all.push_back(measure("lock and unlock", time, [&] {
        lock.lock();
        lock.unlock();
    }));
    all.push_back(measure("lease and confirmed release", time, [&] { lock.lease().release(); }));
    all.push_back(measure_hand_over(url, options, name, time));

    const auto micros = [](std::chrono::nanoseconds value) {
        std::ostringstream text;
        text << std::fixed << std::setprecision(1)
             << std::chrono::duration<double, std::micro>{value}.count();
        return text.str();
    };
    std::vector<std::vector<std::string>> rows{
        {"WHAT", "PER SECOND", "P50 US", "P99 US", "MAX US"}};
    for (const Measurement& each : all) {
        const std::string rate = std::to_string(static_cast<std::uint64_t>(each.per_second));
        rows.push_back({each.what, rate, micros(each.times.quantile(0.5)),
                        micros(each.times.quantile(0.99)), micros(each.times.max())});
        if (!json) continue;
        std::cout << object({{"what", json_text(each.what)},
                             {"per_second", rate},
                             {"p50_us", rows.back()[2]},
                             {"p99_us", rows.back()[3]},
                             {"max_us", rows.back()[4]}})
                  << '\n';
    }
    if (!json) print_table(std::cout, rows, Style::of(STDOUT_FILENO));
}

}  // namespace lockctl

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_BENCH_HPP
