// SPDX-License-Identifier: MIT
//
// lockctl top: what is held, looked at again and again. On a terminal it takes the screen over and
// gives it back as it was, whatever way it ends; elsewhere it prints one look after another.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_TOP_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_TOP_HPP

#include <codomyrmex/concurrency/redis.hpp>

#include "output.hpp"

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <iomanip>
#include <iostream>
#include <map>
#include <optional>
#include <poll.h>
#include <sstream>
#include <string>
#include <string_view>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace lockctl {

using codomyrmex::concurrency::Deadline;
using codomyrmex::concurrency::RedisClient;

struct TopOptions {
    std::string pattern{};
    std::chrono::duration<double> interval{1};
    std::optional<unsigned> count{};
    bool json = false;
};

// Set by a signal that ends the program.
inline volatile std::sig_atomic_t ended = 0;

/// While it lives, SIGINT, SIGTERM and SIGHUP only set `ended`, and interrupt nothing but wait().
class Signals {
  public:
    Signals() {
        struct sigaction action {};
        action.sa_handler = [](int) { ended = 1; };
        sigset_t blocked;
        ::sigemptyset(&blocked);
        for (std::size_t i = 0; i < numbers.size(); ++i) {
            ::sigaddset(&blocked, numbers[i]);
            ::sigaction(numbers[i], &action, &before_[i]);
        }
        ::pthread_sigmask(SIG_BLOCK, &blocked, &mask_);
    }
    Signals(const Signals&) = delete;
    Signals& operator=(const Signals&) = delete;
    ~Signals() {
        for (std::size_t i = 0; i < numbers.size(); ++i)
            ::sigaction(numbers[i], &before_[i], nullptr);
        ::pthread_sigmask(SIG_SETMASK, &mask_, nullptr);
    }

    /// Waits for one of the files, or a signal.
    int wait(std::array<pollfd, 2>& files, std::chrono::nanoseconds limit) const {
        const auto seconds = std::chrono::floor<std::chrono::seconds>(limit);
        const timespec time{static_cast<time_t>(seconds.count()),
                            static_cast<long>((limit - seconds).count())};
        return ::ppoll(files.data(), files.size(), &time, &mask_);
    }

  private:
    static constexpr std::array<int, 3> numbers{SIGINT, SIGTERM, SIGHUP};
    std::array<struct sigaction, 3> before_{};
    sigset_t mask_{};
};

/// The terminal as a screen: no echo, no lines, a page of its own.
class Screen {
  public:
    Screen() {
        ::tcgetattr(STDIN_FILENO, &before_);
        termios raw = before_;
        raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
        ::tcsetattr(STDIN_FILENO, TCSANOW, &raw);
        std::cout << "\033[?1049h\033[?25l" << std::flush;
    }
    Screen(const Screen&) = delete;
    Screen& operator=(const Screen&) = delete;
    ~Screen() {
        std::cout << "\033[?25h\033[?1049l" << std::flush;
        ::tcsetattr(STDIN_FILENO, TCSANOW, &before_);
    }

    /// Shows as much of it as there is room for.
    static void draw(const std::string& text) {
        winsize size{};
        const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 0;
        std::size_t lines = known ? size.ws_row : 24U;
        const std::size_t columns = known && size.ws_col > 0 ? size.ws_col : 80U;
        std::cout << "\033[H";
        std::istringstream all{text};
        for (std::string line; lines > 1 && std::getline(all, line); --lines)
            std::cout << cut(line, columns) << "\033[K\r\n";
        std::cout << "\033[J" << std::flush;
    }

  private:
    /// So many characters of it, and all its colours.
    static std::string cut(std::string_view line, std::size_t columns) {
        std::string text;
        for (std::size_t i = 0; i < line.size(); ++i) {
            if (line[i] == '\033') {
                const std::size_t end = std::min(line.find('m', i), line.size() - 1);
                text += line.substr(i, end + 1 - i);
                i = end;
                continue;
            }
            const bool begins = (line[i] & 0xc0) != 0x80;
            if (begins && columns == 0) continue;
            if (begins) --columns;
            text += line[i];
        }
        return text;
    }

    termios before_{};
};

/// Counts the hand-overs between processes by listening to their grants, as nobody else can count
/// them. Hands of one process pass a lock on without a word to the server; these are not seen.
class Grants {
  public:
    explicit Grants(const RedisClient& client) : prefix_{client.options().prefix} {
        using codomyrmex::concurrency::redis::Io;
        const Deadline limit = Deadline::after(client.options().connect_timeout);
        std::string channels;
        for (const char byte : prefix_ + "wake:") {
            if (std::string_view{"*?[]^-\\"}.find(byte) != std::string_view::npos) channels += '\\';
            channels += byte;
        }
        channels += '*';
        if (connection_.open(client.endpoint(), client.options(), limit) != Io::done) return;
        connection_.append({"PSUBSCRIBE", channels});
        if (connection_.flush(limit) == Io::done && connection_.wait(false, limit) == Io::done) {
            receive();
        } else {
            connection_.close();
        }
        since_ = Deadline::clock::now();
    }

    /// The file to wait for; -1 if nothing is heard.
    [[nodiscard]] int descriptor() const { return connection_.descriptor(); }

    void receive() {
        using codomyrmex::concurrency::redis::Io;
        using codomyrmex::concurrency::redis::Reply;
        if (!connection_.is_open()) return;
        bool refused = false;
        const Io got = connection_.receive_ready([&](const Reply& reply) {
            refused = refused || reply.is_error();
            if (reply.elements.size() != 4) return;
            const auto text = reply.elements[3].as_text();
            if (!text) return;
            const auto message = codomyrmex::concurrency::redis::read_message(*text);
            if (message && message->verb == "grant") ++counts_[std::string{message->key}];
        });
        if (got != Io::done || refused) connection_.close();
    }

    /// Hand-overs a second of each lock since the last call; nothing if it is not known.
    [[nodiscard]] std::optional<std::map<std::string, double>> rates() {
        if (!connection_.is_open()) return std::nullopt;
        const auto now = Deadline::clock::now();
        const double seconds = std::chrono::duration<double>{now - since_}.count();
        since_ = now;
        std::map<std::string, double> rates;
        for (const auto& [key, count] : std::exchange(counts_, {})) {
            const auto named = codomyrmex::concurrency::redis::name_of_key(prefix_, key);
            if (named) rates[named->second] = static_cast<double>(count) / seconds;
        }
        return rates;
    }

  private:
    std::string prefix_;
    codomyrmex::concurrency::redis::Connection connection_;
    std::map<std::string, std::uint64_t> counts_;
    Deadline::clock::time_point since_{};
};

using Rates = std::optional<std::map<std::string, double>>;

inline std::string rate_of(const Rates& rates, const RedisEntry& entry) {
    if (!rates || entry.kind != codomyrmex::concurrency::PrimitiveKind::lock) return "-";
    const auto found = rates->find(entry.name);
    std::ostringstream text;
    text << std::fixed << std::setprecision(1) << (found == rates->end() ? 0 : found->second);
    return text.str();
}

inline std::string page(const RedisClient& client, std::vector<RedisEntry> entries,
                        const Rates& rates, const Style& style) {
    std::size_t waiting = 0;
    double rate = 0;
    for (const RedisEntry& entry : entries)
        waiting += entry.waiting;
    if (rates) {
        for (const auto& [name, its] : *rates)
            rate += its;
    }
    // Those that are waited for most come first.
    std::ranges::stable_sort(
        entries, [](const RedisEntry& a, const RedisEntry& b) { return a.waiting > b.waiting; });
    std::ostringstream out;
    out << style.bold << shown(client.endpoint().to_string()) << style.plain << ": "
        << entries.size() << " held, " << waiting << " waiting";
    if (rates) out << std::fixed << std::setprecision(1) << ", " << rate << " hand-overs a second";
    out << "\n\n";
    std::vector<std::vector<std::string>> rows{entry_titles};
    rows[0].insert(rows[0].begin() + 6, "PER SEC");
    for (const RedisEntry& entry : entries) {
        rows.push_back(cells(entry));
        rows.back().insert(
            rows.back().begin() + std::min<std::ptrdiff_t>(6, std::ssize(rows.back())),
            rate_of(rates, entry));
    }
    print_table(out, rows, style);
    return out.str();
}

inline std::string json_page(const std::vector<RedisEntry>& entries, const Rates& rates) {
    std::string json = "[";
    for (const RedisEntry& entry : entries) {
        if (json.size() > 1) json += ',';
        std::string one = to_json(entry);
        one.pop_back();
        const std::string rate = rate_of(rates, entry);
        json += one + ",\"handovers_per_second\":" + (rate == "-" ? "null" : rate) + '}';
    }
    return json + "]\n";
}

/// Ends after so many looks, at a `q` on a terminal, or at a signal.
inline void run_top(RedisClient& client, const TopOptions& options) {
    const bool screen_there =
        ::isatty(STDIN_FILENO) != 0 && ::isatty(STDOUT_FILENO) != 0 && !options.json;
    const unsigned count = options.count.value_or(screen_there ? 0 : 1);
    // One look has no time in which to count.
    std::optional<Grants> grants;
    if (count != 1) grants.emplace(client);
    // The first look connects: what fails should fail before the screen is taken.
    std::vector<RedisEntry> entries = client.list(options.pattern);
    const Signals signals;
    std::optional<Screen> screen;
    if (screen_there) screen.emplace();
    const Style style = Style::of(STDOUT_FILENO);
    bool first = true;
    for (unsigned looks = 0; ended == 0;) {
        if (!std::exchange(first, false)) entries = client.list(options.pattern);
        Rates rates;
        if (looks != 0 && grants) rates = grants->rates();
        if (screen) {
            Screen::draw(page(client, entries, rates, style) + "\nq: end\n");
        } else if (options.json) {
            std::cout << json_page(entries, rates) << std::flush;
        } else {
            std::cout << (looks != 0 ? "\n" : "") << page(client, entries, rates, style)
                      << std::flush;
        }
        if (++looks == count) return;
        const Deadline next = Deadline::after(options.interval);
        while (ended == 0 && !next.expired()) {
            std::array<pollfd, 2> files{{{screen ? STDIN_FILENO : -1, POLLIN, 0},
                                         {grants ? grants->descriptor() : -1, POLLIN, 0}}};
            if (signals.wait(files, next.remaining()) < 0 && errno != EINTR) return;
            if (files[1].revents != 0) grants->receive();
            if (files[0].revents == 0) continue;
            char key = 0;
            if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q' || key == 'Q') return;
        }
    }
}

}  // namespace lockctl

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_LOCKCTL_TOP_HPP
