// SPDX-License-Identifier: Apache-2.0
// A team of threads that works through numbered tasks. One job at a time, started by one thread, which works
// too and returns when all tasks are done; a member that is late is not waited for. Members spin for a moment
// between jobs, then sleep.
#ifndef ORRERY_KERNELS_CPU_TEAM_H
#define ORRERY_KERNELS_CPU_TEAM_H

#include <stdint.h>

#include "base/err.h"

struct team;
typedef void team_task_fn(void *arg, int64_t task);

// A team of `threads`, the caller's included; 1 needs no memory and no thread: *out is NULL.
int team_create(struct team **out, int threads, struct err *e) ERR_CHECK;
void team_destroy(struct team *t); // NULL-safe
// fn(arg, task) for every task in 0..tasks-1, in no order; t NULL: in order.
void team_run(struct team *t, int64_t tasks, team_task_fn *fn, void *arg);
// OMP_NUM_THREADS, else machine_cores().
int team_default_threads(void);

#endif
