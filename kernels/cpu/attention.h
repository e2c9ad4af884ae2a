// SPDX-License-Identifier: Apache-2.0
// What the two passes of attention share: how queries are cut into blocks that one call of the inner kernel
// takes, which keys a block sees, and how keys and values are packed.
#ifndef ORRERY_KERNELS_CPU_ATTENTION_H
#define ORRERY_KERNELS_CPU_ATTENTION_H

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/micro.h"

enum {
    ATTENTION_MAX_DIM = 256,
    ATTENTION_LD = MICRO_LOCAL, // of every local buffer; MAX_DIM + 16
    ATTENTION_MAX_BLOCKS = 8,   // blocks of a tile
};

// Up to MICRO_MR queries. Queries of one run share their keys; short runs share a block.
struct query_block {
    int64_t q;
    int rows;
    int32_t run; // of the first query
};

struct query_tile {
    int64_t q;
    int rows, count;
    struct query_block block[ATTENTION_MAX_BLOCKS];
};

static inline int32_t run_of(const struct mask *m, int64_t q) {
    int32_t lo = 0, hi = m->n_runs - 1;
    while (lo < hi) {
        int32_t mid = (lo + hi) / 2;
        if (q < m->runs[mid].q_hi) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

static inline struct query_block block_at(const struct mask *m, int32_t run, int64_t q, int64_t end) {
    int64_t rows = cpu_min(m->runs[run].q_hi, end) - q;
    if (rows >= MICRO_MR / 2) {
        rows = cpu_blocks(rows, cpu_blocks(rows, MICRO_MR)); // equal shares
    } else {
        rows = cpu_min(MICRO_MR, end - q);
        // Stop where a long run begins: it has blocks of its own.
        for (int32_t r = run + 1; r < m->n_runs && m->runs[r].q_lo < q + rows; r++) {
            if (m->runs[r].q_hi - m->runs[r].q_lo >= MICRO_MR) rows = m->runs[r].q_lo - q;
        }
    }
    return (struct query_block){q, (int)rows, run};
}

// The tile that starts at q: whole blocks, at most max_rows queries below `end`.
static inline struct query_tile tile_at(const struct mask *m, int64_t q, int64_t end, int max_rows) {
    struct query_tile t = {.q = q};
    int32_t run = run_of(m, q);
    while (q < end && t.count < ATTENTION_MAX_BLOCKS) {
        while (m->runs[run].q_hi <= q) run++;
        struct query_block b = block_at(m, run, q, end);
        if (t.count > 0 && t.rows + b.rows > max_rows) break;
        t.block[t.count++] = b;
        t.rows += b.rows;
        q += b.rows;
    }
    return t;
}

// Keys from lo to hi; exact: every query of the block sees all of them.
struct key_span {
    int64_t lo, hi;
    bool exact;
};

// The first interval of a run that ends beyond key k.
static inline int32_t interval_after(const struct mask *m, const struct mask_run *r, int64_t k) {
    int32_t lo = r->first, hi = r->first + r->count;
    while (lo < hi) {
        int32_t mid = lo + (hi - lo) / 2;
        if (m->intervals[mid].hi > k) {
            hi = mid;
        } else {
            lo = mid + 1;
        }
    }
    return lo;
}

// What a run sees of the keys [lo, hi).
static inline struct key_span span_of_run(const struct mask *m, const struct mask_run *r, int64_t lo,
                                          int64_t hi) {
    struct key_span s = {hi, hi, true};
    int32_t end = r->first + r->count, i = interval_after(m, r, lo);
    if (i == end || m->intervals[i].lo >= hi) return s;
    s.lo = m->intervals[i].lo > lo ? m->intervals[i].lo : lo;
    s.hi = cpu_min(m->intervals[i].hi, hi);
    if (i + 1 == end || m->intervals[i + 1].lo >= hi) return s;
    s.exact = false;
    int32_t last = interval_after(m, r, hi - 1); // holds hi - 1, or lies beyond it
    if (last == end || m->intervals[last].lo >= hi) last--;
    s.hi = cpu_min(m->intervals[last].hi, hi);
    return s;
}

static inline struct key_span span_of_block(const struct mask *m, const struct query_block *b, int64_t lo,
                                            int64_t hi) {
    struct key_span all = span_of_run(m, &m->runs[b->run], lo, hi);
    for (int32_t r = b->run + 1; r < m->n_runs && m->runs[r].q_lo < b->q + b->rows; r++) {
        struct key_span s = span_of_run(m, &m->runs[r], lo, hi);
        bool same = s.lo == all.lo && s.hi == all.hi;
        all.exact = all.exact && s.exact && same;
        if (s.lo == s.hi || same) continue;
        all.hi = all.lo == all.hi || s.hi > all.hi ? s.hi : all.hi;
        all.lo = s.lo < all.lo ? s.lo : all.lo;
    }
    return all;
}

// Writes `value` over the keys of [span.lo, span.hi) that query q does not see; row[0] is key span.lo.
static inline void fill_unseen(const struct mask *m, int32_t run, struct key_span span, float value,
                               float *row) {
    const struct mask_run *r = &m->runs[run];
    int64_t next = span.lo;
    for (int32_t i = interval_after(m, r, span.lo); i < r->first + r->count && next < span.hi; i++) {
        int64_t lo = cpu_min(m->intervals[i].lo, span.hi);
        for (int64_t k = next; k < lo; k++) row[k - span.lo] = value;
        next = m->intervals[i].hi > next ? m->intervals[i].hi : next;
    }
    for (int64_t k = next; k < span.hi; k++) row[k - span.lo] = value;
}

static inline int64_t padded(int64_t n) {
    return cpu_blocks(n, MICRO_NR) * MICRO_NR;
}

// One head's keys (or values), turned: panels [keys/NR][hd][NR].
static inline void pack_turned(const struct tensor *x, int64_t first_row, int64_t keys, int hd,
                               int64_t column, float *out) {
    const float *at = cpu_row(x, first_row) + column;
    for (int64_t k = 0; k < keys; k += MICRO_NR)
        micro_pack_turned(at, x->stride[0], k, keys, hd, out + k * hd);
}

// Straight: panels [hd/NR][keys][NR].
static inline void pack_straight(const struct tensor *x, int64_t first_row, int64_t keys, int hd,
                                 int64_t column, float *out) {
    for (int c = 0; c < hd; c += MICRO_NR) {
        micro_pack_straight(cpu_row(x, first_row) + column + c, x->stride[0], keys, hd - c, out + c * keys);
    }
}

// Rows of a block into a local buffer, zero up to the next panel.
static inline void copy_rows(const struct tensor *x, int64_t row, int64_t column, int rows, int hd,
                             float *out) {
    for (int i = 0; i < rows; i++) {
        float *o = out + i * ATTENTION_LD;
        vf_copy(o, cpu_row(x, row + i) + column, hd);
        for (int c = hd; c < padded(hd); c++) o[c] = 0;
    }
}

// The masks of all sequences must have one shape.
static inline bool masks_fit(const struct mask *mask, const struct mask *const *masks, int64_t sequences) {
    if (masks == NULL) return mask != NULL;
    for (int64_t b = 0; b < sequences; b++) {
        if (masks[b] == NULL || masks[b]->queries != masks[0]->queries || masks[b]->keys != masks[0]->keys)
            return false;
    }
    return sequences > 0;
}

#endif
