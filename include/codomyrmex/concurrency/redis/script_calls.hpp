// SPDX-License-Identifier: MIT
//
// Which scripts the server of a connection knows, as far as this process can tell: whether to call
// one by its digest or with its body. Without I/O.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP

#include <codomyrmex/concurrency/redis/command.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Not thread-safe.
class ScriptCalls {
  public:
    /// How to call `script` next, over the connection of that number, which is not zero: the first
    /// call on a connection brings the body along. To be asked in the order in which calls are
    /// sent.
    [[nodiscard]] Call how_to_call(const Script& script, std::uint64_t connection) noexcept {
        std::uint64_t& loaded = loaded_[static_cast<std::size_t>(script.id)];
        return std::exchange(loaded, connection) == connection ? Call::digest : Call::body;
    }

    /// The server said that it does not know it: the next call brings the body.
    void forget(const Script& script) noexcept { loaded_[static_cast<std::size_t>(script.id)] = 0; }

  private:
    // On which connection each script's body went last; zero: on none that counts.
    std::array<std::uint64_t, script_count> loaded_{};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_SCRIPT_CALLS_HPP
