# SPDX-License-Identifier: MIT
#
# The warnings of our own build, as a target that tests and examples link and nobody else sees.

option(CODOMYRMEX_CONCURRENCY_WERROR "Warnings are errors in our own build" ON)

add_library(codomyrmex_concurrency_warnings INTERFACE)
target_compile_options(
    codomyrmex_concurrency_warnings
    INTERFACE
        -Wall -Wextra -Wpedantic -Wconversion -Wsign-conversion -Wshadow -Wold-style-cast
        -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-align -Wundef -Wextra-semi
        # g++ 12 sees overruns in a std::vector that grows where there are none.
        $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-array-bounds>
        $<$<BOOL:${CODOMYRMEX_CONCURRENCY_WERROR}>:-Werror>)
