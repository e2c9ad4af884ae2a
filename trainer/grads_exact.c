// SPDX-License-Identifier: Apache-2.0
// Gradients with comm.reduce exact: a shard is a leaf of exact.h's tree.
#include <stdlib.h>

#include "comm/exact.h"
#include "trainer/grads_impl.h"

struct exact_grads {
    struct grads base;
    struct exact *tree;
    float *leaf; // of the shard at hand
    float *own;
};

static struct exact_grads *exact_of(struct grads *g) {
    return (struct exact_grads *)g;
}

static int shard(struct grads *g, struct err *e) {
    return exact_leaf(exact_of(g)->tree, g->shard, &exact_of(g)->leaf, e);
}

static int place(struct grads *g, int stage, struct params_place *out, struct err *e) {
    *out = (struct params_place){.at = exact_of(g)->leaf};
    return 0;
}

static int final(struct grads *g, int stage, struct err *e) {
    if (!g->o.config->comm_overlap) return 0;
    return exact_leaf_ready(exact_of(g)->tree, g->shard, buckets_complete(g->o.buckets, stage), e);
}

static int shard_done(struct grads *g, struct err *e) {
    return exact_leaf_done(exact_of(g)->tree, g->shard, e);
}

static int finish(struct grads *g, const float **own, struct err *e) {
    *own = exact_of(g)->own;
    return exact_finish(exact_of(g)->tree, exact_of(g)->own, e);
}

static void release(struct grads *g) {
    exact_close(exact_of(g)->tree);
    if (exact_of(g)->own) g->o.device->vtable->release(g->o.device, exact_of(g)->own);
    free(g);
}

static const struct grads_vtable exact_vtable = {
    .shard = shard,
    .place = place,
    .final = final,
    .shard_done = shard_done,
    .finish = finish,
    .close = release,
};

int64_t grads_exact_bytes(const struct config *c, const struct buckets *b, int world, int rank,
                          const int64_t *offset) {
    const struct exact_cut cut = grads_cut(b);
    int64_t own = (offset[rank + 1] - offset[rank]) * (int64_t)sizeof(float);
    return own + exact_bytes(c->comm_shards, world, rank, &cut);
}

int grads_exact_open(struct grads **out, const struct grads_options *o, struct err *e) {
    struct exact_grads *g = calloc(1, sizeof *g);
    if (!g) return err_set(e, ERR_MEMORY, "no memory for gradients");
    grads_fill(&g->base, &exact_vtable, o);
    const struct exact_cut cut = grads_cut(o->buckets);
    int rc = grads_take(&g->base, &g->own, g->base.own_elems, e);
    if (!rc) rc = exact_open(&g->tree, o->coll, o->config->comm_shards, o->offset, &cut, o->device, e);
    if (rc)
        release(&g->base);
    else
        *out = &g->base;
    return rc;
}
