// SPDX-License-Identifier: MIT
//
// Tests of histogram.hpp: the promised error against exact quantiles, bounds, merging, threads.

#include <codomyrmex/concurrency/histogram.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

TEST_CASE("each duration is in the one bucket whose bounds enclose it") {
    std::vector<std::int64_t> values;
    for (std::int64_t i = 1; i < 5000; ++i)
        values.push_back(i);
    for (int power = 12; power <= 43; ++power) {
        for (const std::int64_t by : {-1, 0, 1})
            values.push_back((std::int64_t{1} << power) + by);
    }
    bool right = true;
    for (const std::int64_t value : values) {
        const std::chrono::nanoseconds duration{value};
        const std::size_t index = HistogramBuckets::index_of(duration);
        right = right && HistogramBuckets::lower(index) < duration;
        // What is longer than the last bound is in the last bucket nevertheless.
        if (value <= std::int64_t{1} << 43)
            right = right && duration <= HistogramBuckets::upper(index);
    }
    CHECK(right);
    for (std::size_t i = 8; i < HistogramBuckets::count; ++i) {
        const auto low = HistogramBuckets::lower(i);
        right = right && (HistogramBuckets::upper(i) - low) * 8 <= low;
    }
    CHECK(right);
    CHECK(HistogramBuckets::index_of(-5ns) == 0);
    CHECK(HistogramBuckets::index_of(0ns) == 0);
    CHECK(HistogramBuckets::index_of(std::chrono::nanoseconds::max()) ==
          HistogramBuckets::count - 1);
}

TEST_CASE("nothing recorded is all zero") {
    const Histogram histogram;
    const HistogramSnapshot nothing = histogram.snapshot();
    CHECK(nothing.count() == 0);
    CHECK(nothing.sum() == 0ns);
    CHECK(nothing.max() == 0ns);
    CHECK(nothing.mean() == 0ns);
    CHECK(nothing.quantile(0.5) == 0ns);
    CHECK(nothing.count_up_to(1h) == 0);
    CHECK(nothing.buckets().empty());
}

TEST_CASE("count, sum, mean and the longest are exact") {
    Histogram histogram;
    for (const auto value : {10ns, 20ns, 90ns})
        histogram.record(value);
    histogram.record(5h);
    histogram.record(-1ns);
    const HistogramSnapshot snapshot = histogram.snapshot();
    CHECK(snapshot.count() == 5);
    CHECK(snapshot.sum() == 5h + 120ns);
    CHECK(snapshot.mean() == 1h + 24ns);
    CHECK(snapshot.max() == 5h);
    CHECK(snapshot.quantile(1) == 5h);
}

TEST_CASE("a quantile is within the promised error of the exact one") {
    std::mt19937_64 random{7};
    std::lognormal_distribution<double> spread{10, 3};
    Histogram histogram;
    std::vector<std::int64_t> exact;
    for (int i = 0; i < 20'000; ++i) {
        const auto value = static_cast<std::int64_t>(spread(random)) + 1;
        exact.push_back(value);
        histogram.record(std::chrono::nanoseconds{value});
    }
    std::ranges::sort(exact);
    const HistogramSnapshot snapshot = histogram.snapshot();
    for (const double q : {0.0001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 0.999, 1.0}) {
        const auto rank = static_cast<std::size_t>(std::ceil(q * 20'000)) - 1;
        const auto want = static_cast<double>(exact[rank]);
        const auto got = static_cast<double>(snapshot.quantile(q).count());
        CAPTURE(q, want, got);
        CHECK(std::abs(got - want) <= std::max(want / 16, 0.5));
    }
}

TEST_CASE("a quantile of a strange share is that of the nearest") {
    Histogram histogram;
    histogram.record(3ns);
    histogram.record(1000ns);
    const HistogramSnapshot snapshot = histogram.snapshot();
    CHECK(snapshot.quantile(-1) == 3ns);
    CHECK(snapshot.quantile(std::numeric_limits<double>::quiet_NaN()) == 3ns);
    CHECK(snapshot.quantile(2) == 1000ns);
    CHECK(snapshot.quantile(std::numeric_limits<double>::infinity()) == 1000ns);
}

TEST_CASE("bounds that are powers of two count exactly") {
    Histogram histogram;
    for (std::int64_t i = 1; i <= 4096; ++i)
        histogram.record(std::chrono::nanoseconds{i});
    const HistogramSnapshot snapshot = histogram.snapshot();
    for (std::int64_t limit = 1; limit <= 4096; limit *= 2)
        CHECK(snapshot.count_up_to(std::chrono::nanoseconds{limit}) ==
              static_cast<std::uint64_t>(limit));
    CHECK(snapshot.count_up_to(0ns) == 0);
    CHECK(snapshot.count_up_to(1h) == 4096);
}

TEST_CASE("merging is as if all had been recorded in one") {
    Histogram one;
    Histogram other;
    Histogram both;
    for (std::int64_t i = 1; i < 1000; ++i) {
        (i % 3 == 0 ? one : other).record(std::chrono::nanoseconds{i * i});
        both.record(std::chrono::nanoseconds{i * i});
    }
    HistogramSnapshot merged;
    merged.merge(one.snapshot());
    merged.merge(HistogramSnapshot{});
    merged.merge(other.snapshot());
    const HistogramSnapshot whole = both.snapshot();
    CHECK(merged.buckets() == whole.buckets());
    CHECK(merged.count() == whole.count());
    CHECK(merged.sum() == whole.sum());
    CHECK(merged.max() == whole.max());
}

TEST_CASE("nothing is lost when many threads record") {
    Histogram histogram;
    constexpr int each = 20'000;
    support::run_together(4, [&](int thread) {
        for (int i = 1; i <= each; ++i) {
            histogram.record(std::chrono::nanoseconds{i + thread});
            if (i % 5000 == 0) (void)histogram.snapshot();
        }
    });
    const HistogramSnapshot snapshot = histogram.snapshot();
    CHECK(snapshot.count() == 4 * each);
    CHECK(snapshot.max() == std::chrono::nanoseconds{each + 3});
    CHECK(snapshot.sum().count() == 4 * std::int64_t{each} * (each + 1) / 2 + each * 6);
}
