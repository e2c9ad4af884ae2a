// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <stddef.h>

#include "trial.h"

// A token sequence with random modalities, and the reference's view of a norm or a gate.
struct stage {
    struct token_map map;
    int64_t tokens, groups, width;
    int which;
    double *x, *y, *c, *mod, *dy; // as the reference reads them
};

// Rows that no kernel keeps in registers whole; few of them.
static int64_t long_width(struct trial *t) {
    return trial_is_wide(t) ? 2056 + 8 * trial_below(t, 600) : 1031 + trial_below(t, 2000);
}

static void make_stage(struct trial *t, struct stage *s) {
    bool is_long = t->round == 5 || t->round == 6;
    int64_t per_frame = is_long ? 3 : trial_size(t, 40);
    int32_t *slots = trial_alloc(t, (size_t)per_frame * sizeof *slots), m = 0;
    for (int64_t i = 0; i < per_frame; i++) slots[i] = m += i > 0 && m < 13 && trial_below(t, 3) == 0;
    s->map = (struct token_map){is_long ? 2 : trial_size(t, 30), (int32_t)per_frame,
                                m + 1 + (int32_t)trial_below(t, 2), slots};
    s->tokens = s->map.frames * per_frame;
    s->groups = s->map.frames * s->map.modalities;
    s->width =
        is_long ? long_width(t)
        : t->round == 2
            ? 96
            : trial_width(t, 3 + trial_size(t, 140)); // of one or two elements, rms(x) is all cancellation
    s->which = (int)trial_below(t, 2);
}

static double mod_of(const struct stage *s, int64_t token, int part, int64_t i) {
    int64_t frame = token / s->map.per_frame;
    int64_t group = frame * s->map.modalities + s->map.slot_modality[token % s->map.per_frame];
    int64_t column = (s->which * 3 + part) * s->width + i;
    return s->c == NULL ? 0 : s->c[group * 6 * s->width + column] + s->mod[column];
}

// Returns sum y dy and, unless NULL, leaves y and rstd.
static double reference_norm(const struct stage *s, double *y, double *rstd) {
    double loss = 0;
    for (int64_t r = 0; r < s->tokens; r++) {
        const double *x = s->x + r * s->width;
        double mean = 0;
        for (int64_t i = 0; i < s->width; i++) mean += x[i] * x[i] / (double)s->width;
        double scale = 1 / sqrt(mean + 1e-6);
        if (rstd != NULL) rstd[r] = scale;
        for (int64_t i = 0; i < s->width; i++) {
            double v = x[i] * scale * (1 + mod_of(s, r, 1, i)) + mod_of(s, r, 0, i);
            if (y != NULL) y[r * s->width + i] = v;
            if (s->dy != NULL) loss += v * s->dy[r * s->width + i];
        }
    }
    return loss;
}

static double norm_loss(void *arg) {
    return reference_norm(arg, NULL, NULL);
}

void check_norm_mod(struct trial *t) {
    struct stage s = {0};
    make_stage(t, &s);
    struct op_norm_mod_args a = {.which = s.which, .map = &s.map};
    a.x = trial_rows(t, TRIAL_IN, s.tokens, s.width);
    a.y = trial_low(t, TRIAL_OUT, s.tokens, s.width);
    a.rstd = trial_vector(t, TRIAL_OUT, s.tokens);
    if (t->round % 3 != 1) {
        a.c = trial_rows(t, TRIAL_IN, s.groups, 6 * s.width);
        a.mod = trial_dense(t, TRIAL_IN, 6, s.width);
        s.c = trial_double(t, a.c);
        s.mod = trial_double(t, a.mod);
    }
    TRIAL_RUN(t, norm_mod, a);
    s.x = trial_double(t, a.x);
    double *y = trial_double(t, a.y), *rstd = trial_double(t, a.rstd);
    reference_norm(&s, y, rstd);
    trial_compare(t, "y", a.y, y, 4e-6);
    trial_compare(t, "rstd", a.rstd, rstd, 2e-6);
}

// Columns that the op must leave alone.
static void others_untouched(struct trial *t, struct tensor got, const double *before, int64_t width,
                             int first, int parts) {
    for (int64_t r = 0; r < got.shape[0]; r++) {
        for (int64_t i = 0; i < 6 * width; i++) {
            bool own = i >= first * width && i < (first + parts) * width;
            double now = (double)tensor_f32(&got)[r * got.stride[0] + i];
            if (!own && !(now == before[r * 6 * width + i])) trial_fail(t, "dc changed outside its columns");
        }
    }
}

void check_norm_mod_backward(struct trial *t) {
    struct stage s = {0};
    make_stage(t, &s);
    struct op_norm_mod_backward_args a = {.which = s.which, .map = &s.map};
    a.x = trial_rows(t, TRIAL_IN, s.tokens, s.width);
    a.dy = trial_low(t, TRIAL_IN, s.tokens, s.width);
    a.dx = trial_rows(t, TRIAL_INOUT, s.tokens, s.width);
    a.rstd = trial_vector(t, TRIAL_IN, s.tokens);
    s.x = trial_double(t, a.x);
    double *rstd = trial_alloc(t, (size_t)s.tokens * sizeof *rstd);
    reference_norm(&s, NULL, rstd);
    for (int64_t r = 0; r < s.tokens; r++) tensor_f32(&a.rstd)[r] = (float)rstd[r];
    trial_refilled(t);
    bool with_mod = t->round % 3 != 1;
    if (with_mod) {
        a.c = trial_rows(t, TRIAL_IN, s.groups, 6 * s.width);
        a.mod = trial_dense(t, TRIAL_IN, 6, s.width);
        a.dc = trial_rows(t, TRIAL_INOUT, s.groups, 6 * s.width);
        a.dmod = trial_dense(t, TRIAL_INOUT, 6, s.width);
        s.c = trial_double(t, a.c);
        s.mod = trial_double(t, a.mod);
    }
    TRIAL_RUN(t, norm_mod_backward, a);
    s.dy = trial_double(t, a.dy);
    trial_gradient(t, "dx", a.dx, true, s.x, norm_loss, &s, 3e-5);
    if (!with_mod) return;
    trial_gradient(t, "dc", a.dc, true, s.c, norm_loss, &s, 3e-5);
    trial_gradient(t, "dmod", a.dmod, true, s.mod, norm_loss, &s, 3e-5);
    others_untouched(t, a.dc, trial_double(t, a.dc), s.width, s.which * 3, 2);
}

static double gate_loss(void *arg) {
    const struct stage *s = arg;
    double loss = 0;
    for (int64_t r = 0; r < s->tokens; r++) {
        for (int64_t i = 0; i < s->width; i++) {
            loss += (1 + mod_of(s, r, 2, i)) * s->y[r * s->width + i] * s->dy[r * s->width + i];
        }
    }
    return loss;
}

void check_gated_add(struct trial *t) {
    struct stage s = {0};
    make_stage(t, &s);
    struct op_gated_add_args a = {.which = s.which, .map = &s.map};
    bool in_place = trial_below(t, 2);
    a.x = trial_rows(t, in_place ? TRIAL_INOUT : TRIAL_IN, s.tokens, s.width);
    a.out = in_place ? a.x : trial_rows(t, TRIAL_OUT, s.tokens, s.width);
    a.y = trial_low(t, TRIAL_IN, s.tokens, s.width);
    a.c = trial_rows(t, TRIAL_IN, s.groups, 6 * s.width);
    a.mod = trial_dense(t, TRIAL_IN, 6, s.width);
    TRIAL_RUN(t, gated_add, a);
    s.c = trial_double(t, a.c);
    s.mod = trial_double(t, a.mod);
    double *x = trial_double(t, a.x), *y = trial_double(t, a.y);
    for (int64_t i = 0; i < s.tokens * s.width; i++)
        x[i] += (1 + mod_of(&s, i / s.width, 2, i % s.width)) * y[i];
    trial_compare(t, "out", a.out, x, 4e-6);
}

void check_gated_add_backward(struct trial *t) {
    struct stage s = {0};
    make_stage(t, &s);
    struct op_gated_add_backward_args a = {.which = s.which, .map = &s.map};
    a.y = trial_low(t, TRIAL_IN, s.tokens, s.width);
    a.dx = trial_rows(t, TRIAL_IN, s.tokens, s.width);
    a.dy = trial_low(t, TRIAL_OUT, s.tokens, s.width);
    a.c = trial_rows(t, TRIAL_IN, s.groups, 6 * s.width);
    a.mod = trial_dense(t, TRIAL_IN, 6, s.width);
    a.dc = trial_rows(t, TRIAL_INOUT, s.groups, 6 * s.width);
    a.dmod = trial_dense(t, TRIAL_INOUT, 6, s.width);
    TRIAL_RUN(t, gated_add_backward, a);
    s.y = trial_double(t, a.y);
    s.dy = trial_double(t, a.dx);
    s.c = trial_double(t, a.c);
    s.mod = trial_double(t, a.mod);
    trial_gradient(t, "dy", a.dy, false, s.y, gate_loss, &s, 2e-5);
    trial_gradient(t, "dc", a.dc, true, s.c, gate_loss, &s, 2e-5);
    trial_gradient(t, "dmod", a.dmod, true, s.mod, gate_loss, &s, 2e-5);
    others_untouched(t, a.dc, trial_double(t, a.dc), s.width, s.which * 3 + 2, 1);
}

struct rope {
    int heads, kv_heads, head_dim;
    int64_t rows, first, per_sequence;
    double *qkv, *cos, *sin, *gamma, *dq, *dk;
};

static void make_rope(struct trial *t, struct rope *r) {
    r->kv_heads = 1 + (int)trial_below(t, 3);
    r->heads = r->kv_heads * (1 + (int)trial_below(t, 3));
    r->head_dim = t->round == 3 ? 32 : 2 * (int)trial_width(t, trial_size(t, 64));
    r->per_sequence = trial_size(t, 60);
    r->rows = r->per_sequence * (1 + trial_below(t, 4));
    r->first = trial_below(t, 5);
}

// Element i of head h of a row, normalised, rotated and scaled.
static double rope_value(const struct rope *r, int64_t row, int h, int i, double scale) {
    int hd = r->head_dim, half = hd / 2, j = i % half;
    const double *x = r->qkv + row * (r->heads + 2 * r->kv_heads) * hd + h * hd;
    int64_t position = r->first + row % r->per_sequence;
    double c = r->cos[position * half + j], s = r->sin[position * half + j];
    double v = i < half ? x[j] * c - x[half + j] * s : x[j] * s + x[half + j] * c;
    return v * scale * (h < r->heads ? r->gamma[h] / hd : 1);
}

static double rope_rstd(const struct rope *r, int64_t row, int h) {
    const double *x = r->qkv + (row * (r->heads + 2 * r->kv_heads) + h) * r->head_dim;
    double mean = 0;
    for (int i = 0; i < r->head_dim; i++) mean += x[i] * x[i] / r->head_dim;
    return 1 / sqrt(mean + 1e-6);
}

static double rope_loss(void *arg) {
    const struct rope *r = arg;
    double loss = 0;
    for (int64_t row = 0; row < r->rows; row++) {
        for (int h = 0; h < r->heads + r->kv_heads; h++) {
            double scale = rope_rstd(r, row, h);
            const double *d = h < r->heads ? r->dq + (row * r->heads + h) * r->head_dim
                                           : r->dk + (row * r->kv_heads + h - r->heads) * r->head_dim;
            for (int i = 0; i < r->head_dim; i++) loss += d[i] * rope_value(r, row, h, i, scale);
        }
    }
    return loss;
}

void check_qk_rope(struct trial *t) {
    struct rope r = {0};
    make_rope(t, &r);
    int hd = r.head_dim, all = r.heads + r.kv_heads;
    struct op_qk_rope_args a = {.heads = r.heads, .kv_heads = r.kv_heads, .head_dim = hd};
    a.first_position = r.first;
    a.per_sequence = r.per_sequence;
    a.qkv = trial_low(t, TRIAL_IN, r.rows, (all + r.kv_heads) * hd);
    a.q = trial_low(t, TRIAL_OUT, r.rows, r.heads * hd);
    a.k = trial_low(t, TRIAL_OUT, r.rows, r.kv_heads * hd);
    a.rstd = trial_dense(t, TRIAL_OUT, r.rows, all);
    a.cos = trial_dense(t, TRIAL_IN, r.first + r.per_sequence, hd / 2);
    a.sin = trial_dense(t, TRIAL_IN, r.first + r.per_sequence, hd / 2);
    a.gamma = trial_vector(t, TRIAL_IN, r.heads);
    TRIAL_RUN(t, qk_rope, a);
    r.qkv = trial_double(t, a.qkv);
    r.cos = trial_double(t, a.cos);
    r.sin = trial_double(t, a.sin);
    r.gamma = trial_double(t, a.gamma);
    double *q = trial_double(t, a.q), *k = trial_double(t, a.k), *rstd = trial_double(t, a.rstd);
    for (int64_t row = 0; row < r.rows; row++) {
        for (int h = 0; h < all; h++) {
            double scale = rstd[row * all + h] = rope_rstd(&r, row, h);
            double *out =
                h < r.heads ? q + (row * r.heads + h) * hd : k + (row * r.kv_heads + h - r.heads) * hd;
            for (int i = 0; i < hd; i++) out[i] = rope_value(&r, row, h, i, scale);
        }
    }
    trial_compare(t, "q", a.q, q, 4e-6);
    trial_compare(t, "k", a.k, k, 4e-6);
    trial_compare(t, "rstd", a.rstd, rstd, 2e-6);
}

void check_qk_rope_backward(struct trial *t) {
    struct rope r = {0};
    make_rope(t, &r);
    int hd = r.head_dim, all = r.heads + r.kv_heads;
    struct op_qk_rope_backward_args a = {.heads = r.heads, .kv_heads = r.kv_heads, .head_dim = hd};
    a.first_position = r.first;
    a.per_sequence = r.per_sequence;
    a.qkv = trial_low(t, TRIAL_IN, r.rows, (all + r.kv_heads) * hd);
    a.dq = trial_low(t, TRIAL_IN, r.rows, r.heads * hd);
    a.dk = trial_low(t, TRIAL_IN, r.rows, r.kv_heads * hd);
    a.rstd = trial_dense(t, TRIAL_IN, r.rows, all);
    a.cos = trial_dense(t, TRIAL_IN, r.first + r.per_sequence, hd / 2);
    a.sin = trial_dense(t, TRIAL_IN, r.first + r.per_sequence, hd / 2);
    for (int64_t i = 0; i < tensor_elems(&a.cos); i++) { // true rotations
        double angle = trial_normal(t);
        tensor_f32(&a.cos)[i] = (float)cos(angle);
        tensor_f32(&a.sin)[i] = (float)sin(angle);
    }
    a.gamma = trial_vector(t, TRIAL_IN, r.heads);
    a.dqkv = trial_low(t, TRIAL_INOUT, r.rows, (all + r.kv_heads) * hd);
    a.dgamma = trial_vector(t, TRIAL_INOUT, r.heads);
    r.qkv = trial_double(t, a.qkv);
    for (int64_t i = 0; i < r.rows * all; i++)
        tensor_f32(&a.rstd)[i] = (float)rope_rstd(&r, i / all, (int)(i % all));
    trial_refilled(t);
    TRIAL_RUN(t, qk_rope_backward, a);
    r.cos = trial_double(t, a.cos);
    r.sin = trial_double(t, a.sin);
    r.gamma = trial_double(t, a.gamma);
    r.dq = trial_double(t, a.dq);
    r.dk = trial_double(t, a.dk);
    // The v columns belong to attention: put back what the differences of this op alone would say, zero.
    double *before = trial_double(t, a.dqkv);
    for (int64_t row = 0; row < r.rows; row++) {
        for (int64_t i = all * hd; i < (all + r.kv_heads) * hd; i++) {
            int64_t at = row * (all + r.kv_heads) * hd + i;
            if (!(trial_get(a.dqkv, at) == before[at])) trial_fail(t, "changed the v columns");
            trial_put(a.dqkv, at, 0);
        }
    }
    trial_gradient(t, "dqkv", a.dqkv, false, r.qkv, rope_loss, &r, 5e-5);
    trial_gradient(t, "dgamma", a.dgamma, true, r.gamma, rope_loss, &r, 5e-5);
}
