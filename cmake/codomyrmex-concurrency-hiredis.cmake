# SPDX-License-Identifier: MIT
#
# Finds hiredis and wraps it, however it was built, in one target: codomyrmex::hiredis. Used by the
# build and by the installed package. Sets codomyrmex-concurrency-hiredis_FOUND, and where that is
# false codomyrmex-concurrency-hiredis_MESSAGE, which names the packages to install.
#
# Distributions build hiredis with its Makefile and ship no CMake target; Debian ships a
# HiredisConfig.cmake that fails unless a version is asked for. Hence the lower case below, which
# finds the files of upstream's own CMake build (vcpkg and Conan have those, too) and not Debian's.

set(codomyrmex-concurrency-hiredis_FOUND TRUE)
unset(codomyrmex-concurrency-hiredis_MESSAGE)

if(TARGET codomyrmex::hiredis)
    return()
endif()

if(NOT TARGET hiredis::hiredis)
    find_package(hiredis CONFIG QUIET GLOBAL)
endif()

if(TARGET hiredis::hiredis)
    add_library(codomyrmex::hiredis INTERFACE IMPORTED GLOBAL)
    target_link_libraries(codomyrmex::hiredis INTERFACE hiredis::hiredis)
    return()
endif()

# What pkg-config says is a hint only: Debian's file names .../include/hiredis as the folder of
# headers, and we include <hiredis/hiredis.h>.
find_package(PkgConfig QUIET)
if(PKG_CONFIG_FOUND)
    pkg_check_modules(codomyrmex_hiredis_hint QUIET hiredis)
endif()
find_path(
    codomyrmex_hiredis_INCLUDE_DIR hiredis/hiredis.h
    HINTS ${codomyrmex_hiredis_hint_INCLUDE_DIRS}
    PATH_SUFFIXES ..
    DOC "The folder that has hiredis/hiredis.h")
find_library(
    codomyrmex_hiredis_LIBRARY hiredis
    HINTS ${codomyrmex_hiredis_hint_LIBRARY_DIRS}
    DOC "The hiredis library")
mark_as_advanced(codomyrmex_hiredis_INCLUDE_DIR codomyrmex_hiredis_LIBRARY)

set(codomyrmex-concurrency-hiredis_FOUND FALSE)
if(codomyrmex_hiredis_INCLUDE_DIR AND codomyrmex_hiredis_LIBRARY)
    file(STRINGS "${codomyrmex_hiredis_INCLUDE_DIR}/hiredis/hiredis.h" codomyrmex_hiredis_version
         REGEX "#define HIREDIS_(MAJOR|MINOR|PATCH) +[0-9]+")
    list(TRANSFORM codomyrmex_hiredis_version REPLACE "[^0-9]+" "")
    list(JOIN codomyrmex_hiredis_version "." codomyrmex_hiredis_version)
    if(codomyrmex_hiredis_version VERSION_LESS 0.14)
        set(codomyrmex-concurrency-hiredis_MESSAGE
            "hiredis ${codomyrmex_hiredis_version} in ${codomyrmex_hiredis_INCLUDE_DIR} is too old: 0.14 or later is needed.")
    else()
        # An imported target's headers are system headers: hiredis's warn under -Wpedantic.
        add_library(codomyrmex::hiredis UNKNOWN IMPORTED GLOBAL)
        set_target_properties(
            codomyrmex::hiredis
            PROPERTIES IMPORTED_LOCATION "${codomyrmex_hiredis_LIBRARY}"
                       INTERFACE_INCLUDE_DIRECTORIES "${codomyrmex_hiredis_INCLUDE_DIR}")
        set(codomyrmex-concurrency-hiredis_FOUND TRUE)
    endif()
    unset(codomyrmex_hiredis_version)
else()
    set(codomyrmex-concurrency-hiredis_MESSAGE
        "hiredis was not found. Install it: 'apt install libhiredis-dev' (Debian, Ubuntu), 'dnf install hiredis-devel' (Fedora), 'apk add hiredis-dev' (Alpine), 'pacman -S hiredis' (Arch), 'brew install hiredis' (macOS); or add its folder to CMAKE_PREFIX_PATH.")
endif()
