# SPDX-License-Identifier: MIT
#
# What `cmake --install` puts where: headers, one export set for each component, pkg-config files.
# All of it is text that fits every architecture, so it goes below share/.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/codomyrmex-concurrency")
set(pkgconfig_dir "${CMAKE_INSTALL_DATADIR}/pkgconfig")

function(codomyrmex_concurrency_install component target)
    install(TARGETS ${target} EXPORT codomyrmex-concurrency-${component} FILE_SET HEADERS)
    install(
        EXPORT codomyrmex-concurrency-${component}
        NAMESPACE codomyrmex::
        FILE codomyrmex-concurrency-${component}-targets.cmake
        DESTINATION "${package_dir}")
endfunction()

function(codomyrmex_concurrency_install_pkgconfig name)
    configure_file(cmake/${name}.pc.in ${name}.pc @ONLY)
    install(FILES "${PROJECT_BINARY_DIR}/${name}.pc" DESTINATION "${pkgconfig_dir}")
endfunction()

codomyrmex_concurrency_install(local codomyrmex_concurrency)
codomyrmex_concurrency_install_pkgconfig(codomyrmex-concurrency)
if(TARGET codomyrmex::concurrency_redis)
    codomyrmex_concurrency_install(redis codomyrmex_concurrency_redis)
    codomyrmex_concurrency_install_pkgconfig(codomyrmex-concurrency-redis)
    install(FILES cmake/codomyrmex-concurrency-hiredis.cmake DESTINATION "${package_dir}")
endif()

configure_package_config_file(
    cmake/codomyrmex-concurrency-config.cmake.in codomyrmex-concurrency-config.cmake
    INSTALL_DESTINATION "${package_dir}"
    NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(
    codomyrmex-concurrency-config-version.cmake
    COMPATIBILITY SameMinorVersion
    ARCH_INDEPENDENT)
install(FILES "${PROJECT_BINARY_DIR}/codomyrmex-concurrency-config.cmake"
              "${PROJECT_BINARY_DIR}/codomyrmex-concurrency-config-version.cmake"
        DESTINATION "${package_dir}")
