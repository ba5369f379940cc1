// SPDX-License-Identifier: MIT
//
// A cluster of one node: it answers for each key as a single server does, but refuses a command
// whose keys are in different slots.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_CLUSTER_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_CLUSTER_HPP

#include "support/redis_server.hpp"
#include "support/threads.hpp"

#include <stdexcept>
#include <string>

namespace test_support {

class RedisCluster : public RedisServer {
  public:
    RedisCluster()
        : RedisServer{
              {.args = {"--cluster-enabled", "yes", "--cluster-port", std::to_string(free_port())},
               .tcp = true}} {
        command({"CLUSTER", "ADDSLOTSRANGE", "0", "16383"});
        std::string seen;
        const bool ready = support::eventually([&] {
            seen = command({"CLUSTER", "INFO"}).text;
            return seen.find("cluster_state:ok") != std::string::npos;
        });
        if (!ready) throw std::runtime_error{"the cluster is not ready: " + seen};
    }
};

}  // namespace test_support

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_SUPPORT_REDIS_CLUSTER_HPP
