// SPDX-License-Identifier: Apache-2.0
#include "launcher/bare.h"

#include <unistd.h>

int bare_init(struct bare *b, const struct sched *sched, const struct sched_request *wanted,
              const struct strv *words, struct err *e) {
    static const char *const none[] = {NULL};
    struct sched_request request = *wanted;
    *b = (struct bare){.scratch = {.alive_fd = -1}};
    request.guard = words;
    request.pass_env = none;
    request.tmp_dir = b->scratch.path;
    int rc = sched->check(request.ranks, request.mpi, e);
    if (!rc && request.mpi) rc = openmpi_of_mpirun(&request.openmpi, e);
    if (!rc && request.mpi) rc = boxdir_make(&b->scratch, e);
    for (char **at = environ; *at && !rc; at++) rc = strv_add(&b->env, *at, e);
    return rc ? rc : sched->command(&request, &b->argv, &b->env, e);
}

void bare_fini(struct bare *b) {
    boxdir_remove(&b->scratch);
    strv_fini(&b->argv);
    strv_fini(&b->env);
}
