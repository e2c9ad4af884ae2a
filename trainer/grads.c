// SPDX-License-Identifier: Apache-2.0
#include <stdio.h>
#include <stdlib.h>

#include "comm/exact_slices.h"
#include "comm/exact_tree.h"
#include "comm/grid.h"
#include "trainer/grads_impl.h"
#include "trainer/optim.h"

#define LEAST_BYTES 64

// One rank owns everything: a ring would come on top.
static bool in_ring(const struct config *c, int world) {
    return c->comm_zero == 2 && world > 1;
}

int64_t grads_rounds(const struct config *c, int world) {
    return in_ring(c, world) ? (c->comm_shards + world - 1) / world : 1;
}

int grads_open(struct grads **out, const struct grads_options *o, struct err *e) {
    if (in_ring(o->config, coll_size(o->coll))) return grads_ring_open(out, o, e);
    if (o->config->comm_reduce == CONFIG_comm_reduce_exact) return grads_exact_open(out, o, e);
    return grads_whole_open(out, o, e);
}

void grads_fill(struct grads *g, const struct grads_vtable *vtable, const struct grads_options *o) {
    *g = (struct grads){.vtable = vtable, .o = *o, .rank = coll_rank(o->coll), .size = coll_size(o->coll)};
    g->elems = o->offset[g->size];
    g->own_elems = o->offset[g->rank + 1] - o->offset[g->rank];
    grid_split(o->config->comm_shards, g->size, g->rank, &g->lo, &g->hi);
}

void grads_close(struct grads *g) {
    if (g) g->vtable->close(g);
}

int grads_take(struct grads *g, float **out, int64_t elems, struct err *e) {
    size_t bytes = (size_t)elems * sizeof(float);
    void *at = NULL;
    int rc = g->o.device->vtable->alloc(g->o.device, &at, bytes > 0 ? bytes : LEAST_BYTES, e);
    *out = at;
    return rc;
}

int grads_zero(struct grads *g, float *at, int64_t elems, struct err *e) {
    return g->o.device->vtable->zero(g->o.device, at, (size_t)elems * sizeof(float), e);
}

void grads_name(char out[GRADS_NAME_BYTES], const struct config *c, int bucket, int n) {
    const char *what =
        c->comm_reduce == CONFIG_comm_reduce_exact ? "exact gradients" : "reduce-scatter gradients";
    if (n > 1)
        snprintf(out, GRADS_NAME_BYTES, "%s %d", what, bucket + 1);
    else
        snprintf(out, GRADS_NAME_BYTES, "%s", what);
}

// What the questions about a rank of a world are answered from.
struct layout {
    struct buckets buckets;
    int64_t *offset;
};

static int layout_init(struct layout *l, const struct config *c, const struct params *p, int world) {
    struct err ignored = {0};
    *l = (struct layout){.offset = calloc((size_t)world + 1, sizeof *l->offset)};
    if (!l->offset || buckets_init(&l->buckets, p, buckets_least(c, p), &ignored)) return -1;
    optim_split(c, p, world, l->offset);
    return 0;
}

static void layout_fini(struct layout *l) {
    buckets_fini(&l->buckets);
    free(l->offset);
}

int64_t grads_bytes(const struct config *c, const struct params *p, int world, int rank) {
    struct layout l;
    int64_t bytes = p->elems * (int64_t)sizeof(float);
    if (layout_init(&l, c, p, world))
        bytes = -1;
    else if (in_ring(c, world))
        bytes = grads_ring_bytes(c, &l.buckets, world, rank, l.offset);
    else if (c->comm_reduce == CONFIG_comm_reduce_exact)
        bytes = grads_exact_bytes(c, &l.buckets, world, rank, l.offset);
    layout_fini(&l);
    return bytes;
}

// Of every sum that leaves the rank what others add up, and of what it adds up itself what others own.
static int64_t sent_exact(const struct config *c, const struct layout *l, int world, int rank) {
    const struct exact_cut cut = grads_cut(&l->buckets);
    int64_t lo, hi;
    grid_split(c->comm_shards, world, rank, &lo, &hi);
    int64_t sums = in_ring(c, world) ? hi - lo : exact_count_roots(c->comm_shards, lo, hi);
    return sums * (cut.cut[0] - exact_slices_elems(world, rank, &cut)) +
           exact_slices_given(world, rank, l->offset, &cut);
}

int64_t grads_sent(const struct config *c, const struct params *p, int world, int rank) {
    struct layout l;
    int64_t sent;
    if (layout_init(&l, c, p, world))
        sent = -1;
    else if (c->comm_reduce == CONFIG_comm_reduce_exact)
        sent = sent_exact(c, &l, world, rank);
    else
        sent = grads_rounds(c, world) * (p->elems - (l.offset[rank + 1] - l.offset[rank]));
    layout_fini(&l);
    return sent;
}

bool grads_in_backward(const struct grads *g) {
    return g->vtable->in_backward;
}

int grads_begin(struct grads *g, struct err *e) {
    return g->vtable->begin ? g->vtable->begin(g, e) : 0;
}

int grads_shard(struct grads *g, int64_t shard, struct err *e) {
    g->shard = shard;
    return g->vtable->shard ? g->vtable->shard(g, e) : 0;
}

int grads_place(struct grads *g, int stage, struct params_place *out, struct err *e) {
    return g->vtable->place(g, stage, out, e);
}

int grads_final(struct grads *g, int stage, struct err *e) {
    return g->vtable->final(g, stage, e);
}

int grads_shard_done(struct grads *g, struct err *e) {
    return g->vtable->shard_done ? g->vtable->shard_done(g, e) : 0;
}

int grads_finish(struct grads *g, const float **own, struct err *e) {
    return g->vtable->finish(g, own, e);
}
