// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/registry_table.hpp>

#include "support/catch2.hpp"

#include <algorithm>
#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

using namespace codomyrmex::concurrency;
using detail::Probe;

namespace {

using Table = detail::RegistryTable<int>;
using Entry = Table::entry_type;

/// A table of numbers by name.
struct Numbers {
    Probe probe{LockKind::lock, LockManagerOptions{}};
    Table table;

    static std::size_t hash(std::string_view name) { return std::hash<std::string_view>{}(name); }

    std::unique_ptr<Entry> entry(std::string_view name, int number, bool pinned = false) {
        return std::make_unique<Entry>(name, pinned, probe, [=] { return number; });
    }
    Table::Place& add(std::string_view name, int number, bool pinned = false) {
        return table.insert(entry(name, number, pinned), hash(name), 0);
    }
    [[nodiscard]] auto use(std::string_view name) const { return table.use(name, hash(name), 0); }
    /// -1 if it was not found.
    [[nodiscard]] int number(std::string_view name) const {
        const auto used = use(name);
        return used ? used->primitive : -1;
    }
    std::vector<std::string> forget_idle() {
        std::vector<std::string> names;
        table.remove_idle([&](auto entry) { names.push_back(entry->name); });
        std::sort(names.begin(), names.end());
        return names;
    }
};

std::string name_of(int i) {
    return "name number " + std::to_string(i);
}

}  // namespace

TEST_CASE("What was put in is found under its name and capacity, and under no other") {
    Numbers numbers;
    CHECK_FALSE(numbers.use("a"));
    numbers.add("a", 1);
    numbers.table.insert(numbers.entry("b", 2), Numbers::hash("b"), 5);
    CHECK(numbers.number("a") == 1);
    CHECK_FALSE(numbers.use("b"));
    CHECK(numbers.table.use("b", Numbers::hash("b"), 5)->primitive == 2);
    CHECK_FALSE(numbers.use("c"));
    CHECK(numbers.table.find("b", Numbers::hash("b"))->entry->primitive == 2);
    CHECK(numbers.table.find("c", Numbers::hash("c")) == nullptr);
    CHECK(numbers.table.size() == 2);
}

TEST_CASE("What is in use is not taken out") {
    Numbers numbers;
    auto& place = numbers.add("a", 1);
    {
        auto used = numbers.use("a");
        const auto again = used.share();
        used.reset();
        CHECK(numbers.table.remove(place) == nullptr);
        CHECK(numbers.forget_idle().empty());
        CHECK(numbers.number("a") == 1);
    }
    const auto taken = numbers.table.remove(place);
    REQUIRE(taken != nullptr);
    CHECK(taken->primitive == 1);
    CHECK_FALSE(numbers.use("a"));
    CHECK(numbers.table.find("a", Numbers::hash("a")) == nullptr);
    CHECK(numbers.table.size() == 0);
}

TEST_CASE("What is idle is taken out together; what is pinned or in use stays") {
    Numbers numbers;
    for (int i = 0; i < 30; ++i)
        numbers.add(name_of(i), i, i % 3 == 0);
    std::vector<Table::reference_type> used;
    for (int i = 0; i < 30; i += 5)
        used.push_back(numbers.use(name_of(i)));
    const auto forgotten = numbers.forget_idle();
    for (int i = 0; i < 30; ++i) {
        CAPTURE(i);
        const bool gone = i % 3 != 0 && i % 5 != 0;
        CHECK(numbers.number(name_of(i)) == (gone ? -1 : i));
        CHECK(std::binary_search(forgotten.begin(), forgotten.end(), name_of(i)) == gone);
    }
    CHECK(numbers.table.size() == 30 - forgotten.size());
}

TEST_CASE("Names of one hash are told apart") {
    Numbers numbers;
    // More of them than a use() walks along.
    for (int i = 0; i < 20; ++i)
        numbers.table.insert(numbers.entry(name_of(i), i), 7, 0);
    int used = 0;
    for (int i = 0; i < 20; ++i) {
        CAPTURE(i);
        CHECK(numbers.table.find(name_of(i), 7)->entry->primitive == i);
        if (const auto found = numbers.table.use(name_of(i), 7, 0)) {
            ++used;
            CHECK(found->primitive == i);
        }
    }
    CHECK(used > 0);
    CHECK_FALSE(numbers.table.use("another", 7, 0));
    CHECK(numbers.table.find("another", 7) == nullptr);
    // Whoever walked past them left none in use.
    CHECK(numbers.forget_idle().size() == 20);
}

TEST_CASE("However it grows and shrinks, all that is there is found") {
    Numbers numbers;
    constexpr int many = 1000;
    std::vector<Table::reference_type> used;
    for (int i = 0; i < many; ++i) {
        numbers.add(name_of(i), i);
        used.push_back(numbers.use(name_of(i)));
    }
    CHECK(numbers.table.width() >= many);
    for (const std::size_t width : {std::size_t{512}, std::size_t{4096}, std::size_t{1024}}) {
        numbers.table.spread(width);
        CHECK(numbers.table.width() == width);
        for (int i = 0; i < many; ++i) {
            CAPTURE(i, width);
            CHECK(numbers.number(name_of(i)) == i);
        }
    }
    std::set<int> visited;
    numbers.table.for_each([&](const Entry& entry) { visited.insert(entry.primitive); });
    CHECK(visited.size() == many);
    used.resize(10);
    CHECK(numbers.forget_idle().size() == many - 10);
    numbers.table.spread(8);
    for (int i = 0; i < many; ++i) {
        CAPTURE(i);
        CHECK(numbers.number(name_of(i)) == (i < 10 ? i : -1));
    }
}

TEST_CASE("The places of a crowd that is gone serve the next one") {
    Numbers numbers;
    std::set<const void*> places;
    for (int crowd = 0; crowd < 5; ++crowd) {
        for (int i = 0; i < 100; ++i)
            places.insert(&numbers.add(name_of(100 * crowd + i), i));
        CHECK(numbers.forget_idle().size() == 100);
    }
    CHECK(places.size() == 100);
}
