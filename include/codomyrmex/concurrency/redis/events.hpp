// SPDX-License-Identifier: MIT
//
// Calls the program's hooks, so that nothing a hook does can harm the library: what it throws is
// swallowed and counted. Whoever calls these holds no lock.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_EVENTS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_EVENTS_HPP

#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <atomic>
#include <cstdint>
#include <string>
#include <utility>

namespace codomyrmex::concurrency::redis {

/// Threads: safe, as far as the hooks are.
class Events {
  public:
    explicit Events(ClientHooks hooks) : hooks_{std::move(hooks)} {}

    void lost(const LostLease& lease) noexcept {
        lost_.fetch_add(1, std::memory_order_relaxed);
        call([&] {
            if (hooks_.on_lost) hooks_.on_lost(lease);
        });
    }

    void error(LockErrc errc, const std::string& what) noexcept {
        call([&] {
            if (hooks_.on_error) hooks_.on_error(make_error_code(errc), what);
        });
    }

    [[nodiscard]] std::uint64_t leases_lost() const noexcept {
        return lost_.load(std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t exceptions() const noexcept {
        return exceptions_.load(std::memory_order_relaxed);
    }

  private:
    template <class Call>
    void call(Call hook) noexcept {
        try {
            hook();
        } catch (...) {
            exceptions_.fetch_add(1, std::memory_order_relaxed);
        }
    }

    ClientHooks hooks_;
    std::atomic<std::uint64_t> lost_{0};
    std::atomic<std::uint64_t> exceptions_{0};
};

}  // namespace codomyrmex::concurrency::redis

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_EVENTS_HPP
