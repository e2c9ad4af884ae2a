// SPDX-License-Identifier: Apache-2.0
// The flat layout of parameters cut into buckets, in the order in which a backward pass finishes them: what
// is reduced and gathered in one piece. Whole stages of params.h, so that a bucket is complete at a moment
// the model can tell. Pure arithmetic.
#ifndef ORRERY_TRAINER_BUCKETS_H
#define ORRERY_TRAINER_BUCKETS_H

#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "trainer/params.h"

struct buckets {
    int n, ranks;
    int64_t *cut;   // [n + 1]: bucket k is elements [cut[k + 1], cut[k]); the first ends with the last tensor
    int *stage;     // [n]: its first stage; its last one is that before stage[k - 1]
    int64_t *share; // [n][ranks + 1], of buckets_deal
};

// Each of at least `least_elems` elements, but for the last.
int buckets_init(struct buckets *out, const struct params *p, int64_t least_elems, struct err *e) ERR_CHECK;
void buckets_fini(struct buckets *b);
// What the config wants: comm.overlap, comm.zero, comm.bucket_mb.
int64_t buckets_least(const struct config *c, const struct params *p);
int64_t buckets_largest(const struct buckets *b); // elements
// The bucket that holds a stage.
int buckets_of(const struct buckets *b, int stage);
// A backward has finished `stage`: from which element on are buckets complete?
int64_t buckets_complete(const struct buckets *b, int stage);
// Deals them among ranks, where offset[ranks + 1] says who owns what of all.
int buckets_deal(struct buckets *b, const int64_t *offset, int ranks, struct err *e) ERR_CHECK;
// [ranks + 1]: who owns what of bucket k, from its start.
const int64_t *buckets_share(const struct buckets *b, int k);

#endif
