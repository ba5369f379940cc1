# SPDX-License-Identifier: MIT
#
# Catch2 for our tests: the system's, 2.13 or 3; fetched only where there is none.

find_package(Catch2 QUIET)
if(NOT Catch2_FOUND)
    message(STATUS "Catch2 was not found: fetching it")
    include(FetchContent)
    FetchContent_Declare(
        Catch2
        GIT_REPOSITORY https://github.com/catchorg/Catch2.git
        GIT_TAG v3.7.1
        GIT_SHALLOW TRUE
        SYSTEM)
    FetchContent_MakeAvailable(Catch2)
    set(Catch2_VERSION 3.7.1)
endif()

# Catch2 3 exits with 4 when all tests were skipped, unless told so; 2 does not know skipping.
set(codomyrmex_concurrency_catch2_arguments "")
if(Catch2_VERSION VERSION_GREATER_EQUAL 3.3)
    set(codomyrmex_concurrency_catch2_arguments --allow-running-no-tests)
endif()

# What tests link. The system's library has its main and stands on libstdc++; for libc++ it is made
# from the header, which has all of version 2.
set(codomyrmex_concurrency_catch2 Catch2::Catch2WithMain)
if(Catch2_VERSION VERSION_LESS 3 AND CMAKE_CXX_FLAGS MATCHES "-stdlib=libc\\+\\+")
    set(main "${CMAKE_CURRENT_BINARY_DIR}/catch2_main.cpp")
    file(CONFIGURE OUTPUT "${main}" CONTENT "#define CATCH_CONFIG_MAIN\n#include <catch2/catch.hpp>\n")
    add_library(codomyrmex_concurrency_catch2 STATIC "${main}")
    target_link_libraries(codomyrmex_concurrency_catch2 PUBLIC Catch2::Catch2)
    set(codomyrmex_concurrency_catch2 codomyrmex_concurrency_catch2)
endif()
