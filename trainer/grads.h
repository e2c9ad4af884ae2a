// SPDX-License-Identifier: Apache-2.0
// The gradients of a step: where a backward adds them, and how they become this rank's run of the sum over
// all shards of all ranks. Of comm.reduce and comm.zero:
//   exact   1: every shard has a buffer of all elements; they are summed along exact.h's tree.
//           2: the rank's own run, sums of its slices, a few buffers of a bucket, and room for one bucket's
//           arrivals; each bucket of each shard goes to those who sum it (exact_stream.h). The same bits.
//   fast    1: one buffer of all elements, in which the rank's shards add up; each bucket is summed over
//           ranks in the last shard's backward.
//           2: the rank's own run and a few buffers of a bucket each; each bucket of each shard is summed
//           over ranks, and what this rank owns of it is added to its run.
//   One rank: 2 is as 1.
// Does not know the model. Thread rule: the main thread.
#ifndef ORRERY_TRAINER_GRADS_H
#define ORRERY_TRAINER_GRADS_H

#include <stdbool.h>
#include <stdint.h>

#include "comm/coll.h"
#include "trainer/buckets.h"

struct grads;

struct grads_options {
    const struct config *config;
    const struct buckets *buckets; // dealt among the ranks
    const int64_t *offset;         // [size + 1]: who owns what
    struct coll *coll;
    struct device *device;
};

// All of it outlives the gradients. Takes grads_bytes of the device's memory, together with all ranks.
int grads_open(struct grads **out, const struct grads_options *o, struct err *e) ERR_CHECK;
void grads_close(struct grads *g); // NULL-safe; gives up what is under way
// For a rank of a world.
int64_t grads_bytes(const struct config *c, const struct params *p, int world, int rank);
// Elements that a rank sends to others in a step.
int64_t grads_sent(const struct config *c, const struct params *p, int world, int rank);

// ---- a step: begin, then for each of the rank's shards in order the backward between grads_shard and
// grads_shard_done, then finish.
int grads_begin(struct grads *g, struct err *e) ERR_CHECK;
int grads_shard(struct grads *g, int64_t shard, struct err *e) ERR_CHECK;
// As struct model_grads has them. Unless grads_in_backward, `final` may be left out: then nothing overlaps.
int grads_place(struct grads *g, int stage, struct params_place *out, struct err *e) ERR_CHECK;
int grads_final(struct grads *g, int stage, struct err *e) ERR_CHECK;
int grads_shard_done(struct grads *g, struct err *e) ERR_CHECK;
// Must the host start and join collectives in the midst of a backward?
bool grads_in_backward(const struct grads *g);
// All is summed behind what is queued; *own: this rank's run, until the next step begins.
int grads_finish(struct grads *g, const float **own, struct err *e) ERR_CHECK;

#endif
