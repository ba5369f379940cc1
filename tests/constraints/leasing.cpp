// SPDX-License-Identifier: MIT
//
// A lock that cannot be waited for with a limit does not lease.

#include <codomyrmex/concurrency/concepts.hpp>

#include <chrono>
#include <cstdint>

struct Token {
    bool stop_requested() const;
};

struct Lease {
    Lease(Lease&&) = default;
    Lease& operator=(Lease&&) = default;
    explicit operator bool() const;
    bool valid() const;
    std::chrono::nanoseconds remaining() const;
    std::uint64_t fence() const noexcept;
    Token stop_token() const;
    bool release();
};

struct NoDeadlines {
    using lease_type = Lease;
    Lease lease();
    Lease try_lease();
};

struct Complete : NoDeadlines {
    Lease try_lease_for(std::chrono::nanoseconds timeout);
    Lease try_lease_until(std::chrono::steady_clock::time_point time);
};

template <codomyrmex::concurrency::Leasing P>
void use(P& primitive);

#ifdef REFUSED
using Subject = NoDeadlines;
#else
using Subject = Complete;
#endif

void call(Subject& subject) {
    use(subject);
}
