// SPDX-License-Identifier: MIT
//
// What a name becomes in the server: its keys, and the options of those who lock it, checked once.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// How many permits a semaphore may have, and how many readers there may be at a time.
inline constexpr std::ptrdiff_t most_permits = 1'000'000;

/// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes. Any bytes will do.
inline void validate_name(std::string_view name) {
    if (name.empty() || name.size() > 512) {
        throw LockError(
            LockErrc::invalid_argument,
            "the name of a lock must have 1 to 512 bytes, not " + std::to_string(name.size()));
    }
}

/// `{`, `}` and `%` percent-encoded: a name may not open or close the key's hash tag.
[[nodiscard]] inline std::string encode_name(std::string_view name) {
    std::string encoded;
    encoded.reserve(name.size());
    for (const char byte : name) {
        switch (byte) {
            case '{':
                encoded += "%7B";
                break;
            case '}':
                encoded += "%7D";
                break;
            case '%':
                encoded += "%25";
                break;
            default:
                encoded += byte;
        }
    }
    return encoded;
}

/// What the keys of that kind begin with, after the prefix. A read-write lock is a semaphore of
/// very many permits: a reader has one, a writer all.
[[nodiscard]] constexpr std::string_view key_word(PrimitiveKind kind) noexcept {
    switch (kind) {
        case PrimitiveKind::lock:
            break;
        case PrimitiveKind::semaphore:
            return "sem:";
        case PrimitiveKind::read_write:
            return "rw:";
        case PrimitiveKind::quorum:
            return "quorum:";
    }
    return "lock:";
}

/// Whether a primitive of this kind has one holder at a time, whose value is a string.
[[nodiscard]] constexpr bool has_one_holder(PrimitiveKind kind) noexcept {
    return kind == PrimitiveKind::lock || kind == PrimitiveKind::quorum;
}

/// The keys of one primitive, one behind the other in one string: each lease may have its own.
class PrimitiveKeys {
  public:
    /// `main`: the key of the holder, or the holders.
    PrimitiveKeys(PrimitiveKind kind, std::string_view main) : main_{main.size()} {
        const bool many = !has_one_holder(kind);
        text_.reserve((many ? 3 : 2) * longer());
        for (const std::string_view word : {fence_word, queue_word})
            text_.append(main).append(word);
        if (many) text_.append(main).append(":meta");
    }

    /// Of who holds it.
    [[nodiscard]] std::string_view main() const noexcept { return text().substr(0, main_); }
    /// Of the last fencing token.
    [[nodiscard]] std::string_view fence() const noexcept { return text().substr(0, longer()); }
    /// Of who waits.
    [[nodiscard]] std::string_view queue() const noexcept {
        return text().substr(longer(), longer());
    }
    /// Of what else is known about many holders; empty if there is one at a time.
    [[nodiscard]] std::string_view meta() const noexcept { return text().substr(2 * longer()); }

  private:
    static constexpr std::string_view fence_word = ":fence";
    static constexpr std::string_view queue_word = ":queue";
    static_assert(fence_word.size() == queue_word.size());

    [[nodiscard]] std::string_view text() const noexcept { return text_; }
    // The size of the fence's key, and of the queue's.
    [[nodiscard]] std::size_t longer() const noexcept { return main_ + fence_word.size(); }

    std::size_t main_;  // the size of that key
    std::string text_;
};

/// The keys of the primitive `name`.
/// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes.
[[nodiscard]] inline PrimitiveKeys keys_of(std::string_view prefix, PrimitiveKind kind,
                                           std::string_view name) {
    validate_name(name);
    std::string main{prefix};
    main += key_word(kind);
    main += '{' + encode_name(name) + '}';
    return {kind, main};
}

/// What all leases of one object have in common: its name, its keys, its options.
struct LockIdentity {
    std::string name{};
    PrimitiveKind kind = PrimitiveKind::lock;
    PrimitiveKeys keys;
    std::uint64_t weight = 1;    ///< how many permits each lease has
    std::uint64_t capacity = 1;  ///< how many there are
    LeaseOptions options{};
};

/// Requires: `options` within the documented bounds.
/// Throws: LockError(invalid_argument) that names the member which is not.
inline void validate(const LeaseOptions& options) {
    using namespace std::chrono_literals;
    if (options.ttl < 10ms || options.ttl > 24h) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::ttl must be from 10 ms to 24 h, not " +
                            std::to_string(options.ttl.count()) + " ms");
    }
    if (options.max_hold < 0ms) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_hold must not be negative, but is " +
                            std::to_string(options.max_hold.count()) + " ms");
    }
    if (options.max_local_handovers < 0 || options.max_local_handovers > 1'000'000) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_local_handovers must be from 0 to 1,000,000, not " +
                            std::to_string(options.max_local_handovers));
    }
    if (options.max_local_run < 0ms) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::max_local_run must not be negative, but is " +
                            std::to_string(options.max_local_run.count()) + " ms");
    }
    if (options.retain < 0ms || options.retain > options.ttl) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::retain must be from 0 to the ttl, not " +
                            std::to_string(options.retain.count()) + " ms");
    }
}

/// What follows from the key of the holder alone, under the key prefix `prefix`.
[[nodiscard]] inline LockIdentity identity_of_key(std::string_view prefix, std::string_view key) {
    const std::string_view rest = key.substr(std::min(prefix.size(), key.size()));
    PrimitiveKind kind = PrimitiveKind::lock;
    for (const PrimitiveKind each : {PrimitiveKind::semaphore, PrimitiveKind::read_write}) {
        if (rest.starts_with(key_word(each))) kind = each;
    }
    return {.kind = kind, .keys = {kind, key}};
}

/// The identity of `name` under the key prefix `prefix`.
/// Throws: LockError(invalid_argument) for a name or options that break their bounds.
[[nodiscard]] inline LockIdentity make_identity(std::string_view prefix, std::string_view name,
                                                LeaseOptions options,
                                                PrimitiveKind kind = PrimitiveKind::lock) {
    PrimitiveKeys keys = keys_of(prefix, kind, name);
    validate(options);
    if (kind != PrimitiveKind::lock && options.retain != options.retain.zero()) {
        throw LockError(LockErrc::invalid_argument,
                        "LeaseOptions::retain is for locks; permits, reads and writes are given "
                        "back at once");
    }
    return {.name = std::string{name},
            .kind = kind,
            .keys = std::move(keys),
            .options = std::move(options)};
}

/// The identity of leases of `weight` permits each, of the `capacity` that the semaphore `name`
/// has. Throws: as make_identity(); also for numbers that will not do.
[[nodiscard]] inline LockIdentity make_permit_identity(std::string_view prefix,
                                                       std::string_view name,
                                                       std::ptrdiff_t capacity,
                                                       std::ptrdiff_t weight,
                                                       LeaseOptions options) {
    if (capacity < 1 || capacity > most_permits) {
        throw LockError(LockErrc::invalid_argument, "a semaphore of " + std::to_string(capacity) +
                                                        " permits: there must be from 1 to " +
                                                        std::to_string(most_permits));
    }
    if (weight < 1 || weight > capacity) {
        throw LockError(LockErrc::invalid_argument,
                        std::to_string(weight) + " permits of a semaphore of " +
                            std::to_string(capacity) + ": ask for from 1 to all of them");
    }
    LockIdentity identity =
        make_identity(prefix, name, std::move(options), PrimitiveKind::semaphore);
    identity.weight = static_cast<std::uint64_t>(weight);
    identity.capacity = static_cast<std::uint64_t>(capacity);
    return identity;
}

/// The identity of the readers of the read-write lock `name`, or of its writers.
/// Throws: as make_identity().
[[nodiscard]] inline LockIdentity make_read_write_identity(std::string_view prefix,
                                                           std::string_view name, bool writes,
                                                           LeaseOptions options) {
    LockIdentity identity =
        make_identity(prefix, name, std::move(options), PrimitiveKind::read_write);
    identity.capacity = static_cast<std::uint64_t>(most_permits);
    identity.weight = writes ? identity.capacity : 1;
    return identity;
}

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_IDENTITY_HPP
