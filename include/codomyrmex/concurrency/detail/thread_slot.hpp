// SPDX-License-Identifier: MIT
//
// Which of several equal places the calling thread is to use, so that threads that run at the same
// time do not write to one cache line. A hint and no more: whoever uses it must be right if two
// threads get one place, or one thread two. Not for users.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_SLOT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_SLOT_HPP

#include <cstddef>
#include <cstdint>

namespace codomyrmex::concurrency::detail {

/// How many places the calling thread has moved on. One for each thread, and, where shared
/// libraries hide their symbols, one for each library too: a hint may well be two.
[[nodiscard]] inline std::size_t& thread_slot_moves() noexcept {
    static thread_local std::size_t moves = 0;
    return moves;
}

/// A number under `count`, a power of two, most often another for another thread.
[[nodiscard]] inline std::size_t thread_slot(std::size_t count) noexcept {
    std::size_t& moves = thread_slot_moves();
    // Where the thread's own memory lies tells threads apart. It lies at equal distances, which
    // multiplication by the golden ratio spreads evenly (Knuth, TAOCP 3, 6.4).
    const auto place = static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(&moves)) >> 6;
    return (static_cast<std::size_t>((place * 0x9E37'79B9'7F4A'7C15U) >> 40) + moves) & (count - 1);
}

/// Gives the calling thread another place from now on: it met somebody at its present one.
inline void move_thread_slot() noexcept {
    ++thread_slot_moves();
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_THREAD_SLOT_HPP
