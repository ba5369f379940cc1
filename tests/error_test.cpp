// SPDX-License-Identifier: MIT
//
// Tests of error.hpp.

#include <codomyrmex/concurrency/error.hpp>

#include "support/catch2.hpp"

#include <set>
#include <string>
#include <system_error>
#include <type_traits>

using namespace codomyrmex::concurrency;

namespace {

constexpr LockErrc all_errors[] = {
    LockErrc::invalid_argument,    LockErrc::not_held,        LockErrc::lease_lost,
    LockErrc::backend_unavailable, LockErrc::backend_refused, LockErrc::validity_exhausted,
    LockErrc::foreign_key,         LockErrc::mismatch,        LockErrc::unknown_outcome,
    LockErrc::unsupported,         LockErrc::in_use,          LockErrc::abandoned,
};

// Another category object of the same name, as a shared library with hidden visibility has it.
class Twin final : public std::error_category {
  public:
    const char* name() const noexcept override { return "codomyrmex.concurrency"; }
    std::string message(int) const override { return {}; }
};

static_assert(std::is_base_of_v<std::system_error, LockError>);
static_assert(std::is_error_code_enum_v<LockErrc>);
static_assert(std::is_nothrow_copy_constructible_v<LockError>);

}  // namespace

TEST_CASE("every error has a message of its own and is true as an error_code") {
    std::set<std::string> messages;
    for (const auto errc : all_errors) {
        const std::error_code code = errc;
        CAPTURE(code.message());
        CHECK(code);
        CHECK(code == errc);
        CHECK(code.message().find("unknown error") == std::string::npos);
        CHECK(messages.insert(code.message()).second);
    }
}

TEST_CASE("a value that is no error of ours says so with its number") {
    CHECK(lock_category().message(4711).find("4711") != std::string::npos);
}

TEST_CASE("a LockError carries its code, its explanation and the category's message") {
    const LockError error{LockErrc::not_held, "release of the lock 'a'"};
    const std::string what = error.what();
    CAPTURE(what);
    CHECK(error.code() == LockErrc::not_held);
    CHECK(what.find("release of the lock 'a'") != std::string::npos);
    CHECK(what.find("not held") != std::string::npos);
}

TEST_CASE("errors compare by value: errors of another category object of our name are ours") {
    const Twin twin;
    CHECK(std::error_code{static_cast<int>(LockErrc::mismatch), twin} == LockErrc::mismatch);
    CHECK_FALSE(std::error_code{static_cast<int>(LockErrc::mismatch), twin} == LockErrc::in_use);
    CHECK(std::error_code{static_cast<int>(LockErrc::mismatch), twin} != LockErrc::in_use);
}

TEST_CASE("an error of another category is none of ours, even with the same number") {
    const std::error_code other{static_cast<int>(LockErrc::not_held), std::generic_category()};
    CHECK_FALSE(other == LockErrc::not_held);
    CHECK_FALSE(std::error_code{} == LockErrc::not_held);
}

TEST_CASE("errors that the standard has a condition for compare equal to it") {
    CHECK(make_error_code(LockErrc::invalid_argument) == std::errc::invalid_argument);
    CHECK(make_error_code(LockErrc::mismatch) == std::errc::invalid_argument);
    CHECK(make_error_code(LockErrc::not_held) == std::errc::operation_not_permitted);
    CHECK(make_error_code(LockErrc::backend_unavailable) ==
          std::errc::resource_unavailable_try_again);
    CHECK(make_error_code(LockErrc::backend_refused) == std::errc::permission_denied);
    CHECK(make_error_code(LockErrc::unsupported) == std::errc::not_supported);
    CHECK(make_error_code(LockErrc::in_use) == std::errc::device_or_resource_busy);
    CHECK(make_error_code(LockErrc::lease_lost) == std::errc::owner_dead);
    CHECK(make_error_code(LockErrc::abandoned) == std::errc::owner_dead);
    CHECK(make_error_code(LockErrc::validity_exhausted) == std::errc::timed_out);
    CHECK(make_error_code(LockErrc::foreign_key) != std::errc::invalid_argument);
    CHECK(make_error_code(LockErrc::unknown_outcome) != std::errc::timed_out);
}
