// SPDX-License-Identifier: MIT
//
// A short busy wait, for what most often comes sooner than a thread can fall asleep and be woken.
// Not for users; whoever waits here sleeps afterwards if it did not come.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_SPIN_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_SPIN_HPP

namespace codomyrmex::concurrency::detail {

/// Tells the processor that the thread only looks; costs some tens of cycles.
inline void relax() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

/// Looks until `ready()` or `looks` times. Returns: what `ready()` returned last.
template <class Ready>
[[nodiscard]] bool spin_until(int looks, Ready ready) noexcept(noexcept(ready())) {
    for (; looks > 0; --looks) {
        if (ready()) return true;
        relax();
    }
    return false;
}

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_SPIN_HPP
