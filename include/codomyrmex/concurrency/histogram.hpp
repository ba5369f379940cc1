// SPDX-License-Identifier: MIT
//
// How long things took, in constant memory: counts in buckets whose widths grow with the values, so
// that a quantile is known to a few percent whether it is 50 ns or an hour. Many threads record
// without a lock. For a handful of values a std::vector and std::sort say more.

#ifndef CODOMYRMEX_CONCURRENCY_HISTOGRAM_HPP
#define CODOMYRMEX_CONCURRENCY_HISTOGRAM_HPP

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace codomyrmex::concurrency {

/// Which bucket a duration falls into. Up to 8 ns each nanosecond has its own; from there on each
/// power of two is cut into 8, so that a bucket is an eighth as wide as its lower bound at most.
/// What is longer than 2^43 ns (2.4 hours) is in the last one. A bucket has its upper bound in it.
struct HistogramBuckets {
    static constexpr std::size_t count = 328;

    [[nodiscard]] static constexpr std::size_t index_of(std::chrono::nanoseconds value) noexcept {
        const auto below = static_cast<std::uint64_t>(std::max<std::int64_t>(value.count(), 1) - 1);
        if (below < 8) return static_cast<std::size_t>(below);
        const auto power = static_cast<std::size_t>(std::bit_width(below)) - 1;
        const auto part = static_cast<std::size_t>(below >> (power - 3)) & 7U;
        return std::min((power - 2) * 8 + part, count - 1);
    }

    /// The largest duration in it. Of the last one, that is the largest which is not cut off.
    [[nodiscard]] static constexpr std::chrono::nanoseconds upper(std::size_t index) noexcept {
        if (index < 8) return std::chrono::nanoseconds{static_cast<std::int64_t>(index) + 1};
        const std::size_t power = index / 8 + 2;
        const auto parts = static_cast<std::int64_t>(9 + index % 8);
        return std::chrono::nanoseconds{parts << (power - 3)};
    }

    /// The largest duration that is below it.
    [[nodiscard]] static constexpr std::chrono::nanoseconds lower(std::size_t index) noexcept {
        return index == 0 ? std::chrono::nanoseconds{0} : upper(index - 1);
    }
};

/// What a Histogram had recorded when it was looked at. A plain value.
class HistogramSnapshot {
  public:
    /// Of nothing.
    HistogramSnapshot() noexcept = default;

    /// How many durations.
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

    /// All of them together, exact.
    [[nodiscard]] std::chrono::nanoseconds sum() const noexcept { return sum_; }

    /// The longest, exact; zero of nothing.
    [[nodiscard]] std::chrono::nanoseconds max() const noexcept { return max_; }

    /// The arithmetic mean, exact; zero of nothing.
    [[nodiscard]] std::chrono::nanoseconds mean() const noexcept {
        if (count_ == 0) return std::chrono::nanoseconds::zero();
        return std::chrono::nanoseconds{
            static_cast<std::int64_t>(static_cast<std::uint64_t>(sum_.count()) / count_)};
    }

    /// The duration that a share `q` of all does not exceed; quantile(0.99) is p99.
    /// Returns: within 1/16 (6.25%) of the exact one, or half a nanosecond, unless that is over 2.4
    /// hours; never more than max(); zero of nothing. Out of [0, 1] and NaN count as the nearest
    /// bound and 0.
    [[nodiscard]] std::chrono::nanoseconds quantile(double q) const noexcept {
        if (count_ == 0) return std::chrono::nanoseconds::zero();
        const double share = q > 0 ? std::min(q, 1.0) : 0.0;
        const double exact = std::ceil(share * static_cast<double>(count_));
        const auto rank = std::clamp<std::uint64_t>(static_cast<std::uint64_t>(exact), 1, count_);
        if (rank == count_) return max_;
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i) {
            seen += counts_[i];
            if (seen < rank) continue;
            if (i + 1 == HistogramBuckets::count) break;
            const auto low = HistogramBuckets::lower(i);
            // The middle, rounded up: below 16 ns a bucket is one or two wide.
            const auto width = HistogramBuckets::upper(i) - low;
            return std::min(low + (width + std::chrono::nanoseconds{1}) / 2, max_);
        }
        return max_;
    }

    /// How many took at most `limit`: exact where that is a power of two of nanoseconds or another
    /// bucket's bound, else of the bounds that are not above it.
    [[nodiscard]] std::uint64_t count_up_to(std::chrono::nanoseconds limit) const noexcept {
        std::uint64_t count = 0;
        for (std::size_t i = 0; i < counts_.size() && HistogramBuckets::upper(i) <= limit; ++i)
            count += counts_[i];
        return count;
    }

    /// How many are in each bucket; empty of nothing.
    [[nodiscard]] const std::vector<std::uint64_t>& buckets() const noexcept { return counts_; }

    /// Adds what another has, exactly. Throws: std::bad_alloc.
    void merge(const HistogramSnapshot& other) {
        if (other.count_ == 0) return;
        counts_.resize(HistogramBuckets::count);
        for (std::size_t i = 0; i < counts_.size(); ++i)
            counts_[i] += other.counts_[i];
        count_ += other.count_;
        sum_ += other.sum_;
        max_ = std::max(max_, other.max_);
    }

  private:
    friend class Histogram;

    std::vector<std::uint64_t> counts_;
    std::uint64_t count_ = 0;
    std::chrono::nanoseconds sum_{0};
    std::chrono::nanoseconds max_{0};
};

/// Records durations; 2.6 KiB. Neither copies nor moves.
/// Threads: all members are safe to call concurrently.
class Histogram {
  public:
    Histogram() = default;
    Histogram(const Histogram&) = delete;
    Histogram& operator=(const Histogram&) = delete;

    /// Counts one that took `value`; a negative one as zero.
    /// Threads: lock-free. Cost: two atomic additions, and a look at the longest.
    void record(std::chrono::nanoseconds value) noexcept {
        const std::int64_t nanoseconds = std::max<std::int64_t>(value.count(), 0);
        counts_[HistogramBuckets::index_of(value)].fetch_add(1, std::memory_order_relaxed);
        sum_.fetch_add(nanoseconds, std::memory_order_relaxed);
        std::int64_t longest = max_.load(std::memory_order_relaxed);
        while (nanoseconds > longest &&
               !max_.compare_exchange_weak(longest, nanoseconds, std::memory_order_relaxed)) {
        }
    }

    /// What was recorded so far. While others record, it may have one of them in its buckets and
    /// not yet in its sum.
    /// Throws: std::bad_alloc.
    [[nodiscard]] HistogramSnapshot snapshot() const {
        HistogramSnapshot snapshot;
        snapshot.counts_.reserve(HistogramBuckets::count);
        for (const auto& count : counts_)
            snapshot.counts_.push_back(count.load(std::memory_order_relaxed));
        for (const std::uint64_t count : snapshot.counts_)
            snapshot.count_ += count;
        if (snapshot.count_ == 0) return {};
        snapshot.sum_ = std::chrono::nanoseconds{sum_.load(std::memory_order_relaxed)};
        snapshot.max_ = std::chrono::nanoseconds{max_.load(std::memory_order_relaxed)};
        return snapshot;
    }

  private:
    std::array<std::atomic<std::uint64_t>, HistogramBuckets::count> counts_{};
    std::atomic<std::int64_t> sum_{0};
    std::atomic<std::int64_t> max_{0};
};

static_assert(std::atomic<std::uint64_t>::is_always_lock_free);
static_assert(HistogramBuckets::upper(HistogramBuckets::count - 1) ==
              std::chrono::nanoseconds{std::int64_t{1} << 43});

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_HISTOGRAM_HPP
