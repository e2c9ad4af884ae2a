// SPDX-License-Identifier: Apache-2.0
// The run folder: who may write into it (one supervisor at a time), and where its parts are. What it finds
// there may have been put by others: parts that are symlinks or no folders are refused, files are opened
// without following.
#ifndef ORRERY_LAUNCHER_RUNDIR_H
#define ORRERY_LAUNCHER_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"

#define RUNDIR_PATH_BYTES  3072
#define RUNDIR_ID_BYTES    64
#define RUNDIR_STATE_BYTES 16

struct rundir {
    char path[RUNDIR_PATH_BYTES];  // absolute
    char given[CONFIG_TEXT_BYTES]; // as the person wrote it, for messages
    int lock_fd;                   // -1: not locked by us
};

// run.json: what is known of the run between commands.
struct rundir_record {
    char id[RUNDIR_ID_BYTES];
    char state[RUNDIR_STATE_BYTES]; // "running", "done", "saved", "failed"
    char task[32], host[64], box_path[128];
    int64_t pid, ranks, attempt, exit_code;
    char started[40], ended[40]; // ISO; ended is empty while it runs
};

// Of run.dir: CONFIG when it is empty or a URL.
int rundir_check_name(const char *path, struct err *e) ERR_CHECK;
// Makes the folder if asked to; MISSING when it is not there otherwise.
int rundir_open(struct rundir *r, const char *path, bool create, struct err *e) ERR_CHECK;
void rundir_close(struct rundir *r); // releases the lock
// CONFLICT names who holds it. Waits a moment for the keeper of a supervisor that was killed.
int rundir_lock(struct rundir *r, struct err *e) ERR_CHECK;
// By a supervisor or its keeper, on this host; on another one only where the file system tells of its locks.
bool rundir_is_held(const struct rundir *r);

// On a file system of this machine: whoever looks there never waits for a server that is away.
bool rundir_is_local(const struct rundir *r);
// Of a folder that we have locked: was it, or its lock, removed or replaced since?
bool rundir_is_lost(const struct rundir *r);

// PATH/name; USAGE when it does not fit.
int rundir_join(const struct rundir *r, const char *name, char *out, size_t out_bytes,
                struct err *e) ERR_CHECK;
// Makes PATH/name (nested names too), each part a real folder.
int rundir_make(const struct rundir *r, const char *name, char *out, size_t out_bytes,
                struct err *e) ERR_CHECK;
// Highest N of logs/PREFIX-N, 0 when there is none; or an error.
int rundir_last_attempt(const struct rundir *r, const char *prefix, struct err *e) ERR_CHECK;
// Opens a file of the folder for appending.
int rundir_append(const struct rundir *r, const char *name, int *fd, struct err *e) ERR_CHECK;

int rundir_read_record(const struct rundir *r, struct rundir_record *out,
                       struct err *e) ERR_CHECK; // MISSING: none yet
int rundir_write_record(const struct rundir *r, const struct rundir_record *record, struct err *e) ERR_CHECK;
// The resolved config, which the next start compares with its own: PATH/config.yaml, whose path is left in
// `path`.
int rundir_write_config(const struct rundir *r, const struct config_file *config, char *path,
                        size_t path_bytes, struct err *e) ERR_CHECK;
int rundir_new_id(char out[RUNDIR_ID_BYTES], const char *path,
                  struct err *e) ERR_CHECK; // "demo-20261122-180304-ab12"

#endif
