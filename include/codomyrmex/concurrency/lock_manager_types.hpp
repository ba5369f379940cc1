// SPDX-License-Identifier: MIT
//
// The plain values that go into a LockManager and come out of it: its options, its counts and the
// list of its entries. <codomyrmex/concurrency/lock_manager.hpp> brings them along.

#ifndef CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP
#define CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <ranges>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace codomyrmex::concurrency {

/// How a LockManager keeps its entries. What is here changes speed and memory, nothing else.
struct LockManagerOptions {
    /// How many parts each kind of entry is spread over, by the hash of the name; look-ups in
    /// different parts do not touch each other. 1 to 65,536, rounded up to a power of two.
    std::size_t shards = 64;

    /// How many entries a shard may have before it looks for idle ones to forget. An entry in use
    /// is never forgotten, an idle one is made anew when its name comes up again.
    std::size_t cached_per_shard = 64;
};

/// What an entry of a LockManager is. Each kind has a name space of its own.
enum class LockKind {
    /// Made by `lock` and its kin, by `get_lock` or by `register_lock`.
    lock,
    /// Made by `read`, `write` and their kin.
    read_write,
    /// Made by `permit` and its kin.
    semaphore,
};

/// One entry of a LockManager, as it was when its shard was looked at.
struct LockEntry {
    std::string name;
    LockKind kind = LockKind::lock;
    /// How many hold it: guards, and handles that are locked.
    std::size_t held = 0;
    /// How many calls wait for it.
    std::size_t waiting = 0;
};

/// The counts of a LockManager, over all of its kinds. Entries that were forgotten still count.
/// They are collected while others go on: each is right by itself, together they are approximate
/// until nobody else uses the manager.
struct LockManagerStats {
    /// Entries there are now: in use, registered by the user, or idle and not yet forgotten.
    std::size_t registered = 0;
    /// Holds there are now.
    std::size_t active = 0;
    /// Calls that wait now.
    std::size_t waiting = 0;
    /// Holds obtained, those included that `lock_all` gave back because another was missing.
    std::uint64_t acquisitions = 0;
    /// Holds that ended.
    std::uint64_t releases = 0;
    /// Calls that found somebody else in the way. A distributed lock counts where its lease tells.
    std::uint64_t contended = 0;
    /// Calls with a limit that gave up when it came.
    std::uint64_t timeouts = 0;
    /// Holds whose lease turned out at the release to have been lost before.
    std::uint64_t lost = 0;
};

/// The names that `lock_all` takes: a list in braces, or any range of strings. Sorted, each once.
/// It refers to the strings and does not copy them, so it is a parameter and nothing to keep.
class LockNames {
  public:
    LockNames() noexcept = default;

    // Not explicit, so that a call reads lock_all({"b", "a"}) and lock_all(names).
    LockNames(std::initializer_list<std::string_view> names) : names_{names} { tidy(); }

    template <std::ranges::input_range Range>
        requires std::convertible_to<std::ranges::range_reference_t<Range>, std::string_view> &&
                 (std::is_lvalue_reference_v<std::ranges::range_reference_t<Range>> ||
                  std::same_as<std::ranges::range_value_t<Range>, std::string_view>) &&
                 (!std::same_as<std::remove_cvref_t<Range>, LockNames>)
    // NOLINTNEXTLINE(google-explicit-constructor, bugprone-forwarding-reference-overload)
    LockNames(Range&& names) {
        for (auto&& name : names)
            names_.push_back(name);
        tidy();
    }

    [[nodiscard]] auto begin() const noexcept { return names_.begin(); }
    [[nodiscard]] auto end() const noexcept { return names_.end(); }
    [[nodiscard]] std::size_t size() const noexcept { return names_.size(); }

  private:
    void tidy() {
        std::sort(names_.begin(), names_.end());
        names_.erase(std::unique(names_.begin(), names_.end()), names_.end());
    }

    std::vector<std::string_view> names_;
};

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_LOCK_MANAGER_TYPES_HPP
