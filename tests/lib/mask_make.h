// SPDX-License-Identifier: Apache-2.0
// Masks for tests and benchmarks: full ones, those of any predicate, and the predicates that several ask for.
// For C and C++. mask_fini takes them back.
#ifndef ORRERY_TESTS_MASK_MAKE_H
#define ORRERY_TESTS_MASK_MAKE_H

#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "kernels/mask.h"

static inline struct mask mask_make_room(int64_t queries, int64_t keys, int64_t runs, int64_t intervals) {
    struct mask m;
    memset(&m, 0, sizeof m);
    m.queries = queries;
    m.keys = keys;
    m.runs = (struct mask_run *)calloc((size_t)runs + 1, sizeof *m.runs);
    m.intervals = (struct mask_interval *)calloc((size_t)intervals + 1, sizeof *m.intervals);
    if (!m.runs || !m.intervals) abort();
    return m;
}

static inline struct mask mask_make_full(int64_t queries, int64_t keys) {
    struct mask m = mask_make_room(queries, keys, 1, 1);
    m.n_runs = queries > 0;
    m.n_intervals = queries > 0 && keys > 0;
    m.runs->q_hi = (int32_t)queries;
    m.runs->count = m.n_intervals;
    m.intervals->hi = (int32_t)keys;
    return m;
}

typedef int mask_visible_fn(void *arg, int64_t q, int64_t k);

// Writes the intervals of one query; out may be NULL to count only.
static inline int32_t mask_make_row(int64_t keys, int64_t q, mask_visible_fn *visible, void *arg,
                                    struct mask_interval *out) {
    int32_t n = 0;
    int64_t k = 0;
    while (k < keys) {
        while (k < keys && !visible(arg, q, k)) k++;
        if (k == keys) break;
        int64_t lo = k;
        while (k < keys && visible(arg, q, k)) k++;
        if (out) out[n].lo = (int32_t)lo, out[n].hi = (int32_t)k;
        n++;
    }
    return n;
}

// Asks for every pair. Queries that follow each other and see the same keys share a run.
static inline struct mask mask_make(int64_t queries, int64_t keys, mask_visible_fn *visible, void *arg) {
    int64_t total = 0;
    for (int64_t q = 0; q < queries; q++) total += mask_make_row(keys, q, visible, arg, NULL);
    struct mask m = mask_make_room(queries, keys, queries, total);
    for (int64_t q = 0; q < queries; q++) {
        struct mask_interval *now = m.intervals + m.n_intervals;
        struct mask_run *run = m.runs + m.n_runs - (m.n_runs > 0);
        int32_t n = mask_make_row(keys, q, visible, arg, now);
        if (m.n_runs == 0 || run->count != n ||
            memcmp(m.intervals + run->first, now, (size_t)n * sizeof *now) != 0) {
            run = &m.runs[m.n_runs++];
            run->q_lo = (int32_t)q;
            run->first = m.n_intervals;
            run->count = n;
            m.n_intervals += n;
        }
        run->q_hi = (int32_t)q + 1;
    }
    return m;
}

static inline int mask_causal_visible(void *arg, int64_t q, int64_t k) {
    return k <= q;
}

// Random blocks; some queries see nothing.
struct mask_blocks {
    uint64_t seed;
    int64_t block;
    int density; // of 8
};

static inline int mask_blocks_visible(void *arg, int64_t q, int64_t k) {
    const struct mask_blocks *b = (const struct mask_blocks *)arg;
    uint64_t x = rng_mix64(b->seed + (uint64_t)(q / b->block) * 0x9e3779b97f4a7c15u +
                           (uint64_t)(k / b->block) * 0x517cc1b727220a95u);
    return (int)(x & 7) < b->density;
}

#endif
