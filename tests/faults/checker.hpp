// SPDX-License-Identifier: MIT
//
// Judges a history: records of any number of clients and names, and the faults that were injected
// meanwhile. A plain type without I/O. Its time is that of a few sorts, so n log n; it keeps 88
// bytes for each acquisition.
//
// What a history must be, for each name:
//
//  1. A hold is valid from its answer (the clock was read before the validity check) until its
//     release was called or its last known deadline, whichever came first; that of a process that
//     died or was stopped, until its last known deadline. No more are valid together than there is
//     room for: one of a lock, the capacity of a semaphore, one writer or any readers.
//  2. Fencing tokens of exclusive holds increase: who asked after another was answered has the
//     larger one, and so has who was valid later. None comes twice, none is 0. A writer's is larger
//     than that of a reader before it. Where two may be valid together, one that its process handed
//     on may be smaller.
//  3. A fenced register never takes a fence below its highest, nor another holder's equal one.
//  4. A waiter is served within `handover` of there being room for it, or gives up at its deadline.
//     What excuses more: a holder that died, was stopped, lost its lease or gave it back without a
//     clear answer counts for another `ttl`; each stopped or killed waiter for `grant_ttl`.
//  5. Nobody is overtaken by more than is allowed.
//  6. A lease is not lost and a call does not fail without a cause; what is lost stays lost.
//  7. Every call ends, by its deadline.
//
// For 4 to be fair a holder must be looked at (Op::check) right before its release: renewals that
// no record tells of are not known.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CHECKER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CHECKER_HPP

#include "faults/acquisition.hpp"
#include "faults/fates.hpp"
#include "faults/fault_window.hpp"
#include "faults/overtaking.hpp"
#include "faults/record.hpp"
#include "faults/report.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace faults {

/// What the library under test promises, in figures.
struct Rules {
    /// Holds may seem to overlap by so much: the clock's resolution.
    std::chrono::nanoseconds resolution{0};
    /// How long after its deadline a call may end: one scheduling delay.
    std::chrono::nanoseconds lateness = std::chrono::seconds{1};
    /// A call with less time than this may end with an error: that there was no answer by then.
    std::chrono::nanoseconds hurry{0};
    /// How long a waiter may wait beside room for it.
    std::chrono::nanoseconds handover = std::chrono::seconds{1};
    /// The longest time to live of a lease, and of a grant that was not taken up.
    std::chrono::nanoseconds ttl = std::chrono::seconds{10};
    std::chrono::nanoseconds grant_ttl = std::chrono::seconds{1};
    /// Who came and was served by less than this before or after another is not out of order.
    std::chrono::nanoseconds arrival = std::chrono::milliseconds{200};
    /// By how many a waiter may be overtaken, of its own process and of all.
    static constexpr std::uint64_t any_number = std::numeric_limits<std::uint64_t>::max();
    std::uint64_t overtaken_in_process = any_number;
    std::uint64_t overtaken = any_number;
};

/// Threads: none; one object, one thread.
class Checker {
  public:
    explicit Checker(Rules rules = {}, std::vector<FaultWindow> faults = {})
        : rules_{rules}, tracker_{report_, rules.lateness.count()} {
        overlap_ = Stretches{faults, &Allows::overlap};
        fence_ = Stretches{faults, &Allows::fence};
        delay_ = Stretches{faults, &Allows::delay};
        disorder_ = Stretches{faults, &Allows::disorder};
        loss_ = Stretches{faults, &Allows::loss};
        error_ = Stretches{faults, &Allows::error};
    }
    Checker(const Checker&) = delete;
    Checker& operator=(const Checker&) = delete;

    /// Takes the next record: those of one client in their order, those of several in any.
    void add(const Record& record) {
        if (record.op == Op::killed || record.op == Op::stopped || record.op == Op::continued) {
            fates_.add(record);
        } else {
            tracker_.add(record);
        }
    }

    /// Calls `use(time, delay)` in finish() for each acquisition: when it was served, and how long
    /// it had waited beside room for it, in ns.
    void on_delay(std::function<void(std::int64_t, std::int64_t)> use) {
        on_delay_ = std::move(use);
    }

    /// The records of each name, as they were judged. To be looked at after finish().
    [[nodiscard]] const History& history(std::uint32_t name) { return tracker_.histories()[name]; }

    /// Judges what was added. To be called once.
    [[nodiscard]] Report finish() {
        for (auto& [name, history] : tracker_.histories())
            check(name, history);
        check_ends();
        return std::move(report_);
    }

  private:
    using State = Acquisition::State;
    using Stretch = Stretches::Stretch;

    static constexpr std::uint32_t all_readers = std::uint32_t{1} << 30U;

    [[nodiscard]] static bool has_fences(const History& history) {
        return history.kind != Kind::semaphore;
    }
    [[nodiscard]] static std::uint32_t capacity_of(const History& history) {
        if (history.kind == Kind::semaphore) return history.capacity;
        return history.kind == Kind::read_write ? all_readers : 1;
    }
    [[nodiscard]] static std::uint32_t weight_of(const History& history, const Acquisition& one) {
        if (history.kind == Kind::semaphore) return one.weight;
        return history.kind == Kind::read_write && one.mode == Mode::exclusive ? all_readers : 1;
    }

    /// Whether it came from another thread of its process, without the server.
    [[nodiscard]] static bool is_handed_on(const Acquisition& one) {
        return one.source == Source::local || one.source == Source::retained;
    }

    void check(std::uint32_t name, History& history) {
        std::ranges::sort(history.acquisitions, {}, &Acquisition::begin);
        const std::vector<Stretch> rooms = check_overlaps(name, history);
        if (has_fences(history)) {
            check_order(name, history);
            check_fences(name, history);
            check_fences_differ(name, history);
        }
        check_tokens(name, history);
        check_writes(name, history);
        check_each(name, history);
        check_forgotten(name, history, rooms);
        check_overtaken(name, history);
    }

    // --- 1. Overlaps. Returns when there was room for any waiter, where that was long.

    [[nodiscard]] std::vector<Stretch> check_overlaps(std::uint32_t name, const History& history) {
        const std::int64_t capacity = capacity_of(history);
        std::int64_t widest = 0;
        for (const Acquisition& one : history.acquisitions)
            widest = std::max<std::int64_t>(widest, weight_of(history, one));

        std::vector<Stretch> rooms;
        std::vector<const Acquisition*> active;  // A heap; the first to end is in front.
        const auto ends_later = [](const Acquisition* a, const Acquisition* b) {
            return a->end > b->end;
        };
        std::int64_t taken = 0;
        std::int64_t room_since = std::numeric_limits<std::int64_t>::min();
        const auto has_room = [&] { return taken + widest <= capacity; };
        const auto room_until = [&](std::int64_t time) {
            const bool for_long = time > room_since &&
                                  (room_since < 0 || time - room_since > rules_.handover.count());
            if (has_room() && for_long) rooms.emplace_back(room_since, time);
        };
        const auto pop_ended = [&](std::int64_t time) {
            while (!active.empty() && active.front()->end <= time) {
                const bool before = has_room();
                taken -= weight_of(history, *active.front());
                if (!before && has_room()) room_since = active.front()->end;
                std::ranges::pop_heap(active, ends_later);
                active.pop_back();
            }
        };
        for (const Acquisition& one : history.acquisitions) {
            if (!one.valid()) continue;
            pop_ended(one.begin + rules_.resolution.count());
            if (has_room()) {
                room_until(one.begin);
                const auto delay = one.begin - std::max(one.called, room_since);
                report_.worst_delay = std::max(report_.worst_delay, delay);
                if (on_delay_) on_delay_(one.begin, delay);
            }
            const std::int64_t weight = weight_of(history, one);
            if (taken + weight > capacity) {
                report_.add(Check::overlap, overlap_.contain(one.begin), name, one.begin, [&] {
                    const Acquisition& other = **std::ranges::max_element(
                        active, {},
                        [&](const Acquisition* holder) { return weight_of(history, *holder); });
                    return "valid together: " + other.to_string() + " and " + one.to_string() +
                           (active.size() > 1 ? ", and others" : "");
                });
            }
            taken += weight;
            active.push_back(&one);
            std::ranges::push_heap(active, ends_later);
        }
        pop_ended(std::numeric_limits<std::int64_t>::max());
        room_until(tracker_.last_time());
        return rooms;
    }

    // --- 2. Fences.

    void check_order(std::uint32_t name, const History& history) {
        const Acquisition* before = nullptr;
        for (const Acquisition& one : history.acquisitions) {
            if (!one.valid() || one.mode == Mode::shared) continue;
            if (before != nullptr && one.fence <= before->fence) {
                const bool excused = overlap_.contain(one.begin) || fence_.contain(one.begin) ||
                                     fence_.contain(before->begin);
                report_.add(Check::order, excused, name, one.begin, [&] {
                    return "valid later with no larger fence: " + before->to_string() + ", then " +
                           one.to_string();
                });
            }
            before = &one;
        }
    }

    /// Only those are compared between which no fault let the fences go back.
    void check_fences(std::uint32_t name, const History& history) {
        const auto& by_begin = history.acquisitions;
        std::vector<std::pair<std::int64_t, const Acquisition*>> by_call;
        for (const Acquisition& one : by_begin) {
            if (one.acquired() && one.mode != Mode::shared) by_call.emplace_back(one.called, &one);
        }
        std::ranges::sort(by_call);
        const Acquisition* largest = nullptr;
        const Acquisition* largest_excused = nullptr;
        std::size_t answered = 0;
        std::size_t fault = 0;
        std::int64_t since = std::numeric_limits<std::int64_t>::min();
        const auto& faults = fence_.all();
        const auto take_answered = [&](std::int64_t until) {
            for (; answered < by_begin.size() && by_begin[answered].begin < until; ++answered) {
                const Acquisition& other = by_begin[answered];
                if (!other.acquired() || other.begin < since) continue;
                if (largest == nullptr || other.fence > largest->fence) largest = &other;
            }
        };
        for (const auto& [called, one] : by_call) {
            for (; fault < faults.size() && faults[fault].first <= one->begin; ++fault) {
                take_answered(std::min(called, faults[fault].first));
                since = faults[fault].second;
                if (largest != nullptr) largest_excused = std::exchange(largest, nullptr);
            }
            take_answered(called);
            if (one->fence == 0) {
                report_.add(Check::fence, false, name, one->begin,
                            [&] { return "no fence: " + one->to_string(); });
            }
            const bool reset = called < since;
            const Acquisition* const other = reset ? largest_excused : largest;
            // What goes from thread to thread was drawn when the lease was granted, which the
            // server may have forgotten since.
            const bool stale = is_handed_on(*one) && overlap_.contain(one->begin);
            const bool excused = reset || stale;
            if (other != nullptr && one->fence <= other->fence) {
                report_.add(Check::fence, excused, name, one->begin, [&] {
                    return "asked later and got no larger fence: " + other->to_string() +
                           ", then " + one->to_string();
                });
            }
        }
    }

    /// Also of those that asked at the same time.
    void check_fences_differ(std::uint32_t name, const History& history) {
        std::vector<std::pair<std::uint64_t, const Acquisition*>> fences;
        for (const Acquisition& one : history.acquisitions) {
            const bool comparable = one.acquired() && one.mode != Mode::shared && one.fence != 0;
            if (comparable && !fence_.meet(one.called, one.begin)) {
                fences.emplace_back(one.fence, &one);
            }
        }
        each_twice(fences, [&](const Acquisition& first, const Acquisition& second) {
            report_.add(Check::fence, false, name, second.begin, [&] {
                return "one fence twice: " + first.to_string() + " and " + second.to_string();
            });
        });
    }

    /// A lease that goes from thread to thread within its process keeps its token.
    void check_tokens(std::uint32_t name, const History& history) {
        std::vector<std::pair<std::uint64_t, const Acquisition*>> tokens;
        for (const Acquisition& one : history.acquisitions) {
            if (one.acquired() && !is_handed_on(one) && one.token != 0)
                tokens.emplace_back(one.token, &one);
        }
        each_twice(tokens, [&](const Acquisition& first, const Acquisition& second) {
            report_.add(Check::token, false, name, second.begin, [&] {
                return "one owner token twice: " + first.to_string() + " and " + second.to_string();
            });
        });
    }

    template <class Use>
    static void each_twice(std::vector<std::pair<std::uint64_t, const Acquisition*>>& all,
                           Use use) {
        std::ranges::sort(all);
        for (std::size_t i = 1; i < all.size(); ++i) {
            if (all[i].first == all[i - 1].first) use(*all[i - 1].second, *all[i].second);
        }
    }

    // --- 3. The fenced register.

    void check_writes(std::uint32_t name, History& history) {
        std::ranges::sort(history.writes, {}, &TakenWrite::place);
        const TakenWrite* highest = nullptr;
        const TakenWrite* last = nullptr;
        for (const TakenWrite& one : history.writes) {
            if (one.place <= 0 || (last != nullptr && last->place == one.place)) {
                report_.add(Check::malformed, false, name, one.time, [] {
                    return std::string{"two writes have one place, or one has none"};
                });
            }
            last = &one;
            const bool lower = highest != nullptr && one.fence < highest->fence;
            const bool others =
                highest != nullptr && one.fence == highest->fence && one.token != highest->token;
            if (lower || others) {
                report_.add(Check::stale_write, false, name, one.time, [&] {
                    return "took fence " + std::to_string(one.fence) + " after " +
                           std::to_string(highest->fence) + (others ? " of another holder" : "");
                });
            }
            if (highest == nullptr || one.fence > highest->fence) highest = &one;
        }
    }

    // --- 6. Losses and errors. Also the worst wait, and who was cut off.

    void check_each(std::uint32_t name, const History& history) {
        for (const Acquisition& one : history.acquisitions) {
            if (one.answered()) {
                report_.worst_wait = std::max(report_.worst_wait, one.begin - one.called);
            }
            const bool open = one.state == State::asking || one.state == State::holding;
            if (open && fates_.killed(one.process) != Fates::never) ++report_.cut_off;
            if (one.uncertain == 0) continue;
            if (one.lost) {
                const bool excused = loss_.meet(one.begin, one.uncertain) ||
                                     fates_.stopped(one.process, one.begin, one.uncertain);
                report_.add(Check::loss, excused, name, one.uncertain,
                            [&] { return "lost without a cause: " + one.to_string(); });
            } else {
                const std::int64_t called = one.state == State::failed ? one.called : one.end;
                const bool hurried = one.state == State::failed && one.waits() &&
                                     one.deadline != 0 &&
                                     one.deadline - one.called < rules_.hurry.count();
                const bool excused = hurried || error_.meet(called, one.uncertain) ||
                                     fates_.stopped(one.process, called, one.uncertain);
                report_.add(Check::error, excused, name, one.uncertain,
                            [&] { return "an error without a cause: " + one.to_string(); });
            }
        }
    }

    // --- 4. Waiters that are forgotten.

    /// A waiter that was killed or stopped: until when its place in the queue may hold up others.
    struct Idler {
        std::int64_t from = 0;
        std::int64_t to = 0;
    };

    /// When the server may have had a holder that no record tells of; and who was no real waiter.
    [[nodiscard]] Stretches unclear_times(const History& history, std::vector<Idler>& idlers) {
        std::vector<Stretch> unclear = delay_.all();
        const std::int64_t ttl = rules_.ttl.count();
        for (const Acquisition& one : history.acquisitions) {
            if (one.uncertain != 0) {
                unclear.emplace_back(std::min(one.end, one.uncertain), one.uncertain + ttl);
            }
            if (fates_.empty()) continue;
            // An asker that is cut off soon may have become the holder at once.
            const auto cut_off = [&](std::int64_t from, std::int64_t to) {
                const bool queued = !one.acquired() && from - one.called > rules_.handover.count();
                if (queued) idlers.push_back({one.called, to});
                const std::int64_t known = one.acquired() ? std::min(one.end, from) : from;
                if (!queued) unclear.emplace_back(known, from + ttl);
            };
            const std::int64_t killed = fates_.killed(one.process);
            const bool open = one.state == State::asking || one.state == State::holding ||
                              one.state == State::releasing;
            if (open && killed != Fates::never) {
                cut_off(killed, saturated(killed, rules_.grant_ttl.count()));
            }
            const std::int64_t last = one.acquired() ? one.end : one.begin;
            fates_.stops(one.process, one.called,
                         one.answered() ? last : std::numeric_limits<std::int64_t>::max(),
                         [&](std::int64_t from, std::int64_t to) {
                             cut_off(from, saturated(to, rules_.grant_ttl.count()));
                         });
        }
        return Stretches{std::move(unclear)};
    }

    [[nodiscard]] static std::int64_t saturated(std::int64_t time, std::int64_t more) {
        const std::int64_t most = std::numeric_limits<std::int64_t>::max();
        return time > most - more ? most : time + more;
    }

    void check_forgotten(std::uint32_t name, const History& history,
                         const std::vector<Stretch>& rooms) {
        if (rooms.empty()) return;
        std::vector<Idler> idlers;
        const Stretches unclear = unclear_times(history, idlers);

        struct Piece {
            std::int64_t begin, end, patience;
        };
        std::vector<Piece> pieces;
        const auto keep = [&](std::int64_t begin, std::int64_t end) {
            const auto idle = std::ranges::count_if(
                idlers, [&](const Idler& idler) { return idler.from < end && begin <= idler.to; });
            const std::int64_t patience = rules_.handover.count() + idle * rules_.grant_ttl.count();
            if (begin < 0 || end - begin > patience) pieces.push_back({begin, end, patience});
        };
        for (const auto& [begin, end] : rooms) {
            unclear.outside(begin, end, keep);
        }
        if (pieces.empty()) return;
        for (const Acquisition& one : history.acquisitions) {
            if (!one.waits() || is_idle(one)) continue;
            const std::int64_t ended = one.answered() ? one.begin : tracker_.last_time();
            if (ended - one.called <= rules_.handover.count()) continue;
            auto piece = std::ranges::upper_bound(pieces, one.called, {}, &Piece::end);
            for (; piece != pieces.end() && piece->begin < ended; ++piece) {
                const std::int64_t begin = std::max(one.called, piece->begin);
                const std::int64_t waited = std::min(ended, piece->end) - begin;
                report_.worst_delay = std::max(report_.worst_delay, waited);
                if (waited <= piece->patience) continue;
                report_.add(Check::forgotten, false, name, begin, [&] {
                    return "waited " + std::to_string(waited / 1'000'000) +
                           " ms beside room for it: " + one.to_string();
                });
                break;
            }
        }
    }

    /// Whether its process did not run for a part of its wait.
    [[nodiscard]] bool is_idle(const Acquisition& one) const {
        if (fates_.empty()) return false;
        const std::int64_t ended =
            one.answered() ? one.begin : std::numeric_limits<std::int64_t>::max();
        return fates_.killed(one.process) <= ended ||
               fates_.stopped(one.process, one.called, ended);
    }

    // --- 5. Overtaking.

    void check_overtaken(std::uint32_t name, const History& history) {
        if (rules_.overtaken != Rules::any_number) {
            std::vector<Turn> turns;
            for (std::size_t i = 0; i < history.acquisitions.size(); ++i)
                add_turn(turns, history, i);
            check_turns(name, history, turns, rules_.overtaken);
        }
        if (rules_.overtaken_in_process != Rules::any_number) {
            std::map<std::int32_t, std::vector<Turn>> turns;
            for (std::size_t i = 0; i < history.acquisitions.size(); ++i)
                add_turn(turns[history.acquisitions[i].process], history, i);
            for (auto& [process, own] : turns)
                check_turns(name, history, own, rules_.overtaken_in_process);
        }
    }

    /// Readers and writers have no common order.
    void add_turn(std::vector<Turn>& turns, const History& history, std::size_t i) const {
        const Acquisition& one = history.acquisitions[i];
        if (one.mode == Mode::shared || !one.answered()) return;
        const bool waited = one.waits() && one.state != State::failed && !is_idle(one);
        turns.push_back({one.called, one.begin, i, one.acquired(), waited});
    }

    void check_turns(std::uint32_t name, const History& history, std::vector<Turn>& turns,
                     std::uint64_t most) {
        count_overtaking(turns, rules_.arrival.count(), [&](const Turn& turn, std::uint64_t count) {
            report_.worst_overtaken = std::max(report_.worst_overtaken, count);
            if (count <= most) return;
            const bool excused = disorder_.meet(turn.called, turn.ended);
            report_.add(Check::overtaken, excused, name, turn.ended, [&] {
                return "overtaken by " + std::to_string(count) +
                       " that came later: " + history.acquisitions[turn.who].to_string();
            });
        });
    }

    // --- 7. Ends of calls.

    void check_ends() {
        for (const LateCall& one : tracker_.late()) {
            const bool excused = fates_.stopped(one.process, one.called, one.answered);
            const std::int64_t late = one.answered - one.deadline;
            if (!excused) report_.worst_late = std::max(report_.worst_late, late);
            report_.add(Check::late, excused, one.name, one.answered, [&] {
                return "process " + std::to_string(one.process) + " called at " +
                       std::to_string(one.called) + " and was answered " +
                       std::to_string(late / 1'000'000) + " ms after its deadline";
            });
        }
        const auto hung = [&](std::uint32_t name, std::int32_t process, std::int64_t called) {
            const bool excused = fates_.killed(process) != Fates::never ||
                                 fates_.stopped(process, tracker_.last_time(), Fates::never);
            report_.add(Check::hung, excused, name, called, [&] {
                return "process " + std::to_string(process) + " called and was never answered";
            });
        };
        for (const auto& [name, history] : tracker_.histories()) {
            for (const Acquisition& one : history.acquisitions) {
                if (!one.answered()) hung(name, one.process, one.called);
            }
        }
        tracker_.unanswered_releases(hung);
    }

    Rules rules_;
    std::function<void(std::int64_t, std::int64_t)> on_delay_;
    Stretches overlap_, fence_, delay_, disorder_, loss_, error_;
    Fates fates_;
    Report report_;
    Tracker tracker_;
};

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_CHECKER_HPP
