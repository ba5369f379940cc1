// SPDX-License-Identifier: MIT
//
// How a client calls scripts: by digest where the server has the body, which it has from the first
// call on each connection on; and under a number, by which an answer is known for the request's
// own. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP

#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace codomyrmex::concurrency::redis {

/// Threads: safe.
class ScriptCalls {
  public:
    /// The first call on a connection brings the body along. Should the server forget it later, it
    /// says so, and the call is repeated with it.
    /// `connections`: how many were made so far, which is the number of the one that is used; zero
    /// before the first, which this call then makes.
    [[nodiscard]] Call how_to_call(const Script& script, std::uint64_t connections) noexcept {
        std::atomic<std::uint64_t>& loaded = loaded_[static_cast<std::size_t>(script.id)];
        const bool known =
            loaded.exchange(std::max<std::uint64_t>(connections, 1)) == connections &&
            connections != 0;
        return known ? Call::digest : Call::body;
    }

    /// The server said that it does not know it: the next call brings the body.
    void forget(const Script& script) noexcept {
        loaded_[static_cast<std::size_t>(script.id)].store(0);
    }

    /// Returns: one that no request had yet.
    [[nodiscard]] RequestNumber next_number() noexcept {
        return RequestNumber{numbers_.fetch_add(1, std::memory_order_relaxed)};
    }

  private:
    // On which connection each script's body went last; zero: on none that counts.
    std::array<std::atomic<std::uint64_t>, script_count> loaded_{};
    std::atomic<std::uint64_t> numbers_{1};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP
