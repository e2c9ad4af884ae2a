// SPDX-License-Identifier: Apache-2.0
// A config from overrides on the defaults, for tests.
#ifndef ORRERY_TESTS_FAKE_CONFIG_H
#define ORRERY_TESTS_FAKE_CONFIG_H

#include "base/config.h"

#define fake_config(...) fake_config_of((const char *const[]){__VA_ARGS__, NULL})

static inline struct config_file *fake_config_of(const char *const *overrides) {
    struct config_file *file = NULL;
    struct err e = {0};
    size_t n = 0;
    while (overrides[n]) n++;
    if (config_load(&file, NULL, overrides, n, &e)) fail_msg("%s", e.text);
    return file;
}

#endif
