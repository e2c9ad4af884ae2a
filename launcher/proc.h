// SPDX-License-Identifier: Apache-2.0
// Child processes, started from argument vectors, never through a shell.
// Thread rule: the main thread of a process, since a death signal follows the thread that forked.
#ifndef ORRERY_LAUNCHER_PROC_H
#define ORRERY_LAUNCHER_PROC_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/bytes.h"
#include "base/err.h"

struct proc_spec {
    char *const *argv; // argv[0] is looked up in PATH unless it has a '/'
    char *const *env;  // NULL: this process's
    int in;            // descriptor for stdin; 0: /dev/null
    int out, err;      // descriptors for stdout and stderr; -1: as here
    bool silent;       // stdout and stderr go nowhere
    bool own_group;    // a process group of its own, so that a terminal's Ctrl-C does not reach it
    int death_signal;  // what it gets when this process dies; 0: nothing
};

// A program that cannot be executed is an error here, not an exit status later.
int proc_start(const struct proc_spec *spec, pid_t *out, struct err *e) ERR_CHECK;

// Runs to the end, kills after deadline_ms (TIMEOUT). *status: exit code, 128 + n for signal n. out, err:
// appended (a full buf drops the rest); NULL: stderr stays as here, stdout too.
int proc_capture(char *const *argv, int deadline_ms, struct buf *out, struct buf *err, int *status,
                 struct err *e) ERR_CHECK;

// The same with an environment of its own; NULL: this process's.
int proc_capture_env(char *const *argv, char *const *env, int deadline_ms, struct buf *out, struct buf *err,
                     int *status, struct err *e) ERR_CHECK;

// Full path of `name` in PATH; false when there is none.
bool proc_find(const char *name, char *out, size_t out_bytes);
// Path of a program beside this one; $env_name overrides it.
int proc_sibling(const char *name, const char *env_name, char *out, size_t out_bytes,
                 struct err *e) ERR_CHECK;
// Kills every child of this process but one, those that were handed down to it as well.
void proc_kill_children(pid_t but);
bool proc_alive(pid_t pid);                      // some thread of it is no zombie
const char *proc_signal_name(int signal_number); // "SIGKILL"

#endif
