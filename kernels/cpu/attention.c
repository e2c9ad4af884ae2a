// SPDX-License-Identifier: Apache-2.0
// o = softmax(q k^T) v with the online softmax of FlashAttention (Dao et al., 2205.14135): per block of
// queries a running maximum m, sum l and unnormalised output; a tile of keys at a time, only tiles that are
// seen. fp32 throughout. Beside q, k, v, o it needs memory for one packed copy of k and v.
#include "kernels/cpu/attention.h"

#include <math.h>

enum {
    FORWARD_KEYS = 256,          // of a tile; a multiple of NR, at most ATTENTION_MAX_DIM
    FORWARD_ROWS = 4 * MICRO_MR, // queries of a tile
    FORWARD_SEGMENT = 512,       // queries of a task
};

struct forward_job {
    const struct op_attention_args *a;
    int64_t queries, keys, segments;
    float *packed;            // for each sequence and kv head: k turned, then v straight
    int64_t k_elems, v_elems; // of one
};

// The state of a tile's queries.
struct forward_state {
    float q[FORWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float o[FORWARD_ROWS * ATTENTION_LD] __attribute__((aligned(64)));
    float p[MICRO_MR * ATTENTION_LD] __attribute__((aligned(64)));
    float top[FORWARD_ROWS], sum[FORWARD_ROWS];
};

static const struct mask *mask_of(const struct op_attention_args *a, int64_t b) {
    return a->masks != NULL ? a->masks[b] : a->mask;
}

static void forward_pack(void *arg, int64_t task) {
    const struct forward_job *j = arg;
    const struct op_attention_args *a = j->a;
    int64_t row = task / a->kv_heads * j->keys, column = task % a->kv_heads * a->head_dim;
    float *k = j->packed + task * (j->k_elems + j->v_elems);
    pack_turned(&a->k, row, j->keys, a->head_dim, column, k);
    pack_straight(&a->v, row, j->keys, a->head_dim, column, k + j->k_elems);
}

// Turns the block's logits, n in each row, into weights; scale: the factors for what was summed before. The
// rows' maxima come first, so that the chains of one row overlap with the next's.
static void softmax_rows(float *p, int rows, int64_t n, float *top, float *sum, float *scale) {
    float now[MICRO_MR + VW], old[MICRO_MR + VW];
    for (int i = 0; i < rows; i++) {
        float *x = p + i * ATTENTION_LD;
        vf_store(x + n, vf_set1(-INFINITY));
        vf high = vf_load(x);
        for (int64_t c = VW; c < n; c += VW) high = vf_max(high, vf_load(x + c));
        now[i] = vf_max_lane(high);
    }
    for (int i = 0; i < rows; i += VW) {
        vf before = vf_load_n(top + i, rows - i), after = vf_max(before, vf_load_n(now + i, rows - i));
        vf base = vf_select(after == -INFINITY, (vf){0}, after);
        vf_store_n(top + i, after, rows - i);
        vf_store(now + i, base);
        vf_store(old + i, vf_exp(before - base));
    }
    for (int i = 0; i < rows; i++) {
        float *x = p + i * ATTENTION_LD;
        vf base = vf_set1(now[i]), total = {0};
        for (int64_t c = 0; c < n; c += VW) {
            vf w = vf_exp(vf_load(x + c) - base);
            vf_store(x + c, w);
            total += w;
        }
        sum[i] = sum[i] * old[i] + vf_sum(total);
        scale[i] = old[i];
    }
}

static void forward_block(const struct forward_job *j, const struct mask *m, const float *k,
                          const struct query_block *b, struct key_span span, struct forward_state *s,
                          int first) {
    int hd = j->a->head_dim;
    int64_t base = span.lo / MICRO_NR * MICRO_NR, n = span.hi - span.lo;
    micro_fn *run = CPU_FN(micro_local)[b->rows];
    struct micro logits = {
        .a = s->q + first * ATTENTION_LD, .k = hd, .ldb = MICRO_NR, .ldc = ATTENTION_LD, .left = MICRO_NR};
    for (int64_t key = base; key < span.hi; key += MICRO_NR) {
        logits.b = k + key * hd;
        logits.c = s->p + (key - base);
        run(&logits);
    }
    float scale[MICRO_MR], *p = s->p + (span.lo - base);
    int32_t r = b->run;
    for (int i = 0; i < b->rows && !span.exact; i++) {
        while (m->runs[r].q_hi <= b->q + i) r++;
        fill_unseen(m, r, span, -INFINITY, p + i * ATTENTION_LD);
    }
    softmax_rows(p, b->rows, n, s->top + first, s->sum + first, scale);
    struct micro output = {
        .a = p, .k = n, .ldb = MICRO_NR, .ldc = ATTENTION_LD, .left = MICRO_NR, .scale = scale};
    for (int c = 0; c < hd; c += MICRO_NR) {
        output.b = k + j->k_elems + c * j->keys + span.lo * MICRO_NR;
        output.c = s->o + first * ATTENTION_LD + c;
        run(&output);
    }
}

static void forward_begin(const struct forward_job *j, const struct query_tile *t, int64_t row, int h,
                          struct forward_state *s) {
    int hd = j->a->head_dim;
    copy_rows(&j->a->q, row, (int64_t)h * hd, t->rows, hd, s->q);
    for (int i = 0; i < t->rows; i++) {
        for (int64_t c = 0; c < padded(hd); c += VW) vf_store(s->o + i * ATTENTION_LD + c, (vf){0});
        s->top[i] = -INFINITY;
        s->sum[i] = 0;
    }
}

static void forward_end(const struct forward_job *j, const struct query_tile *t, int64_t row, int h,
                        const struct forward_state *s) {
    int hd = j->a->head_dim;
    float inverse[FORWARD_ROWS + VW], lse[FORWARD_ROWS + VW];
    for (int i = 0; i < t->rows; i += VW) {
        vf sum = vf_load_n(s->sum + i, t->rows - i), top = vf_load_n(s->top + i, t->rows - i);
        vi empty = sum == 0;
        vf_store(inverse + i, vf_select(empty, (vf){0}, 1.0f / sum));
        vf_store(lse + i, vf_select(empty, vf_set1(-INFINITY), top + vf_log(sum)));
    }
    for (int i = 0; i < t->rows; i++) {
        float *o = cpu_row(&j->a->o, row + i) + h * hd;
        for (int c = 0; c < hd; c += VW)
            vf_store_n(o + c, vf_load(s->o + i * ATTENTION_LD + c) * inverse[i], hd - c);
        cpu_row(&j->a->lse, row + i)[h] = lse[i];
    }
}

// The keys that any query of the tile may see.
static struct key_span tile_span(const struct mask *m, const struct query_tile *t) {
    struct key_span all = {m->keys, 0, false};
    for (int32_t r = t->block[0].run; r < m->n_runs && m->runs[r].q_lo < t->q + t->rows; r++) {
        if (m->runs[r].count == 0) continue;
        const struct mask_interval *v = m->intervals + m->runs[r].first;
        all.lo = cpu_min(all.lo, v[0].lo);
        all.hi = all.hi > v[m->runs[r].count - 1].hi ? all.hi : v[m->runs[r].count - 1].hi;
    }
    return all;
}

static void forward_tile(const struct forward_job *j, int64_t b, int h, const struct query_tile *t,
                         struct forward_state *s) {
    const struct op_attention_args *a = j->a;
    const struct mask *m = mask_of(a, b);
    int64_t head = b * a->kv_heads + h / (a->heads / a->kv_heads), row = b * j->queries + t->q;
    const float *k = j->packed + head * (j->k_elems + j->v_elems);
    struct key_span all = tile_span(m, t);
    forward_begin(j, t, row, h, s);
    for (int64_t lo = all.lo / FORWARD_KEYS * FORWARD_KEYS; lo < all.hi; lo += FORWARD_KEYS) {
        for (int i = 0; i < t->count; i++) {
            struct key_span span = span_of_block(m, &t->block[i], lo, cpu_min(lo + FORWARD_KEYS, j->keys));
            if (span.lo < span.hi) forward_block(j, m, k, &t->block[i], span, s, (int)(t->block[i].q - t->q));
        }
    }
    forward_end(j, t, row, h, s);
}

static void forward_task(void *arg, int64_t task) {
    const struct forward_job *j = arg;
    struct forward_state s;
    int64_t b = task / j->segments / j->a->heads, q = task % j->segments * FORWARD_SEGMENT;
    int64_t end = cpu_min(j->queries, q + FORWARD_SEGMENT);
    while (q < end) {
        struct query_tile t = tile_at(mask_of(j->a, b), q, end, FORWARD_ROWS);
        forward_tile(j, b, (int)(task / j->segments % j->a->heads), &t, &s);
        q += t.rows;
    }
}

int CPU_FN(attention)(struct device *d, const struct op_attention_args *a, struct err *e) {
    CPU_REQUIRE(a->heads > 0 && a->kv_heads > 0 && a->heads % a->kv_heads == 0 && a->sequences >= 0);
    CPU_REQUIRE(a->head_dim > 0 && a->head_dim <= ATTENTION_MAX_DIM);
    if (a->sequences == 0) return 0;
    CPU_REQUIRE(masks_fit(a->mask, a->masks, a->sequences));
    struct forward_job j = {.a = a, .queries = mask_of(a, 0)->queries, .keys = mask_of(a, 0)->keys};
    int64_t rows = a->sequences * j.queries, q_cols = (int64_t)a->heads * a->head_dim;
    int64_t k_rows = a->sequences * j.keys, k_cols = (int64_t)a->kv_heads * a->head_dim;
    CPU_REQUIRE(cpu_is_rows(&a->q, rows, q_cols) && cpu_is_rows(&a->o, rows, q_cols));
    CPU_REQUIRE(cpu_is_rows(&a->k, k_rows, k_cols) && cpu_is_rows(&a->v, k_rows, k_cols));
    CPU_REQUIRE(cpu_is_rows(&a->lse, rows, a->heads));
    j.segments = cpu_blocks(j.queries, FORWARD_SEGMENT);
    j.k_elems = padded(j.keys) * a->head_dim;
    j.v_elems = padded(a->head_dim) * j.keys;
    int64_t heads = a->sequences * a->kv_heads;
    int rc = cpu_scratch(d, (void **)&j.packed, (size_t)(heads * (j.k_elems + j.v_elems)) * sizeof(float), e);
    if (rc != 0) return rc;
    cpu_run(d, heads, forward_pack, &j);
    cpu_run(d, a->sequences * a->heads * j.segments, forward_task, &j);
    return 0;
}
