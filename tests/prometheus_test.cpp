// SPDX-License-Identifier: MIT
//
// Tests of prometheus.hpp with a parser of the text format that takes nothing but what its
// description allows: https://prometheus.io/docs/instrumenting/exposition_formats.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/prometheus.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <limits>
#include <map>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;
using namespace std::string_literals;

namespace {

using Labels = std::map<std::string, std::string>;

struct Exposition {
    std::map<std::string, std::string> types;
    std::map<std::pair<std::string, Labels>, double> samples;

    [[nodiscard]] double at(const std::string& name, const Labels& labels = {}) const {
        const auto found = samples.find({"codomyrmex_" + name, labels});
        if (found == samples.end()) throw std::runtime_error{"no sample " + name};
        return found->second;
    }
};

[[noreturn]] void refuse(const std::string& why, std::string_view line) {
    throw std::runtime_error{why + ": " + std::string{line}};
}

/// Reads a name of letters, digits and `_` (and `:` where `colons`), and takes it off.
std::string take_name(std::string_view& line, bool colons) {
    std::size_t size = 0;
    const auto fits = [&](char c) {
        return c == '_' || (colons && c == ':') || (c >= 'a' && c <= 'z') ||
               (c >= 'A' && c <= 'Z') || (size > 0 && c >= '0' && c <= '9');
    };
    while (size < line.size() && fits(line[size]))
        ++size;
    if (size == 0) refuse("no name", line);
    std::string name{line.substr(0, size)};
    line.remove_prefix(size);
    return name;
}

void take(std::string_view& line, std::string_view what) {
    if (!line.starts_with(what)) refuse("no '" + std::string{what} + "'", line);
    line.remove_prefix(what.size());
}

std::string take_label_value(std::string_view& line) {
    take(line, "\"");
    std::string value;
    while (!line.empty() && line.front() != '"') {
        char byte = line.front();
        line.remove_prefix(1);
        if (byte == '\\') {
            if (line.empty()) refuse("an escape without an end", line);
            byte = line.front();
            line.remove_prefix(1);
            if (byte == 'n') {
                byte = '\n';
            } else if (byte != '\\' && byte != '"') {
                refuse("an unknown escape", line);
            }
        }
        value += byte;
    }
    take(line, "\"");
    for (std::size_t i = 0; i < value.size();) {
        const std::size_t size = detail::utf8_character(std::string_view{value}.substr(i));
        if (size == 0) refuse("not UTF-8", value);
        i += size;
    }
    return value;
}

double number(std::string_view text) {
    if (text == "+Inf") return std::numeric_limits<double>::infinity();
    char* end = nullptr;
    const std::string copy{text};
    const double value = std::strtod(copy.c_str(), &end);
    if (copy.empty() || *end != '\0' || copy.front() == ' ') refuse("no number", text);
    return value;
}

void check_histogram(const Exposition& all, const std::string& name, const Labels& labels) {
    std::map<double, double> buckets;
    for (const auto& [key, value] : all.samples) {
        Labels its = key.second;
        if (key.first != name + "_bucket" || !its.contains("le")) continue;
        const double limit = number(its.at("le"));
        its.erase("le");
        if (its == labels) buckets[limit] = value;
    }
    if (buckets.empty()) refuse("no buckets", name);
    double last = 0;
    for (const auto& [limit, count] : buckets) {
        if (count < last) refuse("buckets that do not add up", name);
        last = count;
    }
    if (buckets.rbegin()->first != std::numeric_limits<double>::infinity()) {
        refuse("no +Inf", name);
    }
    if (last != all.samples.at({name + "_count", labels})) refuse("a wrong count", name);
    if (all.samples.at({name + "_sum", labels}) < 0) refuse("a negative sum", name);
}

/// Throws: std::runtime_error for anything that the format does not allow.
Exposition parse(std::string_view text) {
    if (text.empty() || text.back() != '\n') refuse("no line feed at the end", "");
    Exposition all;
    std::set<std::string> helped;
    std::set<std::string> finished;
    std::string family;
    while (!text.empty()) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(line.size() + 1);
        if (line.starts_with("# HELP ")) {
            take(line, "# HELP ");
            if (!family.empty()) finished.insert(family);
            family = take_name(line, true);
            take(line, " ");
            if (finished.contains(family) || !helped.insert(family).second) {
                refuse("a family twice", family);
            }
            continue;
        }
        if (line.starts_with("#")) {
            take(line, "# TYPE ");
            const std::string name = take_name(line, true);
            take(line, " ");
            if (name != family || all.types.contains(name)) refuse("a type out of place", name);
            if (line != "counter" && line != "gauge" && line != "histogram") {
                refuse("an unknown type", line);
            }
            if ((line == "counter") != name.ends_with("_total")) refuse("a bad name", name);
            all.types[name] = line;
            continue;
        }
        const std::string name = take_name(line, true);
        std::string base = name;
        const std::string type = all.types.contains(family) ? all.types.at(family) : "";
        if (type == "histogram") {
            for (const std::string_view end : {"_bucket", "_sum", "_count"}) {
                if (name.ends_with(end)) base = name.substr(0, name.size() - end.size());
            }
            if (base == name) refuse("a histogram without a part", name);
        }
        if (base != family || type.empty()) refuse("a sample out of its family", name);
        Labels labels;
        if (line.starts_with("{")) {
            do {
                line.remove_prefix(1);
                const std::string label = take_name(line, false);
                take(line, "=");
                if (!labels.emplace(label, take_label_value(line)).second) {
                    refuse("a label twice", label);
                }
            } while (line.starts_with(","));
            take(line, "}");
        }
        take(line, " ");
        if (!all.samples.emplace(std::pair{name, labels}, number(line)).second) {
            refuse("a sample twice", name);
        }
    }
    for (const auto& [key, value] : all.samples) {
        const auto& [name, labels] = key;
        if (!name.ends_with("_count")) continue;
        const std::string base = name.substr(0, name.size() - 6);
        if (all.types.contains(base)) check_histogram(all, base, labels);
    }
    return all;
}

}  // namespace

TEST_CASE("the parser of this test refuses what the format does not allow") {
    const std::string head = "# HELP a_total x\n# TYPE a_total counter\n";
    CHECK_NOTHROW(parse(head + "a_total{b=\"\\\\\\\"\\n\"} 1\n"));
    for (const std::string& bad :
         {"a_total 1"s, "a_total 1\n"s, head + "a_total one\n", head + "b_total 1\n",
          head + "a_total{b=\"\\x\"} 1\n", head + "a_total{b=\"\xff\"} 1\n",
          head + "a_total{b=\"c\",b=\"c\"} 1\n", head + "a_total 1\na_total 1\n",
          head + "a_total{b=\"c\" 1\n", head + head, head + "a_total{0=\"\"} 1\n",
          "# HELP a x\n# TYPE a counter\na 1\n"s,
          "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"1\"} 1\nh_sum 1\nh_count 1\n"s,
          "# HELP h x\n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\nh_sum 1\nh_count 1\n"s}) {
        CAPTURE(bad);
        CHECK_THROWS(parse(bad));
    }
}

TEST_CASE("a manager that did nothing yet has all its families, at zero") {
    const Exposition all = parse(to_prometheus(LockManager<>{}.stats()));
    for (const char* name : {"entries", "held", "waiting", "acquisitions_total", "releases_total",
                             "contended_total", "timeouts_total", "lost_total",
                             "hook_exceptions_total", "wait_seconds_count", "hold_seconds_sum"}) {
        CAPTURE(name);
        CHECK(all.at("lock_manager_"s + name) == 0);
    }
    CHECK(all.at("lock_manager_handovers_total", {{"scope", "remote"}}) == 0);
    CHECK(all.types.at("codomyrmex_lock_manager_held") == "gauge");
    CHECK(all.types.at("codomyrmex_lock_manager_wait_seconds") == "histogram");
}

TEST_CASE("totals and names say what the manager counted") {
    LockManager manager{LocalBackend{}, {.hold_times = HoldTimes::all, .times_per_name = true}};
    for (int i = 0; i < 3; ++i)
        auto guard = manager.lock("a");
    const auto held = manager.read("b");
    const auto guard = manager.lock("a");
    CHECK_FALSE(
        support::on_another_thread([&] { return manager.try_lock_for("a", 2ms).owns_lock(); }));
    const Exposition all = parse(to_prometheus(manager.stats(), manager.list()));
    const Labels a{{"name", "a"}, {"kind", "lock"}};
    CHECK(all.at("lock_manager_acquisitions_total") == 5);
    CHECK(all.at("lock_manager_held") == 2);
    CHECK(all.at("lock_acquisitions_total", a) == 4);
    CHECK(all.at("lock_held", a) == 1);
    CHECK(all.at("lock_timeouts_total", a) == 1);
    CHECK(all.at("lock_contended_total", a) == 1);
    CHECK(all.at("lock_hold_seconds_count", a) == 3);
    CHECK(all.at("lock_wait_seconds_count", a) == 1);
    CHECK(all.at("lock_wait_seconds_sum", a) >= 0.002);
    CHECK(all.at("lock_acquisitions_total", {{"name", "b"}, {"kind", "read_write"}}) == 1);
    CHECK(all.at("lock_names_omitted") == 0);
}

TEST_CASE("names of any bytes are label values") {
    std::vector<LockEntry> entries;
    const std::vector<std::pair<std::string, std::string>> names{
        {"quote\" back\\slash", "quote\" back\\slash"},
        {"line\nfeed", "line\nfeed"},
        {"\xff\xfe", "\\xff\\xfe"},
        {"\xc0\x80", "\\xc0\\x80"},
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"},
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x94\x92"},
        {"cut \xe2\x82", "cut \\xe2\\x82"},
        {"nul\0"s, "nul\0"s}};
    for (const auto& [name, label] : names)
        entries.push_back({.name = name, .acquisitions = 7});
    const Exposition all = parse(to_prometheus({}, entries));
    for (const auto& [name, label] : names) {
        CAPTURE(label);
        CHECK(all.at("lock_acquisitions_total", {{"name", label}, {"kind", "lock"}}) == 7);
    }
}

TEST_CASE("names that look alike are one series, and the number of names is bounded") {
    std::vector<LockEntry> entries;
    entries.push_back({.name = "\xff", .acquisitions = 9});
    entries.push_back({.name = "\\xff", .acquisitions = 8});
    Exposition all = parse(to_prometheus({}, entries));
    CHECK(all.at("lock_acquisitions_total", {{"name", "\\xff"}, {"kind", "lock"}}) == 9);
    CHECK(all.at("lock_names_omitted") == 1);

    for (std::uint64_t i = 0; i < 1000; ++i)
        entries.push_back({.name = "n" + std::to_string(i), .acquisitions = i + 10});
    all = parse(to_prometheus({}, entries));
    CHECK(all.at("lock_names_omitted") == 902);
    CHECK(all.at("lock_acquisitions_total", {{"name", "n999"}, {"kind", "lock"}}) == 1009);
    CHECK_THROWS(all.at("lock_acquisitions_total", {{"name", "n899"}, {"kind", "lock"}}));
    all = parse(to_prometheus({}, entries, {.most_names = 0}));
    CHECK(all.at("lock_names_omitted") == 1002);
    CHECK(all.at("lock_manager_held") == 0);
}

TEST_CASE("buckets are cumulative and their limits are seconds") {
    Histogram histogram;
    for (const std::chrono::nanoseconds value : {1'000ns, 1'000'000ns, 1'000'000'000ns})
        histogram.record(value);
    histogram.record(100s);
    LockManagerStats stats;
    stats.waits = histogram.snapshot();
    const Exposition all = parse(to_prometheus(stats));
    const auto bucket = [&](const char* limit) {
        return all.at("lock_manager_wait_seconds_bucket", {{"le", limit}});
    };
    CHECK(bucket("1.024e-06") == 1);
    CHECK(bucket("0.000262144") == 1);
    CHECK(bucket("0.001048576") == 2);
    CHECK(bucket("1.073741824") == 3);
    CHECK(bucket("68.719476736") == 3);
    CHECK(bucket("+Inf") == 4);
    CHECK(all.at("lock_manager_wait_seconds_sum") == 101.001001);
}

TEST_CASE("labels of one's own are on every sample; what cannot be one is refused") {
    const std::string text =
        to_prometheus({}, {{.name = "a"}}, {.labels = {{"service", "bill\"ing"}}});
    for (const auto& [key, value] : parse(text).samples)
        CHECK(key.second.at("service") == "bill\"ing");
    for (const char* bad : {"", "0a", "a-b", "__a", "name", "kind", "le", "scope", "\xc3\xa9"}) {
        CAPTURE(bad);
        CHECK(support::error_of([&] {
                  (void)to_prometheus({}, PrometheusOptions{.labels = {{bad, "x"}}});
              }) == LockErrc::invalid_argument);
    }
}
