// SPDX-License-Identifier: MIT
//
// How many use a thing that comes and goes, in a place that stays: one word, so that whoever finds
// the place can take a share in the thing without a lock, and never gets hold of one that goes.
// Not for what has its own memory for good; there a plain count will do.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP

#include <atomic>
#include <cstdint>

namespace codomyrmex::concurrency::detail {

/// The uses of one thing after another.
///
/// | the word | means |
/// | --- | --- |
/// | upper half | how often a thing has come or gone; odd while one is there |
/// | lower half | how many use it; 0 while none is there |
///
/// A thing goes only when nobody uses it, and by the same atomic word by which it is used: so a use
/// either keeps it there or comes too late.
///
/// Threads: come() and go() are for one thread at a time, all else is safe to call concurrently.
class UseCount {
  public:
    /// The word as it was: which thing, and how many used it.
    class Sight {
      public:
        /// Whether a thing was there.
        [[nodiscard]] explicit operator bool() const noexcept { return (word_ & comings) != 0; }

      private:
        friend UseCount;
        explicit Sight(std::uint64_t word) noexcept : word_{word} {}
        std::uint64_t word_;
    };

    /// Nothing is there.
    UseCount() noexcept = default;
    UseCount(const UseCount&) = delete;
    UseCount& operator=(const UseCount&) = delete;

    /// Acquire: with what was written of the thing before it came.
    [[nodiscard]] Sight look() const noexcept {
        return Sight{word_.load(std::memory_order_acquire)};
    }

    /// Uses the thing that was seen.
    /// Returns: false if none was, or if it is gone. If true, what was read of the place after the
    /// look was of this thing.
    [[nodiscard]] bool use(Sight seen) noexcept {
        const auto wanted = seen.word_ & ~uses;
        while (seen && (seen.word_ & ~uses) == wanted) {
            // Acquire: pairs with come(). All changes since are read-modify-writes, so they are in
            // its release sequence. What was read after the look cannot be of a later thing: that
            // was written after a go(), which comes after the drop() of this use.
            if (word_.compare_exchange_weak(seen.word_, seen.word_ + 1, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    /// Uses it once more. Relaxed: whoever calls has the thing before its eyes.
    /// Requires: it is in use, or go() cannot be called meanwhile.
    void use_again() noexcept { word_.fetch_add(1, std::memory_order_relaxed); }

    /// Ends a use; the last that its thread does with the thing. Release: pairs with go().
    void drop() noexcept { word_.fetch_sub(1, std::memory_order_release); }

    /// A thing is there from now on. Requires: none is. Release: whoever uses it sees it whole.
    void come() noexcept { word_.fetch_add(turn, std::memory_order_release); }

    /// The thing is gone. Returns: false, and does nothing, if it is in use.
    /// Requires: a thing is there.
    [[nodiscard]] bool go() noexcept {
        auto idle = word_.load(std::memory_order_relaxed) & ~uses;
        // Acquire: pairs with every drop(), for all that came after it are read-modify-writes; so
        // whatever its users did to the thing is over.
        return word_.compare_exchange_strong(idle, idle + turn, std::memory_order_acquire,
                                             std::memory_order_relaxed);
    }

  private:
    static constexpr std::uint64_t turn = std::uint64_t{1} << 32;
    static constexpr std::uint64_t uses = turn - 1;
    static constexpr std::uint64_t comings = turn;

    std::atomic<std::uint64_t> word_{0};
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP
