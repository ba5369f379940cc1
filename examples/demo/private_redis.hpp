// SPDX-License-Identifier: MIT
//
// A throw-away redis-server on a unix socket in a folder of its own, ended by its process number.
// Also how the demo starts its own processes.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PRIVATE_REDIS_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PRIVATE_REDIS_HPP

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fcntl.h>
#include <filesystem>
#include <spawn.h>
#include <stdexcept>
#include <string>
#include <sys/wait.h>
#include <system_error>
#include <thread>
#include <unistd.h>
#include <utility>
#include <vector>

namespace demo {

/// A folder that goes with its owner.
class Folder {
  public:
    Folder() {
        std::string pattern =
            (std::filesystem::temp_directory_path() / "codomyrmex-XXXXXX").string();
        if (::mkdtemp(pattern.data()) == nullptr) {
            throw std::runtime_error("no temporary folder can be made: " + pattern);
        }
        path_ = pattern;
    }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    [[nodiscard]] std::string file(const std::string& name) const { return path_ + '/' + name; }

  private:
    std::string path_;
};

/// A child process; ended with its owner if it still runs.
class Child {
  public:
    /// `log`: where its output goes; empty: ours. Throws: if it cannot be started.
    Child(std::vector<std::string> command, const std::string& log) {
        std::vector<char*> words;
        for (std::string& word : command)
            words.push_back(word.data());
        words.push_back(nullptr);
        posix_spawn_file_actions_t actions;
        ::posix_spawn_file_actions_init(&actions);
        if (!log.empty()) {
            ::posix_spawn_file_actions_addopen(&actions, 1, log.c_str(),
                                               O_WRONLY | O_CREAT | O_APPEND, 0600);
            ::posix_spawn_file_actions_adddup2(&actions, 1, 2);
        }
        const int failed =
            ::posix_spawnp(&pid_, words.front(), &actions, nullptr, words.data(), environ);
        ::posix_spawn_file_actions_destroy(&actions);
        if (failed != 0) throw std::runtime_error(command.front() + " cannot be started");
    }
    Child(Child&& other) noexcept : pid_{std::exchange(other.pid_, -1)} {}
    Child& operator=(Child&&) = delete;
    ~Child() {
        if (pid_ <= 0) return;
        kill(SIGKILL);
        wait();
    }

    void kill(int signal) const {
        if (pid_ > 0) ::kill(pid_, signal);
    }

    [[nodiscard]] bool running() {
        int status = 0;
        if (pid_ <= 0 || ::waitpid(pid_, &status, WNOHANG) == 0) return pid_ > 0;
        pid_ = -1;
        return false;
    }

    /// Returns: the exit status, or 128 and the signal.
    int wait() {
        int status = 0;
        if (pid_ <= 0) return -1;
        while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
        return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    pid_t pid_ = -1;
};

class PrivateRedis {
  public:
    /// Throws: std::runtime_error if there is no redis-server or it does not start.
    PrivateRedis() : server_{start()} {
        for (int i = 0; !std::filesystem::exists(socket()); ++i) {
            if (!server_.running() || i == 500)
                throw std::runtime_error("redis-server did not start");
            std::this_thread::sleep_for(std::chrono::milliseconds{10});
        }
    }

    [[nodiscard]] std::string url() const { return "unix://" + socket(); }

  private:
    [[nodiscard]] std::string socket() const { return folder_.file("redis.sock"); }

    // Redis, or what has grown from it.
    [[nodiscard]] Child start() const {
        std::vector<std::string> command{
            "redis-server", "--port", "0",     "--unixsocket",   socket(), "--save", "",
            "--appendonly", "no",     "--dir", folder_.file(".")};
        try {
            return Child{command, folder_.file("log")};
        } catch (const std::runtime_error&) {
            command.front() = "valkey-server";
        }
        try {
            return Child{command, folder_.file("log")};
        } catch (const std::runtime_error&) {
            throw std::runtime_error("neither redis-server nor valkey-server can be started");
        }
    }

    Folder folder_;
    Child server_;
};

}  // namespace demo

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_DEMO_PRIVATE_REDIS_HPP
