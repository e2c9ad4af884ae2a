# SPDX-License-Identifier: Apache-2.0
orrery_test(grid unit unit/test_grid.c orrery_grid)
orrery_test(coll unit unit/test_coll.c orrery_comm)
orrery_test(exact unit unit/test_exact.c orrery_comm)

# Run by mpirun, from the script.
add_executable(comm_mpi e2e/comm_mpi.c)
target_link_libraries(comm_mpi PRIVATE orrery_comm orrery_kernels)
set_target_properties(comm_mpi PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
orrery_script(comm_mpi e2e tests/e2e/comm_mpi.sh)

# The NCCL back end on a stand-in for the library.
add_library(nccl_stub MODULE stub/nccl_stub.c)
set_target_properties(nccl_stub PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(nccl_stub PRIVATE stub)
target_link_libraries(nccl_stub PRIVATE orrery_flags)
add_library(nccl_stub_old MODULE stub/nccl_stub.c)
target_compile_definitions(nccl_stub_old PRIVATE NCCL_STUB_OLD)
set_target_properties(nccl_stub_old PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
target_include_directories(nccl_stub_old PRIVATE stub)
target_link_libraries(nccl_stub_old PRIVATE orrery_flags)
orrery_test(coll_nccl unit unit/test_coll_nccl.c orrery_comm)
target_sources(test_coll_nccl PRIVATE ${CMAKE_SOURCE_DIR}/comm/coll_nccl.c)
target_include_directories(test_coll_nccl PRIVATE stub ${CMAKE_SOURCE_DIR})
add_dependencies(test_coll_nccl nccl_stub nccl_stub_old)
set_property(TEST unit.coll_nccl APPEND PROPERTY ENVIRONMENT "ORRERY_NCCL_LIBRARY=$<TARGET_FILE:nccl_stub>"
  "ORRERY_NCCL_OLD=$<TARGET_FILE:nccl_stub_old>")
