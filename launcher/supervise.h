// SPDX-License-Identifier: Apache-2.0
// The supervisor: one attempt of a job after the other (attempt.h), until it is done or not worth another.
// Owns signals, terminal and ledger.
#ifndef ORRERY_LAUNCHER_SUPERVISE_H
#define ORRERY_LAUNCHER_SUPERVISE_H

#include "base/log.h"
#include "launcher/boxdir.h"
#include "launcher/job.h"
#include "launcher/keeper.h"
#include "launcher/ledger.h"

struct supervise_options {
    struct job *job; // its list of hosts says who takes part
    const struct boxdir *boxes;
    struct keeper *keeper;
    struct ledger *ledger;
    struct rundir_record *record; // kept up to date in run.json; NULL: no record
    const struct log *log;
    const char *log_prefix; // "attempt": logs/attempt-N
    int64_t resume_step;    // newest checkpoint before the first attempt, -1 none
    int attempts;           // without progress before it gives up
};

// Until the job is done, stopped, or given up. Returns the exit status, or a negative code when nothing was
// started.
int supervise_run(const struct supervise_options *options, struct err *e) ERR_CHECK;

#endif
