// SPDX-License-Identifier: Apache-2.0
// The command and environment of one attempt: what job.c needs of it besides job_command itself (job.h).
#ifndef ORRERY_LAUNCHER_JOB_COMMAND_H
#define ORRERY_LAUNCHER_JOB_COMMAND_H

#include "launcher/job.h"

bool job_by_srun(const struct config *c);
// Can the ranks' container be entered by this job's starter? CONFIG.
int job_check_container(const struct job *j, struct err *e) ERR_CHECK;
// Fills j->passed.
int job_list_passed(struct job *j, struct err *e) ERR_CHECK;

#endif
