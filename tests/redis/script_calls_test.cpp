// SPDX-License-Identifier: MIT
//
// Tests of script_calls.hpp.

#include <codomyrmex/concurrency/redis/script_calls.hpp>

#include "support/catch2.hpp"

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

TEST_CASE("A script that the server forgot goes with its body again, the others do not") {
    ScriptCalls calls;
    CHECK(calls.how_to_call(release_script, 3) == Call::body);
    CHECK(calls.how_to_call(renew_script, 3) == Call::body);
    calls.forget(release_script);
    CHECK(calls.how_to_call(renew_script, 3) == Call::digest);
    CHECK(calls.how_to_call(release_script, 3) == Call::body);
    CHECK(calls.how_to_call(release_script, 3) == Call::digest);
}
