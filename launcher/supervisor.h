// SPDX-License-Identifier: Apache-2.0
// The supervisor's state, which supervise.c, attempt.c, judge.c and signals.c share and nobody else sees.
#ifndef ORRERY_LAUNCHER_SUPERVISOR_H
#define ORRERY_LAUNCHER_SUPERVISOR_H

#include "launcher/crew.h"
#include "launcher/progress.h"
#include "launcher/roster.h"
#include "launcher/skew.h"
#include "launcher/supervise.h"
#include "launcher/watch.h"

enum stop_wish { STOP_NONE, STOP_SAVE, STOP_NOW };

struct supervisor {
    const struct supervise_options *o;
    const struct log *log;
    struct progress progress;
    int signal_fd;
    enum stop_wish wish, obeyed;
    int wish_signal;
    int64_t best_checkpoint; // newest step seen saved, -1 none
    bool resumed;            // an attempt has failed before this one
    bool assembled;          // some attempt had all its guards
    struct roster roster;
    int world;    // ranks of this attempt
    bool growing; // this attempt was asked to stop, so that the next has more ranks
    int64_t pinged_ns, looked_ns;
    struct skew skew;
    bool folder_local;  // the run folder is on this machine
    bool orphaned;      // it was lost, as told
    int64_t folder_ns;  // when it was last looked for
    int refused;        // connections that were turned away, as told
    int64_t *silent_ms; // [ranks] of guards on other machines
    // the attempt under way
    int number;
    char log_path[RUNDIR_PATH_BYTES + 64], launch_log[RUNDIR_PATH_BYTES + 80];
    struct crew *crew;
    struct watch *watch;
    pid_t launcher;      // mpirun; 0 once reaped
    int launcher_status; // wait status, once reaped
    bool launcher_ended;
    int *told; // pids that the keeper knows, per rank
    int64_t began_ns, doubt_since_ns;
};

#endif
