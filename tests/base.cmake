# SPDX-License-Identifier: Apache-2.0
orrery_fuzz(config fuzz/fuzz_config.c orrery_base)
orrery_fuzz(json fuzz/fuzz_json.c orrery_base)
