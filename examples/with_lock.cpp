// SPDX-License-Identifier: MIT
//
// Runs a command while holding a distributed lock, as flock(1) does on one machine:
//
//     with_lock [--redis URL] [--ttl 30s] [--wait 10s] [--grace 5s] NAME -- COMMAND...
//
// The command finds its fencing token in CODOMYRMEX_FENCE. Exit status: the command's, 128 and the
// number of a signal that ended it, or
//
//     64  the command line is wrong           75  the lock was not obtained within --wait
//     69  Redis cannot be reached or refuses  76  the lock was lost while the command ran; it got
//    126  the command cannot be run               SIGTERM, and SIGKILL after --grace
//    127  there is no such command
//
// Signals are handed on to the command; one that comes while the lock is waited for ends this
// program. If this program is killed, the command gets SIGTERM (on Linux), for the lock will run
// out.

#include <codomyrmex/concurrency/redis.hpp>

#include <CLI/CLI.hpp>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fcntl.h>
#include <future>
#include <iostream>
#include <pthread.h>
#include <stop_token>
#include <string>
#include <string_view>
#include <sys/wait.h>
#include <unistd.h>
#include <utility>
#include <vector>

#ifdef __linux__
#include <sys/prctl.h>
#endif

using namespace codomyrmex::concurrency;

namespace {

enum Status { usage = 64, unavailable = 69, not_obtained = 75, lost = 76 };

// What stop_callback sends to the main thread; no terminal and no user sends it.
constexpr int lost_signal = SIGALRM;

/// "1500ms", "30s", "5m" or "2h". Throws: CLI::ValidationError.
std::chrono::milliseconds duration(const std::string& text) {
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    const std::string_view unit{end, static_cast<std::size_t>(text.data() + text.size() - end)};
    for (const auto& [name, factor] : std::initializer_list<std::pair<std::string_view, int>>{
             {"ms", 1}, {"s", 1000}, {"m", 60'000}, {"h", 3'600'000}}) {
        if (error == std::errc{} && unit == name && number >= 0 && number < 1'000'000'000) {
            return std::chrono::milliseconds{number * factor};
        }
    }
    throw CLI::ValidationError{"'" + text + "' is no time; write it as 500ms, 30s, 5m or 2h"};
}

/// The signals that this program waits for, or hands on to the command.
sigset_t waited_signals() {
    sigset_t set;
    ::sigemptyset(&set);
    for (const int each :
         {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGCHLD, lost_signal}) {
        ::sigaddset(&set, each);
    }
    return set;
}

/// Starts the command with the signals as they were. Returns: an errno, 0 if it runs.
int start(std::vector<std::string> command, std::uint64_t fence, const sigset_t& mask,
          pid_t& child) {
    std::vector<char*> words;
    for (std::string& word : command)
        words.push_back(word.data());
    words.push_back(nullptr);
    ::setenv("CODOMYRMEX_FENCE", std::to_string(fence).c_str(), 1);

    // The other end closes when the command runs; until then it can tell why it does not.
    std::array<int, 2> pipe{};
    if (::pipe(pipe.data()) != 0) return errno;
    ::fcntl(pipe[1], F_SETFD, FD_CLOEXEC);
    const pid_t parent = ::getpid();
    child = ::fork();
    if (child == 0) {
        ::close(pipe[0]);
#ifdef __linux__
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);
#endif
        if (::getppid() != parent) ::_exit(not_obtained);
        ::pthread_sigmask(SIG_SETMASK, &mask, nullptr);
        ::execvp(words.front(), words.data());
        const int error = errno;
        ::_exit(::write(pipe[1], &error, sizeof error) == sizeof error ? 127 : 126);
    }
    int error = child < 0 ? errno : 0;
    ::close(pipe[1]);
    if (child > 0 && ::read(pipe[0], &error, sizeof error) == sizeof error) {
        ::waitpid(child, nullptr, 0);
    }
    ::close(pipe[0]);
    return error;
}

/// Waits for the command, hands signals on to it, and ends it if the lease is lost.
int attend(pid_t child, const Lease& lease, std::chrono::milliseconds grace) {
    const sigset_t set = waited_signals();
    const std::stop_callback tell{lease.stop_token(),
                                  [main = ::pthread_self()] { ::pthread_kill(main, lost_signal); }};
    bool was_lost = false;
    Deadline kill_at = Deadline::never();
    for (;;) {
        int status = 0;
        if (::waitpid(child, &status, WNOHANG) == child) {
            if (was_lost) return lost;
            return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
        }
        if (kill_at.expired()) {
            ::kill(child, SIGKILL);
            kill_at = Deadline::never();
        }
        const auto left =
            std::min<std::chrono::nanoseconds>(kill_at.remaining(), std::chrono::seconds{60});
        const auto seconds = std::chrono::floor<std::chrono::seconds>(left);
        const timespec limit{static_cast<time_t>(seconds.count()),
                             static_cast<long>((left - seconds).count())};
        siginfo_t info{};
        const int signal = ::sigtimedwait(&set, &info, &limit);
        if (signal == lost_signal && !was_lost) {
            was_lost = true;
            std::cerr << "with_lock: the lock '" << lease.name() << "' was lost\n";
            ::kill(child, SIGTERM);
            kill_at = Deadline::after(grace);
        } else if (signal > 0 && signal != SIGCHLD && signal != lost_signal &&
                   info.si_code != SI_KERNEL) {
            // What a terminal sends (SI_KERNEL) has reached the command as well.
            ::kill(child, signal);
        }
    }
}

int run(RedisLock& lock, std::chrono::milliseconds wait, std::chrono::milliseconds grace,
        const std::vector<std::string>& command, const sigset_t& mask) {
    // Until the lock is held, signals end this program as any other: the waiting is left to a
    // thread that has them blocked, as all threads but this one have.
    auto waiting = std::async(std::launch::async, [&] { return lock.try_lease_for(wait); });
    sigset_t blocked;
    ::pthread_sigmask(SIG_SETMASK, &mask, &blocked);
    waiting.wait();
    ::pthread_sigmask(SIG_SETMASK, &blocked, nullptr);
    Lease lease = waiting.get();
    if (!lease) {
        std::cerr << "with_lock: '" << lock.name() << "' is held by another\n";
        return not_obtained;
    }
    pid_t child = 0;
    if (const int error = start(command, lease.fence(), mask, child); error != 0) {
        std::cerr << "with_lock: " << command.front() << ": " << std::strerror(error) << '\n';
        return error == ENOENT ? 127 : 126;
    }
    const int status = attend(child, lease, grace);
    std::error_code ended;
    lease.unlock(ended);
    if (ended == LockErrc::lease_lost && status != lost) {
        std::cerr << "with_lock: the lock was lost while the command ran\n";
        return lost;
    }
    return status;
}

}  // namespace

int main(int argc, char** argv) try {
    CLI::App app{"Runs a command while holding a distributed lock."};
    std::string url = "redis://localhost:6379";
    std::string ttl = "30s";
    std::string wait = "10s";
    std::string grace = "5s";
    std::string name;
    std::vector<std::string> command;
    app.add_option("--redis", url, "the server, as redis://host:port or unix:///path")
        ->envname("CODOMYRMEX_REDIS_URL")
        ->type_name("URL")
        ->capture_default_str();
    const auto add_time = [&app](const char* option, std::string& time, const char* what) {
        app.add_option(option, time, what)->type_name("TIME")->capture_default_str();
    };
    add_time("--ttl", ttl, "how soon others may have the lock if this machine dies");
    add_time("--wait", wait, "how long to wait for the lock; 0s: try once");
    add_time("--grace", grace, "from SIGTERM to SIGKILL, if the lock is lost");
    app.add_option("NAME", name, "the name of the lock")->required();
    app.add_option("COMMAND", command, "what to run, after --")->required();
    app.positionals_at_end();
    app.footer(
        "Example: with_lock --redis redis://host --wait 1m nightly -- ./backup.sh --all\n"
        "TIME is 500ms, 30s, 5m or 2h. The command has its fencing token in CODOMYRMEX_FENCE.\n\n"
        "Exit status: the command's, or 128 and the signal that ended it;\n"
        "  64 wrong usage   69 no answer from Redis   75 not obtained within --wait\n"
        "  76 lost while the command ran: it got SIGTERM, and SIGKILL after --grace\n"
        "  126 the command cannot be run   127 there is no such command");
    try {
        app.parse(argc, argv);
        // Some versions of CLI11 hand the separator on.
        if (command.front() == "--") command.erase(command.begin());
        if (command.empty()) throw CLI::RequiredError{"COMMAND"};
        const LeaseOptions options{.ttl = duration(ttl), .label = "with_lock"};
        const auto wait_for = duration(wait);
        const auto grace_for = duration(grace);

        // Before there are other threads, so that signals come to sigtimedwait() alone.
        const sigset_t set = waited_signals();
        sigset_t mask;
        ::pthread_sigmask(SIG_BLOCK, &set, &mask);
        // Who ignores it, which is inherited, is not told how a child ended.
        (void)::signal(SIGCHLD, SIG_DFL);
        RedisClient client{url};
        RedisLock lock{name, client, options};
        return run(lock, wait_for, grace_for, command, mask);
    } catch (const CLI::ParseError& error) {
        const int status = app.exit(error);
        return status == 0 ? 0 : usage;
    }
} catch (const LockError& error) {
    std::cerr << "with_lock: " << error.what() << '\n';
    const bool wrong =
        error.code() == LockErrc::invalid_argument || error.code() == LockErrc::unsupported;
    return wrong ? usage : unavailable;
} catch (const std::exception& error) {
    std::cerr << "with_lock: " << error.what() << '\n';
    return unavailable;
}
