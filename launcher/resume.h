// SPDX-License-Identifier: Apache-2.0
// Where a run would go on: its newest complete checkpoint, and whether a changed config may go on from it.
// The ranks find the checkpoint themselves; this is for saying so beforehand and for refusing in time.
#ifndef ORRERY_LAUNCHER_RESUME_H
#define ORRERY_LAUNCHER_RESUME_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/config.h"
#include "base/err.h"
#include "launcher/rundir.h"

struct resume {
    int64_t step;                                    // of the newest complete checkpoint; -1: none
    char url[CONFIG_TEXT_BYTES + RUNDIR_PATH_BYTES]; // of the checkpoint store
};

int resume_find(const struct config *c, const struct rundir *run, struct resume *out,
                struct err *e) ERR_CHECK;
// Compares with the run's config.yaml. Appends a line per change that is allowed and worth telling to
// `changes`; CONFIG when something must not change: MODEL keys never, DATA keys only with `force`.
int resume_check_config(const struct config *now, const struct rundir *run, bool force, struct buf *changes,
                        struct err *e) ERR_CHECK;

#endif
