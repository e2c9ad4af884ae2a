// SPDX-License-Identifier: Apache-2.0
// The keeper: a child of the supervisor that does nothing until the supervisor dies without having cleaned up
// (kill -9). Then it sees to it that no process of the job is left, saves the black boxes and removes the
// private folder. It holds the run's lock until it has finished, so that a new run cannot come between.
#ifndef ORRERY_LAUNCHER_KEEPER_H
#define ORRERY_LAUNCHER_KEEPER_H

#include <sys/types.h>

#include "base/err.h"

struct keeper {
    int fd; // pipe to it; -1: none
    pid_t pid;
};

struct keeper_duty {
    const char *box_path;
    const char *save_path; // where boxes are saved; NULL: nowhere
    int locks[2];          // descriptors it keeps open; -1: none
};

int keeper_start(struct keeper *k, const struct keeper_duty *duty, struct err *e) ERR_CHECK;
void keeper_tell(struct keeper *k, pid_t pid); // a process that must not survive the supervisor
// Those told so far are gone: their numbers may become other people's.
void keeper_forget(struct keeper *k);
// The supervisor has cleaned up itself: the keeper goes.
void keeper_stop(struct keeper *k);

#endif
