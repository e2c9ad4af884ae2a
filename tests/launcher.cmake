# SPDX-License-Identifier: Apache-2.0
find_package(MPI REQUIRED COMPONENTS C)

# A stand-in for orrery-rank: the launcher's tests need ranks that crash, hang and print on command.
add_executable(fake_rank lib/fake_rank.c)
target_link_libraries(fake_rank PRIVATE orrery_fault orrery_base MPI::MPI_C)
set_target_properties(fake_rank PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)

# Hosts: in network namespaces, or lists of them.
orrery_script(hosts_run e2e tests/e2e/hosts_run.py)
orrery_script(shrink_grow fault tests/fault/shrink_grow.py)
orrery_test(hosts unit unit/test_hosts.c orrery_launcher)

orrery_test(report unit unit/test_report.c orrery_launcher)

foreach(name opts openmpi proc place store_place wire crew keeper ranklog ledger watch skew rundir scratch doctor roster)
  orrery_test(${name} unit unit/test_${name}.c orrery_launcher)
endforeach()
target_link_options(test_rundir PRIVATE -Wl,--wrap=readdir -Wl,--wrap=clock_sleep_ms)
orrery_fuzz(wire fuzz/fuzz_wire.c orrery_launcher)
orrery_test(fault unit unit/test_fault.c orrery_fault)
orrery_script(cli e2e tests/e2e/cli.py)
orrery_script(run_stop e2e tests/e2e/run_stop.py)
orrery_script(launch_verdict fault tests/fault/launch_verdict.py)
orrery_script(crash_campaign fault tests/fault/crash_campaign.py)
orrery_script(hang_campaign fault tests/fault/hang_campaign.py)
orrery_script(launch_kill fault tests/fault/launch_kill.py)
orrery_script(run_hostile e2e tests/e2e/run_hostile.py)
orrery_script(run_resume e2e tests/e2e/run_resume.py)
orrery_script(replay e2e tests/e2e/replay.py)
orrery_script(plan e2e tests/e2e/plan.py)

# Stands in for NVIDIA's management library: a folder of its own, for LD_LIBRARY_PATH.
add_library(fake_nvml SHARED lib/fake_nvml.c)
set_target_properties(fake_nvml PROPERTIES PREFIX "" OUTPUT_NAME "libnvidia-ml" SUFFIX ".so.1"
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests/fake_nvml)
orrery_script(doctor e2e tests/e2e/doctor.py)
orrery_script(submit e2e tests/e2e/submit.py)
orrery_script(doctor_hosts e2e tests/e2e/doctor_hosts.py)
orrery_script(top e2e tests/e2e/top.py)
orrery_script(slurm e2e tests/e2e/slurm.py)
# Builds and runs the launcher with an Open MPI 5, where ORRERY_OPENMPI5 names one.
orrery_script(openmpi5 e2e tests/e2e/openmpi5.py)
set_tests_properties(e2e.openmpi5 PROPERTIES TIMEOUT 3600)
orrery_script(debug e2e tests/e2e/debug.py)
