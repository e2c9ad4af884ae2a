// SPDX-License-Identifier: Apache-2.0
// The task simulate: episodes of a simulated world become a data set. Ranks write shards in parallel, and the
// bytes do not depend on how many there are; one rank writes the manifest when all are done. "simulate.json"
// beside the shards says what they are: the same command goes on where it was stopped, another one is
// refused.
#ifndef ORRERY_TRAINER_SIMULATE_H
#define ORRERY_TRAINER_SIMULATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/config.h"
#include "base/err.h"
#include "base/log.h"
#include "storage/store.h"

struct rank;

#define SIMULATE_DESCRIPTION "simulate.json"

struct simulate_team {
    int rank, world;
    const struct store_options *store;
    const struct log *log;
    struct blackbox *box;
    bool (*stop)(void *arg); // asked to stop early?
    // Waits for all ranks; *v becomes the largest of theirs.
    int (*meet)(void *arg, int64_t *v, struct err *e);
    void *arg;
};

// SAVED when it was asked to stop: what is written stays. CONFLICT when sim.out holds something else.
int simulate_run(const struct config *c, const struct simulate_team *team, struct err *e) ERR_CHECK;

#endif
