// SPDX-License-Identifier: MIT
//
// One turn of one thread at a lock, recorded for the judge: it takes the lock, adds one to a
// resource that looks at fencing tokens, and gives the lock back.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_TURN_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_TURN_HPP

#include "support/fenced_register.hpp"
#include "support/history.hpp"

#include <system_error>

namespace test_support {

/// Calls `acquire(error)`, which gives a lease, or an empty one; with a lease `inside()`, between
/// reading and writing; and `release(lease, error)`, which tells whether it was still ours.
/// Returns: whether it had the lock.
template <class Acquire, class Inside, class Release>
bool fenced_turn(Recorder& recorder, FencedRegister& resource, Acquire acquire, Inside inside,
                 Release release) {
    recorder.record(Event::What::call);
    std::error_code error;
    auto lease = acquire(error);
    if (!lease) {
        recorder.record(error ? Event::What::failed : Event::What::refused);
        return false;
    }
    recorder.record(Event::What::acquired, lease);
    const auto value = resource.read(lease.fence());
    inside();
    recorder.record(Event::What::checked, lease);
    if (value) (void)resource.write(lease.fence(), *value + 1);
    recorder.record(Event::What::release);
    const bool ours = release(lease, error);
    recorder.record(error  ? Event::What::released_unknown
                    : ours ? Event::What::released
                           : Event::What::released_lost);
    return true;
}

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_FENCED_TURN_HPP
