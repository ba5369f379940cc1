// SPDX-License-Identifier: MIT
//
// Tests of script_calls.hpp.

#include <codomyrmex/concurrency/redis/script_calls.hpp>

#include "support/catch2.hpp"

#include <string>
#include <vector>

namespace {

using namespace codomyrmex::concurrency;
using namespace codomyrmex::concurrency::redis;

}  // namespace

TEST_CASE("The first call of a script on a connection brings its body along") {
    ScriptCalls calls;
    CHECK(calls.how_to_call(release_script, 1) == Call::body);
    CHECK(calls.how_to_call(release_script, 1) == Call::digest);
    CHECK(calls.how_to_call(release_script, 1) == Call::digest);
    // Another script, and another connection.
    CHECK(calls.how_to_call(renew_script, 1) == Call::body);
    CHECK(calls.how_to_call(release_script, 2) == Call::body);
    CHECK(calls.how_to_call(release_script, 2) == Call::digest);
    CHECK(calls.how_to_call(renew_script, 2) == Call::body);
}

TEST_CASE("A call before the first connection goes on that connection") {
    ScriptCalls calls;
    CHECK(calls.how_to_call(release_script, 0) == Call::body);
    // Not made yet, and whichever of these goes first must have the body.
    CHECK(calls.how_to_call(release_script, 0) == Call::body);
    CHECK(calls.how_to_call(release_script, 1) == Call::digest);
}

TEST_CASE("A script that the server forgot goes with its body again, the others do not") {
    ScriptCalls calls;
    CHECK(calls.how_to_call(release_script, 3) == Call::body);
    CHECK(calls.how_to_call(renew_script, 3) == Call::body);
    calls.forget(release_script);
    CHECK(calls.how_to_call(renew_script, 3) == Call::digest);
    CHECK(calls.how_to_call(release_script, 3) == Call::body);
    CHECK(calls.how_to_call(release_script, 3) == Call::digest);
}

TEST_CASE("No two requests have one number") {
    ScriptCalls calls;
    std::vector<std::string> numbers;
    for (int i = 0; i < 20; ++i)
        numbers.emplace_back(calls.next_number().text());
    std::vector<std::string> counted;
    for (const char digit : std::string{"123456789abcdef"})
        counted.emplace_back(1, digit);
    for (const char* const more : {"10", "11", "12", "13", "14"})
        counted.emplace_back(more);
    CHECK(numbers == counted);
}
