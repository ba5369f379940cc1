// SPDX-License-Identifier: MIT
//
// Lets a LockManager serve locks, read-write locks and semaphores over Redis: `LockManager
// manager{RedisBackend{client}}`. Managers of different processes with the same prefix and server
// then hand out the same ones.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/identity.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/lock_client.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>

#include <cstddef>
#include <string_view>
#include <utility>

namespace codomyrmex::concurrency {

namespace detail {

/// What a client's locks and, if it has more, its other primitives are.
template <LockClient Client>
struct RedisPrimitives {
    using lock_type = BasicRedisLock<Client>;
};
template <PermitClient Client>
struct RedisPrimitives<Client> {
    using lock_type = BasicRedisLock<Client>;
    using read_write_type = BasicRedisReadWriteLock<Client>;
    using semaphore_type = BasicRedisSemaphore<Client>;
};

}  // namespace detail

/// Makes primitives over one client, all with the same options; only locks are retained. Copies
/// share the client.
template <LockClient Client>
class BasicRedisBackend : public detail::RedisPrimitives<Client> {
  public:
    using client_type = Client;
    using lock_type = BasicRedisLock<Client>;

    /// Throws: LockError(invalid_argument) if the options break their bounds.
    explicit BasicRedisBackend(Client client, LeaseOptions options = {})
        : client_{std::move(client)}, options_{std::move(options)} {
        redis::validate(options_);
    }

    /// Throws: LockError(invalid_argument) unless `name` has 1 to 512 bytes.
    [[nodiscard]] lock_type make_lock(std::string_view name) const {
        return lock_type{name, client_, options_};
    }

    /// Throws: as make_lock().
    [[nodiscard]] auto make_read_write(std::string_view name) const
        requires PermitClient<Client>
    {
        return BasicRedisReadWriteLock<Client>{name, client_, not_retained()};
    }

    /// Throws: as make_lock(); also unless `permits` is from 1 to RedisSemaphore::max().
    [[nodiscard]] auto make_semaphore(std::string_view name, std::ptrdiff_t permits) const
        requires PermitClient<Client>
    {
        return BasicRedisSemaphore<Client>{name, client_, permits, not_retained()};
    }

    [[nodiscard]] const Client& client() const noexcept { return client_; }
    [[nodiscard]] const LeaseOptions& options() const noexcept { return options_; }

  private:
    [[nodiscard]] LeaseOptions not_retained() const {
        LeaseOptions options = options_;
        options.retain = options.retain.zero();
        return options;
    }

    Client client_;
    LeaseOptions options_;
};

/// Locks over one Redis server.
using RedisBackend = BasicRedisBackend<RedisClient>;

static_assert(Backend<RedisBackend>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP
