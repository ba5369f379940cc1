// SPDX-License-Identifier: MIT
//
// Shows on a terminal how far a measurement is, in a line that goes away; elsewhere nothing.

#ifndef CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PROGRESS_HPP
#define CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PROGRESS_HPP

#include <cstdio>
#include <string>
#include <unistd.h>
#include <utility>

namespace benchmarks {

class Progress {
  public:
    Progress(std::string what, int steps)
        : what_{std::move(what)}, steps_{steps}, shown_{::isatty(STDERR_FILENO) == 1} {}
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress() {
        if (shown_) std::fprintf(stderr, "\r\x1b[K");
    }

    /// One more step begins.
    void step() {
        ++done_;
        if (shown_) std::fprintf(stderr, "\r\x1b[K  %s: %d of %d", what_.c_str(), done_, steps_);
    }

  private:
    std::string what_;
    int steps_;
    int done_ = 0;
    bool shown_;
};

}  // namespace benchmarks

#endif  // CODOMYRMEX_CONCURRENCY_TESTS_BENCHMARKS_PROGRESS_HPP
