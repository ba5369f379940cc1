// SPDX-License-Identifier: MIT
//
// A real database that refuses old fencing tokens: the row remembers the token of its last write,
// and one condition in the UPDATE does the rest. A holder reads the balance, loses the lock, and
// writes what it computed after another has written. Prints
//
//     the new holder's deposit: accepted
//     the old one's, late: refused
//     balance: 100
//
// Usage: fenced_sqlite [URL], or CODOMYRMEX_REDIS_URL.

#include <codomyrmex/concurrency/redis.hpp>

#include "support/redis_url.hpp"

#include <sqlite3.h>

#include <cstdint>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

using namespace codomyrmex::concurrency;

using Database = std::unique_ptr<sqlite3, int (*)(sqlite3*)>;

// Returns: the first value of the first row, or how many rows were changed.
std::int64_t run(const Database& database, const std::string& sql) {
    sqlite3_stmt* raw = nullptr;
    const int prepared = sqlite3_prepare_v2(database.get(), sql.c_str(), -1, &raw, nullptr);
    const std::unique_ptr<sqlite3_stmt, int (*)(sqlite3_stmt*)> statement{raw, sqlite3_finalize};
    const int status = prepared == SQLITE_OK ? sqlite3_step(raw) : prepared;
    if (status == SQLITE_ROW) return sqlite3_column_int64(raw, 0);
    if (status != SQLITE_DONE) throw std::runtime_error{sqlite3_errmsg(database.get())};
    return sqlite3_changes(database.get());
}

// The token is a 64-bit integer, which is what SQLite has. Returns: whether the row took it.
bool set_balance(const Database& database, std::int64_t balance, std::uint64_t fence) {
    const std::string token = std::to_string(fence);
    return run(database, "UPDATE account SET balance = " + std::to_string(balance) +
                             ", fence = " + token + " WHERE id = 1 AND fence <= " + token) == 1;
}

int main(int argc, char** argv) try {
    sqlite3* opened = nullptr;
    sqlite3_open(":memory:", &opened);
    const Database database{opened, sqlite3_close};
    run(database, "CREATE TABLE account (id INTEGER PRIMARY KEY, balance INTEGER, fence INTEGER)");
    run(database, "INSERT INTO account VALUES (1, 0, 0)");

    RedisClient client{redis_url(argc, argv)};
    RedisLock lock{"example:account", client};
    const Lease old_one = lock.lease();
    const auto seen = run(database, "SELECT balance FROM account");
    client.force_release("example:account", client.holder("example:account").value());
    const Lease new_one = lock.lease();
    const bool accepted = set_balance(database, 100, new_one.fence());
    const bool refused = !set_balance(database, seen + 5, old_one.fence());
    const auto balance = run(database, "SELECT balance FROM account");

    std::cout << "the new holder's deposit: " << (accepted ? "accepted\n" : "REFUSED\n")
              << "the old one's, late: " << (refused ? "refused\n" : "ACCEPTED\n")
              << "balance: " << balance << '\n';
    return accepted && refused && balance == 100 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    return 1;
}
