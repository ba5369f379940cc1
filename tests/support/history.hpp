// SPDX-License-Identifier: MIT
//
// What happened to one lock, and whether that was right. Every process that uses the lock records
// what it does in one file, before it acts on it and in a way that its death cannot undo; check()
// reads the whole and finds each place where two held together or a fencing token went backwards.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_HISTORY_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_HISTORY_HPP

#include "support/process.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <fcntl.h>
#include <fstream>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unistd.h>
#include <utility>
#include <vector>

namespace test_support {

/// Nanoseconds since boot, on a clock that all processes share and that runs through suspend.
[[nodiscard]] inline std::int64_t boot_time() {
    timespec value{};
    ::clock_gettime(CLOCK_BOOTTIME, &value);
    return std::int64_t{value.tv_sec} * 1'000'000'000 + value.tv_nsec;
}

/// One step of one thread. A power of two in size, so that none lies across two pages and none is
/// ever written by half, whenever its writer is killed.
struct Event {
    enum class What : std::int32_t {
        call,              ///< is about to ask for the lock
        refused,           ///< did not get it in time
        failed,            ///< got an error
        acquired,          ///< holds it until `valid_until`
        checked,           ///< still holds it, until `valid_until`: it may have been renewed
        release,           ///< is about to give it back
        released,          ///< gave it back, and it was its own
        released_lost,     ///< gave it back, and it had been lost
        released_unknown,  ///< gave it back, and nobody knows
    };

    std::int64_t time = 0;         ///< read before the step that it tells of, see Recorder
    std::int64_t valid_until = 0;  ///< of acquired and checked
    std::uint64_t fence = 0;       ///< of acquired
    std::int32_t process = 0;
    std::int32_t thread = 0;
    What what = What::call;
    std::array<char, 92> token{};  ///< of acquired

    [[nodiscard]] std::string_view token_text() const { return token.data(); }
    void set_token(std::string_view text) {
        token = {};
        text.copy(token.data(), token.size() - 1);
    }
};
static_assert(sizeof(Event) == 128);

/// Appends the events of one thread to the history's file, each by one write(2).
/// Threads: one object each; all of a history append to one file.
class Recorder {
  public:
    Recorder(const std::string& path, int process, int thread)
        : file_{::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600)},
          process_{process},
          thread_{thread} {
        if (!file_) throw_errno("open " + path);
    }

    void record(Event::What what) { append(make(what)); }

    /// The time comes before the question how long the lease lasts, so `valid_until` is never later
    /// than what the lease promised, and the lease did hold at `time` if it held when asked.
    template <class Lease>
    void record(Event::What what, const Lease& lease) {
        Event event = make(what);
        event.valid_until = event.time + lease.remaining().count();
        event.fence = lease.fence();
        event.set_token(lease.token());
        append(event);
    }

  private:
    [[nodiscard]] Event make(Event::What what) const {
        Event event;
        event.time = boot_time();
        event.process = process_;
        event.thread = thread_;
        event.what = what;
        return event;
    }

    void append(const Event& event) {
        if (::write(file_.get(), &event, sizeof event) != static_cast<ssize_t>(sizeof event)) {
            throw_errno("write to the history");
        }
    }

    Fd file_;
    int process_;
    int thread_;
};

/// The events in a history's file; those of one thread in their order.
[[nodiscard]] inline std::vector<Event> read_history(const std::string& path) {
    std::ifstream file{path, std::ios::binary};
    std::vector<Event> events;
    Event event;
    while (file.read(reinterpret_cast<char*>(&event), sizeof event))
        events.push_back(event);
    return events;
}

/// From one acquisition to its release: what the holder believed.
struct Tenure {
    std::int32_t process = 0;
    std::int32_t thread = 0;
    std::uint64_t fence = 0;
    std::string token{};
    std::int64_t called = 0;
    std::int64_t begin = 0;  ///< it was valid at this time, and
    std::int64_t end = 0;    ///< before this one: the call of release, or when it ran out
    bool given_back = false;

    [[nodiscard]] std::string to_string() const {
        return "process " + std::to_string(process) + " thread " + std::to_string(thread) +
               " fence " + std::to_string(fence) + " [" + std::to_string(begin) + ", " +
               std::to_string(end) + ")";
    }
};

/// What check() found.
struct Verdict {
    std::vector<Tenure> tenures{};  ///< in order of their beginnings
    std::size_t refused = 0;
    std::size_t failed = 0;
    std::size_t lost = 0;
    std::size_t unknown = 0;
    std::size_t cut_off = 0;  ///< held by a thread that died
    std::chrono::nanoseconds worst_wait{0};

    // The violations, by the rule that they break.
    std::vector<std::string> malformed{};  ///< a thread's events do not make sense
    std::vector<std::string> overlaps{};   ///< two were valid together
    std::vector<std::string> order{};      ///< who was valid later had no larger fence
    std::vector<std::string> fences{};     ///< who asked after another's grant had no larger fence
    std::vector<std::string> tokens{};     ///< two acquisitions had one owner token

    [[nodiscard]] std::size_t violations() const {
        return malformed.size() + overlaps.size() + order.size() + fences.size() + tokens.size();
    }

    /// The first few violations, one a line.
    [[nodiscard]] std::string to_string() const {
        std::string text;
        for (const auto* kind : {&malformed, &overlaps, &order, &fences, &tokens}) {
            for (std::size_t i = 0; i < std::min<std::size_t>(kind->size(), 5); ++i)
                text += (*kind)[i] + '\n';
        }
        return text;
    }
};

namespace detail {

/// Follows each thread through its events and makes tenures of them.
class Tracker {
  public:
    explicit Tracker(Verdict& verdict) : verdict_{verdict} {}

    void step(const Event& event) {
        Thread& thread = threads_[{event.process, event.thread}];
        const std::int64_t before = std::exchange(thread.last_time, event.time);
        if (event.time < before) malformed(event, "the clock went backwards");
        switch (event.what) {
            case Event::What::call:
                expect(event, thread, State::idle, State::asking);
                break;
            case Event::What::refused:
                expect(event, thread, State::asking, State::idle);
                ++verdict_.refused;
                break;
            case Event::What::failed:
                expect(event, thread, State::asking, State::idle);
                ++verdict_.failed;
                break;
            case Event::What::acquired:
                expect(event, thread, State::asking, State::holding);
                thread.tenure = {
                    event.process, event.thread, event.fence,      std::string{event.token_text()},
                    thread.since,  event.time,   event.valid_until};
                break;
            case Event::What::checked:
                expect(event, thread, State::holding, State::holding);
                if (event.fence != thread.tenure.fence) malformed(event, "the fence changed");
                thread.tenure.end = std::max(thread.tenure.end, event.valid_until);
                break;
            case Event::What::release:
                expect(event, thread, State::holding, State::releasing);
                thread.tenure.end = std::min(thread.tenure.end, event.time);
                thread.tenure.given_back = true;
                verdict_.tenures.push_back(thread.tenure);
                break;
            case Event::What::released:
            case Event::What::released_lost:
            case Event::What::released_unknown:
                expect(event, thread, State::releasing, State::idle);
                if (event.what == Event::What::released_lost) ++verdict_.lost;
                if (event.what == Event::What::released_unknown) ++verdict_.unknown;
                break;
        }
        thread.since = event.what == Event::What::call ? event.time : thread.since;
    }

    /// Those who hold at the end died: their leases count to the last deadline that they knew.
    void finish() {
        for (const auto& [id, thread] : threads_) {
            if (thread.state != State::holding) continue;
            verdict_.tenures.push_back(thread.tenure);
            ++verdict_.cut_off;
        }
    }

  private:
    enum class State { idle, asking, holding, releasing };

    struct Thread {
        State state = State::idle;
        std::int64_t last_time = 0;
        std::int64_t since = 0;
        Tenure tenure{};
    };

    void malformed(const Event& event, const std::string& what) {
        verdict_.malformed.push_back("process " + std::to_string(event.process) + " thread " +
                                     std::to_string(event.thread) + " at " +
                                     std::to_string(event.time) + ": " + what);
    }

    void expect(const Event& event, Thread& thread, State from, State to) {
        if (thread.state != from) malformed(event, "a step out of order");
        thread.state = to;
    }

    Verdict& verdict_;
    std::map<std::pair<std::int32_t, std::int32_t>, Thread> threads_;
};

/// Requires: in order of their beginnings.
inline void check_overlaps(const std::vector<const Tenure*>& valid, Verdict& verdict) {
    const Tenure* longest = nullptr;
    for (const Tenure* tenure : valid) {
        if (longest != nullptr && tenure->begin < longest->end) {
            verdict.overlaps.push_back("both held: " + longest->to_string() + " and " +
                                       tenure->to_string());
        }
        if (longest == nullptr || tenure->end > longest->end) longest = tenure;
    }
}

/// Who was valid later has the larger fence. Requires: in order of their beginnings.
inline void check_order_of_fences(const std::vector<const Tenure*>& valid, Verdict& verdict) {
    for (std::size_t i = 1; i < valid.size(); ++i) {
        if (valid[i]->fence <= valid[i - 1]->fence) {
            verdict.order.push_back("held later with no larger fence: " +
                                    valid[i - 1]->to_string() + ", then " + valid[i]->to_string());
        }
    }
}

/// Who asked after another had been answered has the larger fence, valid or not; and no two have
/// the same.
inline void check_fences_in_real_time(const std::vector<Tenure>& by_begin, Verdict& verdict) {
    std::vector<const Tenure*> by_call;
    for (const Tenure& tenure : by_begin)
        by_call.push_back(&tenure);
    std::ranges::stable_sort(by_call, {}, &Tenure::called);
    const Tenure* largest = nullptr;
    std::size_t answered = 0;
    for (const Tenure* tenure : by_call) {
        for (; answered < by_begin.size() && by_begin[answered].begin < tenure->called;
             ++answered) {
            if (largest == nullptr || by_begin[answered].fence > largest->fence) {
                largest = &by_begin[answered];
            }
        }
        if (largest != nullptr && tenure->fence <= largest->fence) {
            verdict.fences.push_back("asked later and got no larger fence: " +
                                     largest->to_string() + ", then " + tenure->to_string());
        }
    }
    std::map<std::uint64_t, const Tenure*> seen;
    for (const Tenure& tenure : by_begin) {
        const auto [first, fresh] = seen.emplace(tenure.fence, &tenure);
        if (!fresh) {
            verdict.fences.push_back("one fence twice: " + first->second->to_string() + " and " +
                                     tenure.to_string());
        }
        if (tenure.fence == 0) verdict.fences.push_back("no fence: " + tenure.to_string());
    }
}

}  // namespace detail

/// Judges the history of one lock.
///
/// 1. Each thread's events are in order: call, then acquired, refused or failed; and so on.
/// 2. A tenure is valid from when its lease was seen to be, until its release was called or its
///    last known deadline, whichever came first; that of a thread that died, until its last known
///    deadline. No two tenures are valid together.
/// 3. A tenure that became valid later has a larger fence. So has one that was asked for after the
///    other had been granted, though neither be valid. No fence and no owner token comes twice.
[[nodiscard]] inline Verdict check(const std::vector<Event>& events) {
    Verdict verdict;
    detail::Tracker tracker{verdict};
    for (const Event& event : events)
        tracker.step(event);
    tracker.finish();
    std::ranges::stable_sort(verdict.tenures, {}, &Tenure::begin);

    std::vector<const Tenure*> valid;
    std::map<std::string_view, const Tenure*> tokens;
    for (const Tenure& tenure : verdict.tenures) {
        if (tenure.begin < tenure.end) valid.push_back(&tenure);
        verdict.worst_wait =
            std::max(verdict.worst_wait, std::chrono::nanoseconds{tenure.begin - tenure.called});
        const auto [first, fresh] = tokens.emplace(tenure.token, &tenure);
        if (!fresh) {
            verdict.tokens.push_back("one owner token twice: " + first->second->to_string() +
                                     " and " + tenure.to_string());
        }
    }
    detail::check_overlaps(valid, verdict);
    detail::check_order_of_fences(valid, verdict);
    detail::check_fences_in_real_time(verdict.tenures, verdict);
    return verdict;
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_HISTORY_HPP
