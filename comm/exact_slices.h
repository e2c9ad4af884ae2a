// SPDX-License-Identifier: Apache-2.0
// Who adds up what of an exact reduction. Every bucket is cut into even slices, one for each rank, whoever
// owns the elements, so that what all ranks send of a bucket arrives in equal parts everywhere: an owner that
// took a whole bucket from each of N ranks would need N times as long. The sums then go to their owners, all
// buckets' at once. A rank receives (N - 1) / N of a bucket for each sum that is sent, and in the end what it
// owns.
#ifndef ORRERY_COMM_EXACT_SLICES_H
#define ORRERY_COMM_EXACT_SLICES_H

#include <stdint.h>

#include "comm/coll.h"
#include "comm/exact.h"

struct exact_slices {
    int n, size;
    int64_t *share; // [n][size + 1]: who sums what of bucket k, from its start
    int64_t *at;    // [n]: where this rank's slice of bucket k is among its slices, in order of elements
    int64_t elems;  // of this rank's slices
    int64_t *send, *recv; // [n * size + 1]: the way to the owners
};

// offset[size + 1]: who owns what.
int exact_slices_init(struct exact_slices *s, int size, int rank, const int64_t *offset,
                      const struct exact_cut *cut, struct err *e) ERR_CHECK;
void exact_slices_fini(struct exact_slices *s);
// [size + 1], from the bucket's start.
const int64_t *exact_slices_share(const struct exact_slices *s, int k);

// Of one rank's: the elements of all, and of the largest.
int64_t exact_slices_elems(int size, int rank, const struct exact_cut *cut);
int64_t exact_slices_largest(int size, int rank, const struct exact_cut *cut);
// Elements of its sums that others own.
int64_t exact_slices_given(int size, int rank, const int64_t *offset, const struct exact_cut *cut);

// Gives sums[elems] to their owners, behind what is queued; own[...] gets this rank's run. All ranks call it.
int exact_slices_deliver(const struct exact_slices *s, struct coll *c, const float *sums, float *own,
                         struct err *e) ERR_CHECK;

#endif
