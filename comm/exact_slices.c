// SPDX-License-Identifier: Apache-2.0
#include "comm/exact_slices.h"

#include <stdlib.h>

#include "comm/grid.h"

#define PACK 8 // slices start at, and are, multiples of a GPU thread's pack of numbers

// Rank's slice of a bucket of n elements: [*lo, *hi).
static void slice_of(int64_t n, int size, int rank, int64_t *lo, int64_t *hi) {
    grid_split((n + PACK - 1) / PACK, size, rank, lo, hi);
    *lo = *lo * PACK < n ? *lo * PACK : n;
    *hi = *hi * PACK < n ? *hi * PACK : n;
}

static int64_t slice_elems(const struct exact_cut *cut, int k, int size, int rank) {
    int64_t lo, hi;
    slice_of(cut->cut[k] - cut->cut[k + 1], size, rank, &lo, &hi);
    return hi - lo;
}

int64_t exact_slices_elems(int size, int rank, const struct exact_cut *cut) {
    int64_t elems = 0;
    for (int k = 0; k < cut->n; k++) elems += slice_elems(cut, k, size, rank);
    return elems;
}

int64_t exact_slices_largest(int size, int rank, const struct exact_cut *cut) {
    int64_t most = 0;
    for (int k = 0; k < cut->n; k++) {
        int64_t n = slice_elems(cut, k, size, rank);
        if (n > most) most = n;
    }
    return most;
}

static int64_t common(int64_t lo, int64_t hi, int64_t other_lo, int64_t other_hi) {
    int64_t from = lo > other_lo ? lo : other_lo, to = hi < other_hi ? hi : other_hi;
    return to > from ? to - from : 0;
}

int64_t exact_slices_given(int size, int rank, const int64_t *offset, const struct exact_cut *cut) {
    int64_t given = 0;
    for (int k = 0; k < cut->n; k++) {
        int64_t lo, hi, start = cut->cut[k + 1];
        slice_of(cut->cut[k] - start, size, rank, &lo, &hi);
        given += hi - lo - common(start + lo, start + hi, offset[rank], offset[rank + 1]);
    }
    return given;
}

const int64_t *exact_slices_share(const struct exact_slices *s, int k) {
    return s->share + (int64_t)k * (s->size + 1);
}

static void plan_bucket(struct exact_slices *s, int k, int64_t elems) {
    int64_t *share = s->share + (int64_t)k * (s->size + 1);
    for (int r = 0; r < s->size; r++) slice_of(elems, s->size, r, &share[r], &share[r + 1]);
}

// Row by row of the way to the owners: the buckets in order of elements, so the last one first.
static void plan_row(struct exact_slices *s, int row, int rank, const int64_t *offset, int64_t start) {
    const int64_t *share = exact_slices_share(s, s->n - 1 - row), *own = offset + rank;
    int64_t *send = s->send + (int64_t)row * s->size, *recv = s->recv + (int64_t)row * s->size;
    for (int r = 0; r < s->size; r++) {
        send[r + 1] =
            send[r] + common(start + share[rank], start + share[rank + 1], offset[r], offset[r + 1]);
        recv[r + 1] = recv[r] + common(start + share[r], start + share[r + 1], own[0], own[1]);
    }
}

int exact_slices_init(struct exact_slices *s, int size, int rank, const int64_t *offset,
                      const struct exact_cut *cut, struct err *e) {
    size_t pieces = (size_t)cut->n * (size_t)size + 1;
    *s = (struct exact_slices){.n = cut->n, .size = size};
    s->share = calloc(pieces + (size_t)cut->n, sizeof *s->share);
    s->at = calloc((size_t)cut->n, sizeof *s->at);
    s->send = calloc(pieces, sizeof *s->send);
    s->recv = calloc(pieces, sizeof *s->recv);
    if (!s->share || !s->at || !s->send || !s->recv) {
        exact_slices_fini(s);
        return err_set(e, ERR_MEMORY, "no memory for the slices of %d buckets", cut->n);
    }
    for (int k = cut->n - 1; k >= 0; k--) {
        plan_bucket(s, k, cut->cut[k] - cut->cut[k + 1]);
        s->at[k] = s->elems;
        s->elems += slice_elems(cut, k, size, rank);
        plan_row(s, cut->n - 1 - k, rank, offset, cut->cut[k + 1]);
    }
    return 0;
}

void exact_slices_fini(struct exact_slices *s) {
    free(s->share);
    free(s->at);
    free(s->send);
    free(s->recv);
    *s = (struct exact_slices){.n = 0};
}

int exact_slices_deliver(const struct exact_slices *s, struct coll *c, const float *sums, float *own,
                         struct err *e) {
    struct coll_op *op;
    int rc = coll_exchange(c, &op, "exact sums", s->n, sums, s->send, own, s->recv, e);
    return rc ? rc : coll_join(c, op, e);
}
