// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "mask_make.h"
#include "trial.h"

struct attention {
    int64_t sequences, queries, keys;
    int heads, kv_heads, head_dim;
    struct mask masks[3];
    const struct mask *list[3];
    bool one_mask;
    unsigned char *visible; // [sequences, queries, keys]
    double *q, *k, *v, *d_o;
};

static struct mask make_mask(struct trial *t, const struct attention *s, int kind) {
    if (kind == 0) return mask_make_full(s->queries, s->keys);
    if (kind == 1) return mask_make(s->queries, s->keys, mask_causal_visible, NULL);
    struct mask_blocks b = {(uint64_t)trial_below(t, 1 << 30), 1 + trial_below(t, 9), (int)trial_below(t, 8)};
    return mask_make(s->queries, s->keys, mask_blocks_visible, &b);
}

static void make_masks(struct trial *t, struct attention *s) {
    int64_t frames = 1 + trial_below(t, 6), per_frame = 1 + s->keys / frames,
            last = 1 + trial_below(t, frames);
    bool blocks = t->round % 3 == 2;
    if (blocks) s->keys = frames * per_frame, s->queries = last * per_frame;
    for (int i = 0; i < s->sequences; i++) {
        struct err e = {0};
        int rc = 0;
        if (blocks)
            rc = mask_block_causal(&s->masks[i], frames, per_frame, trial_below(t, frames + 1), last, &e);
        else
            s->masks[i] = make_mask(t, s, s->one_mask ? t->round % 3 : (int)trial_below(t, 3));
        if (rc != 0 || mask_check(&s->masks[i], &e) != 0) trial_fail(t, "%s", e.text);
        s->list[i] = &s->masks[i];
    }
    s->visible = trial_alloc(t, (size_t)(s->sequences * s->queries * s->keys));
    for (int64_t b = 0; b < s->sequences; b++) {
        const struct mask *m = &s->masks[s->one_mask ? 0 : b];
        for (int32_t r = 0; r < m->n_runs; r++) {
            for (int64_t q = m->runs[r].q_lo; q < m->runs[r].q_hi; q++) {
                for (int32_t v = 0; v < m->runs[r].count; v++) {
                    struct mask_interval w = m->intervals[m->runs[r].first + v];
                    memset(s->visible + (b * s->queries + q) * s->keys + w.lo, 1, (size_t)(w.hi - w.lo));
                }
            }
        }
    }
}

static void make_attention(struct trial *t, struct attention *s) {
    s->sequences = 1 + trial_below(t, 3);
    s->kv_heads = 1 + (int)trial_below(t, 2);
    s->heads = s->kv_heads * (1 + (int)trial_below(t, 3));
    s->head_dim = 2 * (int)trial_size(t, 70);
    int64_t most = t->device[0]->host_memory ? 350 : 100; // emulated GPUs are slow
    s->queries = trial_size(t, most);
    s->keys = trial_size(t, most);
    if (t->round == 1) s->head_dim = 32;
    if (t->round == TRIAL_ROUNDS - 1) s->head_dim = trial_below(t, 2) ? 64 : 128;
    if (t->low == DTYPE_BF16) s->head_dim = 32 << trial_below(t, 3); // what the fast kernels support
    s->one_mask = trial_below(t, 2);
    make_masks(t, s);
}

static void free_masks(struct attention *s) {
    for (int64_t i = 0; i < s->sequences; i++) mask_fini(&s->masks[i]);
}

// One query and head: fills p (softmax over keys), o; returns lse.
static double attend(const struct attention *s, int64_t b, int64_t i, int h, double *p, double *o) {
    int hd = s->head_dim, hk = h / (s->heads / s->kv_heads);
    const double *q = s->q + ((b * s->queries + i) * s->heads + h) * hd;
    double top = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->keys; j++) {
        const double *k = s->k + ((b * s->keys + j) * s->kv_heads + hk) * hd;
        p[j] = -INFINITY;
        if (!s->visible[(b * s->queries + i) * s->keys + j]) continue;
        p[j] = 0;
        for (int c = 0; c < hd; c++) p[j] += q[c] * k[c];
        top = fmax(top, p[j]);
    }
    for (int64_t j = 0; j < s->keys; j++) sum += p[j] = p[j] == -INFINITY ? 0 : exp(p[j] - top);
    memset(o, 0, (size_t)hd * sizeof *o);
    for (int64_t j = 0; j < s->keys; j++) {
        const double *v = s->v + ((b * s->keys + j) * s->kv_heads + hk) * hd;
        if (p[j] > 0) p[j] /= sum;
        for (int c = 0; c < hd; c++) o[c] += p[j] * v[c];
    }
    return sum > 0 ? top + log(sum) : -INFINITY;
}

static double attention_loss(void *arg) {
    const struct attention *s = arg;
    double *p = malloc((size_t)(s->keys + s->head_dim) * sizeof *p), loss = 0;
    double *o = p + s->keys;
    for (int64_t row = 0; row < s->sequences * s->queries; row++) {
        for (int h = 0; h < s->heads; h++) {
            attend(s, row / s->queries, row % s->queries, h, p, o);
            const double *d = s->d_o + (row * s->heads + h) * s->head_dim;
            for (int c = 0; c < s->head_dim; c++) loss += o[c] * d[c];
        }
    }
    free(p);
    return loss;
}

// o and lse of all queries.
static void reference(const struct attention *s, double *p, double *o, double *lse) {
    for (int64_t row = 0; row < s->sequences * s->queries; row++) {
        for (int h = 0; h < s->heads; h++) {
            lse[row * s->heads + h] =
                attend(s, row / s->queries, row % s->queries, h, p, o + (row * s->heads + h) * s->head_dim);
        }
    }
}

static struct tensor scaled_rows(struct trial *t, int64_t rows, int64_t cols, double scale) {
    struct tensor x = trial_low_aligned(t, TRIAL_IN, rows, cols);
    for (int64_t i = 0; i < rows * cols; i++) trial_put(x, i, trial_get(x, i) * scale);
    return x;
}

void check_attention(struct trial *t) {
    struct attention s = {0};
    make_attention(t, &s);
    struct op_attention_args a = {
        .sequences = s.sequences, .heads = s.heads, .kv_heads = s.kv_heads, .head_dim = s.head_dim};
    int64_t qw = s.heads * s.head_dim, kw = s.kv_heads * s.head_dim;
    a.q = scaled_rows(t, s.sequences * s.queries, qw, (trial_below(t, 2) ? 0.5 : 4) / sqrt(s.head_dim));
    a.k = scaled_rows(t, s.sequences * s.keys, kw, 1);
    a.v = scaled_rows(t, s.sequences * s.keys, kw, 1);
    a.o = trial_low_aligned(t, TRIAL_OUT, s.sequences * s.queries, qw);
    a.lse = trial_dense(t, TRIAL_OUT, s.sequences * s.queries, s.heads);
    a.mask = s.one_mask ? &s.masks[0] : NULL;
    a.masks = s.one_mask ? NULL : s.list;
    trial_refilled(t);
    TRIAL_RUN(t, attention, a);
    s.q = trial_double(t, a.q);
    s.k = trial_double(t, a.k);
    s.v = trial_double(t, a.v);
    double *o = trial_double(t, a.o), *lse = trial_double(t, a.lse);
    reference(&s, trial_alloc(t, (size_t)s.keys * sizeof *o), o, lse);
    trial_compare(t, "o", a.o, o, t->low == DTYPE_BF16 ? 2e-2 : 2e-5);
    for (int64_t i = 0; i < tensor_elems(&a.lse); i++) { // -inf has no mean
        double got = (double)tensor_f32(&a.lse)[i];
        if (!(got == lse[i]) &&
            !(fabs(got - lse[i]) <= (t->low == DTYPE_BF16 ? 1e-3 : 1e-5) * (1 + fabs(lse[i])))) {
            trial_fail(t, "lse[%lld] is %g, not %g", (long long)i, got, lse[i]);
        }
    }
    free_masks(&s);
}

// A gradient and, element by element, the sum of the absolute values of its terms: what rounding is measured
// by.
struct gradient {
    double *value, *bound;
};

static struct gradient new_gradient(struct trial *t, int64_t n) {
    return (struct gradient){trial_alloc(t, (size_t)n * sizeof(double)),
                             trial_alloc(t, (size_t)n * sizeof(double))};
}

static void add_term(struct gradient g, int64_t i, double term, double bound) {
    g.value[i] += term;
    g.bound[i] += fabs(bound);
}

// dv += p dO; ds = p (dO v - dO o); dq += ds k; dk += ds q.
static void reference_backward(const struct attention *s, double *p, struct gradient dq, struct gradient dk,
                               struct gradient dv) {
    int hd = s->head_dim, group = s->heads / s->kv_heads;
    double *o = p + s->keys;
    for (int64_t row = 0; row < s->sequences * s->queries; row++) {
        for (int h = 0; h < s->heads; h++) {
            int64_t at = (row * s->heads + h) * hd;
            attend(s, row / s->queries, row % s->queries, h, p, o);
            double delta = 0, delta_bound = 0;
            for (int c = 0; c < hd; c++)
                delta += o[c] * s->d_o[at + c], delta_bound += fabs(o[c] * s->d_o[at + c]);
            for (int64_t j = 0; j < s->keys; j++) {
                int64_t kv = ((row / s->queries * s->keys + j) * s->kv_heads + h / group) * hd;
                double dp = 0, bound = delta_bound;
                if (p[j] == 0) continue;
                for (int c = 0; c < hd; c++) {
                    dp += s->d_o[at + c] * s->v[kv + c];
                    bound += fabs(s->d_o[at + c] * s->v[kv + c]);
                }
                for (int c = 0; c < hd; c++) {
                    add_term(dv, kv + c, p[j] * s->d_o[at + c], p[j] * s->d_o[at + c]);
                    add_term(dk, kv + c, p[j] * (dp - delta) * s->q[at + c], p[j] * bound * s->q[at + c]);
                    add_term(dq, at + c, p[j] * (dp - delta) * s->k[kv + c], p[j] * bound * s->k[kv + c]);
                }
            }
        }
    }
}

static void compare_gradient(struct trial *t, const char *name, struct tensor got, struct gradient want) {
    int64_t n = tensor_elems(&got);
    for (int64_t i = 0; i < n; i++) {
        double g = trial_get(got, i);
        if (!(fabs(g - want.value[i]) <= (got.dtype == DTYPE_BF16 ? 1.2e-2 : 1e-5) * want.bound[i])) {
            trial_fail(t, "%s[%lld] is %.9g, not %.9g (rounding of %g)", name, (long long)i, g, want.value[i],
                       want.bound[i]);
        }
    }
}

// The reference itself, against differences of the loss.
static void differences_agree(struct trial *t, const char *name, struct attention *s, double *at, int64_t n,
                              struct gradient want) {
    for (int probe = 0; probe < 12; probe++) {
        int64_t i = trial_below(t, n);
        double x = at[i], h = 1e-5;
        at[i] = x + h;
        double slope = attention_loss(s);
        at[i] = x - h;
        slope = (slope - attention_loss(s)) / (2 * h);
        at[i] = x;
        if (!(fabs(slope - want.value[i]) <= 1e-7 * (1 + want.bound[i]))) {
            trial_fail(t, "reference %s[%lld] is %g, differences say %g", name, (long long)i, want.value[i],
                       slope);
        }
    }
}

void check_attention_backward(struct trial *t) {
    struct attention s = {0};
    make_attention(t, &s);
    struct op_attention_backward_args a = {
        .sequences = s.sequences, .heads = s.heads, .kv_heads = s.kv_heads};
    int64_t qrows = s.sequences * s.queries, krows = s.sequences * s.keys;
    int64_t qw = s.heads * s.head_dim, kw = s.kv_heads * s.head_dim;
    a.head_dim = s.head_dim;
    a.q = scaled_rows(t, qrows, qw, 1.5 / sqrt(s.head_dim));
    a.k = scaled_rows(t, krows, kw, 1);
    a.v = scaled_rows(t, krows, kw, 1);
    a.d_o = scaled_rows(t, qrows, qw, 1);
    trial_refilled(t);
    a.o = trial_low_aligned(t, TRIAL_IN, qrows, qw);
    a.lse = trial_dense(t, TRIAL_IN, qrows, s.heads);
    a.dq = trial_low_aligned(t, TRIAL_OUT, qrows, qw);
    a.dk = trial_low_aligned(t, TRIAL_OUT, krows, kw);
    a.dv = trial_low_aligned(t, TRIAL_OUT, krows, kw);
    a.mask = s.one_mask ? &s.masks[0] : NULL;
    a.masks = s.one_mask ? NULL : s.list;
    s.q = trial_double(t, a.q);
    s.k = trial_double(t, a.k);
    s.v = trial_double(t, a.v);
    s.d_o = trial_double(t, a.d_o);
    double *o = trial_double(t, a.o), *lse = trial_double(t, a.lse);
    double *p = trial_alloc(t, (size_t)(s.keys + s.head_dim) * sizeof *p);
    reference(&s, p, o, lse);
    for (int64_t i = 0; i < qrows * qw; i++) trial_put(a.o, i, o[i]);
    for (int64_t i = 0; i < qrows * s.heads; i++) tensor_f32(&a.lse)[i] = (float)lse[i];
    trial_refilled(t);
    TRIAL_RUN(t, attention_backward, a);
    struct gradient dq = new_gradient(t, qrows * qw), dk = new_gradient(t, krows * kw),
                    dv = new_gradient(t, krows * kw);
    reference_backward(&s, p, dq, dk, dv);
    compare_gradient(t, "dq", a.dq, dq);
    compare_gradient(t, "dk", a.dk, dk);
    compare_gradient(t, "dv", a.dv, dv);
    if (s.queries * s.keys <= 700) {
        differences_agree(t, "dq", &s, s.q, qrows * qw, dq);
        differences_agree(t, "dk", &s, s.k, krows * kw, dk);
        differences_agree(t, "dv", &s, s.v, krows * kw, dv);
    }
    free_masks(&s);
}
