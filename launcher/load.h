// SPDX-License-Identifier: Apache-2.0
// Loading a config for a verb: all errors on stderr, one per line.
#ifndef ORRERY_LAUNCHER_LOAD_H
#define ORRERY_LAUNCHER_LOAD_H

#include "base/config.h"
#include "base/err.h"

// On a bad config every message is printed and *e says how many there were.
int load_config(struct config_file **out, const char *path, const char *const *overrides, size_t n,
                struct err *e) ERR_CHECK;

#endif
