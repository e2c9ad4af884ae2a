# SPDX-License-Identifier: Apache-2.0
orrery_script(arrows lint tests/lint/arrows.py)
orrery_script(shape lint tests/lint/shape.py)
orrery_script(format lint tests/lint/format.sh)
orrery_script(cppcheck lint tests/lint/cppcheck.sh)
orrery_script(tidy lint tests/lint/tidy.sh)
orrery_script(reference lint tests/lint/reference.sh)
set_tests_properties(lint.tidy PROPERTIES COST 1000) # minutes on one core: first, beside the others

# Each builds the tree again in a folder of its own, so only the plain build has them.
if(NOT SANITIZE AND NOT COVERAGE AND NOT FUZZ)
  orrery_script(sanitize_address house tests/house/sanitize.sh address,undefined "unit|kernels|fuzz")
  orrery_script(sanitize_thread house tests/house/sanitize.sh thread "unit")
  orrery_script(fuzz house tests/house/fuzz.sh)
  set_tests_properties(house.sanitize_address house.sanitize_thread house.fuzz PROPERTIES
    PROCESSORS 2 TIMEOUT 1500)
  set_tests_properties(house.fuzz PROPERTIES TIMEOUT 3000) # a minute a target, and a build
endif()

# What the whole promises, by the programs that people type.
orrery_script(exact_ranks e2e tests/e2e/exact.py ranks)
orrery_script(exact_kills fault tests/e2e/exact.py kills)
orrery_script(stream e2e tests/e2e/stream.py)
set_tests_properties(e2e.exact_ranks fault.exact_kills e2e.stream PROPERTIES PROCESSORS 2)
