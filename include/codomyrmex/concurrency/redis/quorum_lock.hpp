// SPDX-License-Identifier: MIT
//
// A lock that no single Redis server can lose: a lease of the majority of several independent
// masters. The members are RedisLock's (lock.hpp). What it promises beyond one master: it goes on
// with any minority down, slow or restarted empty, and a failure there frees nothing early. What it
// does not: order of service, for there is no queue; exclusion where a majority forgets, a clock is
// set by hand, or a holder is paused past its lease. There, too, the resource must check fence().

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_LOCK_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_LOCK_HPP

#include <codomyrmex/concurrency/concepts.hpp>
#include <codomyrmex/concurrency/redis/backend.hpp>
#include <codomyrmex/concurrency/redis/lease.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/quorum_client.hpp>

namespace codomyrmex::concurrency {

/// A lock over the majority of several masters.
///
///     QuorumLock ledger{"ledger", {client_a, client_b, client_c}};
using QuorumLock = BasicRedisLock<QuorumClient>;

/// A lease of a QuorumLock.
using QuorumLease = BasicLease<QuorumClient>;

/// Lets a LockManager serve such locks; no read-write locks and no permits.
///
///     LockManager manager{QuorumBackend{{client_a, client_b, client_c}, {.ttl = 10s}}};
using QuorumBackend = BasicRedisBackend<QuorumClient>;

static_assert(LockClient<QuorumClient>);
static_assert(TimedLockable<QuorumLock>);
static_assert(Leasing<QuorumLock>);
static_assert(Backend<QuorumBackend>);

}  // namespace codomyrmex::concurrency

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_QUORUM_LOCK_HPP
