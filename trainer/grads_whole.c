// SPDX-License-Identifier: Apache-2.0
// Gradients in one buffer of all elements.
#include <stdlib.h>

#include "trainer/grads_impl.h"

struct whole_bucket {
    char name[GRADS_NAME_BYTES];
    struct coll_op *op; // NULL: not under way
};

struct whole {
    struct grads base;
    float *all;
    struct whole_bucket *bucket;
    int begun; // buckets whose sums over ranks were begun
};

static struct whole *whole_of(struct grads *g) {
    return (struct whole *)g;
}

static int reduce_until(struct whole *w, int64_t from, struct err *e) {
    const struct buckets *b = w->base.o.buckets;
    int rc = 0;
    for (int k = w->begun; !rc && k < b->n && b->cut[k + 1] >= from; k = w->begun) {
        rc = coll_reduce_scatter(w->base.o.coll, &w->bucket[k].op, w->bucket[k].name, w->all + b->cut[k + 1],
                                 buckets_share(b, k), e);
        if (!rc) w->begun++;
    }
    return rc;
}

static int begin(struct grads *g, struct err *e) {
    return grads_zero(g, whole_of(g)->all, g->elems, e);
}

static int place(struct grads *g, int stage, struct params_place *out, struct err *e) {
    *out = (struct params_place){.at = whole_of(g)->all};
    return 0;
}

// The sums over this rank's shards are complete in the last one's backward.
static int final(struct grads *g, int stage, struct err *e) {
    if (!g->o.config->comm_overlap || g->shard != g->hi - 1) return 0;
    return reduce_until(whole_of(g), buckets_complete(g->o.buckets, stage), e);
}

static int finish(struct grads *g, const float **own, struct err *e) {
    struct whole *w = whole_of(g);
    *own = w->all + g->o.offset[g->rank];
    int rc = reduce_until(w, 0, e);
    for (int k = 0; k < w->begun; k++) {
        struct coll_op *op = w->bucket[k].op;
        w->bucket[k].op = NULL;
        int joined = op ? coll_join(g->o.coll, op, e) : 0;
        if (!rc) rc = joined;
    }
    w->begun = 0;
    return rc;
}

static void release(struct grads *g) {
    struct whole *w = whole_of(g);
    for (int k = 0; w->bucket && k < g->o.buckets->n; k++) coll_drop(g->o.coll, w->bucket[k].op);
    if (w->all) device_release_shared(g->o.device, w->all);
    free(w->bucket);
    free(g);
}

static const struct grads_vtable whole_vtable = {
    .begin = begin,
    .place = place,
    .final = final,
    .finish = finish,
    .close = release,
};

int grads_whole_open(struct grads **out, const struct grads_options *o, struct err *e) {
    struct whole *w = calloc(1, sizeof *w);
    if (!w) return err_set(e, ERR_MEMORY, "no memory for gradients");
    grads_fill(&w->base, &whole_vtable, o);
    void *all = NULL;
    int rc = 0, n = o->buckets->n;
    w->bucket = calloc((size_t)n, sizeof *w->bucket);
    if (!w->bucket) rc = err_set(e, ERR_MEMORY, "no memory for %d buckets", n);
    for (int k = 0; !rc && k < n; k++) grads_name(w->bucket[k].name, o->config, k, n);
    if (!rc) rc = device_alloc_shared(o->device, &all, (size_t)w->base.elems * sizeof(float), true, e);
    w->all = all;
    if (rc)
        release(&w->base);
    else
        *out = &w->base;
    return rc;
}
