// SPDX-License-Identifier: Apache-2.0
// The sums of exact.h, to the bit, made where they are owned (ZeRO-2): in round i the i-th leaf of every rank
// travels to the owners of its elements, bucket by bucket, so that no rank needs more of a leaf than the
// bucket at hand. An owner adds up what arrived along the tree; what waits for its other half is kept, of its
// own run alone. With one leaf on each rank nothing is kept and nothing travels twice; with several, all of
// them travel, where exact.h sends their sums.
#ifndef ORRERY_COMM_EXACT_STREAM_H
#define ORRERY_COMM_EXACT_STREAM_H

#include "comm/coll.h"
#include "comm/exact.h"

struct exact_stream;

// For two ranks and more. offset[size + 1]: the run that each rank owns. Takes exact_stream_kept elements of
// device memory.
int exact_stream_open(struct exact_stream **out, struct coll *c, int64_t shards, const int64_t *offset,
                      const struct exact_cut *cut, struct device *device, struct err *e) ERR_CHECK;
void exact_stream_close(struct exact_stream *x);       // NULL-safe; operations are the caller's
int64_t exact_stream_rounds(int64_t shards, int size); // leaves of the rank that has most
// Elements that are kept between rounds.
int64_t exact_stream_kept(int64_t shards, int size, int64_t own_elems);
// Elements that arrive of one bucket in one round, at most.
int64_t exact_stream_room(int size, int rank, const int64_t *offset, const struct exact_cut *cut);

// Sends bucket `k` of this rank's leaf of the round to its owners (`leaf`: the bucket's first element; NULL:
// this rank has no such leaf). All ranks call it for bucket after bucket of round after round. `leaf` and
// `room`, of exact_stream_room elements, stay untouched until the operation was joined and its bucket added.
int exact_stream_send(struct exact_stream *x, struct coll_op **op, const char *name, int64_t round, int k,
                      const float *leaf, float *room, struct err *e) ERR_CHECK;
// Adds what arrived; in the last round run[...], from the start of this rank's run, gets the bucket's sum.
int exact_stream_add(struct exact_stream *x, int64_t round, int k, float *room, float *run,
                     struct err *e) ERR_CHECK;

#endif
