# cmake --build BUILD --target uninstall: what "cmake --install BUILD" installed goes again.
if(NOT EXISTS ${MANIFEST})
    message(FATAL_ERROR "nothing was installed from here: there is no ${MANIFEST}")
endif()
file(STRINGS ${MANIFEST} files)
foreach(file ${files})
    file(REMOVE "$ENV{DESTDIR}${file}")
    message(STATUS "removed $ENV{DESTDIR}${file}")
endforeach()
