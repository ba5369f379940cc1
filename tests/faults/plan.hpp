// SPDX-License-Identifier: MIT
//
// What the driver of a fault run (run.cpp) and its workers (worker.cpp) agree on: what a worker is
// started with, and the numbers of the names that they lock. The driver knows nothing of the
// library, so that one driver judges workers that were built against any copy of it.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_PLAN_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_PLAN_HPP

#include <charconv>
#include <csignal>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace faults {

/// What a worker is asked for by a signal: only it can do that to itself.
inline constexpr int ask_to_fork = SIGUSR1;     ///< in the middle of a lease
inline constexpr int ask_to_exit = SIGHUP;      ///< the process, while it holds
inline constexpr int ask_thread_end = SIGALRM;  ///< a thread, while it holds
inline constexpr int mere_noise = SIGUSR2;      ///< to be interrupted

/// Names that all workers of a server fight for, each with options of its own.
inline constexpr std::uint32_t contended_names = 4;
/// The name whose holders end without giving it back; `max_hold` ends those leases.
inline constexpr std::uint32_t left_behind_name = contended_names;
/// From here on, names that one thread has for itself.
inline constexpr std::uint32_t first_own_name = 8;
inline constexpr std::uint32_t most_threads = 8;

/// The names of a server, at most, if it has workers in `slots` slots.
[[nodiscard]] constexpr std::uint32_t names_of(std::uint32_t slots) noexcept {
    return first_own_name + slots * most_threads;
}

/// Numbers of processes are multiples of this; a process' children count on from its own.
inline constexpr std::int32_t numbers_of_a_worker = 1'000;

/// What a worker is to do.
struct Plan {
    std::string url{};
    std::string history{};    ///< file to append records to
    std::string folder{};     ///< of the fenced registers
    std::string commands{};   ///< a FIFO with commands to obey; empty: does as it likes until `end`
    std::int64_t number = 0;  ///< of the process, in the history
    std::int64_t slot = 0;    ///< which of the names of its own are its
    std::int64_t seed = 1;
    std::int64_t end = 0;  ///< on the clock of the records
    std::int64_t threads = 3;
    std::int64_t ttl_ms = 400;  ///< the shortest; others are multiples
    std::int64_t grant_ttl_ms = 200;
    std::int64_t shortest_wait_ms = 1;
    std::int64_t response_ms = 300;
    std::int64_t patience_ms = 2'000;

    /// Calls `use(name, member)` for each member.
    template <class Self, class Use>
    static void each(Self& self, Use use) {
        use("url", self.url);
        use("history", self.history);
        use("folder", self.folder);
        use("commands", self.commands);
        use("number", self.number);
        use("slot", self.slot);
        use("seed", self.seed);
        use("end", self.end);
        use("threads", self.threads);
        use("ttl_ms", self.ttl_ms);
        use("grant_ttl_ms", self.grant_ttl_ms);
        use("shortest_wait_ms", self.shortest_wait_ms);
        use("response_ms", self.response_ms);
        use("patience_ms", self.patience_ms);
    }

    /// As arguments of the worker's command line.
    [[nodiscard]] std::vector<std::string> to_arguments() const {
        std::vector<std::string> arguments;
        each(*this, [&](std::string_view name, const auto& value) {
            arguments.push_back(std::string{name} + '=' + text_of(value));
        });
        return arguments;
    }

    /// The opposite. Throws: std::invalid_argument.
    [[nodiscard]] static Plan from_arguments(const std::vector<std::string>& arguments) {
        Plan plan;
        for (const std::string& argument : arguments) {
            const std::size_t at = argument.find('=');
            bool known = false;
            each(plan, [&](std::string_view name, auto& value) {
                if (at == std::string::npos || argument.substr(0, at) != name) return;
                known = true;
                read(std::string_view{argument}.substr(at + 1), value);
            });
            if (!known) throw std::invalid_argument{"a worker knows no " + argument};
        }
        return plan;
    }

  private:
    static std::string text_of(const std::string& value) { return value; }
    static std::string text_of(std::int64_t value) { return std::to_string(value); }

    static void read(std::string_view text, std::string& value) { value = text; }
    static void read(std::string_view text, std::int64_t& value) {
        const char* const end = text.data() + text.size();
        const auto [stop, error] = std::from_chars(text.data(), end, value);
        if (error != std::errc{} || stop != end) {
            throw std::invalid_argument{"no number: " + std::string{text}};
        }
    }
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_PLAN_HPP
