// SPDX-License-Identifier: Apache-2.0
#include "launcher/sched.h"

#include <stddef.h>

static const struct sched *const rows[] = {&sched_hosts, &sched_slurm, &sched_k8s};

const struct sched *sched_find(const struct place *place) {
    for (size_t i = 0; place->hosts.n && i < sizeof rows / sizeof *rows; i++)
        if (rows[i]->place == place->kind) return rows[i];
    return &sched_local;
}
