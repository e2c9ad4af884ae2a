// SPDX-License-Identifier: Apache-2.0
#include "comm/exact.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "comm/exact_slices.h"
#include "comm/exact_tree.h"
#include "comm/grid.h"

struct live {
    struct exact_node node;
    int buffer;
};

struct bucket {
    char name[32];
    int64_t lo, hi;       // of the gradient's elements
    const int64_t *slice; // [size + 1] who sums what, from lo
    int64_t elems;        // of this rank's slice
    int64_t *received_at; // [round][size + 1]: elements from the start of `received`
    struct coll_op **ops; // [round]
    bool folded;          // of the leaf that is being written
};

struct exact {
    struct coll *coll;
    struct device *device;
    int64_t shards, elems, lo, hi; // leaves [lo, hi) are this rank's
    int64_t next;                  // the leaf to come
    bool open;                     // leaf `next` is being written
    int rank, size;
    float **buffers; // of `elems`
    int n_buffers;
    bool *in_use;
    struct live live[EXACT_ROOTS_MAX]; // finished nodes on this rank, left to right
    int n_live;
    struct exact_slices slices;
    float *received; // of other ranks' roots this rank's slices: by bucket, by round, by rank
    float *sums;     // this rank's slices of the sum; NULL: one rank
    int rounds;      // most roots that any rank has: one exchange of each bucket for each
    struct bucket *buckets;
    int n_buckets;
    int started;      // exchanges begun in this step: round by round, in each all buckets
    int64_t *nothing; // [size + 1] zeros
    int n_roots;
};

// ---- the plan

// Most buffers that leaves and unfinished sums ever take at once.
static int count_buffers(int64_t shards, int64_t lo, int64_t hi) {
    int most = 0;
    for (int64_t leaf = lo; leaf < hi; leaf++) {
        int n = exact_count_roots(shards, lo, leaf) + 1;
        if (n > most) most = n;
    }
    return most;
}

static int count_rounds(int64_t shards, int size) {
    struct exact_node roots[EXACT_ROOTS_MAX];
    int most = 0;
    for (int r = 0; r < size; r++) {
        int n = exact_roots(shards, size, r, roots);
        if (n > most) most = n;
    }
    return most;
}

// Elements that arrive from the other ranks when this one sums so many; when at is not NULL, where each piece
// goes, from `total` on.
static int64_t plan_received(int64_t shards, int size, int rank, int64_t elems, int rounds, int64_t total,
                             int64_t *at) {
    struct exact_node roots[EXACT_ROOTS_MAX];
    for (int round = 0; round < rounds; round++) {
        for (int r = 0; r < size; r++) {
            if (at) at[round * (size + 1) + r] = total;
            if (r != rank && exact_roots(shards, size, r, roots) > round) total += elems;
        }
        if (at) at[round * (size + 1) + size] = total;
    }
    return total;
}

int64_t exact_bytes(int64_t shards, int size, int rank, const struct exact_cut *cut) {
    int64_t lo, hi, sums = size > 1 ? exact_slices_elems(size, rank, cut) : 0;
    grid_split(shards, size, rank, &lo, &hi);
    int64_t received = plan_received(shards, size, rank, sums, count_rounds(shards, size), 0, NULL);
    return (count_buffers(shards, lo, hi) * cut->cut[0] + received + sums) * (int64_t)sizeof(float);
}

static int alloc_floats(struct device *d, float **out, int64_t n, struct err *e) {
    size_t bytes;
    void *p;
    if (n < 0 || !bytes_mul((size_t)n, sizeof(float), &bytes))
        return err_set(e, ERR_BUG, "%" PRId64 " elements cannot be addressed", n);
    int rc = device_alloc_shared(d, &p, bytes ? bytes : sizeof(float), false, e);
    if (!rc) *out = p;
    return rc;
}

static int no_plan(struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory to plan the exact reduction");
}

// What arrives for it goes to `received` from element `upto` on; returned is where the next one's goes.
static int plan_bucket(struct exact *x, struct bucket *b, int64_t *upto, struct err *e) {
    size_t entries = (size_t)x->size + 1, rounds = (size_t)x->rounds + 1;
    b->received_at = calloc(entries * rounds, sizeof *b->received_at);
    b->ops = calloc(rounds, sizeof(struct coll_op *));
    if (!b->received_at || !b->ops) return no_plan(e);
    b->elems = b->slice[x->rank + 1] - b->slice[x->rank];
    *upto = plan_received(x->shards, x->size, x->rank, b->elems, x->rounds, *upto, b->received_at);
    return 0;
}

static int plan_buckets(struct exact *x, const struct exact_cut *cut, int64_t *received, struct err *e) {
    int rc = 0;
    x->buckets = calloc((size_t)cut->n, sizeof *x->buckets);
    if (!x->buckets) return no_plan(e);
    x->n_buckets = cut->n;
    for (int k = 0; !rc && k < cut->n; k++) {
        struct bucket *b = &x->buckets[k];
        b->lo = cut->cut[k + 1];
        b->hi = cut->cut[k];
        b->slice = exact_slices_share(&x->slices, k);
        snprintf(b->name, sizeof b->name, cut->n > 1 ? "exact gradients %d" : "exact gradients", k + 1);
        rc = plan_bucket(x, b, received, e);
    }
    return rc;
}

static int alloc_plan(struct exact *x, const int64_t *offset, const struct exact_cut *cut, struct err *e) {
    struct exact_node roots[EXACT_ROOTS_MAX];
    int64_t received = 0;
    x->n_buffers = count_buffers(x->shards, x->lo, x->hi);
    x->rounds = x->size > 1 ? count_rounds(x->shards, x->size) : 0;
    x->n_roots = exact_roots(x->shards, x->size, x->rank, roots);
    x->nothing = calloc((size_t)x->size + 1, sizeof *x->nothing);
    x->buffers = calloc((size_t)x->n_buffers, sizeof *x->buffers);
    x->in_use = calloc((size_t)x->n_buffers, sizeof *x->in_use);
    if (!x->nothing || !x->buffers || !x->in_use) return no_plan(e);
    int rc = exact_slices_init(&x->slices, x->size, x->rank, offset, cut, e);
    if (!rc) rc = plan_buckets(x, cut, &received, e);
    if (!rc && received) rc = alloc_floats(x->device, &x->received, received, e);
    if (!rc && x->size > 1) rc = alloc_floats(x->device, &x->sums, x->slices.elems, e);
    for (int i = 0; i < x->n_buffers && !rc; i++) rc = alloc_floats(x->device, &x->buffers[i], x->elems, e);
    return rc;
}

static int check_plan(int64_t shards, int size, const int64_t *offset, const struct exact_cut *cut,
                      struct err *e) {
    int64_t elems = cut->cut[0];
    int rc = exact_check_shards(shards, size, e);
    if (rc) return rc;
    if (offset[0] != 0 || offset[size] != elems)
        return err_set(e, ERR_BUG, "segments cover %" PRId64 " .. %" PRId64 " of %" PRId64 " gradients",
                       offset[0], offset[size], elems);
    for (int r = 0; r < size; r++)
        if (offset[r] > offset[r + 1])
            return err_set(e, ERR_BUG, "the segment of rank %d ends before it starts", r);
    for (int k = 0; k < cut->n; k++)
        if (cut->cut[k] < cut->cut[k + 1] || cut->cut[cut->n] != 0)
            return err_set(e, ERR_BUG, "bucket %d of %d is not where the one before ends", k, cut->n);
    return 0;
}

int exact_open(struct exact **out, struct coll *c, int64_t shards, const int64_t *offset,
               const struct exact_cut *cut, struct device *device, struct err *e) {
    *out = NULL;
    int rc = check_plan(shards, coll_size(c), offset, cut, e);
    if (rc) return rc;
    struct exact *x = calloc(1, sizeof *x);
    if (!x) return err_set(e, ERR_MEMORY, "no memory to plan the exact reduction");
    x->coll = c;
    x->device = device;
    x->shards = shards;
    x->elems = cut->cut[0];
    x->rank = coll_rank(c);
    x->size = coll_size(c);
    grid_split(shards, x->size, x->rank, &x->lo, &x->hi);
    x->next = x->lo;
    rc = alloc_plan(x, offset, cut, e);
    if (rc)
        exact_close(x);
    else
        *out = x;
    return rc;
}

static void drop_bucket(struct exact *x, struct bucket *b) {
    for (int round = 0; b->ops && round < x->rounds; round++) coll_drop(x->coll, b->ops[round]);
    free(b->received_at);
    free(b->ops);
}

void exact_close(struct exact *x) {
    if (!x) return;
    for (int k = 0; k < x->n_buckets; k++) drop_bucket(x, &x->buckets[k]);
    for (int i = 0; x->buffers && i < x->n_buffers; i++)
        if (x->buffers[i]) device_release_shared(x->device, x->buffers[i]);
    if (x->received) device_release_shared(x->device, x->received);
    if (x->sums) device_release_shared(x->device, x->sums);
    exact_slices_fini(&x->slices);
    free(x->buckets);
    free(x->nothing);
    free(x->buffers);
    free(x->in_use);
    free(x);
}

void exact_leaves(const struct exact *x, int64_t *lo, int64_t *hi) {
    *lo = x->lo;
    *hi = x->hi;
}

// ---- leaves

static int free_buffer(const struct exact *x) {
    int i = 0;
    while (i < x->n_buffers && x->in_use[i]) i++;
    return i;
}

int exact_leaf(struct exact *x, int64_t shard, float **out, struct err *e) {
    int i = free_buffer(x);
    if (shard != x->next || x->open || x->next >= x->hi || i == x->n_buffers)
        return err_set(e, ERR_BUG,
                       "shard %" PRId64 " is out of turn; %" PRId64 " is next of %" PRId64 " .. %" PRId64,
                       shard, x->next, x->lo, x->hi);
    int rc = x->device->vtable->zero(x->device, x->buffers[i], (size_t)x->elems * sizeof(float), e);
    if (rc) return rc;
    x->in_use[i] = x->open = true;
    x->live[x->n_live++] = (struct live){.node = {shard, shard + 1}, .buffer = i};
    *out = x->buffers[i];
    return 0;
}

// What becomes of the last `n_live` nodes when the newest one is complete: where the sum stays, and its node.
static int fold_end(const struct exact *x, struct exact_node *sum) {
    int at = x->n_live - 1;
    *sum = x->live[at].node;
    for (; at > 0 && exact_siblings(x->shards, x->live[at - 1].node, *sum); at--)
        sum->lo = x->live[at - 1].node.lo;
    return at;
}

// Adds the newest leaf's part of a bucket, and what that completes, from right to left.
static int fold_bucket(struct exact *x, struct bucket *b, struct err *e) {
    struct exact_node sum;
    int end = fold_end(x, &sum), rc = 0;
    for (int at = x->n_live - 1; !rc && at > end; at--) {
        float *left = x->buffers[x->live[at - 1].buffer] + b->lo;
        const float *right = x->buffers[x->live[at].buffer] + b->lo;
        rc = x->device->vtable->add(x->device, left, left, right, b->hi - b->lo, e);
    }
    b->folded = true;
    return rc;
}

static void forget_folded(struct exact *x) {
    struct exact_node sum;
    int end = fold_end(x, &sum);
    for (int at = end + 1; at < x->n_live; at++) x->in_use[x->live[at].buffer] = false;
    x->live[end].node = sum;
    x->n_live = end + 1;
    for (int k = 0; k < x->n_buckets; k++) x->buckets[k].folded = false;
}

// ---- the exchange: round i carries every rank's i-th root, straight out of its buffer

static int start_exchange(struct exact *x, int round, struct bucket *b, struct err *e) {
    bool have = round < x->n_roots;
    const float *send = (have ? x->buffers[x->live[round].buffer] : x->buffers[0]) + b->lo;
    return coll_exchange(x->coll, &b->ops[round], b->name, 1, send, have ? b->slice : x->nothing, x->received,
                         b->received_at + (int64_t)round * (x->size + 1), e);
}

// All ranks start them in one order, whatever is ready when: those before `end` that are not begun yet.
static int start_until(struct exact *x, int end, struct err *e) {
    int rc = 0;
    for (; !rc && x->started < end; x->started += !rc)
        rc = start_exchange(x, x->started / x->n_buckets, &x->buckets[x->started % x->n_buckets], e);
    return rc;
}

int exact_leaf_ready(struct exact *x, int64_t shard, int64_t from, struct err *e) {
    struct exact_node roots[EXACT_ROOTS_MAX], sum;
    if (shard != x->next || !x->open) return err_set(e, ERR_BUG, "shard %" PRId64 " was not begun", shard);
    int round = fold_end(x, &sum), rc = 0;
    exact_roots(x->shards, x->size, x->rank, roots);
    bool leaves =
        x->rounds > 0 && round < x->n_roots && roots[round].lo == sum.lo && roots[round].hi == sum.hi;
    for (int k = 0; !rc && k < x->n_buckets && x->buckets[k].lo >= from; k++) {
        if (x->buckets[k].folded) continue;
        rc = fold_bucket(x, &x->buckets[k], e);
        if (!rc && leaves) rc = start_until(x, round * x->n_buckets + k + 1, e);
    }
    return rc;
}

int exact_leaf_done(struct exact *x, int64_t shard, struct err *e) {
    int rc = 0;
    if (shard != x->next || !x->open) return err_set(e, ERR_BUG, "shard %" PRId64 " was not begun", shard);
    for (int k = 0; !rc && k < x->n_buckets; k++)
        if (!x->buckets[k].folded) rc = fold_bucket(x, &x->buckets[k], e);
    if (rc) return rc;
    forget_folded(x);
    x->open = false;
    x->next++;
    return 0;
}

static int wait_bucket(struct exact *x, struct bucket *b, struct err *e) {
    int rc = 0;
    for (int round = 0; round < x->rounds; round++) {
        struct coll_op *op = b->ops[round];
        b->ops[round] = NULL;
        int joined = op ? coll_join(x->coll, op, e) : 0;
        if (!rc) rc = joined;
    }
    return rc;
}

// ---- the end of the tree, on this rank's slices

// Where this rank's slice of a bucket of a node that lies on one rank is; NULL when the node spans ranks.
static float *find_slice(struct exact *x, const struct bucket *b, struct exact_node n) {
    for (int i = 0; i < x->n_live; i++)
        if (x->live[i].node.lo == n.lo && x->live[i].node.hi == n.hi)
            return x->buffers[x->live[i].buffer] + b->lo + b->slice[x->rank];
    struct exact_node roots[EXACT_ROOTS_MAX];
    int r = exact_rank_of(x->shards, x->size, n.lo);
    int count = r == x->rank ? 0 : exact_roots(x->shards, x->size, r, roots);
    for (int k = 0; k < count; k++)
        if (roots[k].lo == n.lo && roots[k].hi == n.hi)
            return x->received + b->received_at[(int64_t)k * (x->size + 1) + r];
    return NULL;
}

// Sums a node into its left end's slice, which nobody needs any more.
static int sum_node(struct exact *x, const struct bucket *b, struct exact_node n, float **out,
                    struct err *e) {
    *out = find_slice(x, b, n);
    if (*out) return 0;
    float *right;
    int rc = sum_node(x, b, exact_left(n), out, e);
    if (!rc) rc = sum_node(x, b, exact_right(n), &right, e);
    return rc ? rc : x->device->vtable->add(x->device, *out, *out, right, b->elems, e);
}

static int sum_whole(struct exact *x, const struct bucket *b, float *out, struct err *e) {
    struct exact_node whole = {0, x->shards};
    float *left, *right;
    if (b->elems == 0) return 0;
    if (x->shards == 1) {
        size_t bytes = (size_t)b->elems * sizeof(float);
        return x->device->vtable->copy(x->device, out, x->buffers[0] + b->lo, bytes, e);
    }
    int rc = sum_node(x, b, exact_left(whole), &left, e);
    if (!rc) rc = sum_node(x, b, exact_right(whole), &right, e);
    return rc ? rc : x->device->vtable->add(x->device, out, left, right, b->elems, e);
}

int exact_finish(struct exact *x, float *out, struct err *e) {
    if (x->next != x->hi || x->open)
        return err_set(e, ERR_BUG, "shards %" PRId64 " .. %" PRId64 " of this rank are not done", x->next,
                       x->hi);
    int rc = start_until(x, x->rounds * x->n_buckets, e);
    float *sums = x->size > 1 ? x->sums : out;
    for (int k = 0; k < x->n_buckets; k++) {
        struct bucket *b = &x->buckets[k];
        int joined = wait_bucket(x, b, e);
        if (!rc) rc = joined;
        if (!rc) rc = sum_whole(x, b, sums + x->slices.at[k], e);
    }
    if (!rc && x->size > 1) rc = exact_slices_deliver(&x->slices, x->coll, sums, out, e);
    memset(x->in_use, 0, (size_t)x->n_buffers * sizeof *x->in_use);
    x->n_live = x->started = 0;
    x->next = x->lo;
    return rc;
}
