// SPDX-License-Identifier: MIT
//
// The registry hands out no permits and no reads where majorities of different nodes grant them.

#include <codomyrmex/concurrency/lock_manager.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>

using namespace codomyrmex::concurrency;

#ifdef REFUSED
void call(LockManager<QuorumBackend>& manager) {
    manager.permit("pool", 5);
    manager.read("config");
}
#else
template <class M>
concept Permits = requires(M& manager) { manager.permit("pool", 5); };
template <class M>
concept Reads = requires(M& manager) { manager.read("config"); };
static_assert(!Permits<LockManager<QuorumBackend>> && !Reads<LockManager<QuorumBackend>>);
static_assert(Permits<LockManager<LocalBackend>> && Reads<LockManager<LocalBackend>>);
void call(LockManager<QuorumBackend>& manager) {
    const auto guard = manager.lock("ledger");
}
#endif
