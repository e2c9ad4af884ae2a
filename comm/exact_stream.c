// SPDX-License-Identifier: Apache-2.0
// What is kept between rounds: for each rank as many copies of this one's slices as that rank ever has sums
// that wait for their right-hand neighbours. A sum is made in its left end's place. In the last round nothing
// waits, and leaves are used where they arrived. The sum of all comes to lie in the first copy, of which it
// is the left end, or which is there for it alone.
#include "comm/exact_stream.h"

#include <stdlib.h>

#include "base/bytes.h"
#include "comm/exact_slices.h"
#include "comm/exact_tree.h"
#include "comm/grid.h"

struct bucket {
    int64_t at, elems; // this rank's slice, among its slices
    int64_t *all;      // [size + 1] where slices arrive: of all ranks
    int64_t *first;    // [size + 1] of those with a leaf in the last round
};

struct exact_stream {
    struct coll *coll;
    struct device *device;
    struct exact_slices slices;
    int64_t shards, rounds;
    int rank, size, n_buckets;
    struct bucket *buckets;
    int64_t *nothing; // [size + 1] zeros
    int64_t *place;   // [size + 1] the copies that are kept of each rank's leaves
    float *kept;
};

static int64_t first_leaf(int64_t shards, int size, int rank) {
    int64_t lo, hi;
    grid_split(shards, size, rank, &lo, &hi);
    return lo;
}

static bool has_leaf(int64_t shards, int size, int rank, int64_t round) {
    int64_t lo, hi;
    grid_split(shards, size, rank, &lo, &hi);
    return round < hi - lo;
}

// ---- the plan

int64_t exact_stream_rounds(int64_t shards, int size) {
    return (shards + size - 1) / size;
}

// Most sums of a rank's leaves that wait at the end of a round, but for the last.
static int count_waiting(int64_t shards, int size, int rank) {
    int64_t lo = first_leaf(shards, size, rank), rounds = exact_stream_rounds(shards, size);
    int most = 0;
    for (int64_t round = 0; round + 1 < rounds && has_leaf(shards, size, rank, round); round++) {
        int n = exact_count_roots(shards, lo, lo + round + 1);
        if (n > most) most = n;
    }
    return most;
}

int64_t exact_stream_kept(int64_t shards, int size, int rank, const struct exact_cut *cut) {
    int64_t copies = 0;
    for (int r = 0; r < size; r++) copies += count_waiting(shards, size, r);
    return (copies > 0 ? copies : 1) * exact_slices_elems(size, rank, cut);
}

int64_t exact_stream_room(int size, int rank, const struct exact_cut *cut) {
    return size * exact_slices_largest(size, rank, cut);
}

static int no_plan(struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory to plan the exact reduction");
}

static int plan_bucket(struct exact_stream *x, struct bucket *b, int k, struct err *e) {
    const int64_t *share = exact_slices_share(&x->slices, k);
    size_t entries = (size_t)x->size + 1;
    b->all = calloc(2 * entries, sizeof *b->all);
    if (!b->all) return no_plan(e);
    b->first = b->all + entries;
    b->at = x->slices.at[k];
    b->elems = share[x->rank + 1] - share[x->rank];
    for (int r = 0; r < x->size; r++) {
        b->all[r + 1] = b->all[r] + b->elems;
        bool there = has_leaf(x->shards, x->size, r, x->rounds - 1);
        b->first[r + 1] = b->first[r] + (there ? b->elems : 0);
    }
    return 0;
}

static int plan(struct exact_stream *x, const int64_t *offset, const struct exact_cut *cut, struct err *e) {
    x->nothing = calloc((size_t)x->size + 1, sizeof *x->nothing);
    x->place = calloc((size_t)x->size + 1, sizeof *x->place);
    x->buckets = calloc((size_t)cut->n, sizeof *x->buckets);
    int rc = x->nothing && x->place && x->buckets ? 0 : no_plan(e);
    if (!rc) rc = exact_slices_init(&x->slices, x->size, x->rank, offset, cut, e);
    for (int r = 0; !rc && r < x->size; r++)
        x->place[r + 1] = x->place[r] + count_waiting(x->shards, x->size, r);
    for (; !rc && x->n_buckets < cut->n; x->n_buckets += !rc)
        rc = plan_bucket(x, &x->buckets[x->n_buckets], x->n_buckets, e);
    return rc;
}

static int take_kept(struct exact_stream *x, const struct exact_cut *cut, struct err *e) {
    size_t bytes;
    void *at = NULL;
    int64_t elems = exact_stream_kept(x->shards, x->size, x->rank, cut);
    if (!bytes_mul((size_t)elems, sizeof(float), &bytes))
        return err_set(e, ERR_BUG, "more gradients than can be addressed");
    int rc = bytes ? device_alloc_shared(x->device, &at, bytes, false, e) : 0;
    x->kept = at;
    return rc;
}

int exact_stream_open(struct exact_stream **out, struct coll *c, int64_t shards, const int64_t *offset,
                      const struct exact_cut *cut, struct device *device, struct err *e) {
    int size = coll_size(c), rank = coll_rank(c), rc = exact_check_shards(shards, size, e);
    *out = NULL;
    if (rc) return rc;
    if (size < 2) return err_set(e, ERR_BUG, "one rank has nobody to send leaves to");
    struct exact_stream *x = calloc(1, sizeof *x);
    if (!x) return no_plan(e);
    *x = (struct exact_stream){.coll = c, .device = device, .shards = shards, .rank = rank, .size = size};
    x->rounds = exact_stream_rounds(shards, size);
    rc = plan(x, offset, cut, e);
    if (!rc) rc = take_kept(x, cut, e);
    if (rc)
        exact_stream_close(x);
    else
        *out = x;
    return rc;
}

void exact_stream_close(struct exact_stream *x) {
    if (!x) return;
    if (x->kept) device_release_shared(x->device, x->kept);
    for (int k = 0; k < x->n_buckets; k++) free(x->buckets[k].all);
    exact_slices_fini(&x->slices);
    free(x->buckets);
    free(x->nothing);
    free(x->place);
    free(x);
}

// ---- a bucket of a round

int exact_stream_send(struct exact_stream *x, struct coll_op **op, const char *name, int64_t round, int k,
                      const float *leaf, float *room, struct err *e) {
    const int64_t *from = leaf ? exact_slices_share(&x->slices, k) : x->nothing;
    const int64_t *to = round + 1 < x->rounds ? x->buckets[k].all : x->buckets[k].first;
    return coll_exchange(x->coll, op, name, 1, leaf ? leaf : room, from, room, to, e);
}

// What is summed at the moment.
struct summing {
    const struct exact_stream *x;
    const struct bucket *b;
    int64_t round;
    float *room;
};

static bool is_last(const struct summing *s) {
    return s->round + 1 == s->x->rounds;
}

static float *arrived(const struct summing *s, int rank) {
    return s->room + rank * s->b->elems;
}

static float *kept(const struct summing *s, int rank, struct exact_node n) {
    int64_t first = first_leaf(s->x->shards, s->x->size, rank);
    int64_t before = exact_count_roots(s->x->shards, first, n.lo);
    return s->x->kept + (s->x->place[rank] + before) * s->x->slices.elems + s->b->at;
}

static int add(const struct summing *s, float *out, const float *left, const float *right, struct err *e) {
    return s->x->device->vtable->add(s->x->device, out, left, right, s->b->elems, e);
}

// Adds a leaf that arrived to the sum on its left, that to the one on its left, as far as the tree says.
static int fold_leaf(const struct summing *s, int rank, struct err *e) {
    int64_t first = first_leaf(s->x->shards, s->x->size, rank);
    struct exact_node n = {first + s->round, first + s->round + 1}, left;
    float *at = arrived(s, rank);
    int rc = 0;
    while (!rc && exact_left_sibling(s->x->shards, n, &left) && left.lo >= first) {
        float *to = kept(s, rank, left);
        rc = add(s, to, to, at, e);
        at = to;
        n.lo = left.lo;
    }
    if (rc || n.hi - n.lo > 1 || is_last(s)) return rc;
    size_t bytes = (size_t)s->b->elems * sizeof(float);
    return s->x->device->vtable->copy(s->x->device, kept(s, rank, n), at, bytes, e);
}

// Of a node that lies on one rank.
static float *finished(const struct summing *s, int rank, struct exact_node n) {
    bool just_arrived = n.hi - n.lo == 1 && n.lo == first_leaf(s->x->shards, s->x->size, rank) + s->round;
    return just_arrived ? arrived(s, rank) : kept(s, rank, n);
}

// Sums a node into its left end's place, which nobody needs any more.
static int sum_node(const struct summing *s, struct exact_node n, float **out, struct err *e) {
    int rank = exact_rank_of(s->x->shards, s->x->size, n.lo);
    float *right;
    if (exact_rank_of(s->x->shards, s->x->size, n.hi - 1) == rank) {
        *out = finished(s, rank, n);
        return 0;
    }
    int rc = sum_node(s, exact_left(n), out, e);
    if (!rc) rc = sum_node(s, exact_right(n), &right, e);
    return rc ? rc : add(s, *out, *out, right, e);
}

static int sum_whole(const struct summing *s, struct err *e) {
    struct exact_node whole = {0, s->x->shards};
    float *left, *right;
    int rc = sum_node(s, exact_left(whole), &left, e);
    if (!rc) rc = sum_node(s, exact_right(whole), &right, e);
    return rc ? rc : add(s, s->x->kept + s->b->at, left, right, e);
}

int exact_stream_add(struct exact_stream *x, int64_t round, int k, float *room, struct err *e) {
    const struct summing s = {x, &x->buckets[k], round, room};
    int rc = 0;
    if (s.b->elems == 0) return 0;
    for (int r = 0; !rc && r < x->size; r++)
        if (has_leaf(x->shards, x->size, r, round)) rc = fold_leaf(&s, r, e);
    return rc || !is_last(&s) ? rc : sum_whole(&s, e);
}

int exact_stream_deliver(struct exact_stream *x, float *own, struct err *e) {
    return exact_slices_deliver(&x->slices, x->coll, x->kept, own, e);
}
