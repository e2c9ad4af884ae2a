// SPDX-License-Identifier: Apache-2.0
// One attempt of a supervised job, from its start until nobody of it is left; and the supervisor's state,
// which supervise.c and attempt.c share and nobody else sees.
#ifndef ORRERY_LAUNCHER_ATTEMPT_H
#define ORRERY_LAUNCHER_ATTEMPT_H

#include "launcher/crew.h"
#include "launcher/progress.h"
#include "launcher/roster.h"
#include "launcher/skew.h"
#include "launcher/supervise.h"
#include "launcher/verdict.h"
#include "launcher/watch.h"

enum stop_wish { STOP_NONE, STOP_SAVE, STOP_NOW };
enum outcome { OUTCOME_NONE, OUTCOME_DONE, OUTCOME_SAVED, OUTCOME_STOPPED, OUTCOME_FAILED };

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

// Starts attempt s->number with s->world ranks, watches, judges, tears down. *v: why, when it FAILED. A
// negative code when it could not be started or watched.
int attempt_run(struct supervisor *s, struct verdict *v, enum outcome *outcome, struct err *e) ERR_CHECK;

// Of supervise.c: what signals have asked for, into s->wish; children that have ended.
void supervise_take_signals(struct supervisor *s);
void supervise_reap(struct supervisor *s);

#endif
