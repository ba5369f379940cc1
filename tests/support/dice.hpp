// SPDX-License-Identifier: MIT
//
// Chance that is the same each time, for threads that must not do all the same.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_DICE_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_DICE_HPP

namespace support {

/// A number that looks like chance, another for each step of each thread.
class Dice {
  public:
    explicit Dice(int thread) : state_{static_cast<unsigned>(thread) * 7919U + 1U} {}
    unsigned operator()(unsigned sides) {
        state_ = state_ * 1'664'525U + 1'013'904'223U;
        return (state_ >> 8) % sides;
    }

  private:
    unsigned state_;
};

}  // namespace support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_DICE_HPP
