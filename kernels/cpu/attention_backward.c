// SPDX-License-Identifier: Apache-2.0
// With p = exp(q k^T - lse) and delta = sum do o:
//   dv = p^T do;  ds = p (do v^T - delta);  dq = ds k;  dk = ds^T q.
// A task owns the keys of a chunk, thus rows of dk and dv, and walks tiles of keys, then heads of the group,
// then tiles of queries. dq of several chunks is summed apart, in the chunks' order. How many chunks there
// are follows from the shapes. fp32 throughout; beside its arguments it needs memory for packed copies of k
// and v, and for dq once per chunk where there are several.
#include "kernels/cpu/attention.h"

enum {
    BACKWARD_KEYS = 128,          // of a tile
    BACKWARD_ROWS = 2 * MICRO_MR, // queries of a tile
    BACKWARD_TASKS = 8,           // wanted, where chunks are long enough
    BACKWARD_CHUNK = 512,         // keys of a chunk, at least
};

struct backward_job {
    const struct op_attention_backward_args *a;
    int64_t queries, keys;
    int64_t chunks, chunk_keys;
    float *packed;            // for each sequence and kv head: k turned, v turned, k straight
    int64_t turned, straight; // elements of each
    float *dq;                // [chunks][sequences * queries][heads * hd]; NULL: one chunk, straight to dq
};

struct backward_state {
    float q[BACKWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float d_o[BACKWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float p[BACKWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float ds[BACKWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float lse[BACKWARD_ROWS], delta[BACKWARD_ROWS];
};

static const struct mask *mask_of(const struct op_attention_backward_args *a, int64_t b) {
    return a->masks != NULL ? a->masks[b] : a->mask;
}

static void backward_pack(void *arg, int64_t task) {
    const struct backward_job *j = arg;
    const struct op_attention_backward_args *a = j->a;
    int64_t row = task / a->kv_heads * j->keys, column = task % a->kv_heads * a->head_dim;
    float *out = j->packed + task * (2 * j->turned + j->straight);
    pack_turned(&a->k, row, j->keys, a->head_dim, column, out);
    pack_turned(&a->v, row, j->keys, a->head_dim, column, out + j->turned);
    pack_straight(&a->k, row, j->keys, a->head_dim, column, out + 2 * j->turned);
}

// One tile of keys against one head's queries.
struct backward_at {
    const struct backward_job *j;
    const struct mask *m;
    const float *k, *v, *k_rows; // packed, of this head
    int64_t b, h, hk;
    struct tensor dq; // the task's own
};

static void load_tile(const struct backward_at *at, const struct query_tile *t, struct backward_state *s) {
    const struct op_attention_backward_args *a = at->j->a;
    int hd = a->head_dim;
    int64_t row = at->b * at->j->queries + t->q;
    copy_rows(&a->q, row, at->h * hd, t->rows, hd, s->q);
    copy_rows(&a->d_o, row, at->h * hd, t->rows, hd, s->d_o);
    for (int i = 0; i < t->rows; i++) {
        const float *o = cpu_row(&a->o, row + i) + at->h * hd, *g = s->d_o + i * ATTENTION_LD;
        vf dot = {0};
        for (int c = 0; c < hd; c += VW)
            dot = vf_fma(vf_load_n(o + c, hd - c), vf_load_n(g + c, hd - c), dot);
        s->delta[i] = vf_sum(dot);
        s->lse[i] = cpu_row(&a->lse, row + i)[at->h];
    }
}

// p and ds of one query over n keys, from logits and do v^T.
static void weights_row(float *p, float *ds, int64_t n, float lse, float delta) {
    for (int64_t i = 0; i < n; i += VW) {
        vf w = vf_exp(vf_load_n(p + i, n - i) - lse);
        vf_store_n(p + i, w, n - i);
        vf_store_n(ds + i, w * (vf_load_n(ds + i, n - i) - delta), n - i);
    }
}

static void clear_row(float *x, int64_t n) {
    for (int64_t i = 0; i < n; i += VW) vf_store_n(x + i, (vf){0}, n - i);
}

// Fills the block's rows of p and ds over `all`, column 0 being key `base`, and adds to dq.
static void backward_block(const struct backward_at *at, const struct query_block *b, int first, int64_t base,
                           struct key_span all, struct key_span span, struct backward_state *s) {
    int hd = at->j->a->head_dim;
    float *p = s->p + first * ATTENTION_LD, *ds = s->ds + first * ATTENTION_LD;
    if (span.lo < span.hi) {
        struct micro t = {.k = hd, .ldb = MICRO_NR, .ldc = ATTENTION_LD, .left = MICRO_NR};
        for (int64_t key = span.lo / MICRO_NR * MICRO_NR; key < span.hi; key += MICRO_NR) {
            t.a = s->q + first * ATTENTION_LD;
            t.b = at->k + key * hd;
            t.c = p + (key - base);
            CPU_FN(micro_local)[b->rows](&t);
            t.a = s->d_o + first * ATTENTION_LD;
            t.b = at->v + key * hd;
            t.c = ds + (key - base);
            CPU_FN(micro_local)[b->rows](&t);
        }
    }
    int32_t r = b->run;
    for (int i = 0; i < b->rows; i++, p += ATTENTION_LD, ds += ATTENTION_LD) {
        while (at->m->runs[r].q_hi <= b->q + i) r++;
        clear_row(p + (all.lo - base), span.lo - all.lo);
        clear_row(ds + (all.lo - base), span.lo - all.lo);
        weights_row(p + (span.lo - base), ds + (span.lo - base), span.hi - span.lo, s->lse[first + i],
                    s->delta[first + i]);
        if (!span.exact) {
            fill_unseen(at->m, r, span, 0, p + (span.lo - base));
            fill_unseen(at->m, r, span, 0, ds + (span.lo - base));
        }
        clear_row(p + (span.hi - base), all.hi - span.hi);
        clear_row(ds + (span.hi - base), all.hi - span.hi);
    }
    struct micro t = {.a = s->ds + first * ATTENTION_LD + (span.lo - base),
                      .k = span.hi - span.lo,
                      .ldb = MICRO_NR,
                      .add = true};
    t.ldc = at->dq.stride[0];
    for (int c = 0; c < hd && span.lo < span.hi; c += MICRO_NR) {
        t.b = at->k_rows + c * at->j->keys + span.lo * MICRO_NR;
        t.c = cpu_row(&at->dq, at->b * at->j->queries + b->q) + at->h * hd + c;
        t.left = hd - c;
        CPU_FN(micro_local)[b->rows](&t);
    }
}

// out[key] += sum over the tile's queries of x[query, key] y[query].
static void add_keys(const struct backward_at *at, const struct tensor *out, const float *x, const float *y,
                     int rows, int64_t base, struct key_span all) {
    int hd = at->j->a->head_dim;
    int64_t n = all.hi - all.lo, blocks = cpu_blocks(n, MICRO_MR);
    struct micro t = {.k = rows, .ldb = ATTENTION_LD, .ldc = out->stride[0], .add = true};
    for (int64_t i = 0; i < blocks; i++) {
        int64_t key = all.lo + i * n / blocks, end = all.lo + (i + 1) * n / blocks;
        t.a = x + (key - base);
        for (int c = 0; c < hd; c += MICRO_NR) {
            t.b = y + c;
            t.c = cpu_row(out, at->b * at->j->keys + key) + at->hk * hd + c;
            t.left = hd - c;
            CPU_FN(micro_columns_local)[end - key](&t);
        }
    }
}

// Keys [lo, hi) against one tile of queries.
static void backward_tile(const struct backward_at *at, const struct query_tile *t, int64_t lo, int64_t hi,
                          struct backward_state *s) {
    struct key_span span[ATTENTION_MAX_BLOCKS], all = {hi, lo, true};
    for (int i = 0; i < t->count; i++) {
        span[i] = span_of_block(at->m, &t->block[i], lo, hi);
        if (span[i].lo == span[i].hi) continue;
        all.lo = cpu_min(all.lo, span[i].lo);
        all.hi = all.hi > span[i].hi ? all.hi : span[i].hi;
    }
    if (all.lo >= all.hi) return;
    int64_t base = all.lo / MICRO_NR * MICRO_NR;
    load_tile(at, t, s);
    for (int i = 0; i < t->count; i++) {
        if (span[i].lo == span[i].hi) span[i].lo = span[i].hi = all.hi;
        backward_block(at, &t->block[i], (int)(t->block[i].q - t->q), base, all, span[i], s);
    }
    add_keys(at, &at->j->a->dv, s->p, s->d_o, t->rows, base, all);
    add_keys(at, &at->j->a->dk, s->ds, s->q, t->rows, base, all);
}

static void clear_rows(const struct tensor *x, int64_t row, int64_t rows, int64_t column, int64_t n) {
    for (int64_t i = 0; i < rows; i++) clear_row(cpu_row(x, row + i) + column, n);
}

static void backward_task(void *arg, int64_t task) {
    const struct backward_job *j = arg;
    const struct op_attention_backward_args *a = j->a;
    struct backward_state s;
    int64_t head = task / j->chunks, chunk = task % j->chunks, group = a->heads / a->kv_heads,
            hd = a->head_dim;
    int64_t from = chunk * j->chunk_keys, end = cpu_min(j->keys, from + j->chunk_keys);
    struct backward_at at = {.j = j, .b = head / a->kv_heads, .hk = head % a->kv_heads, .dq = a->dq};
    at.m = mask_of(a, at.b);
    at.k = j->packed + head * (2 * j->turned + j->straight);
    at.v = at.k + j->turned;
    at.k_rows = at.v + j->turned;
    if (j->dq != NULL) {
        int64_t rows = a->sequences * j->queries, cols = a->heads * hd;
        at.dq = tensor_2d(j->dq + chunk * rows * cols, rows, cols);
    }
    clear_rows(&at.dq, at.b * j->queries, j->queries, at.hk * group * hd, group * hd);
    clear_rows(&a->dk, at.b * j->keys + from, end - from, at.hk * hd, hd);
    clear_rows(&a->dv, at.b * j->keys + from, end - from, at.hk * hd, hd);
    for (int64_t lo = from; lo < end; lo += BACKWARD_KEYS) {
        for (at.h = at.hk * group; at.h < (at.hk + 1) * group; at.h++) {
            for (int64_t q = 0; q < j->queries;) {
                struct query_tile t = tile_at(at.m, q, j->queries, BACKWARD_ROWS);
                backward_tile(&at, &t, lo, cpu_min(end, lo + BACKWARD_KEYS), &s);
                q += t.rows;
            }
        }
    }
}

enum { SUM_ROWS = 64 };

static void sum_task(void *arg, int64_t task) {
    const struct backward_job *j = arg;
    const struct tensor *dq = &j->a->dq;
    int64_t rows = dq->shape[0], cols = dq->shape[1], end = cpu_min(rows, (task + 1) * SUM_ROWS);
    for (int64_t r = task * SUM_ROWS; r < end; r++) {
        for (int64_t i = 0; i < cols; i += VW) {
            vf sum = {0};
            for (int64_t c = 0; c < j->chunks; c++)
                sum += vf_load_n(j->dq + (c * rows + r) * cols + i, cols - i);
            vf_store_n(cpu_row(dq, r) + i, sum, cols - i);
        }
    }
}

static int backward_run(struct device *d, struct backward_job *j, struct err *e) {
    const struct op_attention_backward_args *a = j->a;
    int64_t heads = a->sequences * a->kv_heads, dq = a->sequences * j->queries * a->heads * a->head_dim;
    j->turned = padded(j->keys) * a->head_dim;
    j->straight = padded(a->head_dim) * j->keys;
    j->chunks = cpu_min(cpu_blocks(BACKWARD_TASKS, heads), cpu_blocks(j->keys, BACKWARD_CHUNK));
    if (j->chunks < 1) j->chunks = 1;
    j->chunk_keys = cpu_blocks(cpu_blocks(j->keys, j->chunks), BACKWARD_KEYS) * BACKWARD_KEYS;
    int64_t elems = heads * (2 * j->turned + j->straight);
    int rc = cpu_scratch(d, (void **)&j->packed,
                         (size_t)(elems + (j->chunks > 1 ? j->chunks * dq : 0)) * sizeof(float), e);
    if (rc != 0) return rc;
    if (j->chunks > 1) j->dq = j->packed + elems;
    cpu_run(d, heads, backward_pack, j);
    cpu_run(d, heads * j->chunks, backward_task, j);
    if (j->chunks > 1) cpu_run(d, cpu_blocks(a->dq.shape[0], SUM_ROWS), sum_task, j);
    return 0;
}

int CPU_FN(attention_backward)(struct device *d, const struct op_attention_backward_args *a, struct err *e) {
    CPU_REQUIRE(a->heads > 0 && a->kv_heads > 0 && a->heads % a->kv_heads == 0 && a->sequences >= 0);
    CPU_REQUIRE(a->head_dim > 0 && a->head_dim <= ATTENTION_MAX_DIM);
    if (a->sequences == 0) return 0;
    CPU_REQUIRE(masks_fit(a->mask, a->masks, a->sequences));
    struct backward_job j = {.a = a, .queries = mask_of(a, 0)->queries, .keys = mask_of(a, 0)->keys};
    int64_t rows = a->sequences * j.queries, q_cols = (int64_t)a->heads * a->head_dim;
    int64_t k_rows = a->sequences * j.keys, k_cols = (int64_t)a->kv_heads * a->head_dim;
    CPU_REQUIRE(cpu_is_rows(&a->q, rows, q_cols) && cpu_is_rows(&a->o, rows, q_cols));
    CPU_REQUIRE(cpu_is_rows(&a->d_o, rows, q_cols) && cpu_is_rows(&a->dq, rows, q_cols));
    CPU_REQUIRE(cpu_is_rows(&a->k, k_rows, k_cols) && cpu_is_rows(&a->dk, k_rows, k_cols));
    CPU_REQUIRE(cpu_is_rows(&a->v, k_rows, k_cols) && cpu_is_rows(&a->dv, k_rows, k_cols));
    CPU_REQUIRE(cpu_is_rows(&a->lse, rows, a->heads));
    return backward_run(d, &j, e);
}
