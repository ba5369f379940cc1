// SPDX-License-Identifier: MIT
//
// For examples of several processes: runs copies of this one, and memory that they share.

#ifndef CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_PROCESSES_HPP
#define CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_PROCESSES_HPP

#include <cstdlib>
#include <exception>
#include <iostream>
#include <new>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

/// A T that this process shares with those that run_processes() starts.
template <class T>
T& shared() {
    void* const memory =
        ::mmap(nullptr, sizeof(T), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc{};
    return *new (memory) T{};
}

/// Runs `work(i)` in `count` processes at once. Returns: whether all of them ended without an
/// exception.
template <class Work>
bool run_processes(int count, Work work) {
    for (int i = 0; i < count; ++i) {
        if (::fork() != 0) continue;
        int code = EXIT_SUCCESS;
        try {
            work(i);
        } catch (const std::exception& error) {
            std::cerr << error.what() << std::endl;
            code = EXIT_FAILURE;
        }
        ::_exit(code);
    }
    int ended_well = 0;
    for (int status = 0; ::wait(&status) > 0;)
        ended_well += WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS ? 1 : 0;
    return ended_well == count;
}

#endif  // CODOMYRMEX_CONCURRENCY_EXAMPLES_SUPPORT_PROCESSES_HPP
