// SPDX-License-Identifier: MIT
//
// Where the examples find their Redis server: the first argument, else CODOMYRMEX_REDIS_URL, else
// localhost.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_REDIS_URL_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_REDIS_URL_HPP

#include <cstdlib>
#include <string>

inline std::string redis_url(int argc, char** argv) {
    if (argc > 1) return argv[1];
    const char* named = std::getenv("CODOMYRMEX_REDIS_URL");
    return named != nullptr ? named : "redis://localhost:6379";
}

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_REDIS_URL_HPP
