// SPDX-License-Identifier: Apache-2.0
// What orrery-rank can do: one row per task in task.c. Every rank of the job runs the same task.
#ifndef ORRERY_TRAINER_TASK_H
#define ORRERY_TRAINER_TASK_H

#include "base/err.h"
#include "trainer/rank.h"

struct task {
    const char *name, *help;
    bool alone;    // needs neither ranks nor data: runs in one process without MPI
    bool graceful; // SIGTERM and the like ask it to stop, by rank_stop_asked
    int (*run)(struct rank *r, struct err *e);
};

const struct task *task_find(const char *name); // NULL: unknown
const struct task *task_at(int i);              // NULL past the end

int task_train(struct rank *r, struct err *e);
int task_check(struct rank *r, struct err *e);
int task_plan(struct rank *r, struct err *e);
int task_replay(struct rank *r, struct err *e);
int task_kernels_bench(struct rank *r, struct err *e);
int task_comm_bench(struct rank *r, struct err *e);
int task_step_bench(struct rank *r, struct err *e);
int task_show(struct rank *r, struct err *e);
int task_simulate(struct rank *r, struct err *e);

#endif
