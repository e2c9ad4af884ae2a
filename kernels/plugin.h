// SPDX-License-Identifier: Apache-2.0
// Libraries that are loaded when they are wanted: where they lie. Thread rule: any thread.
#ifndef ORRERY_KERNELS_PLUGIN_H
#define ORRERY_KERNELS_PLUGIN_H

#include <stddef.h>

#include "base/err.h"

// The path that the variable `env_name` gives or else that of `name` beside this program's file. Nobody has
// looked whether there is one.
int plugin_find(const char *name, const char *env_name, char *path, size_t bytes, struct err *e) ERR_CHECK;

#endif
