// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/system.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"

#include <algorithm>
#include <chrono>
#include <set>
#include <string>
#include <string_view>
#include <unistd.h>

namespace {

using namespace codomyrmex::concurrency::detail;
using test_support::ExitStatus;
using test_support::Pipe;
using test_support::Process;

static_assert(std::chrono::is_clock_v<BootClock>);

}  // namespace

TEST_CASE("The boot clock runs, never back, and counts from the boot") {
    const auto first = BootClock::now();
    CHECK(first > BootClock::time_point{});
    auto last = first;
    for (int i = 0; i < 1000; ++i) {
        const auto now = BootClock::now();
        REQUIRE(now >= last);
        last = now;
    }
    CHECK(last > first);
    // It runs at the pace of the steady clock, or has been ahead of it since a suspend.
    CHECK(BootClock::now().time_since_epoch() >=
          std::chrono::steady_clock::now().time_since_epoch() - std::chrono::hours{1});
}

TEST_CASE("The child of a fork is another process") {
    const auto mine = process_id();
    CHECK(mine == ::getpid());
    Process child = Process::run([&] { return process_id() == mine ? 1 : 0; });
    CHECK(child.wait() == ExitStatus{0, 0});
}

TEST_CASE("The machine has a name of one word") {
    const std::string name = host_name();
    CAPTURE(name);
    CHECK_FALSE(name.empty());
    CHECK(name.find_first_of(std::string_view{" \r\n\0", 4}) == std::string::npos);
}

TEST_CASE("Random bits are 32 hexadecimal digits, never the same, also after a fork") {
    std::set<std::string> seen;
    std::string digits;
    for (int i = 0; i < 1000; ++i) {
        const std::string bits = random_hex_128();
        REQUIRE(bits.size() == 32);
        REQUIRE(bits.find_first_not_of("0123456789abcdef") == std::string::npos);
        digits += bits;
        seen.insert(bits);
    }
    CHECK(seen.size() == 1000);
    // Each digit about 2,000 times of 32,000.
    for (const char digit : std::string_view{"0123456789abcdef"}) {
        CAPTURE(digit);
        const auto count = std::count(digits.begin(), digits.end(), digit);
        CHECK(count > 1500);
        CHECK(count < 2500);
    }

    Pipe pipe;
    Process child = Process::run([&] {
        pipe.send(random_hex_128());
        return 0;
    });
    const std::string of_child = pipe.receive().value_or("");
    CHECK(of_child.size() == 32);
    CHECK(of_child != random_hex_128());
}
