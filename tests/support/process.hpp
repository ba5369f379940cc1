// SPDX-License-Identifier: MIT
//
// Child processes for tests: a program (fork and exec) or a function (fork), waited for with a
// limit, stopped, continued, killed, and never left behind: the destructor kills and reaps, and
// the kernel kills the child if the test dies first. Pipes carry messages between them.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_PROCESS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_PROCESS_HPP

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <exception>
#include <fcntl.h>
#include <optional>
#include <poll.h>
#include <string>
#include <string_view>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <system_error>
#include <unistd.h>
#include <utility>
#include <vector>

namespace test_support {

/// Throws the system_error of errno.
[[noreturn]] inline void throw_errno(const std::string& what) {
    throw std::system_error{errno, std::generic_category(), what};
}

/// A file descriptor with an owner.
class Fd {
  public:
    Fd() = default;
    explicit Fd(int fd) noexcept : fd_{fd} {}
    Fd(Fd&& other) noexcept : fd_{std::exchange(other.fd_, -1)} {}
    Fd& operator=(Fd&& other) noexcept {
        if (this != &other) reset(std::exchange(other.fd_, -1));
        return *this;
    }
    ~Fd() { reset(); }

    [[nodiscard]] int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }
    void reset(int fd = -1) noexcept {
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
    }

  private:
    int fd_ = -1;
};

/// Keeps SIGPIPE from this thread while it lives: hiredis writes without MSG_NOSIGNAL. The process
/// keeps its disposition, so that code under test is still seen to raise it.
class NoSigpipe {
  public:
    NoSigpipe() {
        ::sigemptyset(&pipe_);
        ::sigaddset(&pipe_, SIGPIPE);
        ::pthread_sigmask(SIG_BLOCK, &pipe_, &before_);
    }
    NoSigpipe(const NoSigpipe&) = delete;
    NoSigpipe& operator=(const NoSigpipe&) = delete;
    ~NoSigpipe() {
        const timespec at_once{};
        while (::sigtimedwait(&pipe_, nullptr, &at_once) > 0) {
        }
        ::pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    }

  private:
    sigset_t pipe_{};
    sigset_t before_{};
};

/// poll(2) on one descriptor, going on after signals, until `until`. Returns the events seen, 0
/// when the time is up.
inline short wait_for(int fd, short events, std::chrono::steady_clock::time_point until) {
    for (;;) {
        const auto left = until - std::chrono::steady_clock::now();
        const auto ms = std::chrono::ceil<std::chrono::milliseconds>(left).count();
        pollfd entry{fd, events, 0};
        const int n = ::poll(&entry, 1, static_cast<int>(std::clamp<long long>(ms, 0, 1 << 30)));
        if (n > 0) return entry.revents;
        if (n == 0 && ms <= 0) return 0;
        if (n < 0 && errno != EINTR) throw_errno("poll");
    }
}

/// Lines of text from one process to another. Make it before the fork; both sides then hold both
/// ends, and each closes the one that it does not use (so that the end of the other is noticed).
/// One thread reads. Lines shorter than PIPE_BUF from several writers do not mix.
class Pipe {
  public:
    Pipe() {
        int ends[2];
        if (::pipe2(ends, O_CLOEXEC) != 0) throw_errno("pipe2");
        read_ = Fd{ends[0]};
        write_ = Fd{ends[1]};
    }

    /// Sends `line`, which has no line feed in it.
    void send(std::string_view line) {
        const std::string text = std::string{line} + "\n";
        for (std::size_t done = 0; done < text.size();) {
            const ssize_t n = ::write(write_.get(), text.data() + done, text.size() - done);
            if (n < 0 && errno != EINTR) throw_errno("write to a pipe");
            if (n > 0) done += static_cast<std::size_t>(n);
        }
    }

    /// The next line, or nothing: time up, or the end of the stream.
    [[nodiscard]] std::optional<std::string> receive(
        std::chrono::nanoseconds timeout = std::chrono::seconds{10}) {
        const auto until = std::chrono::steady_clock::now() + timeout;
        for (;;) {
            if (const auto end = buffer_.find('\n'); end != std::string::npos) {
                std::string line = buffer_.substr(0, end);
                buffer_.erase(0, end + 1);
                return line;
            }
            if (wait_for(read_.get(), POLLIN, until) == 0) return std::nullopt;
            char bytes[4096];
            const ssize_t n = ::read(read_.get(), bytes, sizeof bytes);
            if (n == 0) return std::nullopt;
            if (n < 0 && errno != EINTR) throw_errno("read from a pipe");
            if (n > 0) buffer_.append(bytes, static_cast<std::size_t>(n));
        }
    }

    void close_read() noexcept { read_.reset(); }
    void close_write() noexcept { write_.reset(); }
    [[nodiscard]] int read_fd() const noexcept { return read_.get(); }
    [[nodiscard]] int write_fd() const noexcept { return write_.get(); }

  private:
    Fd read_;
    Fd write_;
    std::string buffer_;
};

/// How a process ended: with an exit code, or by a signal.
struct ExitStatus {
    int code = -1;   ///< The exit code; -1 if a signal ended it.
    int signal = 0;  ///< The signal that ended it; 0 if it exited.

    friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
    [[nodiscard]] bool success() const noexcept { return code == 0; }
    [[nodiscard]] std::string to_string() const {
        return signal == 0 ? "exit code " + std::to_string(code)
                           : "signal " + std::to_string(signal);
    }
};

/// What a program is started with.
struct SpawnOptions {
    std::string output{};                    ///< File for its stdout and stderr; empty: inherited.
    int output_fd = -1;                      ///< Descriptor for its stdout, if not negative.
    std::vector<std::string> environment{};  ///< "NAME=value", added to what is inherited.
};

/// A child process. Not thread-safe. The child also dies if the thread that started it ends
/// (PR_SET_PDEATHSIG is about threads), so start it on the main thread.
class Process {
  public:
    using clock = std::chrono::steady_clock;

    Process() = default;
    Process(Process&& other) noexcept
        : pid_{std::exchange(other.pid_, -1)},
          pidfd_{std::move(other.pidfd_)},
          status_{std::exchange(other.status_, std::nullopt)} {}
    Process& operator=(Process&& other) noexcept {
        if (this != &other) {
            end();
            pid_ = std::exchange(other.pid_, -1);
            pidfd_ = std::move(other.pidfd_);
            status_ = std::exchange(other.status_, std::nullopt);
        }
        return *this;
    }
    ~Process() { end(); }

    /// Starts the program argv[0], looked up in PATH, with default signal handling and no
    /// descriptors but the standard three. If it cannot be run, it ends with exit code 127.
    [[nodiscard]] static Process spawn(const std::vector<std::string>& argv,
                                       const SpawnOptions& options = {}) {
        // All that allocates comes before the fork: other threads may hold the heap's lock.
        std::vector<char*> args;
        for (const auto& arg : argv)
            args.push_back(const_cast<char*>(arg.c_str()));
        args.push_back(nullptr);
        std::vector<char*> environment;
        for (const auto& entry : options.environment) {
            environment.push_back(const_cast<char*>(entry.c_str()));
        }
        for (char** entry = environ; *entry != nullptr; ++entry)
            environment.push_back(*entry);
        environment.push_back(nullptr);
        Fd output;
        if (!options.output.empty()) {
            output =
                Fd{::open(options.output.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)};
            if (!output) throw_errno("open " + options.output);
        }
        const pid_t parent = ::getpid();
        const pid_t pid = ::fork();
        if (pid < 0) throw_errno("fork");
        if (pid == 0) {
            die_with(parent);
            reset_signals();
            if (output) {
                ::dup2(output.get(), STDOUT_FILENO);
                ::dup2(output.get(), STDERR_FILENO);
            }
            if (options.output_fd >= 0) ::dup2(options.output_fd, STDOUT_FILENO);
            close_from(3);
            ::execvpe(args[0], args.data(), environment.data());
            ::_exit(127);
        }
        return Process{pid};
    }

    /// Runs `function` in a forked copy of this process; what it returns (an int) is the exit code.
    /// An exception is printed and gives exit code 126. The child leaves by _exit: no destructors
    /// of statics, no atexit. Fork before this process has threads, if the child shall start any.
    template <class Function>
    [[nodiscard]] static Process run(Function&& function) {
        std::fflush(nullptr);
        const pid_t parent = ::getpid();
        const pid_t pid = ::fork();
        if (pid < 0) throw_errno("fork");
        if (pid == 0) {
            die_with(parent);
            reset_signals();
            int code = 126;
            try {
                code = std::forward<Function>(function)();
            } catch (const std::exception& error) {
                std::fprintf(stderr, "child %d: %s\n", static_cast<int>(::getpid()), error.what());
            } catch (...) {
                std::fprintf(stderr, "child %d: unknown exception\n", static_cast<int>(::getpid()));
            }
            std::fflush(nullptr);
            ::_exit(code);
        }
        return Process{pid};
    }

    [[nodiscard]] pid_t pid() const noexcept { return pid_; }

    /// Whether it still runs (a stopped process does).
    [[nodiscard]] bool running() { return pid_ > 0 && !wait(std::chrono::nanoseconds::zero()); }

    /// Waits until the process has ended, at most `timeout`. Returns how, or nothing.
    [[nodiscard]] std::optional<ExitStatus> wait(
        std::chrono::nanoseconds timeout = std::chrono::seconds{30}) {
        if (pid_ <= 0 || status_) return status_;
        const auto until = clock::now() + timeout;
        for (;;) {
            reap(WNOHANG);
            if (status_ || clock::now() >= until) return status_;
            if (pidfd_) {
                wait_for(pidfd_.get(), POLLIN, until);
            } else {
                ::poll(nullptr, 0, 2);  // A kernel before 5.3: look again shortly.
            }
        }
    }

    /// Sends a signal; nothing if it has ended.
    void signal(int number) {
        if (running() && ::kill(pid_, number) != 0) throw_errno("kill");
    }

    /// SIGSTOP; returns when the process has stopped (or ended).
    void stop() {
        signal(SIGSTOP);
        if (!status_) reap(WUNTRACED);
    }

    /// SIGCONT.
    void cont() { signal(SIGCONT); }

    /// SIGKILL, and reaps it.
    ExitStatus kill() {
        signal(SIGKILL);
        if (!status_) reap(0);
        return status_.value_or(ExitStatus{});
    }

    /// SIGTERM, after `grace` SIGKILL; reaps it.
    ExitStatus terminate(std::chrono::nanoseconds grace = std::chrono::seconds{5}) {
        signal(SIGTERM);
        signal(SIGCONT);
        if (const auto status = wait(grace)) return *status;
        return kill();
    }

  private:
    explicit Process(pid_t pid) : pid_{pid} {
#ifdef SYS_pidfd_open
        pidfd_ = Fd{static_cast<int>(::syscall(SYS_pidfd_open, pid, 0))};
#endif
    }

    void reap(int options) {
        int raw = 0;
        pid_t got = 0;
        do {
            got = ::waitpid(pid_, &raw, options);
        } while (got < 0 && errno == EINTR);
        if (got < 0) throw_errno("waitpid");
        if (got == 0) return;
        if (WIFEXITED(raw)) status_ = ExitStatus{WEXITSTATUS(raw), 0};
        if (WIFSIGNALED(raw)) status_ = ExitStatus{-1, WTERMSIG(raw)};
        if (status_) pidfd_.reset();
    }

    void end() noexcept {
        try {
            if (pid_ > 0 && !status_) kill();
        } catch (const std::exception& error) {
            std::fprintf(stderr, "process %d: %s\n", static_cast<int>(pid_), error.what());
        }
    }

    static void die_with(pid_t parent) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (::getppid() != parent) ::_exit(125);  // It died before the line above.
    }

    static void reset_signals() {
        for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGCHLD}) {
            ::signal(number, SIG_DFL);
        }
        sigset_t none;
        ::sigemptyset(&none);
        ::sigprocmask(SIG_SETMASK, &none, nullptr);
    }

    static void close_from(unsigned first) {
#ifdef SYS_close_range
        if (::syscall(SYS_close_range, first, ~0U, 0U) == 0) return;
#endif
        for (unsigned fd = first; fd < 1024; ++fd)
            ::close(static_cast<int>(fd));
    }

    pid_t pid_ = -1;
    Fd pidfd_;
    std::optional<ExitStatus> status_;
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_PROCESS_HPP
