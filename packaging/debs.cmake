# Debian packages, by CPack: packaging/build-debs. Only for the preset "package", because
# the server has its library's final path in it.
foreach(file dkms.conf postinst prerm)
    configure_file(dkms/${file}.in dkms/${file} @ONLY FILE_PERMISSIONS
        OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
endforeach()

# The driver's source is made when it is packed: it needs Debian's linux-source-6.12
# and -7.3.
set(prepare_driver ${PROJECT_SOURCE_DIR}/packaging/dkms/prepare-driver)
install(CODE "execute_process(
        COMMAND ${prepare_driver} \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/src/ublkzc-ublk-${PROJECT_VERSION}\"
        COMMAND_ERROR_IS_FATAL ANY)"
    COMPONENT dkms EXCLUDE_FROM_ALL)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/dkms/dkms.conf
    PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ
    DESTINATION src/ublkzc-ublk-${PROJECT_VERSION} COMPONENT dkms EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_SOURCE_DIR}/kernel-patch/LICENSE RENAME copyright
    DESTINATION share/doc/ublkzc-dkms COMPONENT dkms EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_SOURCE_DIR}/kernel-patch/README.md
    DESTINATION share/doc/ublkzc-dkms COMPONENT dkms EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE RENAME copyright
    DESTINATION share/doc/ublkzc COMPONENT ublkzc)

set(CPACK_GENERATOR DEB)
# CPack itself would drop a fourth part.
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "ublkzc developers <dev@ublkzc.invalid>")
set(CPACK_PACKAGING_INSTALL_PREFIX ${CMAKE_INSTALL_PREFIX})
set(CPACK_COMPONENTS_ALL ublkzc dkms)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION admin)

set(CPACK_DEBIAN_UBLKZC_PACKAGE_NAME ublkzc)
set(CPACK_DEBIAN_UBLKZC_DESCRIPTION "zero-copy block devices in user space
The ublk server ublkzc, and libublkzc.so, which makes the direct I/O of
unmodified programs zero-copy on its devices.")
set(CPACK_DEBIAN_UBLKZC_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_UBLKZC_PACKAGE_SUGGESTS ublkzc-dkms)

set(CPACK_DEBIAN_DKMS_PACKAGE_NAME ublkzc-dkms)
set(CPACK_DEBIAN_DKMS_DESCRIPTION "ublk_drv with shared-memory zero copy for Linux 6.12 and 7.3
The ublk drivers of Linux 6.12 and 7.3 as a DKMS module that takes the place of
the kernel's own: with UBLK_F_SHMEM_ZC, which 6.12 lacks, without stopping the
device for each registration, as 7.3 does, and with requests that are scattered
over registered memory.")
set(CPACK_DEBIAN_DKMS_PACKAGE_ARCHITECTURE all)
set(CPACK_DEBIAN_DKMS_PACKAGE_DEPENDS "dkms (>= 3), gcc, make")
set(CPACK_DEBIAN_DKMS_PACKAGE_RECOMMENDS "linux-headers-6.12-amd64 | linux-headers-amd64, openssl")
set(CPACK_DEBIAN_DKMS_PACKAGE_CONTROL_EXTRA
    "${CMAKE_CURRENT_BINARY_DIR}/dkms/postinst;${CMAKE_CURRENT_BINARY_DIR}/dkms/prerm")
include(CPack)
