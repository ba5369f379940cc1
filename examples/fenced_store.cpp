// SPDX-License-Identifier: MIT
//
// Redis itself as a store that refuses old fencing tokens: a script compares the token with that of
// the last write before it writes. The lock is taken away from its holder, who does not know yet
// and writes; only the store can stop it. Prints
//
//     the new holder writes: accepted
//     the old one, late: refused
//
// Usage: fenced_store [URL], or CODOMYRMEX_REDIS_URL; of a server without a password.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <hiredis/hiredis.h>

#include <cstdint>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

using namespace codomyrmex::concurrency;

// Tokens have 19 digits: as texts they compare as the numbers do, which Lua's numbers cannot hold.
constexpr const char* write_if_newest =
    "local last = redis.call('HGET', KEYS[1], 'fence')\n"
    "if last and ARGV[1] < last then return 0 end\n"
    "redis.call('HSET', KEYS[1], 'fence', ARGV[1], 'text', ARGV[2])\n"
    "return 1\n";

bool write(redisContext& store, const std::string& text, std::uint64_t fence) {
    const std::string token = std::to_string(fence);
    const std::unique_ptr<void, void (*)(void*)> answer{
        redisCommand(&store, "EVAL %s 1 example:fenced_row %s %s", write_if_newest, token.c_str(),
                     text.c_str()),
        freeReplyObject};
    if (!answer) throw std::runtime_error{store.errstr};
    return static_cast<const redisReply*>(answer.get())->integer == 1;
}

int main(int argc, char** argv) try {
    RedisClient client{redis_url(argc, argv)};
    const Endpoint& at = client.endpoint();
    const std::unique_ptr<redisContext, void (*)(redisContext*)> store{
        at.path.empty() ? redisConnect(at.host.c_str(), at.port)
                        : redisConnectUnix(at.path.c_str()),
        redisFree};
    if (!store || store->err != 0) throw std::runtime_error{"no store at " + at.to_string()};

    RedisLock lock{"example:fenced_row", client};
    const Lease old_one = lock.lease();
    client.force_release("example:fenced_row", client.holder("example:fenced_row").value());
    const Lease new_one = lock.lease();
    const bool accepted = write(*store, "by the new holder", new_one.fence());
    const bool refused = !write(*store, "by the old one", old_one.fence());

    std::cout << "the new holder writes: " << (accepted ? "accepted\n" : "REFUSED\n")
              << "the old one, late: " << (refused ? "refused\n" : "ACCEPTED\n");
    return accepted && refused ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
