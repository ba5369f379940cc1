// SPDX-License-Identifier: MIT
//
// One turn of one thread at a lock, recorded for the checker: it takes the lock, adds one to a
// resource that looks at fencing tokens, and gives the lock back. And what such turns come to, on a
// machine that may be busy.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FENCED_TURN_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FENCED_TURN_HPP

#include <codomyrmex/concurrency/hand_over.hpp>

#include "faults/acquisition.hpp"
#include "faults/checker.hpp"
#include "faults/fault_window.hpp"
#include "faults/record.hpp"
#include "faults/recorder.hpp"
#include "faults/report.hpp"
#include "support/fenced_register.hpp"

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <system_error>
#include <vector>

namespace faults {

/// What the turns of one history are at.
inline constexpr Target turned_at{.name = 1};

/// Calls `acquire(error)`, which waits for `timeout` at most and gives a lease, or an empty one;
/// with a lease `inside()`, between reading and writing; and `release(lease, error)`, which tells
/// whether it was still ours.
/// Returns: whether it had the lock.
template <class Acquire, class Inside, class Release>
bool fenced_turn(Recorder& recorder, test_support::FencedRegister& resource,
                 std::chrono::nanoseconds timeout, Acquire acquire, Inside inside,
                 Release release) {
    using codomyrmex::concurrency::HandOver;
    recorder.call(turned_at, Op::acquire, timeout);
    std::error_code error;
    auto lease = acquire(error);
    if (!lease) {
        recorder.answered(turned_at, Op::acquire, error ? Outcome::failed : Outcome::refused);
        return false;
    }
    const bool handed_on = lease.hand_over() == HandOver::local;
    recorder.acquired(turned_at, lease, handed_on ? Source::local : Source::none);
    const auto value = resource.read(lease.fence());
    inside();
    const bool taken = value && resource.write(lease.fence(), *value + 1);
    recorder.wrote(turned_at, lease, taken ? Outcome::ok : Outcome::refused, resource.place());
    recorder.checked(turned_at, lease);
    recorder.call(turned_at, Op::release, std::chrono::nanoseconds{-1});
    const bool ours = release(lease, error);
    recorder.answered(turned_at, Op::release,
                      error  ? Outcome::unknown
                      : ours ? Outcome::ok
                             : Outcome::lost);
    return true;
}

/// What a history of such turns came to.
struct Turns {
    Report report{};
    std::vector<Acquisition> acquired{};  ///< those that had the lock
};

/// Judges one. That a lease was lost or a call failed, or that somebody waited for long, is for the
/// caller to look at.
[[nodiscard]] inline Turns judge_turns(const std::string& path) {
    const Rules rules{.lateness = std::chrono::minutes{1}};
    const Allows busy{.delay = true, .disorder = true, .loss = true, .error = true};
    Checker checker{rules, {{"a busy machine", 0, boot_time(), busy}}};
    for_each_record(path, [&](const Record& record) { checker.add(record); });
    Turns turns{checker.finish()};
    std::ranges::copy_if(checker.history(turned_at.name).acquisitions,
                         std::back_inserter(turns.acquired), &Acquisition::acquired);
    return turns;
}

}  // namespace faults

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_FAULTS_FENCED_TURN_HPP
