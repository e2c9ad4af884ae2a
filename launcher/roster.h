// SPDX-License-Identifier: Apache-2.0
// Which hosts of a job take part: leaves out those that were lost, looks whether they answer again, and says
// how many ranks the next attempt has. A job on one machine has an empty list and always all its ranks.
// Thread rule: one thread.
#ifndef ORRERY_LAUNCHER_ROSTER_H
#define ORRERY_LAUNCHER_ROSTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "launcher/job.h"

struct roster_host {
    pid_t probe;         // a probe under way; 0: none
    int64_t probed_ns;   // when it began
    int64_t quiet_until; // no probe before, monotonic ns
    bool answered;       // the last probe's word
    int strikes;         // failures of its ranks without progress in between
};

struct roster {
    struct job *job;
    struct roster_host *hosts; // as in job->hosts
    int least;                 // ranks to go on with
    struct hosts seated;       // the list as it was when the attempt began: whose ranks are where
};

int roster_init(struct roster *r, struct job *j, struct err *e) ERR_CHECK;
void roster_fini(struct roster *r); // ends probes under way

int roster_ranks(const struct roster *r); // of the next attempt
void roster_seat(struct roster *r);       // an attempt begins with those
// Leaves a host out; false (and nothing is changed) when too few ranks would be left.
bool roster_leave_out(struct roster *r, int host);
// One of its ranks failed for a reason that may be the machine's. True when it is left out for that: the
// second time without progress.
bool roster_strike(struct roster *r, int host);
void roster_progress(struct roster *r); // a checkpoint was made: strikes are forgotten
// Asks all hosts that are in whether they answer, for `ms` at most; leaves out those that do not. How many.
int roster_muster(struct roster *r, int ms);

// Now and then: looks after hosts that are out. True when ranks could be added to the `ranks` that run;
// they are in again then, and `back` names them.
bool roster_grow(struct roster *r, int ranks, char *back, size_t back_bytes);
// A child of this process has ended. True when it was a probe.
bool roster_reap(struct roster *r, pid_t pid, int wait_status);

#endif
