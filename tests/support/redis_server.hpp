// SPDX-License-Identifier: MIT
//
// A private redis-server for one test: on a unix socket in a fresh directory, on request also on a
// free loopback port; ended by its pid. With it a plain synchronous client, to look at what the
// code under test left in Redis without using that code.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_SERVER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_SERVER_HPP

#include "support/process.hpp"
#include "support/temp_dir.hpp"

#include <hiredis/hiredis.h>

#include <arpa/inet.h>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <mutex>
#include <netinet/in.h>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace test_support {

/// A reply of Redis as a value.
struct RedisReply {
    enum class Kind { nil, status, error, integer, string, array };

    Kind kind = Kind::nil;
    std::string text;                  ///< Of a status, an error or a string; an integer in digits.
    long long number = 0;              ///< Of an integer.
    std::vector<RedisReply> elements;  ///< Of an array.

    [[nodiscard]] bool is_nil() const noexcept { return kind == Kind::nil; }
    [[nodiscard]] bool is_error() const noexcept { return kind == Kind::error; }

    /// With the words of its text as elements, each with its number if it is one.
    [[nodiscard]] RedisReply split() const {
        RedisReply words = *this;
        std::istringstream stream{text};
        RedisReply word;
        word.kind = Kind::string;
        while (stream >> word.text) {
            word.number = std::strtoll(word.text.c_str(), nullptr, 10);
            words.elements.push_back(word);
        }
        return words;
    }
    /// The same for the answer to a request that called itself `name`, which is taken off.
    /// Throws: std::runtime_error if it does not end with that. An error stays as it is.
    [[nodiscard]] RedisReply answer_to(const std::string& name) const {
        if (is_error()) return *this;
        if (kind != Kind::string || !text.ends_with(' ' + name)) {
            throw std::runtime_error{"an answer without its number: '" + text + "'"};
        }
        RedisReply answer = *this;
        answer.text.resize(text.size() - name.size() - 1);
        return answer.split();
    }

    static RedisReply from(const redisReply& raw) {
        RedisReply reply;
        const auto text = [&] { return std::string(raw.str, static_cast<std::size_t>(raw.len)); };
        switch (raw.type) {
            case REDIS_REPLY_STATUS:
                reply.kind = Kind::status;
                reply.text = text();
                break;
            case REDIS_REPLY_ERROR:
                reply.kind = Kind::error;
                reply.text = text();
                break;
            case REDIS_REPLY_STRING:
                reply.kind = Kind::string;
                reply.text = text();
                break;
            case REDIS_REPLY_INTEGER:
                reply.kind = Kind::integer;
                reply.number = raw.integer;
                reply.text = std::to_string(raw.integer);
                break;
            case REDIS_REPLY_ARRAY:
                reply.kind = Kind::array;
                for (std::size_t i = 0; i < raw.elements; ++i) {
                    reply.elements.push_back(from(*raw.element[i]));
                }
                break;
            default:
                break;
        }
        return reply;
    }
};

/// How many calls, and of them rejected and failed ones, INFO commandstats counts for a command.
struct CommandStats {
    std::uint64_t calls = 0;
    std::uint64_t rejected_calls = 0;
    std::uint64_t failed_calls = 0;
};

/// What a RedisServer is started with.
struct RedisServerOptions {
    std::vector<std::string> args{};  ///< As on the command line, after (and so over) the defaults.
    bool tcp = false;                 ///< Listen on 127.0.0.1 too.
    std::string password{};           ///< Of the default user (requirepass); empty: none.
    bool debug = false;               ///< Allow DEBUG, which Redis 7 forbids by default.
    std::vector<std::string> environment{};  ///< "NAME=value", added to what is inherited.
};

/// A running redis-server. With CODOMYRMEX_LEAST_RIGHTS in the environment whoever connects without
/// a user has only the rights that the README lists; tests that need more must fail then, or SKIP.
/// Threads: command() and what uses it may be called from any thread; the
/// rest from one. It dies with the thread that made it, so make it on the main thread.
class RedisServer {
  public:
    explicit RedisServer(RedisServerOptions options = {}) : options_{std::move(options)} {
        for (int attempt = 1;; ++attempt) {
            if (options_.tcp) port_ = free_port();
            try {
                start();
                return;
            } catch (const std::exception&) {
                // Somebody else may have taken the port since it was seen free.
                if (!options_.tcp || attempt == 5 || !log_has("Address already in use")) throw;
                std::ofstream{log_path(), std::ios::trunc};
            }
        }
    }

    /// A server with extra arguments, as in `RedisServer server{{"--maxmemory", "2mb"}}`.
    explicit RedisServer(std::vector<std::string> args)
        : RedisServer{RedisServerOptions{.args = std::move(args)}} {}

    RedisServer(const RedisServer&) = delete;
    RedisServer& operator=(const RedisServer&) = delete;

    /// By SIGKILL: there is nothing to save, and an orderly end takes 100 ms.
    ~RedisServer() { kill(); }

    /// The server program: CODOMYRMEX_REDIS_SERVER, else redis-server or valkey-server in PATH;
    /// empty if there is none.
    [[nodiscard]] static std::string program() {
        if (const char* named = std::getenv("CODOMYRMEX_REDIS_SERVER")) return named;
        const char* variable = std::getenv("PATH");
        const std::string path = variable != nullptr ? variable : "/usr/bin:/bin";
        for (const std::string_view name : {"redis-server", "valkey-server"}) {
            for (std::size_t begin = 0; begin <= path.size();) {
                const std::size_t end = std::min(path.find(':', begin), path.size());
                std::string file = path.substr(begin, end - begin) + "/" + std::string{name};
                if (::access(file.c_str(), X_OK) == 0) return file;
                begin = end + 1;
            }
        }
        return {};
    }

    /// Whether there is a server program at all, for tests that SKIP.
    [[nodiscard]] static bool available() { return !program().empty(); }

    /// "unix:///path", or "unix://userinfo@/path".
    [[nodiscard]] std::string url(std::string_view userinfo = {}) const {
        return "unix://" + at(userinfo) + socket_path();
    }
    /// "redis://127.0.0.1:port"; needs RedisServerOptions::tcp.
    [[nodiscard]] std::string tcp_url(std::string_view userinfo = {}) const {
        if (port_ == 0) throw std::logic_error{"this RedisServer has no TCP port"};
        return "redis://" + at(userinfo) + "127.0.0.1:" + std::to_string(port_);
    }
    [[nodiscard]] std::string socket_path() const { return dir_.file("redis.sock"); }
    [[nodiscard]] std::string log_path() const { return dir_.file("redis.log"); }
    /// The TCP port; 0 if there is none.
    [[nodiscard]] std::uint16_t port() const noexcept { return port_; }
    [[nodiscard]] pid_t pid() const noexcept { return process_.pid(); }
    [[nodiscard]] bool running() { return process_.running(); }

    /// A port of 127.0.0.1 that nobody has at the moment.
    static std::uint16_t free_port() {
        const Fd socket{::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
        if (!socket) throw_errno("socket");
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        auto* const generic = reinterpret_cast<sockaddr*>(&address);
        if (::bind(socket.get(), generic, size) != 0) throw_errno("bind");
        if (::getsockname(socket.get(), generic, &size) != 0) throw_errno("getsockname");
        return ntohs(address.sin_port);
    }

    /// SIGSTOP: the server answers nobody, its connections stay open. Returns once it has stopped.
    void stop() { process_.stop(); }
    /// SIGCONT.
    void cont() { process_.cont(); }
    /// SIGKILL: what is not on disk is lost.
    void kill() {
        disconnect();
        process_.kill();
    }
    /// SIGTERM, and SIGKILL if that does not serve: an orderly end.
    void terminate() {
        disconnect();
        process_.terminate();
    }
    /// Starts it again at the same addresses in the same directory; ends it first if it runs.
    void restart() {
        terminate();
        start();
    }

    /// Sends one command and returns its reply, which may be an error. Throws std::runtime_error
    /// if no reply comes within 5 s. The connection is kept, and made anew after a failure.
    RedisReply command(const std::vector<std::string>& words) {
        const std::lock_guard guard{mutex_};
        const NoSigpipe no_sigpipe;
        if (!context_) connect();
        return exchange(words);
    }

    /// The same for several, which are sent at once; the replies in their order.
    std::vector<RedisReply> commands(const std::vector<std::vector<std::string>>& all) {
        const std::lock_guard guard{mutex_};
        const NoSigpipe no_sigpipe;
        if (!context_) connect();
        for (const auto& words : all)
            append(words);
        std::vector<RedisReply> replies;
        while (replies.size() < all.size())
            replies.push_back(receive());
        return replies;
    }

    /// The counters of one command, by its lower-case name ("evalsha", "config|get").
    [[nodiscard]] CommandStats command_stats(std::string_view name) {
        const std::string info = command({"INFO", "commandstats"}).text;
        const std::string head = "cmdstat_" + std::string{name} + ":";
        const auto begin = info.find(head);
        if (begin == std::string::npos) return {};
        const std::string line = info.substr(begin, info.find('\r', begin) - begin);
        const auto field = [&](const std::string& key) -> std::uint64_t {
            const auto at = line.find(key + "=");
            return at == std::string::npos ? 0 : std::stoull(line.substr(at + key.size() + 1));
        };
        // "calls" also ends the other two names, but comes first in the line.
        return {field("calls"), field("rejected_calls"), field("failed_calls")};
    }

    /// One field of INFO, such as "redis_version" or "run_id"; empty if it is not there.
    [[nodiscard]] std::string info(std::string_view field) {
        const std::string info = "\n" + command({"INFO"}).text;
        const std::string head = "\n" + std::string{field} + ":";
        const auto begin = info.find(head);
        if (begin == std::string::npos) return {};
        const auto value = begin + head.size();
        return info.substr(value, info.find_first_of("\r\n", value) - value);
    }

    /// The end of the server's log.
    [[nodiscard]] std::string log_tail(std::size_t bytes = 2000) const {
        const std::string text = read_log();
        return text.size() <= bytes ? text : text.substr(text.size() - bytes);
    }

    /// Whether CODOMYRMEX_LEAST_RIGHTS is set: the code under test then has no more rights than the
    /// README says that it needs, and command() another user.
    [[nodiscard]] static bool least_rights() {
        return std::getenv("CODOMYRMEX_LEAST_RIGHTS") != nullptr;
    }

  private:
    struct FreeContext {
        void operator()(redisContext* context) const noexcept { redisFree(context); }
    };

    static std::string at(std::string_view userinfo) {
        return userinfo.empty() ? std::string{} : std::string{userinfo} + "@";
    }

    void start() {
        const std::string server = program();
        if (server.empty()) {
            throw std::runtime_error{
                "no redis-server in PATH; install it or set CODOMYRMEX_REDIS_SERVER"};
        }
        std::vector<std::string> argv{server,
                                      "--port",
                                      std::to_string(port_),
                                      "--bind",
                                      "127.0.0.1",
                                      "--unixsocket",
                                      socket_path(),
                                      "--dir",
                                      dir_.path(),
                                      "--save",
                                      "",
                                      "--appendonly",
                                      "no",
                                      "--daemonize",
                                      "no"};
        if (least_rights()) {
            const std::vector<std::string> user = default_user();
            argv.insert(argv.end(), user.begin(), user.end());
        } else if (!options_.password.empty()) {
            argv.insert(argv.end(), {"--requirepass", options_.password});
        }
        if (options_.debug && major_version(server) >= 7) {
            argv.insert(argv.end(), {"--enable-debug-command", "yes"});
        }
        argv.insert(argv.end(), options_.args.begin(), options_.args.end());
        process_ =
            Process::spawn(argv, {.output = log_path(), .environment = options_.environment});
        try {
            wait_until_ready();
        } catch (...) {
            process_.kill();
            throw;
        }
    }

    void wait_until_ready() {
        const auto until = std::chrono::steady_clock::now() + std::chrono::seconds{20};
        for (;;) {
            std::string seen;
            try {
                const RedisReply pong = command({"PING"});
                // Any answer means that it serves, except that it still reads its data.
                if (!pong.text.starts_with("LOADING")) return;
                seen = pong.text;
            } catch (const std::runtime_error& error) {
                seen = error.what();
            }
            // The pause between two looks ends early if the server does.
            if (const auto status = process_.wait(std::chrono::milliseconds{2})) {
                throw std::runtime_error{"redis-server ended with " + status->to_string() +
                                         "; its log:\n" + log_tail()};
            }
            if (std::chrono::steady_clock::now() >= until) {
                throw std::runtime_error{"redis-server is not ready after 20 s: " + seen +
                                         "; its log:\n" + log_tail()};
            }
        }
    }

    void disconnect() {
        const std::lock_guard guard{mutex_};
        context_.reset();
    }

    void connect() {
        context_.reset(redisConnectUnixWithTimeout(socket_path().c_str(), timeval{5, 0}));
        if (!context_) throw std::runtime_error{"hiredis: out of memory"};
        if (context_->err != 0) fail();
        if (redisSetTimeout(context_.get(), timeval{5, 0}) != REDIS_OK) fail();
        if (least_rights()) {
            exchange({"AUTH", "test", "test"});
        } else if (!options_.password.empty()) {
            exchange({"AUTH", options_.password});
        }
    }

    [[nodiscard]] std::vector<std::string> default_user() const {
        std::vector<std::string> words{"--user", "test",   "on",      ">test", "~*", "&*",
                                       "+@all",  "--user", "default", "reset", "on"};
        words.push_back(options_.password.empty() ? "nopass" : ">" + options_.password);
        for (const char* rule :
             {"~codomyrmex:*", "&codomyrmex:*", "+evalsha", "+eval", "+time", "+get", "+set",
              "+del", "+pttl", "+pexpire", "+incrby", "+zadd", "+zrem", "+zrange", "+zrank",
              "+zcard", "+exists", "+ping", "+auth", "+select", "+client|setname", "+publish",
              "+subscribe", "+pubsub|numsub",
              // Of semaphores and read-write locks.
              "+hget", "+hset", "+hdel", "+hincrby", "+zscore", "+zrangebyscore", "+pexpireat",
              // Of several locks at once.
              "+mget",
              // Of operators, and of a quorum with a least uptime.
              "+scan", "+zcount", "+info"}) {
            words.emplace_back(rule);
        }
        return words;
    }

    RedisReply exchange(const std::vector<std::string>& words) {
        append(words);
        return receive();
    }

    void append(const std::vector<std::string>& words) {
        std::vector<const char*> argv;
        std::vector<std::size_t> sizes;
        for (const auto& word : words) {
            argv.push_back(word.data());
            sizes.push_back(word.size());
        }
        if (redisAppendCommandArgv(context_.get(), static_cast<int>(argv.size()), argv.data(),
                                   sizes.data()) != REDIS_OK) {
            fail();
        }
    }

    RedisReply receive() {
        void* raw = nullptr;
        if (redisGetReply(context_.get(), &raw) != REDIS_OK) fail();
        const std::unique_ptr<void, void (*)(void*)> owner{raw, freeReplyObject};
        return RedisReply::from(*static_cast<const redisReply*>(raw));
    }

    [[noreturn]] void fail() {
        const std::string what = context_->errstr;
        context_.reset();
        throw std::runtime_error{"redis-server at " + socket_path() + ": " + what};
    }

    [[nodiscard]] std::string read_log() const {
        std::ifstream file{log_path(), std::ios::binary};
        return {std::istreambuf_iterator<char>{file}, {}};
    }
    [[nodiscard]] bool log_has(std::string_view text) const {
        return read_log().find(text) != std::string::npos;
    }

    /// From "Redis server v=7.0.15 sha=...".
    static int major_version(const std::string& server) {
        Pipe pipe;
        Process process = Process::spawn({server, "--version"}, {.output_fd = pipe.write_fd()});
        pipe.close_write();
        const std::string line = pipe.receive().value_or("");
        const auto at = line.find(" v=");
        return at == std::string::npos ? 0 : std::atoi(line.c_str() + at + 3);
    }

    RedisServerOptions options_;
    TempDir dir_;
    std::uint16_t port_ = 0;
    Process process_;
    std::mutex mutex_;
    std::unique_ptr<redisContext, FreeContext> context_;
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_SERVER_HPP
