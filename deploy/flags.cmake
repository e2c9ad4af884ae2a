# SPDX-License-Identifier: Apache-2.0
# Compiler flags that every target shares, as the interface target orrery_flags.
include(CheckPIESupported)
check_pie_supported()

add_library(orrery_flags INTERFACE)
target_include_directories(orrery_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(orrery_flags INTERFACE _GNU_SOURCE ORRERY_VERSION="${PROJECT_VERSION}")
target_compile_options(orrery_flags INTERFACE
  -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-unused-parameter
  -ffp-contract=on -fno-math-errno -fno-trapping-math -fstack-protector-strong)
if(ORRERY_WERROR)
  target_compile_options(orrery_flags INTERFACE -Werror)
endif()
if(CMAKE_BUILD_TYPE STREQUAL "Release" AND NOT SANITIZE)
  target_compile_definitions(orrery_flags INTERFACE _FORTIFY_SOURCE=2)
  target_link_options(orrery_flags INTERFACE -Wl,-z,relro,-z,now)
endif()
if(SANITIZE)
  target_compile_options(orrery_flags INTERFACE -fsanitize=${SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(orrery_flags INTERFACE -fsanitize=${SANITIZE})
endif()
if(COVERAGE)
  target_compile_options(orrery_flags INTERFACE --coverage)
  target_link_options(orrery_flags INTERFACE --coverage)
endif()
find_package(Threads REQUIRED)
find_package(PkgConfig REQUIRED)
target_link_libraries(orrery_flags INTERFACE Threads::Threads m)

# orrery_room(NAME SOURCES... ) makes the static library orrery_NAME of one folder.
function(orrery_room name)
  add_library(orrery_${name} STATIC ${ARGN})
  target_link_libraries(orrery_${name} PUBLIC orrery_flags)
endfunction()
