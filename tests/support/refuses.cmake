# SPDX-License-Identifier: MIT
#
# One compile-fail test: cmake -DCOMPILER=... -DFLAGS=... -DSOURCE=... -DREASON=... -P refuses.cmake
# SOURCE compiles as it is; with REFUSED defined the compiler refuses it, in words that match REASON.

cmake_minimum_required(VERSION 3.24)

set(command ${COMPILER} ${FLAGS} -fsyntax-only)
set(ENV{LC_ALL} C)

execute_process(COMMAND ${command} ${SOURCE} RESULT_VARIABLE result ERROR_VARIABLE diagnostic)
if(NOT result EQUAL 0)
    message(FATAL_ERROR "It should compile, but:\n${diagnostic}")
endif()

execute_process(
    COMMAND ${command} -DREFUSED ${SOURCE} RESULT_VARIABLE result ERROR_VARIABLE diagnostic)
if(result EQUAL 0)
    message(FATAL_ERROR "It compiles with REFUSED defined")
endif()
if(NOT diagnostic MATCHES "${REASON}")
    message(FATAL_ERROR "It is refused, but not for the reason '${REASON}':\n${diagnostic}")
endif()
message("Refused: ${CMAKE_MATCH_0}")
