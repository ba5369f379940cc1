// SPDX-License-Identifier: MIT
//
// The hash table of one shard of a registry: whoever looks for what is there takes no lock, whoever
// puts something in or takes something out holds the shard's mutex. How many entries there may be,
// and when one is forgotten, is the registry's business.

#ifndef CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_TABLE_HPP
#define CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_TABLE_HPP

#include <codomyrmex/concurrency/detail/registry_entry.hpp>

#include <atomic>
#include <cstddef>
#include <deque>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

namespace codomyrmex::concurrency::detail {

/// Chains of places, by the lowest bits of the hash.
///
/// use() follows a chain while others change it. It may lose its way; then it finds nothing, and
/// its caller looks again under the mutex. But wherever it comes there is a place, for places and
/// arrays of chains live as long as the table; and whether a place still has the entry that it
/// seemed to have, its UseCount says.
///
/// So of a crowd that is gone there stay, for each entry, a place and a few links: less than 100
/// bytes.
///
/// Threads: use() is safe to call concurrently with all members; the others are for whoever holds
/// the mutex.
template <class Primitive>
class RegistryTable {
  public:
    using entry_type = RegistryEntry<Primitive>;
    using reference_type = Reference<Primitive>;
    using Place = RegistryPlace<Primitive>;

    RegistryTable() : arrays_(1), longest_{fewest} {
        arrays_.front() = std::make_unique<Link[]>(fewest);
        links_ = arrays_.front().get();
        mask_ = fewest - 1;
    }
    RegistryTable(const RegistryTable&) = delete;
    RegistryTable& operator=(const RegistryTable&) = delete;

    /// The entry of that name and capacity, without the mutex.
    /// Returns: nothing if it was not found. It may be there all the same.
    [[nodiscard]] reference_type use(std::string_view name, std::size_t hash,
                                     std::ptrdiff_t capacity) const noexcept {
        // In this order: the array only grows, so it is as long as the mask wants it, or longer.
        const std::size_t mask = mask_.load(std::memory_order_acquire);
        const Link* links = links_.load(std::memory_order_acquire);
        Place* place = links[hash & mask].load(std::memory_order_acquire);
        for (int step = 0; place != nullptr && step < most_steps; ++step) {
            foresee(place);
            const auto seen = place->uses.look();
            if (place->hash.load(std::memory_order_relaxed) == hash &&
                place->capacity.load(std::memory_order_relaxed) == capacity &&
                place->uses.use(seen)) {
                reference_type used{*place->entry};
                if (used->name == name) [[likely]]
                    return used;
                // Another name of that hash. It goes back.
            }
            place = place->next.load(std::memory_order_acquire);
        }
        return {};
    }

    /// Returns: the place of the entry of that name, or null.
    [[nodiscard]] Place* find(std::string_view name, std::size_t hash) const noexcept {
        Place* place = get(link_of(hash));
        while (place != nullptr && !(get(place->hash) == hash && place->entry->name == name))
            place = get(place->next);
        return place;
    }

    /// Requires: there is none of that name.
    /// Throws: std::bad_alloc; nothing has changed then.
    Place& insert(std::unique_ptr<entry_type> entry, std::size_t hash, std::ptrdiff_t capacity) {
        if (get(free_) == nullptr) push(free_, places_.emplace_back());
        if (size_ >= width()) spread(2 * width());
        Place& place = pop(free_);
        entry->place = &place;
        place.entry = std::move(entry);
        place.hash.store(hash, std::memory_order_relaxed);
        place.capacity.store(capacity, std::memory_order_relaxed);
        place.uses.come();
        push(link_of(hash), place);
        ++size_;
        return place;
    }

    /// Takes an entry out. Returns: null, and does nothing, if it is in use.
    [[nodiscard]] std::unique_ptr<entry_type> remove(Place& place) noexcept {
        Link* link = &link_of(get(place.hash));
        while (get(*link) != &place)
            link = &get(*link)->next;
        return remove_at(*link);
    }

    /// Takes out what is neither in use nor pinned, and calls `take(entry)` for each.
    template <class Take>
    void remove_idle(Take take) {
        for (std::size_t i = 0; i < width(); ++i) {
            for (Link* link = &link_of(i); get(*link) != nullptr;) {
                auto entry = get(*link)->entry->pinned ? nullptr : remove_at(*link);
                if (entry == nullptr) {
                    link = &get(*link)->next;
                } else {
                    take(std::move(entry));
                }
            }
        }
    }

    template <class Visit>
    void for_each(Visit visit) const {
        for (std::size_t i = 0; i < width(); ++i) {
            for (const Place* place = get(link_of(i)); place != nullptr; place = get(place->next))
                visit(std::as_const(*place->entry));
        }
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// How many chains there are.
    [[nodiscard]] std::size_t width() const noexcept { return get(mask_) + 1; }

    /// Spreads the entries over so many chains, a power of two.
    /// Throws: std::bad_alloc; nothing has changed then. Never where it had as many before.
    void spread(std::size_t count) {
        Link* links = get(links_);
        if (count > longest_) {
            links = arrays_.emplace_back(std::make_unique<Link[]>(count)).get();
            longest_ = count;
        }
        Link all{nullptr};
        for (std::size_t i = 0; i < width(); ++i) {
            while (get(link_of(i)) != nullptr)
                push(all, pop(link_of(i)));
        }
        links_.store(links, std::memory_order_release);
        mask_.store(count - 1, std::memory_order_release);
        while (get(all) != nullptr) {
            Place& place = pop(all);
            push(link_of(get(place.hash)), place);
        }
    }

  private:
    using Link = std::atomic<Place*>;

    static constexpr std::size_t fewest = 8;
    // A longer chain, of names made to have one hash or by a way that was lost, is for the mutex.
    static constexpr int most_steps = 8;

    // Before the place is read: its line comes from another processor, most likely, and is to be
    // written to.
    static void foresee([[maybe_unused]] const Place* place) noexcept {
#if defined(__GNUC__)
        __builtin_prefetch(place, 1);
#endif
    }

    // For who has the mutex: nobody else writes.
    template <class T>
    [[nodiscard]] static T get(const std::atomic<T>& value) noexcept {
        return value.load(std::memory_order_relaxed);
    }

    // Release: whoever comes to the place without the mutex finds it made.
    static void push(Link& list, Place& place) noexcept {
        place.next.store(get(list), std::memory_order_release);
        list.store(&place, std::memory_order_release);
    }
    static Place& pop(Link& list) noexcept {
        Place& place = *get(list);
        list.store(get(place.next), std::memory_order_release);
        return place;
    }

    [[nodiscard]] Link& link_of(std::size_t hash) const noexcept {
        return get(links_)[hash & get(mask_)];
    }

    // Returns: null, and does nothing, if the entry that the link leads to is in use.
    [[nodiscard]] std::unique_ptr<entry_type> remove_at(Link& link) noexcept {
        if (!get(link)->uses.go()) return nullptr;
        Place& place = pop(link);
        push(free_, place);
        --size_;
        return std::move(place.entry);
    }

    // What use() reads.
    std::atomic<std::size_t> mask_{0};
    std::atomic<Link*> links_{nullptr};

    // The rest is for who has the mutex, and on another cache line.
    alignas(64) std::size_t size_ = 0;
    Link free_{nullptr};
    std::deque<Place> places_;
    // Every array of links that there was. The last one is in use; in the others all are null.
    std::vector<std::unique_ptr<Link[]>> arrays_;
    std::size_t longest_ = 0;
};

}  // namespace codomyrmex::concurrency::detail

#endif  // CODOMYRMEX_CONCURRENCY_DETAIL_REGISTRY_TABLE_HPP
