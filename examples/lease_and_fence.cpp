// SPDX-License-Identifier: MIT
//
// Why a lease has a fencing token. A holder is paused past the end of its lease, comes back and
// writes, not knowing; the store refuses it, because a later holder has written. Prints
//
//     the second holder writes: accepted
//     the first one, late: refused
//
// Usage: lease_and_fence [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <chrono>
#include <cstdint>
#include <iostream>
#include <string>
#include <utility>

using namespace codomyrmex::concurrency;
using namespace std::chrono_literals;

// A store that checks. In SQL: UPDATE row SET text = :text, fence = :fence WHERE fence <= :fence
class Store {
  public:
    [[nodiscard]] bool write(std::string text, std::uint64_t fence) {
        if (fence < newest_) return false;  // from a holder that has been replaced
        newest_ = fence;
        text_ = std::move(text);
        return true;
    }
    [[nodiscard]] const std::string& text() const { return text_; }

  private:
    std::string text_;
    std::uint64_t newest_ = 0;
};

int main(int argc, char** argv) try {
    RedisClient client{redis_url(argc, argv)};
    Store store;
    // max_hold ends the renewals at once, as a pause of the whole process would.
    RedisLock paused{"example:row", client, {.ttl = 300ms, .max_hold = 1ms}};
    RedisLock lock{"example:row", client};

    const Lease first = paused.lease();
    const Lease second = lock.lease();  // gets it once the first has run out
    const bool accepted = store.write("by the second", second.fence());
    const bool refused = !store.write("by the first", first.fence());

    std::cout << "the second holder writes: " << (accepted ? "accepted\n" : "REFUSED\n")
              << "the first one, late: " << (refused ? "refused\n" : "ACCEPTED\n");
    return accepted && refused && !first.valid() && store.text() == "by the second" ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
