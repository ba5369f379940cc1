// SPDX-License-Identifier: MIT
//
// What an operator sees of a primitive in the server: who holds it, who waits, what there is. Plain
// values; client.hpp has the members that give them.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency {

/// What a key of this library stands for. Each kind has a name space of its own.
enum class PrimitiveKind : std::uint8_t { lock, semaphore, read_write, quorum };

/// "lock", "semaphore", "read_write", "quorum".
[[nodiscard]] constexpr std::string_view to_string(PrimitiveKind kind) noexcept {
    switch (kind) {
        case PrimitiveKind::lock:
            return "lock";
        case PrimitiveKind::semaphore:
            return "semaphore";
        case PrimitiveKind::read_write:
            return "read_write";
        case PrimitiveKind::quorum:
            return "quorum";
    }
    return "unknown";
}

/// Somebody who holds a primitive, as it was when the server was asked. What it says of itself was
/// written when it acquired; a process that hands a lock from thread to thread says so of the
/// thread that asked the server.
struct Holder {
    PrimitiveKind kind = PrimitiveKind::lock;
    std::string host{};       ///< empty where the text was not written by this library
    std::int64_t pid = 0;     ///< of its process
    std::int64_t thread = 0;  ///< the kernel's number of its thread
    std::string label{};      ///< LeaseOptions::label

    /// When it acquired, by the server's clock, and how long ago that was, by the same clock.
    std::chrono::sys_seconds since{};
    std::chrono::seconds age{0};

    std::chrono::milliseconds ttl{0};  ///< what is left of its lease, unless it is renewed

    /// The last fencing token that was given out for this name; 0 if the server knows none. A
    /// lock's holder has this one, or one of the block before it that its process reserved for its
    /// threads.
    std::uint64_t fence = 0;

    std::string token{};       ///< the owner token, unique to this hold
    std::uint64_t weight = 1;  ///< of the capacity: how much it holds; of a lock, 1

    /// Its process keeps the lease between two uses (LeaseOptions::retain), so that perhaps none of
    /// its threads is inside right now.
    bool retains = false;
};

/// Somebody who stands in the server's queue.
struct Waiter {
    std::string host{};
    std::int64_t pid = 0;
    std::int64_t thread = 0;
    std::string label{};
    std::string token{};
    /// Since when, by the server's clock.
    std::chrono::sys_time<std::chrono::microseconds> since{};
    std::uint64_t weight = 1;  ///< how much of the capacity it wants; of a lock, 1
};

/// A primitive that somebody holds.
struct RedisEntry {
    std::string name{};
    PrimitiveKind kind = PrimitiveKind::lock;
    std::optional<Holder> holder{};  ///< of several, the one whose lease ends first
    std::size_t holders = 0;         ///< how many there are
    std::size_t waiting = 0;         ///< how many stand in the queue
    std::uint64_t capacity = 1;      ///< how much there is to hold; of a lock, 1
    /// The key has this library's name but was not written by it: another type, or no expiry.
    bool foreign = false;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_HOLDER_HPP
