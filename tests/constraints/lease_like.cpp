// SPDX-License-Identifier: MIT
//
// A lease that can be copied is none: two owners would release one hold.

#include <codomyrmex/concurrency/concepts.hpp>

#include <chrono>
#include <cstdint>

struct Token {
    bool stop_requested() const;
};

struct Copyable {
    explicit operator bool() const;
    bool valid() const;
    std::chrono::nanoseconds remaining() const;
    std::uint64_t fence() const noexcept;
    Token stop_token() const;
    bool release();
};

struct MoveOnly : Copyable {
    MoveOnly(MoveOnly&&) = default;
    MoveOnly& operator=(MoveOnly&&) = default;
};

template <codomyrmex::concurrency::LeaseLike L>
void use(L& lease);

#ifdef REFUSED
using Subject = Copyable;
#else
using Subject = MoveOnly;
#endif

void call(Subject& subject) {
    use(subject);
}
