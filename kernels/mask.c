// SPDX-License-Identifier: Apache-2.0
#include "kernels/mask.h"

#include <stdlib.h>
#include <string.h>

// Positions are int32; half the range leaves room for sums.
#define MASK_MAX_POSITIONS ((int64_t)1 << 30)

static int mask_alloc(struct mask *out, int64_t queries, int64_t keys, int64_t runs, int64_t intervals,
                      struct err *e) {
    memset(out, 0, sizeof *out);
    if (queries < 0 || keys < 0 || queries > MASK_MAX_POSITIONS || keys > MASK_MAX_POSITIONS ||
        intervals > MASK_MAX_POSITIONS) {
        return err_set(e, ERR_BUG, "mask: %lld queries x %lld keys are out of range", (long long)queries,
                       (long long)keys);
    }
    out->runs = calloc((size_t)runs + 1, sizeof *out->runs);
    out->intervals = calloc((size_t)intervals + 1, sizeof *out->intervals);
    if (out->runs == NULL || out->intervals == NULL) {
        mask_fini(out);
        return err_set(e, ERR_MEMORY, "mask: no memory for %lld runs", (long long)runs);
    }
    out->queries = queries;
    out->keys = keys;
    return 0;
}

static void mask_push_run(struct mask *m, int64_t q_lo, int64_t q_hi) {
    m->runs[m->n_runs++] = (struct mask_run){(int32_t)q_lo, (int32_t)q_hi, m->n_intervals, 0};
}

// Adds an interval to the last run.
static void mask_push_interval(struct mask *m, int64_t lo, int64_t hi) {
    m->intervals[m->n_intervals++] = (struct mask_interval){(int32_t)lo, (int32_t)hi};
    m->runs[m->n_runs - 1].count++;
}

int mask_block_causal(struct mask *out, int64_t frames, int64_t per_frame, int64_t window,
                      int64_t query_frames, struct err *e) {
    memset(out, 0, sizeof *out);
    if (frames < 0 || per_frame < 0 || window < 0 || query_frames < 0 || query_frames > frames ||
        (per_frame > 0 && frames > MASK_MAX_POSITIONS / per_frame)) {
        return err_set(e, ERR_BUG,
                       "mask: no block-causal mask of %lld frames x %lld tokens, window %lld, last %lld",
                       (long long)frames, (long long)per_frame, (long long)window, (long long)query_frames);
    }
    int rc = mask_alloc(out, query_frames * per_frame, frames * per_frame, query_frames, query_frames, e);
    if (rc != 0 || per_frame == 0) return rc;
    for (int64_t i = 0; i < query_frames; i++) {
        int64_t f = frames - query_frames + i;
        int64_t first = window > 0 && f - window + 1 > 0 ? f - window + 1 : 0;
        mask_push_run(out, i * per_frame, (i + 1) * per_frame);
        mask_push_interval(out, first * per_frame, (f + 1) * per_frame);
    }
    return 0;
}

static int check_run(const struct mask *m, const struct mask_run *r, struct err *e) {
    if (r->q_hi <= r->q_lo || r->first < 0 || r->count < 0 || r->first > m->n_intervals - r->count) {
        return err_set(e, ERR_BUG, "mask: bad run of queries %d..%d", r->q_lo, r->q_hi);
    }
    int64_t end = 0;
    for (int32_t i = r->first; i < r->first + r->count; i++) {
        const struct mask_interval *v = &m->intervals[i];
        if (v->lo < end || v->hi <= v->lo || v->hi > m->keys) {
            return err_set(e, ERR_BUG, "mask: queries %d..%d: keys %d..%d are empty, out of order or outside",
                           r->q_lo, r->q_hi, v->lo, v->hi);
        }
        end = v->hi;
    }
    return 0;
}

int mask_check(const struct mask *m, struct err *e) {
    int64_t next = 0;
    for (int32_t i = 0; i < m->n_runs; i++) {
        if (m->runs[i].q_lo != next) {
            return err_set(e, ERR_BUG, "mask: run %d starts at query %d, not at %lld", i, m->runs[i].q_lo,
                           (long long)next);
        }
        int rc = check_run(m, &m->runs[i], e);
        if (rc != 0) return rc;
        next = m->runs[i].q_hi;
    }
    if (next != m->queries) {
        return err_set(e, ERR_BUG, "mask: %lld of %lld queries covered", (long long)next,
                       (long long)m->queries);
    }
    return 0;
}

int64_t mask_pairs(const struct mask *m) {
    int64_t pairs = 0;
    for (int32_t i = 0; i < m->n_runs; i++) {
        const struct mask_run *r = &m->runs[i];
        int64_t keys = 0;
        for (int32_t j = 0; j < r->count; j++)
            keys += m->intervals[r->first + j].hi - m->intervals[r->first + j].lo;
        pairs += keys * (r->q_hi - r->q_lo);
    }
    return pairs;
}

void mask_fini(struct mask *m) {
    free(m->runs);
    free(m->intervals);
    memset(m, 0, sizeof *m);
}
