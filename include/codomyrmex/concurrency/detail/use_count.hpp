// SPDX-License-Identifier: MIT
//
// How many use a thing that comes and goes while its place stays. One word decides both, so whoever
// finds the place can use what is there without a lock, and never gets hold of what goes.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP

#include <atomic>
#include <cstdint>

namespace codomyrmex::concurrency::detail {

/// The uses of one thing after another.
///
/// | half of the word | means |
/// | --- | --- |
/// | upper | how often a thing came or went: odd while one is there |
/// | lower | how many use it: 0 while none is there |
///
/// A thing goes only from a word that says that nobody uses it, and then no use of it begins: the
/// word has changed, and does not come back to what it was but after two thousand million things.
///
/// Threads: come() and go() are for one thread at a time, all else is safe to call concurrently.
class UseCount {
  public:
    /// The word at one time: which thing was there, if one was.
    class Sight {
        friend UseCount;
        explicit Sight(std::uint64_t word) noexcept : word_{word} {}
        std::uint64_t word_;
    };

    /// Nothing is there.
    UseCount() noexcept = default;
    UseCount(const UseCount&) = delete;
    UseCount& operator=(const UseCount&) = delete;

    /// A thing is there from now on. Requires: none is.
    /// Release: whoever sees it there sees it, and what the place says of it, as written before.
    void come() noexcept { word_.fetch_add(turn, std::memory_order_release); }

    /// It is gone. Requires: it is there.
    /// Returns: false, and does nothing, if somebody uses it.
    [[nodiscard]] bool go() noexcept {
        auto idle = word_.load(std::memory_order_relaxed) & ~uses;
        // Acquire: comes after every drop(). Nothing but read-modify-writes has followed it, so
        // what is read here is in its release sequence.
        return word_.compare_exchange_strong(idle, idle + turn, std::memory_order_acquire,
                                             std::memory_order_relaxed);
    }

    /// Acquire: pairs with come().
    [[nodiscard]] Sight look() const noexcept {
        return Sight{word_.load(std::memory_order_acquire)};
    }

    /// Uses the thing that was seen.
    /// Returns: false if none was, or it is gone. If true, all that was read of the place since the
    /// look() was said of this thing.
    [[nodiscard]] bool use(Sight seen) noexcept {
        if ((seen.word_ & turn) == 0) return false;
        for (auto word = seen.word_; (word & ~uses) == (seen.word_ & ~uses);) {
            // What was read since the look is of this thing: what the place says of the next one is
            // written after a go(), which comes after the drop() of this use. Acquire, so that even
            // a word that has come round gives a thing that can be used.
            if (word_.compare_exchange_weak(word, word + 1, std::memory_order_acquire,
                                            std::memory_order_relaxed)) {
                return true;
            }
        }
        return false;
    }

    /// Uses it once more. Relaxed: the caller sees the thing already.
    /// Requires: the caller uses it, or is the one who may call go().
    void use_again() noexcept { word_.fetch_add(1, std::memory_order_relaxed); }

    /// Ends a use. Release: what the user did to the thing comes before it goes.
    void drop() noexcept { word_.fetch_sub(1, std::memory_order_release); }

  private:
    static constexpr std::uint64_t turn = std::uint64_t{1} << 32;
    static constexpr std::uint64_t uses = turn - 1;

    std::atomic<std::uint64_t> word_{0};
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_USE_COUNT_HPP
