// SPDX-License-Identifier: Apache-2.0
// Fixed-order reduction: gradients are summed over S logical shards of the global batch along the tree of
// exact_tree.h, whoever computed the leaves. So any number of ranks 1..S gives the same bits. Each rank keeps
// whole leaves and sends their sums. Elements are dealt into buckets, each exchanged by itself as soon as a
// sum that leaves this rank is complete in it; what is added to what, and in which order, is the same for
// every way to cut.
#ifndef ORRERY_COMM_EXACT_H
#define ORRERY_COMM_EXACT_H

#include <stdint.h>

#include "comm/coll.h"

struct exact;

// Bucket k is elements [cut[k + 1], cut[k]): they descend, as a backward pass finishes them.
struct exact_cut {
    int n;
    const int64_t *cut; // [n + 1]: elems, ..., 0
};

// offset[size+1] gives the segment that each rank owns (ZeRO-1); who adds up what says exact_slices.h. Takes
// exact_bytes of device memory.
int exact_open(struct exact **out, struct coll *c, int64_t shards, const int64_t *offset,
               const struct exact_cut *cut, struct device *device, struct err *e) ERR_CHECK;
void exact_close(struct exact *x); // gives up what is under way
int64_t exact_bytes(int64_t shards, int size, int rank, const struct exact_cut *cut);
// Leaves of this rank: [*lo, *hi).
void exact_leaves(const struct exact *x, int64_t *lo, int64_t *hi);

// The buffer into which leaf `shard` writes its gradient (zeroed). Leaves come in ascending order.
int exact_leaf(struct exact *x, int64_t shard, float **out, struct err *e) ERR_CHECK;
// Elements [from, elems) of the leaf are complete: folds their buckets, and starts to exchange those whose
// sum is not folded on this rank any more. Does not wait.
int exact_leaf_ready(struct exact *x, int64_t shard, int64_t from, struct err *e) ERR_CHECK;
// All of the leaf is complete: folds finished pairs of the tree that lie wholly on this rank.
int exact_leaf_done(struct exact *x, int64_t shard, struct err *e) ERR_CHECK;
// Exchanges what is not yet exchanged, finishes the tree, and gives each rank its segment of the sum: out[0
// .. own segment's length).
int exact_finish(struct exact *x, float *out, struct err *e) ERR_CHECK;

#endif
