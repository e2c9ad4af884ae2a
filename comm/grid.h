// SPDX-License-Identifier: Apache-2.0
// The grid: rank <-> (dp, cp, tp, pp) coordinates, tp fastest, then cp, dp, pp; and what each rank owns of a
// logical sequence of things. Pure arithmetic; no communication. Launcher and trainer share it.
#ifndef ORRERY_COMM_GRID_H
#define ORRERY_COMM_GRID_H

#include <stdint.h>

#include "base/err.h"

struct grid {
    int world, dp, cp, tp, pp;
};

struct grid_place {
    int dp, cp, tp, pp;
};

// dp = world / (cp tp pp); CONFIG error when that is no whole number.
int grid_init(struct grid *g, int world, int cp, int tp, int pp, struct err *e) ERR_CHECK;
struct grid_place grid_place_of(const struct grid *g, int rank);
int grid_rank_of(const struct grid *g, struct grid_place p);

// CONFIG error when the batch has fewer logical shards than there are ranks.
int grid_check_shards(int64_t shards, int64_t ranks, struct err *e) ERR_CHECK;

// Item range [lo, hi) of part `part` when n items are dealt out in `parts` contiguous, nearly equal runs
// (the first n mod parts runs have one more).
void grid_split(int64_t n, int parts, int part, int64_t *lo, int64_t *hi);

// Who owns what of items [lo, hi), counted from lo, where offset[parts + 1] says who owns what of all.
void grid_share(const int64_t *offset, int parts, int64_t lo, int64_t hi, int64_t *share);

#endif
