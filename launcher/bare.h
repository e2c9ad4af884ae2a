// SPDX-License-Identifier: Apache-2.0
// Ranks without guards, for doctor and bench: a scheduler's command as a run would get it, but of a plain
// program that nobody watches over or starts anew.
#ifndef ORRERY_LAUNCHER_BARE_H
#define ORRERY_LAUNCHER_BARE_H

#include "base/err.h"
#include "launcher/boxdir.h"
#include "launcher/sched.h"
#include "launcher/strv.h"

struct bare {
    struct strv argv, env;
    struct boxdir scratch; // for MPI's own files, until bare_fini
};

// `words` is what each rank executes; of `wanted`, guard, pass_env, openmpi and tmp_dir are filled in here.
// MISSING when mpirun is wanted and there is none. bare_fini after failure too.
int bare_init(struct bare *b, const struct sched *sched, const struct sched_request *wanted,
              const struct strv *words, struct err *e) ERR_CHECK;
void bare_fini(struct bare *b);

#endif
