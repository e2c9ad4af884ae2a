// SPDX-License-Identifier: Apache-2.0
#include "comm/exact.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "comm/grid.h"

// Ranges of leaves that are nodes of the tree and lie on one rank; at most two per level.
#define MAX_ROOTS  64
#define MAX_SHARDS ((int64_t)1 << 30)

struct node {
    int64_t lo, hi;
};

struct live {
    struct node node;
    int buffer;
};

struct exact {
    struct coll *coll;
    struct device *device;
    int64_t shards, elems, lo, hi; // leaves [lo, hi) are this rank's
    int64_t next;                  // the leaf to come
    bool open;                     // leaf `next` is being written
    int rank, size;
    int64_t *offset; // size + 1
    int64_t own_elems;
    float **buffers; // of `elems`
    int n_buffers;
    bool *in_use;
    struct live live[MAX_ROOTS]; // finished nodes on this rank, left to right
    int n_live;
    float *received;      // other ranks' roots, this rank's segment: by round, then by rank
    int rounds;           // most roots that any rank has: one exchange each
    int64_t *received_at; // [round][size + 1]: elements from the start of `received`
};

// ---- the tree

static int64_t middle(struct node n) {
    int64_t half = 1;
    while (half * 2 < n.hi - n.lo) half *= 2;
    return n.lo + half;
}

static struct node left_of(struct node n) {
    return (struct node){n.lo, middle(n)};
}
static struct node right_of(struct node n) {
    return (struct node){middle(n), n.hi};
}

// The largest nodes inside [lo, hi), left to right. The whole tree is never one: its last sum belongs to
// exact_finish.
static int find_roots(struct node n, int64_t lo, int64_t hi, bool whole, struct node *out) {
    if (hi <= n.lo || n.hi <= lo) return 0;
    if (n.hi - n.lo == 1 || (lo <= n.lo && n.hi <= hi && !whole)) {
        out[0] = n;
        return 1;
    }
    int count = find_roots(left_of(n), lo, hi, false, out);
    return count + find_roots(right_of(n), lo, hi, false, out + count);
}

static int roots_of_rank(int64_t shards, int size, int rank, struct node *out) {
    int64_t lo, hi;
    grid_split(shards, size, rank, &lo, &hi);
    return find_roots((struct node){0, shards}, lo, hi, true, out);
}

// Are these two the children of one node below the whole tree?
static bool are_siblings(int64_t shards, struct node a, struct node b) {
    struct node n = {0, shards};
    while (n.hi - n.lo > 1 && !(n.lo == a.lo && n.hi == b.hi))
        n = b.hi <= middle(n) ? left_of(n) : right_of(n);
    return n.lo == a.lo && n.hi == b.hi && middle(n) == a.hi && n.hi - n.lo < shards;
}

// Most buffers that leaves and unfinished sums ever take at once.
static int count_buffers(int64_t shards, int64_t lo, int64_t hi) {
    struct node stack[MAX_ROOTS];
    int depth = 0, most = 0;
    for (int64_t leaf = lo; leaf < hi; leaf++) {
        stack[depth++] = (struct node){leaf, leaf + 1};
        if (depth > most) most = depth;
        while (depth > 1 && are_siblings(shards, stack[depth - 2], stack[depth - 1])) {
            stack[depth - 2].hi = stack[depth - 1].hi;
            depth--;
        }
    }
    return most;
}

// ---- the plan

static int count_rounds(int64_t shards, int size) {
    struct node roots[MAX_ROOTS];
    int most = 0;
    for (int r = 0; r < size; r++) {
        int n = roots_of_rank(shards, size, r, roots);
        if (n > most) most = n;
    }
    return most;
}

// Elements that arrive from the other ranks; when at is not NULL, where each piece goes.
static int64_t plan_received(int64_t shards, int size, int rank, int64_t own_elems, int rounds, int64_t *at) {
    struct node roots[MAX_ROOTS];
    int64_t total = 0;
    for (int round = 0; round < rounds; round++) {
        for (int r = 0; r < size; r++) {
            if (at) at[round * (size + 1) + r] = total;
            if (r != rank && roots_of_rank(shards, size, r, roots) > round) total += own_elems;
        }
        if (at) at[round * (size + 1) + size] = total;
    }
    return total;
}

int64_t exact_bytes(int64_t shards, int size, int rank, int64_t elems, const int64_t *offset) {
    int64_t lo, hi;
    grid_split(shards, size, rank, &lo, &hi);
    int64_t received =
        plan_received(shards, size, rank, offset[rank + 1] - offset[rank], count_rounds(shards, size), NULL);
    return (count_buffers(shards, lo, hi) * elems + received) * (int64_t)sizeof(float);
}

static int alloc_floats(struct device *d, float **out, int64_t n, struct err *e) {
    size_t bytes;
    void *p;
    if (n < 0 || !bytes_mul((size_t)n, sizeof(float), &bytes))
        return err_set(e, ERR_BUG, "%" PRId64 " elements cannot be addressed", n);
    int rc = d->vtable->alloc(d, &p, bytes ? bytes : sizeof(float), e);
    if (!rc) *out = p;
    return rc;
}

static int alloc_plan(struct exact *x, const int64_t *offset, struct err *e) {
    x->n_buffers = count_buffers(x->shards, x->lo, x->hi);
    x->rounds = x->size > 1 ? count_rounds(x->shards, x->size) : 0;
    size_t entries = (size_t)x->size + 1;
    x->offset = calloc(entries, sizeof *x->offset);
    x->received_at = calloc(entries * ((size_t)x->rounds + 1), sizeof *x->received_at);
    x->buffers = calloc((size_t)x->n_buffers, sizeof *x->buffers);
    x->in_use = calloc((size_t)x->n_buffers, sizeof *x->in_use);
    if (!x->offset || !x->received_at || !x->buffers || !x->in_use)
        return err_set(e, ERR_MEMORY, "no memory to plan the exact reduction");
    memcpy(x->offset, offset, entries * sizeof *offset);
    x->own_elems = offset[x->rank + 1] - offset[x->rank];
    int64_t total = plan_received(x->shards, x->size, x->rank, x->own_elems, x->rounds, x->received_at);
    int rc = total ? alloc_floats(x->device, &x->received, total, e) : 0;
    for (int i = 0; i < x->n_buffers && !rc; i++) rc = alloc_floats(x->device, &x->buffers[i], x->elems, e);
    return rc;
}

static int check_plan(int64_t shards, int size, int64_t elems, const int64_t *offset, struct err *e) {
    if (shards < size)
        return err_set(e, ERR_CONFIG,
                       "comm.shards is %" PRId64 ", but there are %d ranks: each needs at least one shard",
                       shards, size);
    if (shards > MAX_SHARDS)
        return err_set(e, ERR_CONFIG, "comm.shards is %" PRId64 ", more than %" PRId64, shards, MAX_SHARDS);
    if (offset[0] != 0 || offset[size] != elems)
        return err_set(e, ERR_BUG, "segments cover %" PRId64 " .. %" PRId64 " of %" PRId64 " gradients",
                       offset[0], offset[size], elems);
    for (int r = 0; r < size; r++)
        if (offset[r] > offset[r + 1])
            return err_set(e, ERR_BUG, "the segment of rank %d ends before it starts", r);
    return 0;
}

int exact_open(struct exact **out, struct coll *c, int64_t shards, int64_t elems, const int64_t *offset,
               struct device *device, struct err *e) {
    *out = NULL;
    int rc = check_plan(shards, coll_size(c), elems, offset, e);
    if (rc) return rc;
    struct exact *x = calloc(1, sizeof *x);
    if (!x) return err_set(e, ERR_MEMORY, "no memory to plan the exact reduction");
    x->coll = c;
    x->device = device;
    x->shards = shards;
    x->elems = elems;
    x->rank = coll_rank(c);
    x->size = coll_size(c);
    grid_split(shards, x->size, x->rank, &x->lo, &x->hi);
    x->next = x->lo;
    rc = alloc_plan(x, offset, e);
    if (rc)
        exact_close(x);
    else
        *out = x;
    return rc;
}

void exact_close(struct exact *x) {
    if (!x) return;
    for (int i = 0; x->buffers && i < x->n_buffers; i++)
        if (x->buffers[i]) x->device->vtable->release(x->device, x->buffers[i]);
    if (x->received) x->device->vtable->release(x->device, x->received);
    free(x->offset);
    free(x->received_at);
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

static int fold_top(struct exact *x, struct err *e) {
    struct live *left = &x->live[x->n_live - 2], *right = &x->live[x->n_live - 1];
    float *sum = x->buffers[left->buffer];
    int rc = x->device->vtable->add(x->device, sum, sum, x->buffers[right->buffer], x->elems, e);
    left->node.hi = right->node.hi;
    x->in_use[right->buffer] = false;
    x->n_live--;
    return rc;
}

int exact_leaf_done(struct exact *x, int64_t shard, struct err *e) {
    if (shard != x->next || !x->open) return err_set(e, ERR_BUG, "shard %" PRId64 " was not begun", shard);
    int rc = 0;
    x->open = false;
    x->next++;
    while (!rc && x->n_live > 1 &&
           are_siblings(x->shards, x->live[x->n_live - 2].node, x->live[x->n_live - 1].node))
        rc = fold_top(x, e);
    return rc;
}

// ---- the exchange

// Round k carries every rank's k-th root, straight out of its buffer.
static int start_round(struct exact *x, int round, const int64_t *nothing, struct coll_op **op,
                       struct err *e) {
    bool have = round < x->n_live;
    const float *send = have ? x->buffers[x->live[round].buffer] : x->buffers[0];
    return coll_exchange(x->coll, op, "exact gradients", send, have ? x->offset : nothing, x->received,
                         x->received_at + (int64_t)round * (x->size + 1), e);
}

static int exchange_roots(struct exact *x, struct err *e) {
    struct coll_op *ops[MAX_ROOTS];
    int started = 0, rc = 0;
    int64_t *nothing = calloc((size_t)x->size + 1, sizeof *nothing);
    if (!nothing) return err_set(e, ERR_MEMORY, "no memory for the exact reduction");
    for (; started < x->rounds && !rc; started += !rc)
        rc = start_round(x, started, nothing, &ops[started], e);
    for (int i = 0; i < started; i++) {
        int joined = coll_join(x->coll, ops[i], e);
        if (!rc) rc = joined;
    }
    free(nothing);
    return rc;
}

// ---- the end of the tree, on this rank's segment

// The inverse of grid_split.
static int rank_of_leaf(int64_t shards, int size, int64_t leaf) {
    int64_t each = shards / size, longer = shards % size;
    return (int)(leaf < longer * (each + 1) ? leaf / (each + 1) : (leaf - longer) / each);
}

// Where the slice of a node that lies on one rank is; NULL when it spans ranks.
static float *find_slice(struct exact *x, struct node n) {
    for (int i = 0; i < x->n_live; i++)
        if (x->live[i].node.lo == n.lo && x->live[i].node.hi == n.hi)
            return x->buffers[x->live[i].buffer] + x->offset[x->rank];
    struct node roots[MAX_ROOTS];
    int r = rank_of_leaf(x->shards, x->size, n.lo);
    int count = r == x->rank ? 0 : roots_of_rank(x->shards, x->size, r, roots);
    for (int k = 0; k < count; k++)
        if (roots[k].lo == n.lo && roots[k].hi == n.hi)
            return x->received + x->received_at[(int64_t)k * (x->size + 1) + r];
    return NULL;
}

// Sums a node into its left end's slice, which nobody needs any more.
static int sum_node(struct exact *x, struct node n, float **out, struct err *e) {
    *out = find_slice(x, n);
    if (*out) return 0;
    float *right;
    int rc = sum_node(x, left_of(n), out, e);
    if (!rc) rc = sum_node(x, right_of(n), &right, e);
    return rc ? rc : x->device->vtable->add(x->device, *out, *out, right, x->own_elems, e);
}

static int sum_whole(struct exact *x, float *out, struct err *e) {
    struct node whole = {0, x->shards};
    float *left, *right;
    if (x->own_elems == 0) return 0;
    if (x->shards == 1) {
        int rc = x->device->vtable->zero(x->device, out, (size_t)x->own_elems * sizeof(float), e);
        return rc ? rc : x->device->vtable->add(x->device, out, out, x->buffers[0], x->own_elems, e);
    }
    int rc = sum_node(x, left_of(whole), &left, e);
    if (!rc) rc = sum_node(x, right_of(whole), &right, e);
    return rc ? rc : x->device->vtable->add(x->device, out, left, right, x->own_elems, e);
}

int exact_finish(struct exact *x, float *out, struct err *e) {
    if (x->next != x->hi || x->open)
        return err_set(e, ERR_BUG, "shards %" PRId64 " .. %" PRId64 " of this rank are not done", x->next,
                       x->hi);
    int rc = exchange_roots(x, e);
    if (!rc) rc = sum_whole(x, out, e);
    memset(x->in_use, 0, (size_t)x->n_buffers * sizeof *x->in_use);
    x->n_live = 0;
    x->next = x->lo;
    return rc;
}
