// SPDX-License-Identifier: Apache-2.0
// What `eval` and `rollout` share: a task of orrery-rank on the newest checkpoint of a finished or running
// run, with the run's own config, and the files that it leaves in the run folder.
#ifndef ORRERY_LAUNCHER_REPORT_TASK_H
#define ORRERY_LAUNCHER_REPORT_TASK_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "launcher/opts.h"

#define REPORT_NAME_BYTES 512

// RUN is rest->words[0]. `ranks` 0: as the config says. `name`: NULL, or where the files of an evaluation are
// told, without their suffixes: eval.name, and where other values than the run's are asked for eval-HASH of
// these, so that the run keeps its own. Returns the exit status, or a negative code.
int report_task_run(const char *task, const struct opts_rest *rest, int64_t ranks,
                    char name[REPORT_NAME_BYTES], struct err *e) ERR_CHECK;
// Copies RUN/name to stdout.
int report_task_print(const char *run_dir, const char *name, struct err *e) ERR_CHECK;

#endif
