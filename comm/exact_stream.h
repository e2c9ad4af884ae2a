// SPDX-License-Identifier: Apache-2.0
// The sums of exact.h, to the bit, for ZeRO-2: in round i the i-th leaf of every rank travels, bucket by
// bucket, so that no rank needs more of a leaf than the bucket at hand. Each rank adds up its slices
// (exact_slices.h) of what arrived along the tree; what waits for its other half is kept, of these slices
// alone. In the end the sums go to their owners. With one leaf on each rank as much travels as with exact.h;
// with several, all of them travel, where exact.h sends their sums.
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
// Elements that are kept between rounds, or until they go to their owners.
int64_t exact_stream_kept(int64_t shards, int size, int rank, const struct exact_cut *cut);
// Elements that arrive of one bucket in one round, at most.
int64_t exact_stream_room(int size, int rank, const struct exact_cut *cut);

// Sends bucket `k` of this rank's leaf of the round (`leaf`: the bucket's first element; NULL: this rank has
// no such leaf). All ranks call it for bucket after bucket of round after round. `leaf` and `room`, of
// exact_stream_room elements, stay untouched until the operation was joined and its bucket added.
int exact_stream_send(struct exact_stream *x, struct coll_op **op, const char *name, int64_t round, int k,
                      const float *leaf, float *room, struct err *e) ERR_CHECK;
// Adds what arrived.
int exact_stream_add(struct exact_stream *x, int64_t round, int k, float *room, struct err *e) ERR_CHECK;
// After the last bucket of the last round: own[...] gets the sum over this rank's run. All ranks call it.
int exact_stream_deliver(struct exact_stream *x, float *own, struct err *e) ERR_CHECK;

#endif
