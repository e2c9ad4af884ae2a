# SPDX-License-Identifier: Apache-2.0
find_package(MPI REQUIRED COMPONENTS C)

# A stand-in for orrery-rank: the launcher's tests need ranks that crash, hang and print on command.
add_executable(fake_rank lib/fake_rank.c)
target_link_libraries(fake_rank PRIVATE orrery_fault orrery_base MPI::MPI_C)
set_target_properties(fake_rank PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
orrery_test(report unit unit/test_report.c orrery_launcher)
