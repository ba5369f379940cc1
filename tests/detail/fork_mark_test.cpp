// SPDX-License-Identifier: MIT
//
// Tests of fork_mark.hpp, with real children.

#include <codomyrmex/concurrency/detail/fork_mark.hpp>

#include "support/catch2.hpp"
#include "support/process.hpp"

#include <sys/wait.h>
#include <unistd.h>

using codomyrmex::concurrency::detail::ForkMark;

namespace {

/// What `look()` says in a child of this process.
template <class Look>
bool in_child(Look look) {
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) ::_exit(look() ? 1 : 0);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    return WEXITSTATUS(status) == 1;
}

}  // namespace

TEST_CASE("A mark tells the children of its process, and their children") {
    const ForkMark mark;
    CHECK_FALSE(mark.in_child());
    CHECK(in_child([&] { return mark.in_child(); }));
    CHECK(in_child([&] {
        const pid_t grandchild = ::fork();
        if (grandchild == 0) ::_exit(mark.in_child() ? 1 : 0);
        int status = 0;
        return ::waitpid(grandchild, &status, 0) == grandchild && WEXITSTATUS(status) == 1;
    }));
    CHECK_FALSE(mark.in_child());
}

TEST_CASE("A mark made in the child is the child's") {
    const ForkMark before;
    CHECK(in_child([&] {
        const ForkMark after;
        return before.in_child() && !after.in_child();
    }));
}
