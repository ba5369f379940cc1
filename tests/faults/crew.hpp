// SPDX-License-Identifier: MIT
//
// The worker processes of a fault run, from the driver's side: started, told, waited for, and what
// they had to say. What the driver does to them is recorded here, too.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CREW_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CREW_HPP

#include "faults/plan.hpp"
#include "faults/recorder.hpp"
#include "support/process.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <fcntl.h>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <sys/stat.h>
#include <unistd.h>
#include <utility>
#include <vector>

namespace faults {

/// What the clients of workers counted, summed up.
struct Deeds {
    std::uint64_t renewals = 0;
    std::uint64_t local_handovers = 0;
    std::uint64_t grants = 0;
    std::uint64_t lost = 0;
    std::uint64_t connections = 0;

    Deeds& operator+=(const Deeds& more) {
        renewals += more.renewals;
        local_handovers += more.local_handovers;
        grants += more.grants;
        lost += more.lost;
        connections += more.connections;
        return *this;
    }
};

/// A worker process. To be used on the thread that made it.
class WorkerProcess {
  public:
    /// `program`: the worker's file.
    WorkerProcess(const std::string& program, Plan plan) : plan_{std::move(plan)} {
        if (!plan_.commands.empty()) {
            if (::mkfifo(plan_.commands.c_str(), 0600) != 0) {
                test_support::throw_errno("mkfifo " + plan_.commands);
            }
            // For both, so that nobody waits for the other to open it.
            commands_ = test_support::Fd{::open(plan_.commands.c_str(), O_RDWR | O_CLOEXEC)};
        }
        std::vector<std::string> words = plan_.to_arguments();
        words.insert(words.begin(), program);
        process_ = test_support::Process::spawn(words, {.output_fd = output_.write_fd()});
        output_.close_write();
    }

    [[nodiscard]] test_support::Process& process() { return process_; }
    [[nodiscard]] std::int32_t number() const { return static_cast<std::int32_t>(plan_.number); }
    [[nodiscard]] const Plan& plan() const { return plan_; }

    /// Waits until it can be sent signals. Returns: whether it came so far.
    bool await_ready() {
        const auto line = output_.receive(std::chrono::seconds{20});
        if (line && *line != "ready") wrong_.push_back(*line);
        return line == "ready";
    }

    // --- By command.

    /// Tells one of its hands what to do; does not wait for the answer.
    void tell(const std::string& command, int hand = 0) {
        const std::string line = std::to_string(hand) + ' ' + command + '\n';
        if (::write(commands_.get(), line.data(), line.size()) !=
            static_cast<ssize_t>(line.size())) {
            test_support::throw_errno("write to " + plan_.commands);
        }
    }

    /// What that hand answers; empty if it does not within `time`.
    [[nodiscard]] std::string answer(int hand = 0,
                                     std::chrono::seconds time = std::chrono::seconds{10}) {
        auto& mine = answers_.at(static_cast<std::size_t>(hand));
        while (mine.empty()) {
            const std::optional<std::string> line = output_.receive(time);
            if (!line) return {};
            if (*line == "ready") continue;
            if (line->starts_with("wrong: ")) {
                wrong_.push_back(*line);
                continue;
            }
            answers_.at(static_cast<std::size_t>(line->at(0) - '0')).push_back(line->substr(2));
        }
        std::string first = std::move(mine.front());
        mine.erase(mine.begin());
        return first;
    }

    [[nodiscard]] std::string ask(const std::string& command, int hand = 0) {
        tell(command, hand);
        return answer(hand);
    }

    // --- Its end.

    /// Kills it, and tells the history.
    void kill(Recorder& recorder) {
        process_.kill();
        recorder.process(Op::killed, number());
        killed_ = true;
    }

    /// It was asked to exit while it holds: waits until it has, and tells the history.
    void exited(Recorder& recorder, std::chrono::nanoseconds time) {
        if (process_.wait(time)) {
            recorder.process(Op::killed, number());
            killed_ = true;
        }
    }

    /// Waits for its end, that of its children too, and adds what it did to `deeds`.
    /// Returns: what was wrong with it.
    [[nodiscard]] std::vector<std::string> finish(std::chrono::nanoseconds time, Deeds& deeds) {
        commands_.reset();
        const std::string who = "worker " + std::to_string(number());
        const auto status = process_.wait(time);
        if (!status) {
            process_.kill();
            wrong_.push_back(who + " hung");
            return std::move(wrong_);
        }
        if (!status->success() && !killed_) {
            wrong_.push_back(who + " ended with " + status->to_string());
        }
        while (const auto line = output_.receive(std::chrono::seconds{20})) {
            if (line->starts_with("wrong: ")) wrong_.push_back(who + ' ' + *line);
            if (line->starts_with("note: ")) notes_.push_back(who + ' ' + line->substr(6));
            if (!line->starts_with("did ")) continue;
            Deeds more;
            std::istringstream words{line->substr(4)};
            words >> more.renewals >> more.local_handovers >> more.grants >> more.lost >>
                more.connections;
            deeds += more;
        }
        return std::move(wrong_);
    }

    /// What its calls failed with, the first few. To be asked for after finish().
    [[nodiscard]] const std::vector<std::string>& notes() const { return notes_; }

  private:
    Plan plan_;
    test_support::Fd commands_;
    test_support::Pipe output_;
    std::array<std::vector<std::string>, most_threads> answers_;
    std::vector<std::string> wrong_;
    std::vector<std::string> notes_;
    bool killed_ = false;
    test_support::Process process_;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CREW_HPP
