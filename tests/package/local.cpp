// SPDX-License-Identifier: MIT
//
// What a user of the local half writes.

#include <codomyrmex/concurrency.hpp>

#include <mutex>

int main() {
    codomyrmex::concurrency::LocalLock lock{"my_resource"};
    codomyrmex::concurrency::LockManager manager;
    const std::scoped_lock guard{lock};
    const auto named = manager.lock("my_resource");
    return named.owns_lock() ? 0 : 1;
}
