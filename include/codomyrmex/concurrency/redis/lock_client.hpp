// SPDX-License-Identifier: MIT
//
// What the distributed primitives need of the client that speaks for them. RedisClient is the
// model; tests have one that talks to nobody.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_LOCK_CLIENT_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_LOCK_CLIENT_HPP

#include <codomyrmex/concurrency/deadline.hpp>
#include <codomyrmex/concurrency/error.hpp>
#include <codomyrmex/concurrency/redis/acquisition.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/released.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace codomyrmex::concurrency {

/// What a lock needs of the client that speaks for it; the meaning stands with RedisClient.
template <class C>
concept LockClient = std::copy_constructible<C> &&
                     requires(C& client, std::string_view name, LeaseOptions options,
                              std::shared_ptr<const redis::LockIdentity> identity,
                              const std::shared_ptr<redis::Hold>& hold, const redis::Wait& wait,
                              Deadline deadline, LockErrc errc, const std::string& what) {
                         { client.identify(name, options) } -> std::same_as<decltype(identity)>;
                         {
                             client.acquire(identity, wait)
                         } -> std::same_as<std::shared_ptr<redis::Hold>>;
                         { client.release(hold, deadline) } -> std::same_as<redis::Released>;
                         { client.give_back(hold) } noexcept -> std::same_as<redis::Released>;
                         { client.renew(hold, deadline) } -> std::same_as<bool>;
                         client.report(errc, what);
                     };

/// What a primitive with more than one holder needs of its client; the meaning stands with
/// RedisClient.
template <class C>
concept PermitClient =
    LockClient<C> &&
    requires(C& client, std::string_view name, std::ptrdiff_t number, LeaseOptions options,
             const redis::LockIdentity& identity, const std::shared_ptr<redis::Hold>& hold,
             std::uint64_t weight, Deadline deadline) {
        {
            client.identify_permits(name, number, number, options)
        } -> std::same_as<std::shared_ptr<const redis::LockIdentity>>;
        {
            client.identify_read_write(name, true, options)
        } -> std::same_as<std::shared_ptr<const redis::LockIdentity>>;
        { client.reweigh(hold, weight, deadline) } -> std::same_as<std::shared_ptr<redis::Hold>>;
        { client.resize(identity, weight, deadline) } -> std::same_as<std::uint64_t>;
    };

static_assert(PermitClient<RedisClient>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_LOCK_CLIENT_HPP
