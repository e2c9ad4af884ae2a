// SPDX-License-Identifier: Apache-2.0
// The private folder of one job on one host: black boxes, MPI's session files, job.json. In /dev/shm (else
// $TMPDIR), named orrery-UID-RANDOM, mode 0700, gone when the job ends. A lock on its file `alive` says that
// the job lives.
#ifndef ORRERY_LAUNCHER_BOXDIR_H
#define ORRERY_LAUNCHER_BOXDIR_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define BOXDIR_PATH_BYTES 128

struct boxdir {
    char path[BOXDIR_PATH_BYTES];
    int alive_fd; // -1: not ours
};

// Makes a new one and removes what dead jobs of this user have left.
int boxdir_make(struct boxdir *d, struct err *e) ERR_CHECK;
// Removes it and all in it; safe on one that was never made.
void boxdir_remove(struct boxdir *d);

// Calls `each` with the path of every job's folder of this user on this host; `alive`: its job runs.
typedef void boxdir_each_fn(void *arg, const char *path, bool alive);
int boxdir_each(boxdir_each_fn *each, void *arg, struct err *e) ERR_CHECK;
bool boxdir_is_ours(const char *path); // a real folder of this user, named like one of ours
// Copies the rank-N.box files into the folder `to` (made if missing): all that can be, and tells the first
// that cannot.
int boxdir_save_boxes(const char *path, const char *to, struct err *e) ERR_CHECK;
// Removes the boxes, before a new attempt.
int boxdir_clear_boxes(const char *path, struct err *e) ERR_CHECK;
// rm -r, follows no symlink.
void boxdir_remove_tree(const char *path);

#endif
