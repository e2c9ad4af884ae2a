# SPDX-License-Identifier: Apache-2.0
orrery_test(grid unit unit/test_grid.c orrery_grid)
orrery_test(coll unit unit/test_coll.c orrery_comm)
orrery_test(exact unit unit/test_exact.c orrery_comm)

# Run by mpirun, from the script.
add_executable(comm_mpi e2e/comm_mpi.c)
target_link_libraries(comm_mpi PRIVATE orrery_comm orrery_kernels)
set_target_properties(comm_mpi PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
orrery_script(comm_mpi e2e tests/e2e/comm_mpi.sh)
