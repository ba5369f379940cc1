# SPDX-License-Identifier: MIT
#
# cmake -DLISTED=... -DFOLDER=... -P headers_listed.cmake: the headers in FOLDER/include are LISTED.

cmake_minimum_required(VERSION 3.24)

file(GLOB_RECURSE headers RELATIVE "${FOLDER}" "${FOLDER}/include/*.hpp")
list(LENGTH headers count)
foreach(header IN LISTS headers)
    if(NOT header IN_LIST LISTED AND NOT "${FOLDER}/${header}" IN_LIST LISTED)
        message(SEND_ERROR "Not listed in CMakeLists.txt: ${header}")
    endif()
endforeach()
message("${count} headers")
