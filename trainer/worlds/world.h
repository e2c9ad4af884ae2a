// SPDX-License-Identifier: Apache-2.0
// Simulated worlds: the embedded data source. A world makes episode i as a pure function of (seed, i, knobs):
// the same bytes in any process. One file per world and one row in world.c's registry. Knows nothing of tars
// or models.
#ifndef ORRERY_TRAINER_WORLDS_WORLD_H
#define ORRERY_TRAINER_WORLDS_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "storage/dataset.h"

// A knob shifts the world away from its default (friction, latency, lighting, ...).
struct world_knob {
    const char *name;
    double value, lo, hi; // default and range
    bool whole;           // a count: no fractions
    const char *help;
};

struct world_member {
    char name[96]; // "video.png"
    struct buf bytes;
};

// One finished episode, encoded: members[0] is "json" (metadata per storage.md), then one per stream.
struct world_episode {
    int n;
    struct world_member members[DATASET_STREAMS_MAX + 1];
};

struct world {
    const char *name; // "table"
    int version;      // raised whenever the same seed gives other bytes than before
    const char *help;
    const struct world_knob *knobs;
    size_t n_knobs;
    // knob_values in the order of knobs. `split` goes into the metadata.
    int (*make)(uint64_t seed, int64_t episode, int64_t frames, const double *knob_values, const char *split,
                struct world_episode *out, struct err *e);
};

const struct world *world_find(const char *name); // NULL: unknown
const struct world *world_at(size_t i);           // NULL past the end
// "name=value,name=value" onto defaults, ranges checked.
int world_parse_knobs(const struct world *w, const char *text, double *values, struct err *e) ERR_CHECK;
void world_episode_fini(struct world_episode *ep);

#endif
