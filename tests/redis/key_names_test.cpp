// SPDX-License-Identifier: MIT
//
// Tests of key_names.hpp: names to keys and back, and patterns, also hostile ones.

#include <codomyrmex/concurrency/redis/key_names.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <chrono>
#include <string>
#include <string_view>
#include <utility>

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;
using namespace std::string_literals;
using support::error_of;

TEST_CASE("a key tells its name, whatever bytes that has") {
    for (const std::string& name : {"plain"s, "{}%"s, "a\0b\r\n\xff"s, "%7B"s, "lock:{x}"s}) {
        CAPTURE(name);
        const auto named = name_of_key("p:", keys_of("p:", PrimitiveKind::read_write, name).main());
        REQUIRE(named.has_value());
        CHECK(named->first == PrimitiveKind::read_write);
        CHECK(named->second == name);
    }
}

TEST_CASE("what is no key of a primitive has no name") {
    for (const std::string& key :
         {""s, "p:"s, "p:lock:{}"s, "p:lock:{a}:queue"s, "p:lock:{a}:fence"s, "p:lock:a}"s,
          "p:lock:}"s, "p:lock:{"s, "q:lock:{a}"s, "p:door:{a}"s, "p:lock:{a}{b}"s, "p:lock:{a%}"s,
          "p:lock:{a%7}"s, "p:lock:{a%7b}"s, "p:wake:{a}"s,
          "p:lock:{" + std::string(513, 'x') + "}"}) {
        CAPTURE(key);
        CHECK_FALSE(name_of_key("p:", key).has_value());
    }
}

TEST_CASE("kinds have names for people") {
    CHECK(to_string(PrimitiveKind::lock) == "lock");
    CHECK(to_string(PrimitiveKind::semaphore) == "semaphore");
    CHECK(to_string(PrimitiveKind::read_write) == "read_write");
    CHECK(to_string(PrimitiveKind::quorum) == "quorum");
}

TEST_CASE("patterns match as Redis' own do") {
    struct Row {
        std::string pattern;
        std::string name;
        bool matches;
    };
    for (const Row& row : {
             Row{"*", "anything", true},
             Row{"", "a", false},
             Row{"abc", "abc", true},
             Row{"abc", "abcd", false},
             Row{"abcd", "abc", false},
             Row{"shared_*", "shared_resource", true},
             Row{"shared_*", "shared_", true},
             Row{"shared_*", "share", false},
             Row{"*_x", "a_x_x", true},
             Row{"a*b*c", "a-b-b-c", true},
             Row{"a*b*c", "a-b-b-d", false},
             Row{"a?c", "abc", true},
             Row{"a?c", "ac", false},
             Row{"a?c", "a\0c"s, true},
             Row{"[abc]x", "bx", true},
             Row{"[abc]x", "dx", false},
             Row{"[a-c]", "b", true},
             Row{"[c-a]", "b", true},
             Row{"[a-]", "-", true},
             Row{"[^a-c]", "b", false},
             Row{"[^a-c]", "z", true},
             Row{"[\\]]", "]", true},
             Row{"[\\a-c]", "b", true},
             Row{"[]", "a", false},
             Row{"[^]", "a", true},
             Row{"\\*", "*", true},
             Row{"\\*", "a", false},
             Row{"{}%", "{}%", true},
             Row{"?", "{", true},
             Row{"\xff*", "\xff\xfe", true},
             Row{"[\xf0-\xff]", "\xf8", true},
         }) {
        CAPTURE(row.pattern, row.name);
        CHECK(NamePattern{row.pattern}.matches(row.name) == row.matches);
    }
}

TEST_CASE("a pattern that is none is an error before anything is sent") {
    for (const std::string& pattern :
         {"["s, "a[b"s, "[^"s, "[\\]"s, "\\"s, "a\\"s, std::string(1025, 'a')}) {
        CAPTURE(pattern);
        CHECK(error_of([&] { (void)NamePattern{pattern}; }) == LockErrc::invalid_argument);
    }
}

TEST_CASE("a hostile pattern costs no more than the product of the lengths") {
    std::string pattern;
    for (int i = 0; i < 512; ++i)
        pattern += "*a";
    // With a matcher that recurses at each star, this would not end.
    CHECK_FALSE(NamePattern{pattern}.matches(std::string(511, 'a') + 'b'));
}

TEST_CASE("the server is asked for no fewer keys than match, and told nothing of its own pattern") {
    CHECK(NamePattern{"*"}.of_keys("codomyrmex:") == "codomyrmex:*:{*}");
    CHECK(NamePattern{"shared_*"}.of_keys("p:") == "p:*:{shared_*}");
    // One byte of a name may be three of its key.
    CHECK(NamePattern{"a?b[cd]"}.of_keys("p:") == "p:*:{a*b*}");
    CHECK(NamePattern{"?*[a]"}.of_keys("p:") == "p:*:{*}");
    CHECK(NamePattern{"{\\}"}.of_keys("p:") == "p:*:{%7B%7D}");
    CHECK(NamePattern{"a\\*b"}.of_keys("p:") == "p:*:{a\\*b}");
    CHECK(NamePattern{"x"}.of_keys("p*[q]?\\") == "p\\*\\[q\\]\\?\\\\*:{x}");
    CHECK(NamePattern{"\\\\^-"}.of_keys("p:") == "p:*:{\\\\\\^\\-}");
}
