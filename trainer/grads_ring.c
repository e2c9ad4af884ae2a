// SPDX-License-Identifier: Apache-2.0
// Gradients under ZeRO-2 (Rajbhandari et al., 2020): no rank ever has all of them. A backward writes a bucket
// into one of a few buffers; when it is complete it travels, and before the buffer is used again what this
// rank owns of it is in the rank's own run.
//
// fast: every rank sums every bucket of shard after shard, in one order, so the sum over shards is made in
// the own run in that order: the same bits whenever it is done anew. A rank with fewer shards than another
// sends zeros in the end.
// exact: the buckets of all ranks' shards go to exact_stream.h, which sums them along the tree; in the end it
// fills the own run.
#include <stdlib.h>

#include "comm/exact_stream.h"
#include "trainer/grads_impl.h"

enum { SLOTS = 2 }; // one that is written, one that is on its way

struct slot {
    float *at;
    int64_t round;
    int bucket;
    struct coll_op *op; // NULL: nothing is on its way
};

struct ring {
    struct grads base;
    struct exact_stream *exact; // NULL: fast
    float *own, *room;          // room: what arrives of the bucket that is on its way, for exact
    struct slot slot[SLOTS];
    int slots;
    int open;      // the bucket that is being written, -1: none
    int64_t begun; // buckets of this step
    char (*name)[GRADS_NAME_BYTES];
};

static struct ring *ring_of(struct grads *g) {
    return (struct ring *)g;
}

// A collective needs no second buffer when nothing goes on beside it.
static int count_slots(const struct config *c) {
    return c->comm_overlap ? SLOTS : 1;
}

static int add_share(struct ring *r, const struct slot *s, struct err *e) {
    const struct grads *g = &r->base;
    const int64_t *share = buckets_share(g->o.buckets, s->bucket) + g->rank;
    if (share[0] == share[1]) return 0;
    float *to = r->own + (g->o.buckets->cut[s->bucket + 1] + share[0] - g->o.offset[g->rank]);
    return g->o.device->vtable->add(g->o.device, to, to, s->at + share[0], share[1] - share[0], e);
}

// What a slot holds is added to what was there, behind what is queued.
static int settle(struct ring *r, struct slot *s, struct err *e) {
    struct coll_op *op = s->op;
    if (!op) return 0;
    s->op = NULL;
    int rc = coll_join(r->base.o.coll, op, e);
    if (rc) return rc;
    return r->exact ? exact_stream_add(r->exact, s->round, s->bucket, r->room, e) : add_share(r, s, e);
}

static struct slot *next_slot(struct ring *r) {
    return &r->slot[r->begun % r->slots];
}

// Of the bucket that is being written: which of the ranks' shards.
static int64_t round_of(const struct ring *r) {
    return r->begun / r->base.o.buckets->n;
}

static bool has_shard(const struct ring *r) {
    return round_of(r) < r->base.hi - r->base.lo;
}

static int open_bucket(struct ring *r, int k, struct err *e) {
    const struct buckets *b = r->base.o.buckets;
    struct slot *s = next_slot(r);
    int rc = settle(r, s, e);
    if (!rc && (!r->exact || has_shard(r))) rc = grads_zero(&r->base, s->at, b->cut[k] - b->cut[k + 1], e);
    s->bucket = r->open = k;
    s->round = round_of(r);
    return rc;
}

// There is one room: what arrived before is added up first.
static int start_exact(struct ring *r, struct slot *s, struct err *e) {
    int rc = r->begun > 0 ? settle(r, &r->slot[(r->begun - 1) % r->slots], e) : 0;
    if (rc) return rc;
    return exact_stream_send(r->exact, &s->op, r->name[s->bucket], s->round, s->bucket,
                             has_shard(r) ? s->at : NULL, r->room, e);
}

static int start_sum(struct ring *r, struct slot *s, struct err *e) {
    if (r->exact) return start_exact(r, s, e);
    return coll_reduce_scatter(r->base.o.coll, &s->op, r->name[s->bucket], s->at,
                               buckets_share(r->base.o.buckets, s->bucket), e);
}

static int send_bucket(struct ring *r, struct err *e) {
    struct slot *s = next_slot(r);
    int rc = start_sum(r, s, e);
    r->open = -1;
    r->begun++;
    return rc || r->slots > 1 ? rc : settle(r, s, e);
}

static int begin(struct grads *g, struct err *e) {
    ring_of(g)->begun = 0;
    ring_of(g)->open = -1;
    return ring_of(g)->exact ? 0 : grads_zero(g, ring_of(g)->own, g->own_elems, e);
}

static int place(struct grads *g, int stage, struct params_place *out, struct err *e) {
    struct ring *r = ring_of(g);
    int k = buckets_of(g->o.buckets, stage), rc = k == r->open ? 0 : open_bucket(r, k, e);
    *out = (struct params_place){.at = next_slot(r)->at, .first = g->o.buckets->cut[k + 1]};
    return rc;
}

static int final(struct grads *g, int stage, struct err *e) {
    struct ring *r = ring_of(g);
    return g->o.buckets->stage[r->open] == stage ? send_bucket(r, e) : 0;
}

static int send_nothing(struct ring *r, struct err *e) {
    int rc = 0;
    for (int k = 0; !rc && k < r->base.o.buckets->n; k++) {
        rc = open_bucket(r, k, e);
        if (!rc) rc = send_bucket(r, e);
    }
    return rc;
}

static int finish(struct grads *g, const float **own, struct err *e) {
    struct ring *r = ring_of(g);
    int64_t rounds = grads_rounds(g->o.config, g->size);
    int rc = 0;
    *own = r->own;
    for (int64_t round = g->hi - g->lo; !rc && round < rounds; round++) rc = send_nothing(r, e);
    for (int i = 0; !rc && i < r->slots; i++) rc = settle(r, &r->slot[(r->begun + i) % r->slots], e);
    return rc || !r->exact ? rc : exact_stream_deliver(r->exact, r->own, e);
}

static void release(struct grads *g) {
    struct ring *r = ring_of(g);
    for (int i = 0; i < r->slots; i++) coll_drop(g->o.coll, r->slot[i].op);
    exact_stream_close(r->exact);
    if (r->room) device_release_shared(g->o.device, r->room);
    if (r->slot[0].at) device_release_shared(g->o.device, r->slot[0].at);
    if (r->own) g->o.device->vtable->release(g->o.device, r->own);
    free(r->name);
    free(r);
}

static const struct grads_vtable ring_vtable = {
    .in_backward = true,
    .begin = begin,
    .place = place,
    .final = final,
    .finish = finish,
    .close = release,
};

static int64_t room_elems(const struct config *c, const struct buckets *b, int world, int rank) {
    const struct exact_cut cut = grads_cut(b);
    return c->comm_reduce == CONFIG_comm_reduce_exact ? exact_stream_room(world, rank, &cut) : 0;
}

int64_t grads_ring_bytes(const struct config *c, const struct buckets *b, int world, int rank,
                         const int64_t *offset) {
    const struct exact_cut cut = grads_cut(b);
    int64_t elems = offset[rank + 1] - offset[rank] + count_slots(c) * buckets_largest(b);
    if (c->comm_reduce == CONFIG_comm_reduce_exact)
        elems += exact_stream_kept(c->comm_shards, world, rank, &cut);
    return (elems + room_elems(c, b, world, rank)) * (int64_t)sizeof(float);
}

// Slices are not of one size, so that ranks do not take the room alike.
static int take(struct ring *r, struct err *e) {
    const struct grads_options *o = &r->base.o;
    int64_t each = buckets_largest(o->buckets);
    int64_t room = room_elems(o->config, o->buckets, r->base.size, r->base.rank);
    void *slots = NULL, *arrivals = NULL;
    int rc = grads_take(&r->base, &r->own, r->base.own_elems, e);
    if (!rc) rc = device_alloc_shared(o->device, &slots, (size_t)(r->slots * each) * sizeof(float), true, e);
    for (int i = 0; !rc && i < r->slots; i++) r->slot[i].at = (float *)slots + i * each;
    if (!rc && room) rc = device_alloc_shared(o->device, &arrivals, (size_t)room * sizeof(float), false, e);
    r->room = arrivals;
    return rc;
}

static int open_exact(struct ring *r, struct err *e) {
    const struct grads_options *o = &r->base.o;
    const struct exact_cut cut = grads_cut(o->buckets);
    if (o->config->comm_reduce == CONFIG_comm_reduce_fast) return 0;
    return exact_stream_open(&r->exact, o->coll, o->config->comm_shards, o->offset, &cut, o->device, e);
}

int grads_ring_open(struct grads **out, const struct grads_options *o, struct err *e) {
    struct ring *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_MEMORY, "no memory for gradients");
    grads_fill(&r->base, &ring_vtable, o);
    int rc = 0, n = o->buckets->n;
    r->slots = count_slots(o->config);
    r->name = calloc((size_t)n, sizeof *r->name);
    if (!r->name) rc = err_set(e, ERR_MEMORY, "no memory for %d buckets", n);
    for (int k = 0; !rc && k < n; k++) grads_name(r->name[k], o->config, k, n);
    if (!rc) rc = open_exact(r, e);
    if (!rc) rc = take(r, e);
    if (rc)
        release(&r->base);
    else
        *out = &r->base;
    return rc;
}
