// SPDX-License-Identifier: MIT
//
// Lets a LockManager serve locks over Redis: `LockManager manager{RedisBackend{client}}`. Managers
// of different processes with the same prefix and server then hand out the same locks.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>

#include <string_view>
#include <utility>

namespace codomyrmex::concurrency {

/// Makes locks over one client, all with the same options. Copies share the client.
template <LockClient Client>
class BasicRedisBackend {
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

    [[nodiscard]] const Client& client() const noexcept { return client_; }
    [[nodiscard]] const LeaseOptions& options() const noexcept { return options_; }

  private:
    Client client_;
    LeaseOptions options_;
};

/// Locks over one Redis server.
using RedisBackend = BasicRedisBackend<RedisClient>;

static_assert(Backend<RedisBackend>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_BACKEND_HPP
