// SPDX-License-Identifier: MIT
//
// The statistics of a LockManager in Prometheus' text format, version 0.0.4, for the program to
// serve under /metrics. It formats; it opens no port.
//
//     respond("text/plain; version=0.0.4", to_prometheus(manager.stats()));
//
// Totals are codomyrmex_lock_manager_..., without a label. What goes on under each name is
// codomyrmex_lock_...{name="...",kind="..."}, and only there if the caller passes entries: each
// name is a time series of its own to Prometheus, so their number is bounded.

#ifndef CODOMYRMEX_CONCURRENCY_PROMETHEUS_HPP
#define CODOMYRMEX_CONCURRENCY_PROMETHEUS_HPP

#include <codomyrmex/concurrency/detail/utf8.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/histogram.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency {

/// What goes into an exposition.
struct PrometheusOptions {
    /// Labels of every sample, such as {"service", "billing"}.
    std::vector<std::pair<std::string, std::string>> labels{};

    /// For how many names there are samples at most: those with most acquisitions. The gauge
    /// codomyrmex_lock_names_omitted tells how many were left out.
    std::size_t most_names = 100;
};

namespace detail {

/// Writes families of samples. Requires: all samples of a family are written one after another.
class PrometheusText {
  public:
    using Labels = std::vector<std::pair<std::string, std::string>>;

    explicit PrometheusText(const Labels& common) {
        for (const auto& [name, value] : common) {
            if (!is_label(name)) {
                throw LockError(LockErrc::invalid_argument,
                                "PrometheusOptions::labels: '" + name +
                                    "' cannot be a label; use letters, digits and _, and neither "
                                    "name, kind, scope nor le");
            }
            add_label(common_, name, value);
        }
    }

    void family(std::string_view name, std::string_view type, std::string_view help) {
        text_ += "# HELP codomyrmex_";
        ((text_ += name) += ' ') += help;
        text_ += "\n# TYPE codomyrmex_";
        ((text_ += name) += ' ') += type;
        text_ += '\n';
    }

    void sample(std::string_view name, const Labels& labels, std::string_view value) {
        std::string all = common_;
        for (const auto& [label, its_value] : labels)
            add_label(all, label, its_value);
        text_ += "codomyrmex_";
        text_ += name;
        if (!all.empty()) ((text_ += '{') += all) += '}';
        ((text_ += ' ') += value) += '\n';
    }
    void sample(std::string_view name, const Labels& labels, std::uint64_t value) {
        sample(name, labels, std::string_view{std::to_string(value)});
    }

    void histogram(const std::string& name, const Labels& labels,
                   const HistogramSnapshot& histogram) {
        Labels with_limit = labels;
        with_limit.emplace_back("le", "");
        // Powers of four, which are bounds of its buckets: 1 us to 69 s.
        for (int power = 10; power <= 36; power += 2) {
            const std::chrono::nanoseconds limit{std::int64_t{1} << power};
            with_limit.back().second = seconds(limit);
            sample(name + "_bucket", with_limit, histogram.count_up_to(limit));
        }
        with_limit.back().second = "+Inf";
        sample(name + "_bucket", with_limit, histogram.count());
        sample(name + "_sum", labels, std::string_view{seconds(histogram.sum())});
        sample(name + "_count", labels, histogram.count());
    }

    [[nodiscard]] std::string take() { return std::move(text_); }

  private:
    [[nodiscard]] static bool is_label(std::string_view name) {
        const auto letter = [](char c) {
            return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        };
        return !name.empty() && letter(name.front()) && !name.starts_with("__") &&
               std::ranges::all_of(name,
                                   [&](char c) { return letter(c) || (c >= '0' && c <= '9'); }) &&
               name != "name" && name != "kind" && name != "scope" && name != "le";
    }

    // A label's value may have any characters of UTF-8; names may have any bytes.
    static void add_label(std::string& labels, std::string_view name, std::string_view value) {
        if (!labels.empty()) labels += ',';
        (labels += name) += "=\"";
        for (const char byte : utf8_or_escaped(value)) {
            if (byte == '\n') {
                labels += "\\n";
                continue;
            }
            if (byte == '\\' || byte == '"') labels += '\\';
            labels += byte;
        }
        labels += '"';
    }

    // Exact, and short.
    [[nodiscard]] static std::string seconds(std::chrono::nanoseconds value) {
        std::array<char, 32> digits{};
        const auto end =
            std::to_chars(digits.data(), digits.data() + digits.size(),
                          std::chrono::duration<double>{value}.count(), std::chars_format::general);
        return {digits.data(), end.ptr};
    }

    std::string common_;
    std::string text_;
};

/// The counts that totals and names have in common, under `head`. `each(write)` calls
/// write(labels, counts, held) for each of what there is.
template <class Each>
void write_counts(PrometheusText& text, const std::string& head, Each each) {
    using Labels = PrometheusText::Labels;
    const auto family = [&](const char* name, const char* type, const char* help, auto value) {
        text.family(head + name, type, help);
        each([&](const Labels& labels, const auto& counts, std::size_t held) {
            text.sample(head + name, labels, std::uint64_t{value(counts, held)});
        });
    };
    family("held", "gauge", "Holds there are now.",
           [](const auto&, std::size_t held) { return held; });
    family("waiting", "gauge", "Calls that wait now.",
           [](const auto& counts, std::size_t) { return counts.waiting; });
    family("acquisitions_total", "counter", "Holds obtained.",
           [](const auto& counts, std::size_t) { return counts.acquisitions; });
    family("releases_total", "counter", "Holds that ended.",
           [](const auto& counts, std::size_t) { return counts.releases; });
    family("contended_total", "counter", "Calls that found somebody in the way.",
           [](const auto& counts, std::size_t) { return counts.contended; });
    family("timeouts_total", "counter", "Calls that gave up when their time was over.",
           [](const auto& counts, std::size_t) { return counts.timeouts; });
    family("lost_total", "counter", "Holds whose lease had been lost before the release.",
           [](const auto& counts, std::size_t) { return counts.lost; });
    text.family(head + "handovers_total", "counter",
                "Holds that were passed on, by a thread of this process or another process.");
    each([&](Labels labels, const auto& counts, std::size_t) {
        labels.emplace_back("scope", "local");
        text.sample(head + "handovers_total", labels, counts.local_handovers);
        labels.back().second = "remote";
        text.sample(head + "handovers_total", labels, counts.remote_handovers);
    });
    text.family(head + "wait_seconds", "histogram",
                "How long calls waited that found somebody in the way.");
    each([&](const Labels& labels, const auto& counts, std::size_t) {
        text.histogram(head + "wait_seconds", labels, counts.waits);
    });
    text.family(head + "hold_seconds", "histogram", "How long holds lasted, where it is measured.");
    each([&](const Labels& labels, const auto& counts, std::size_t) {
        text.histogram(head + "hold_seconds", labels, counts.holds);
    });
}

inline void write_totals(PrometheusText& text, const LockManagerStats& stats) {
    text.family("lock_manager_entries", "gauge", "Names that are kept, idle ones among them.");
    text.sample("lock_manager_entries", {}, std::uint64_t{stats.registered});
    text.family("lock_manager_hook_exceptions_total", "counter", "Exceptions that hooks threw.");
    text.sample("lock_manager_hook_exceptions_total", {}, stats.hook_exceptions);
    write_counts(text, "lock_manager_", [&](const auto& write) { write({}, stats, stats.active); });
}

}  // namespace detail

/// The totals. Throws: LockError(invalid_argument) for a label that cannot be one.
/// Threads: safe. Cost: about 50 lines of text.
[[nodiscard]] inline std::string to_prometheus(const LockManagerStats& stats,
                                               const PrometheusOptions& options = {}) {
    detail::PrometheusText text{options.labels};
    detail::write_totals(text, stats);
    return text.take();
}

/// The totals and, for each of `entries` up to a number, what goes on under its name: pass
/// manager.list(). Times of names are there if LockManagerOptions::times_per_name is set. Names
/// that are not UTF-8 have their other bytes written as \xNN.
/// Throws: as above. Threads: safe. Cost: about 40 lines of text for each name.
[[nodiscard]] inline std::string to_prometheus(const LockManagerStats& stats,
                                               std::vector<LockEntry> entries,
                                               const PrometheusOptions& options = {}) {
    detail::PrometheusText text{options.labels};
    detail::write_totals(text, stats);
    std::ranges::sort(entries, [](const LockEntry& a, const LockEntry& b) {
        return std::tie(b.acquisitions, a.name, a.kind) < std::tie(a.acquisitions, b.name, b.kind);
    });
    const std::size_t all = entries.size();
    // Two names that look alike would be one series with two values, which Prometheus refuses.
    std::set<std::pair<std::string, LockKind>> seen;
    std::erase_if(entries, [&](const LockEntry& entry) {
        return seen.size() >= options.most_names ||
               !seen.emplace(detail::utf8_or_escaped(entry.name), entry.kind).second;
    });
    text.family("lock_names_omitted", "gauge", "Names for which there are no samples here.");
    text.sample("lock_names_omitted", {}, std::uint64_t{all - entries.size()});
    if (entries.empty()) return text.take();
    detail::write_counts(text, "lock_", [&](const auto& write) {
        for (const LockEntry& entry : entries) {
            write({{"name", entry.name}, {"kind", std::string{to_string(entry.kind)}}}, entry,
                  entry.held);
        }
    });
    return text.take();
}

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_PROMETHEUS_HPP
