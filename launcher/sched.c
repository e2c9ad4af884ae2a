// SPDX-License-Identifier: Apache-2.0
#include "launcher/sched.h"

#include <stddef.h>

static const struct sched *const rows[] = {&sched_local};

const struct sched *sched_find(void) {
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (rows[i]->here()) return rows[i];
    return &sched_local;
}
