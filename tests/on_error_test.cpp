// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/on_error.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <new>

using namespace codomyrmex::concurrency;

namespace {

int twice(int number, OnError error = {}) {
    return error.run([&] {
        if (number < 0) throw LockError{LockErrc::invalid_argument, "negative"};
        if (number > 100) throw std::bad_alloc{};
        return 2 * number;
    });
}

}  // namespace

TEST_CASE("Without a place for it an error is thrown") {
    CHECK(twice(2) == 4);
    CHECK(support::error_of([] { twice(-1); }) == LockErrc::invalid_argument);
}

TEST_CASE("Given a place an error is left there, and success clears it") {
    std::error_code code;
    CHECK(twice(-1, code) == 0);
    CHECK(code == LockErrc::invalid_argument);
    CHECK(twice(2, code) == 4);
    CHECK_FALSE(code);
}

TEST_CASE("What is no error of the system is thrown even if there is a place") {
    std::error_code code = LockErrc::in_use;
    CHECK_THROWS_AS(twice(101, code), std::bad_alloc);
    CHECK_FALSE(code);
}
