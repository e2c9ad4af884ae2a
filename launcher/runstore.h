// SPDX-License-Identifier: Apache-2.0
// From what a person calls a run - its folder, or the URL of a store - to the store of its checkpoints.
#ifndef ORRERY_LAUNCHER_RUNSTORE_H
#define ORRERY_LAUNCHER_RUNSTORE_H

#include "base/config.h"
#include "base/err.h"
#include "storage/store.h"

// A run folder with its config.yaml is asked where its checkpoints go; what `given` sets (endpoint, region)
// wins over its config. MISSING: no such folder.
int runstore_open(struct store **out, const char *run, const struct store_options *given,
                  struct err *e) ERR_CHECK;

// Where a run with this config, whose folder is `run`, keeps its checkpoints.
int runstore_open_for(struct store **out, const struct config *c, const char *run,
                      const struct store_options *given, struct err *e) ERR_CHECK;

#endif
