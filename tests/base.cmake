# SPDX-License-Identifier: Apache-2.0
foreach(name err clock bytes rng log json blackbox machine process config)
  orrery_test(${name} unit unit/test_${name}.c orrery_base)
endforeach()
orrery_test(folder unit unit/test_folder.c orrery_base)
target_link_options(test_folder PRIVATE -Wl,--wrap=readdir)
orrery_fuzz(config fuzz/fuzz_config.c orrery_base)
orrery_fuzz(json fuzz/fuzz_json.c orrery_base)
