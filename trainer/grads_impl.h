// SPDX-License-Identifier: Apache-2.0
// What a way to sum gradients provides; included by grads*.c only.
#ifndef ORRERY_TRAINER_GRADS_IMPL_H
#define ORRERY_TRAINER_GRADS_IMPL_H

#include "comm/exact.h"
#include "trainer/grads.h"

#define GRADS_NAME_BYTES 48

struct grads_vtable {
    bool in_backward;                             // grads_in_backward
    int (*begin)(struct grads *g, struct err *e); // NULL: nothing to do
    int (*shard)(struct grads *g, struct err *e); // of g->shard; NULL: nothing to do
    int (*place)(struct grads *g, int stage, struct params_place *out, struct err *e);
    int (*final)(struct grads *g, int stage, struct err *e);
    int (*shard_done)(struct grads *g, struct err *e); // NULL: nothing to do
    int (*finish)(struct grads *g, const float **own, struct err *e);
    void (*close)(struct grads *g); // frees g
};

// The head of each one's own struct.
struct grads {
    const struct grads_vtable *vtable;
    struct grads_options o;
    int rank, size;
    int64_t elems, own_elems; // of all, of this rank's run
    int64_t lo, hi, shard;    // this rank's shards, and the one at hand
};

void grads_fill(struct grads *g, const struct grads_vtable *vtable, const struct grads_options *o);
// Memory that no peer reads, at least a little of it.
int grads_take(struct grads *g, float **out, int64_t elems, struct err *e) ERR_CHECK;
int grads_zero(struct grads *g, float *at, int64_t elems, struct err *e) ERR_CHECK;

static inline struct exact_cut grads_cut(const struct buckets *b) {
    return (struct exact_cut){.n = b->n, .cut = b->cut};
}
// How often a step sums each element over ranks, but for exact with ZeRO-1.
int64_t grads_rounds(const struct config *c, int world);
// Of a bucket's collective.
void grads_name(char out[GRADS_NAME_BYTES], const struct config *c, int bucket, int n);

int grads_exact_open(struct grads **out, const struct grads_options *o, struct err *e) ERR_CHECK;
int64_t grads_exact_bytes(const struct config *c, const struct buckets *b, int world, int rank,
                          const int64_t *offset);
int grads_ring_open(struct grads **out, const struct grads_options *o, struct err *e) ERR_CHECK;
int64_t grads_ring_bytes(const struct config *c, const struct buckets *b, int world, int rank,
                         const int64_t *offset);
int grads_whole_open(struct grads **out, const struct grads_options *o, struct err *e) ERR_CHECK;

#endif
