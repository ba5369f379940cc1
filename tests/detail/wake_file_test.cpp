// SPDX-License-Identifier: MIT

#include <codomyrmex/concurrency/detail/wake_file.hpp>

#include "support/catch2.hpp"
#include "support/threads.hpp"

#include <cerrno>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <type_traits>
#include <unistd.h>

namespace {

using codomyrmex::concurrency::detail::WakeFile;

static_assert(!std::is_copy_constructible_v<WakeFile> && !std::is_move_constructible_v<WakeFile>);

/// Whether it is readable within so many milliseconds.
bool readable(const WakeFile& file, int within = 0) {
    pollfd entry{file.descriptor(), POLLIN, 0};
    return ::poll(&entry, 1, within) == 1 && (entry.revents & POLLIN) != 0;
}

bool is_open(int descriptor) {
    return ::fcntl(descriptor, F_GETFD) != -1;
}

int open_files() {
    int count = 0;
    for (int descriptor = 0; descriptor < 1024; ++descriptor)
        count += is_open(descriptor) ? 1 : 0;
    return count;
}

}  // namespace

TEST_CASE("A file is readable from its signal until it is drained") {
    const WakeFile file;
    CHECK(file.descriptor() >= 0);
    CHECK_FALSE(readable(file));
    file.signal();
    CHECK(readable(file));
    CHECK(readable(file));  // Looking does not take it away.
    file.drain();
    CHECK_FALSE(readable(file));
    file.drain();  // Nothing to drain is no reason to wait.
    file.signal();
    CHECK(readable(file));
}

TEST_CASE("One drain takes all signals, however many") {
    const WakeFile file;
    for (int i = 0; i < 1000; ++i)
        file.signal();
    file.drain();
    CHECK_FALSE(readable(file));
}

TEST_CASE("A full pipe neither blocks who signals nor sleeps on") {
    const WakeFile file;
    for (int i = 0; i < 100'000; ++i)
        file.signal();
    CHECK(readable(file));
    file.drain();
    CHECK_FALSE(readable(file));
    file.signal();
    CHECK(readable(file));
}

TEST_CASE("A signal wakes a thread that sleeps in poll") {
    const WakeFile file;
    support::Event woken;
    std::jthread sleeper{[&] {
        if (readable(file, 20'000)) woken.set();
    }};
    file.signal();
    CHECK(woken.wait());
}

TEST_CASE("Signals of many threads at once wake, and none is needed twice") {
    const WakeFile file;
    support::run_together(8, [&](int) {
        for (int i = 0; i < 100; ++i)
            file.signal();
    });
    CHECK(readable(file));
    file.drain();
    CHECK_FALSE(readable(file));
}

TEST_CASE("Both ends are closed with it, and not inherited by other programs") {
    const int before = open_files();
    {
        const WakeFile file;
        CHECK(open_files() == before + 2);
        CHECK((::fcntl(file.descriptor(), F_GETFD) & FD_CLOEXEC) != 0);
        CHECK((::fcntl(file.descriptor(), F_GETFL) & O_NONBLOCK) != 0);
    }
    CHECK(open_files() == before);
}

TEST_CASE("The child of a fork closes its copies, and the parent's stay open") {
    const WakeFile file;
    const int inherited = open_files();
    const pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        file.close_in_child();
        ::_exit(open_files() == inherited - 2 && !is_open(file.descriptor()) ? 0 : 1);
    }
    int status = -1;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(status == 0);
    CHECK(open_files() == inherited);
    file.signal();
    CHECK(readable(file));
}

TEST_CASE("A process without files left is told so") {
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
    rlimit none = before;
    none.rlim_cur = 0;
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
    const auto code = support::error_of([] { const WakeFile file; });
    REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(code == std::error_code{EMFILE, std::generic_category()});
}
