// SPDX-License-Identifier: MIT
//
// From records to acquisitions: follows each client of each name through its steps and keeps, for
// each time that it asked, what became of it. Knows nothing of other clients; what the acquisitions
// of a name mean together is checker.hpp's subject.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ACQUISITION_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ACQUISITION_HPP

#include "faults/record.hpp"
#include "faults/report.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

namespace faults {

/// One call for a name, and the hold that came of it.
struct Acquisition {
    /// How far it came. The last of them that is not `released` is what a death leaves.
    enum class State : std::uint8_t { asking, refused, failed, holding, releasing, released };

    std::int64_t called = 0;
    std::int64_t deadline = 0;   ///< 0: none. As `called`: a try, which never queues.
    std::int64_t begin = 0;      ///< The answer. If it was acquired: valid at this time, and
    std::int64_t end = 0;        ///< before this one: the call of release, or when it ran out.
    std::int64_t uncertain = 0;  ///< It failed, was lost, or was released without a clear answer
                                 ///< at this time: the server may have had it until then.
    std::uint64_t fence = 0;
    std::uint64_t token = 0;
    std::uint32_t server = 0;
    std::int32_t process = 0;
    std::int32_t thread = 0;
    std::uint32_t weight = 1;
    State state = State::asking;
    Mode mode = Mode::exclusive;
    Source source = Source::none;
    bool lost = false;

    [[nodiscard]] bool acquired() const { return state >= State::holding; }
    [[nodiscard]] bool answered() const { return state != State::asking; }
    [[nodiscard]] bool valid() const { return acquired() && begin < end; }
    [[nodiscard]] bool waits() const { return deadline != called; }

    [[nodiscard]] std::string to_string() const {
        std::string text =
            "process " + std::to_string(process) + " thread " + std::to_string(thread);
        if (mode == Mode::shared) text += " (reader)";
        if (weight != 1) text += " weight " + std::to_string(weight);
        if (!acquired()) return text + ", called at " + std::to_string(called);
        text += " fence " + std::to_string(fence) + " [" + std::to_string(begin) + ", " +
                std::to_string(end) + ")";
        if (source != Source::none) text += " by " + std::string{faults::to_string(source)};
        if (server != 0) text += " of server " + std::to_string(server);
        return text;
    }
};

/// A write that a fenced register took.
struct TakenWrite {
    std::int64_t place = 0;
    std::int64_t time = 0;
    std::uint64_t fence = 0;
    std::uint64_t token = 0;
};

/// A call that was answered after its deadline.
struct LateCall {
    std::uint32_t name = 0;
    std::int32_t process = 0;
    std::int64_t called = 0;
    std::int64_t deadline = 0;
    std::int64_t answered = 0;
};

/// All that belongs to one name.
struct History {
    Kind kind = Kind::lock;
    std::uint32_t capacity = 1;
    std::vector<Acquisition> acquisitions{};
    std::vector<TakenWrite> writes{};
};

/// Threads: none; one object, one thread.
class Tracker {
  public:
    /// An answer more than `lateness` ns after its deadline is kept among the late ones.
    Tracker(Report& report, std::int64_t lateness) : report_{&report}, lateness_{lateness} {}

    /// Takes the next record. Those of one client must come in their order, those of several may
    /// come in any.
    void add(const Record& record) {
        last_time_ = std::max(last_time_, record.time);
        if (record.step == Step::answer) ++report_->operations;
        History& history = histories_[record.name];
        if (history.acquisitions.empty() && history.writes.empty()) {
            history.kind = record.kind;
            history.capacity = record.capacity;
        } else if (history.kind != record.kind || history.capacity != record.capacity) {
            malformed(record, "the name is of another kind or capacity elsewhere");
        }
        Client& client = clients_[{record.name, record.process, record.thread}];
        if (record.time < client.last_time) malformed(record, "the clock went backwards");
        client.last_time = record.time;
        switch (record.op) {
            case Op::acquire:
                record.step == Step::call ? ask(record, history, client)
                                          : take(record, history, client);
                break;
            case Op::check:
            case Op::lost:
                look(record, history, client);
                break;
            case Op::release:
                record.step == Step::call ? give_back(record, history, client)
                                          : given_back(record, history, client);
                break;
            case Op::write:
                write(record, history);
                break;
            case Op::killed:
            case Op::stopped:
            case Op::continued:
                malformed(record, "what befalls a process is no step of a client");
                break;
        }
    }

    [[nodiscard]] std::unordered_map<std::uint32_t, History>& histories() { return histories_; }
    [[nodiscard]] std::int64_t last_time() const { return last_time_; }

    /// The calls that were answered late. Whether their process ran is for others to say.
    [[nodiscard]] const std::vector<LateCall>& late() const { return late_; }

    /// Calls `use(name, process, called)` for each release that was never answered.
    template <class Use>
    void unanswered_releases(Use use) const {
        for (const auto& [id, client] : clients_) {
            if (client.step == State::releasing) use(id.name, id.process, client.called);
        }
    }

  private:
    using State = Acquisition::State;

    struct ClientId {
        std::uint32_t name;
        std::int32_t process;
        std::int32_t thread;
        friend bool operator==(const ClientId&, const ClientId&) = default;
    };
    struct Hash {
        std::size_t operator()(const ClientId& id) const noexcept {
            std::uint64_t hash = id.name;
            for (const auto part : {id.process, id.thread}) {
                hash = (hash ^ static_cast<std::uint32_t>(part)) * 0x9E3779B97F4A7C15U;
                hash ^= hash >> 29U;
            }
            return hash;
        }
    };

    /// `released` stands for idle.
    struct Client {
        State step = State::released;
        std::int64_t last_time = 0;
        std::int64_t called = 0;    // Of the release under way, as
        std::int64_t deadline = 0;  // is this.
        std::size_t current = 0;    // In acquisitions.
    };

    void malformed(const Record& record, const char* what) {
        report_->add(Check::malformed, false, record.name, record.time, [&] {
            return "process " + std::to_string(record.process) + " thread " +
                   std::to_string(record.thread) + ": " + what;
        });
    }

    /// Whether the client was in `from`; if not, the record is left out.
    bool expect(const Record& record, const Client& client, State from) {
        if (client.step == from) return true;
        malformed(record, "a step out of order");
        return false;
    }

    void check_late(const Record& record, std::int64_t called, std::int64_t deadline) {
        if (deadline == 0) return;
        const std::int64_t late = record.time - deadline;
        if (late > lateness_) {
            late_.push_back({record.name, record.process, called, deadline, record.time});
        } else {
            report_->worst_late = std::max(report_->worst_late, late);
        }
    }

    void ask(const Record& record, History& history, Client& client) {
        if (!expect(record, client, State::released)) return;
        client.step = State::asking;
        client.current = history.acquisitions.size();
        Acquisition& one = history.acquisitions.emplace_back();
        one.called = record.time;
        one.deadline = record.until;
        one.process = record.process;
        one.thread = record.thread;
        one.weight = record.weight;
        one.mode = record.mode;
    }

    void take(const Record& record, History& history, Client& client) {
        if (!expect(record, client, State::asking)) return;
        Acquisition& one = history.acquisitions[client.current];
        one.begin = record.time;
        check_late(record, one.called, one.deadline);
        switch (record.outcome) {
            case Outcome::ok:
                ++report_->acquired;
                client.step = one.state = State::holding;
                one.end = record.until;
                one.fence = record.fence;
                one.token = record.token;
                one.server = record.server;
                one.source = record.source;
                return;
            case Outcome::refused:
                ++report_->refused;
                one.state = State::refused;
                break;
            case Outcome::none:
            case Outcome::lost:
            case Outcome::failed:
            case Outcome::unknown:
                ++report_->failed;
                one.state = State::failed;
                one.uncertain = record.time;
                break;
        }
        one.end = one.begin;
        client.step = State::released;
    }

    void look(const Record& record, History& history, Client& client) {
        if (!expect(record, client, State::holding)) return;
        Acquisition& one = history.acquisitions[client.current];
        if (record.op == Op::lost) {
            if (!one.lost) ++report_->lost;
            one.lost = true;
            one.uncertain = record.time;
            one.end = std::min(one.end, record.time);
            return;
        }
        if (record.fence != one.fence) malformed(record, "the fence changed");
        if (one.lost) {
            report_->add(Check::revived, false, record.name, record.time,
                         [&] { return "valid again: " + one.to_string(); });
            return;
        }
        one.end = std::max(one.end, record.until);
    }

    void give_back(const Record& record, History& history, Client& client) {
        if (!expect(record, client, State::holding)) return;
        Acquisition& one = history.acquisitions[client.current];
        client.step = one.state = State::releasing;
        client.called = record.time;
        client.deadline = record.until;
        one.end = std::min(one.end, record.time);
    }

    void given_back(const Record& record, History& history, Client& client) {
        if (!expect(record, client, State::releasing)) return;
        Acquisition& one = history.acquisitions[client.current];
        check_late(record, client.called, client.deadline);
        client.step = one.state = State::released;
        if (record.outcome == Outcome::lost) {
            if (!one.lost) ++report_->lost;
            one.lost = true;
            one.uncertain = record.time;
        } else if (record.outcome != Outcome::ok) {
            ++report_->unknown;
            one.uncertain = record.time;
        }
    }

    void write(const Record& record, History& history) {
        if (record.outcome != Outcome::ok) {
            ++report_->turned_away;
            return;
        }
        ++report_->writes;
        history.writes.push_back({record.until, record.time, record.fence, record.token});
    }

    Report* report_;
    std::int64_t lateness_;
    std::vector<LateCall> late_;
    std::unordered_map<std::uint32_t, History> histories_;
    std::unordered_map<ClientId, Client, Hash> clients_;
    std::int64_t last_time_ = 0;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_ACQUISITION_HPP
