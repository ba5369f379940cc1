// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include "support/catch2.hpp"

#include <array>
#include <deque>
#include <ranges>
#include <string>
#include <string_view>
#include <vector>

using namespace codomyrmex::concurrency;

namespace {

using Names = std::vector<std::string_view>;

Names in(const LockNames& names) {
    return {names.begin(), names.end()};
}

}  // namespace

TEST_CASE("LockNames are sorted, and each is there once") {
    CHECK(in({"b", "a", "c", "a", "b"}) == Names{"a", "b", "c"});
    CHECK(in({"only"}) == Names{"only"});
    CHECK(in({}).empty());
    CHECK(LockNames{"b", "a", "b"}.size() == 2);
}

TEST_CASE("LockNames are made of any range of strings") {
    const std::vector<std::string> strings{"b", "a", "b"};
    CHECK(in(strings) == Names{"a", "b"});
    CHECK(in(std::deque<std::string_view>{"y", "x"}) == Names{"x", "y"});
    CHECK(in(std::array{"q", "p"}) == Names{"p", "q"});
    CHECK(in(strings | std::views::take(1)) == Names{"b"});
}

TEST_CASE("LockNames are not made of what would dangle, or of the letters of one name") {
    const auto built = [](int number) { return std::to_string(number); };
    using Built = decltype(std::views::iota(0, 3) | std::views::transform(built));
    static_assert(!std::convertible_to<Built, LockNames>);
    static_assert(!std::convertible_to<std::string, LockNames>);
    static_assert(!std::convertible_to<const char*, LockNames>);
    static_assert(std::convertible_to<const std::vector<std::string>&, LockNames>);
}
