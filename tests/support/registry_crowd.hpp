// SPDX-License-Identifier: MIT
//
// Threads that do to a registry all that can be done to it, and see that it does what it promises:
// who uses a name at the same time uses one primitive, and none that is destroyed; the user's own
// stays while it is pinned; no count is lost.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REGISTRY_CROWD_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REGISTRY_CROWD_HPP

#include <codomyrmex/concurrency/detail/probe.hpp>
#include <codomyrmex/concurrency/detail/registry.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/lock_manager_types.hpp>

#include "support/dice.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace support {

/// Threads: step() is safe to call concurrently.
class RegistryCrowd {
  public:
    /// So few names and places that entries come and go all the time.
    RegistryCrowd() : registry_{{.shards = 2, .cached_per_shard = 4}, probe_} {}
    RegistryCrowd(const RegistryCrowd&) = delete;
    RegistryCrowd& operator=(const RegistryCrowd&) = delete;

    void step(Dice& dice) {
        switch (dice(64)) {
            case 0:
                pin(dice(pinned_names), dice);
                break;
            case 1:
                be_many(dice);
                break;
            case 2:
            case 3:
                pass_on(pinned_names + dice(names - pinned_names), dice(passed));
                break;
            case 4:
                look();
                break;
            default:
                use(dice(names), dice(8) == 0 ? 2 : 1);
        }
    }

    /// Requires: no thread is at work any more.
    /// Returns: what was wrong; empty if nothing was.
    [[nodiscard]] std::string verdict() {
        for (Passed& one : stash_)
            end(std::move(one.reference));
        std::string wrong;
        const auto expect = [&](const char* what, std::uint64_t is, std::uint64_t should) {
            if (is == should) return;
            wrong += std::string{what} + ": " + std::to_string(is) + ", not " +
                     std::to_string(should) + "\n";
        };
        LockManagerStats stats;
        registry_.add_to(stats);
        expect("violations", violations_, 0);
        expect("acquisitions", stats.acquisitions, uses_);
        expect("releases", stats.releases, uses_);
        expect("active", stats.active, 0);
        expect("primitives", living_, stats.registered);
        return wrong;
    }

    /// How often a primitive was made; for who wants to know whether there was a coming and going.
    [[nodiscard]] std::uint64_t made() const noexcept { return made_; }
    [[nodiscard]] std::uint64_t uses() const noexcept { return uses_; }

  private:
    using LockManagerOptions = codomyrmex::concurrency::LockManagerOptions;
    using LockManagerStats = codomyrmex::concurrency::LockManagerStats;

    static constexpr unsigned names = 24;
    static constexpr unsigned pinned_names = 4;  // the first of them
    static constexpr unsigned passed = 3;
    static constexpr unsigned most_at_once = 60;

    /// What stands under a name. All orders are relaxed, so that what is looked for here is not
    /// hidden from ThreadSanitizer; what is not atomic it watches, too.
    struct Primitive {
        Primitive(RegistryCrowd& its_crowd, unsigned its_name, std::ptrdiff_t its_capacity,
                  bool is_pinned)
            : crowd{its_crowd},
              name{its_name},
              capacity{its_capacity},
              pinned{is_pinned},
              number{its_crowd.made_.fetch_add(1, std::memory_order_relaxed) + 1} {
            crowd.living_.fetch_add(1, std::memory_order_relaxed);
        }
        Primitive(const Primitive&) = delete;
        Primitive& operator=(const Primitive&) = delete;
        ~Primitive() {
            if (users.load(std::memory_order_relaxed) != 0) crowd.violated();
            poison = dead;
            crowd.living_.fetch_sub(1, std::memory_order_relaxed);
        }

        static constexpr unsigned alive = 0x600D;
        static constexpr unsigned dead = 0xDEAD;

        RegistryCrowd& crowd;
        const unsigned name;
        const std::ptrdiff_t capacity;
        const bool pinned;
        const std::uint64_t number;
        std::atomic<int> users{0};
        volatile unsigned poison = alive;
    };

    using Registry = codomyrmex::concurrency::detail::Registry<Primitive>;
    using Reference = Registry::reference_type;

    /// The primitive of a name that is in use, by its number, and by how many.
    struct Used {
        std::atomic<std::uint64_t> word{0};

        static constexpr unsigned bits = 16;

        /// Returns: false if another primitive is in use.
        bool begin(std::uint64_t number) noexcept {
            auto seen = word.load(std::memory_order_relaxed);
            do {
                if (seen != 0 && seen >> bits != number) return false;
            } while (!word.compare_exchange_weak(seen, seen == 0 ? (number << bits) + 1 : seen + 1,
                                                 std::memory_order_relaxed));
            return true;
        }
        void end() noexcept {
            auto seen = word.load(std::memory_order_relaxed);
            const auto left = [&] { return seen - 1; };
            while (!word.compare_exchange_weak(
                seen, (left() & ((1U << bits) - 1)) == 0 ? 0 : left(), std::memory_order_relaxed)) {
            }
        }
    };

    /// A use that one thread began and another ends.
    struct Passed {
        std::mutex mutex{};
        Reference reference{};
    };

    void violated() noexcept { violations_.fetch_add(1, std::memory_order_relaxed); }

    static std::string name_of(unsigned name) {
        return "a name that is no short string: " + std::to_string(name);
    }

    // Half of the names have one capacity all the time.
    static std::ptrdiff_t capacity_of(unsigned name, std::ptrdiff_t wish) {
        if (name < pinned_names) return 0;
        return name % 2 == 0 ? 1 : wish;
    }

    /// Returns: an empty one if the name is in use with another capacity.
    Reference begin(unsigned name, std::ptrdiff_t wish) {
        const auto capacity = capacity_of(name, wish);
        Reference used;
        try {
            used = registry_.find_or_make(name_of(name), capacity, [&] {
                return Primitive{*this, name, capacity, false};
            });
        } catch (const codomyrmex::concurrency::LockError&) {
            if (name < pinned_names || name % 2 == 0) violated();
            return {};
        }
        Primitive& primitive = used->primitive;
        if (!used_[name].begin(primitive.number)) violated();
        primitive.users.fetch_add(1, std::memory_order_relaxed);
        if (primitive.name != name || primitive.capacity != capacity) violated();
        if (used->name != name_of(name)) violated();
        used->counters.acquired(false);
        uses_.fetch_add(1, std::memory_order_relaxed);
        return used;
    }

    void end(Reference used) {
        if (!used) return;
        Primitive& primitive = used->primitive;
        if (primitive.poison != Primitive::alive) violated();
        used->counters.released(false);
        primitive.users.fetch_sub(1, std::memory_order_relaxed);
        used_[primitive.name].end();
    }

    void use(unsigned name, std::ptrdiff_t wish) {
        Reference used = begin(name, wish);
        if (!used) return;
        const Reference again = used.share();
        end(std::move(used));
    }

    void pass_on(unsigned name, unsigned where) {
        Reference used = begin(name, 1);
        {
            const std::lock_guard guard{stash_[where].mutex};
            std::swap(used, stash_[where].reference);
        }
        end(std::move(used));
    }

    /// Makes the table grow; the next to come make it small again.
    void be_many(Dice& dice) {
        std::vector<Reference> used;
        const unsigned first = names + dice(2) * most_at_once;
        for (unsigned i = 0; i < most_at_once; ++i)
            used.push_back(begin(first + i, 1));
        while (!used.empty()) {
            end(std::move(used.back()));
            used.pop_back();
        }
    }

    /// Pins an own primitive, and takes it away again when nobody uses it.
    void pin(unsigned name, Dice& dice) {
        if (!registry_.pin(name_of(name), [&] { return Primitive{*this, name, 0, true}; })) return;
        // Enough of them to have others forgotten.
        for (int i = 0; i < 10; ++i)
            use(dice(names), 1);
        Reference used = begin(name, 0);
        if (!used || !used->primitive.pinned) violated();
        const auto unpin = [&] {
            try {
                if (!registry_.unpin(name_of(name))) violated();
                return true;
            } catch (const codomyrmex::concurrency::LockError&) {
                return false;
            }
        };
        if (unpin()) violated();
        end(std::move(used));
        while (!unpin())
            std::this_thread::yield();
    }

    void look() {
        registry_.for_each([&](const auto& entry) {
            if (entry.primitive.poison != Primitive::alive) violated();
        });
    }

    std::atomic<std::uint64_t> violations_{0};
    std::atomic<std::uint64_t> made_{0};
    std::atomic<std::uint64_t> living_{0};
    std::atomic<std::uint64_t> uses_{0};
    std::array<Used, names + 2 * most_at_once> used_{};
    codomyrmex::concurrency::detail::Probe probe_{codomyrmex::concurrency::LockKind::semaphore,
                                                  LockManagerOptions{}};
    Registry registry_;
    std::array<Passed, passed> stash_{};
};

}  // namespace support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REGISTRY_CROWD_HPP
