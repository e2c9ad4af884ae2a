// SPDX-License-Identifier: Apache-2.0
// Parts of mpirun's command line, Open MPI 4.1's or 5's, that several schedulers share. Each appends to argv.
#ifndef ORRERY_LAUNCHER_SCHED_MPIRUN_H
#define ORRERY_LAUNCHER_SCHED_MPIRUN_H

#include "launcher/sched.h"

// "--mca NAME VALUE", or another flag.
int sched_mpirun_set(struct strv *argv, const char *flag, const char *name, const char *value,
                     struct err *e) ERR_CHECK;
// "--host h1:2,h2:1": only hosts that are in, only as many slots as there are ranks. CONFIG: too few slots.
int sched_mpirun_hosts(const struct sched_request *r, struct strv *argv, struct err *e) ERR_CHECK;
// Between hosts: over r->network only.
int sched_mpirun_transport(const struct sched_request *r, struct strv *argv, struct err *e) ERR_CHECK;
// The end of the line: the variables to pass on, and the guard. Sets in env what mpirun asks of root.
int sched_mpirun_guard(const struct sched_request *r, struct strv *argv, struct strv *env,
                       struct err *e) ERR_CHECK;

#endif
