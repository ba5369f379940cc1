// SPDX-License-Identifier: MIT
//
// The Redis half: locks that hold between processes and machines, as leases with fencing tokens.
// Needs hiredis. The local half, and the registry, are in <codomyrmex/concurrency.hpp>.

#ifndef CODOMYRMEX_CONCURRENCY_REDIS_HPP
#define CODOMYRMEX_CONCURRENCY_REDIS_HPP

#include <codomyrmex/concurrency/redis/backend.hpp>
#include <codomyrmex/concurrency/redis/client.hpp>
#include <codomyrmex/concurrency/redis/client_core.hpp>
#include <codomyrmex/concurrency/redis/connection.hpp>
#include <codomyrmex/concurrency/redis/endpoint.hpp>
#include <codomyrmex/concurrency/redis/events.hpp>
#include <codomyrmex/concurrency/redis/hold.hpp>
#include <codomyrmex/concurrency/redis/holder.hpp>
#include <codomyrmex/concurrency/redis/inspect.hpp>
#include <codomyrmex/concurrency/redis/inspect_replies.hpp>
#include <codomyrmex/concurrency/redis/inspect_scripts.hpp>
#include <codomyrmex/concurrency/redis/keeper.hpp>
#include <codomyrmex/concurrency/redis/key_names.hpp>
#include <codomyrmex/concurrency/redis/lease.hpp>
#include <codomyrmex/concurrency/redis/lock.hpp>
#include <codomyrmex/concurrency/redis/options.hpp>
#include <codomyrmex/concurrency/redis/pipeline.hpp>
#include <codomyrmex/concurrency/redis/quorum_client.hpp>
#include <codomyrmex/concurrency/redis/quorum_lock.hpp>
#include <codomyrmex/concurrency/redis/quorum_options.hpp>
#include <codomyrmex/concurrency/redis/read_write_lock.hpp>
#include <codomyrmex/concurrency/redis/reply.hpp>
#include <codomyrmex/concurrency/redis/retry.hpp>
#include <codomyrmex/concurrency/redis/schedule.hpp>
#include <codomyrmex/concurrency/redis/scripts.hpp>
#include <codomyrmex/concurrency/redis/semaphore.hpp>
#include <codomyrmex/concurrency/redis/server_error.hpp>

#endif  // CODOMYRMEX_CONCURRENCY_REDIS_HPP
