// SPDX-License-Identifier: Apache-2.0
// The folder of a job's logs when it has no run folder: $TMPDIR/orrery-logs-RANDOM, else in /tmp. Gone when
// the job ends well; after a failure it is what a person needs, and the newest few stay.
#ifndef ORRERY_LAUNCHER_SCRATCH_H
#define ORRERY_LAUNCHER_SCRATCH_H

#include "launcher/rundir.h"

#define SCRATCH_KEPT 8 // of this user, in one folder; those of living jobs are not counted

// Makes one, locked where that can be.
int scratch_make(struct rundir *out, struct err *e) ERR_CHECK;
// Removes it, or keeps it and removes old ones.
void scratch_close(struct rundir *scratch, bool keep);

#endif
