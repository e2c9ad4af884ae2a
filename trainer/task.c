// SPDX-License-Identifier: Apache-2.0
#include "trainer/task.h"

#include <string.h>

#include "trainer/eval_task.h"

static const struct task tasks[] = {
    {.name = "train",
     .help = "train, or go on from the newest checkpoint",
     .graceful = true,
     .run = task_train},
    {.name = "simulate",
     .help = "make a data set from a simulated world",
     .graceful = true,
     .run = task_simulate},
    {.name = "evaluate",
     .help = "measure the newest checkpoint against the baselines",
     .graceful = true,
     .run = task_evaluate},
    {.name = "rollout",
     .help = "draw the newest checkpoint's forecasts",
     .graceful = true,
     .run = task_rollout},
    {.name = "replay", .help = "repeat one step from the checkpoint before it", .run = task_replay},
    {.name = "check", .help = "do the ranks reach each other: sums and speed", .run = task_check},
    {.name = "show", .help = "draw one sample of data.train", .alone = true, .run = task_show},
    {.name = "plan", .help = "print layout, memory and cost as JSON", .alone = true, .run = task_plan},
    {.name = "kernels-bench",
     .help = "time the ops at the model's shapes, as CSV",
     .run = task_kernels_bench},
    {.name = "comm-bench", .help = "time the collectives, as CSV", .run = task_comm_bench},
    {.name = "step-bench", .help = "time training steps on made-up data", .run = task_step_bench},
};

const struct task *task_at(int i) {
    return i >= 0 && i < (int)(sizeof tasks / sizeof *tasks) ? &tasks[i] : NULL;
}

const struct task *task_find(const char *name) {
    for (int i = 0; task_at(i); i++)
        if (!strcmp(task_at(i)->name, name)) return task_at(i);
    return NULL;
}
