// SPDX-License-Identifier: MIT
//
// Tests of quorum_options.hpp.

#include <codomyrmex/concurrency/redis/quorum_options.hpp>

#include "support/catch2.hpp"

#include <chrono>
#include <string>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

namespace {

std::string refusal_of(const QuorumOptions& options) {
    try {
        redis::validate(options);
    } catch (const LockError& error) {
        return error.code() == LockErrc::invalid_argument ? error.what() : "another error";
    }
    return {};
}

}  // namespace

TEST_CASE("The options of a quorum as they come are within their bounds") {
    CHECK(refusal_of({}).empty());
    CHECK(refusal_of({.min_uptime = 0ms}).empty());
    CHECK(refusal_of({.min_uptime = 24h}).empty());
}

TEST_CASE("An option of a quorum that breaks its bounds is named") {
    const auto names = [](const QuorumOptions& options, const char* member) {
        return refusal_of(options).find(member) != std::string::npos;
    };
    CHECK(names({.node_timeout = 0ns}, "node_timeout"));
    CHECK(names({.patience = -1s}, "patience"));
    CHECK(names({.max_retry_delay = 0ms}, "max_retry_delay"));
    CHECK(names({.min_uptime = -1ms}, "min_uptime"));
    CHECK(names({.min_uptime = 25h}, "min_uptime"));
}
