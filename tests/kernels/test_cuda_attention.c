// SPDX-License-Identifier: Apache-2.0
// The GPU's attention, run by the emulator, against float64: random shapes and masks, strided rows, outputs
// poisoned and guarded, with copies and products done at once or as late as allowed.
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <math.h>

#include <cmocka.h>

#include "base/rng.h"
#include "kernels/ops.h"
#include "mask_make.h"
#include "tests/kernels/emulated.h"

struct random {
    uint64_t state;
};

static int64_t below(struct random *r, int64_t n) {
    r->state = rng_mix64(r->state + 0x9e3779b97f4a7c15u);
    return (int64_t)(r->state >> 11) % n;
}

static double unit(struct random *r) {
    return (double)below(r, 1 << 30) / (1 << 29) - 1;
}

static float from_bf16(uint16_t v) {
    uint32_t u = (uint32_t)v << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static uint16_t to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

enum { GUARD = 64, POISON = 0x7fff };

// Rows of bf16 with gaps between them, and guards at both ends. Everything that no op may write is POISON.
struct rows {
    uint16_t *memory;
    struct tensor t;
    double *value; // inputs, dense
};

static struct rows new_rows(struct random *r, int64_t rows, int64_t columns, double scale) {
    struct rows x = {0};
    int64_t stride = columns + 8 * below(r, 3), all = rows * stride + 2 * GUARD;
    x.memory = aligned_alloc(128, ((size_t)all * 2 + 127) / 128 * 128);
    for (int64_t i = 0; i < all; i++) x.memory[i] = POISON;
    x.t = tensor_rows(x.memory + GUARD, rows, columns, stride);
    x.t.dtype = DTYPE_BF16;
    emulated_lend(x.t.data, rows, (size_t)columns * 2, (size_t)stride * 2, scale != 0);
    if (scale == 0) return x;
    x.value = malloc((size_t)(rows * columns + 1) * sizeof *x.value);
    for (int64_t i = 0; i < rows * columns; i++) {
        uint16_t v = to_bf16((float)(unit(r) * scale));
        x.memory[GUARD + i / columns * stride + i % columns] = v;
        x.value[i] = (double)from_bf16(v);
    }
    return x;
}

static void free_rows(struct rows *x) {
    emulated_take_back(x->t.data, x->t.shape[0], (size_t)x->t.shape[1] * 2, (size_t)x->t.stride[0] * 2);
    free(x->memory);
    free(x->value);
}

static double get(const struct rows *x, int64_t row, int64_t column) {
    return (double)from_bf16(x->memory[GUARD + row * x->t.stride[0] + column]);
}

// Only the rows' own elements were written.
static void check_guards(const struct rows *x) {
    int64_t all = x->t.shape[0] * x->t.stride[0] + 2 * GUARD;
    for (int64_t i = 0; i < all; i++) {
        int64_t at = i - GUARD;
        bool own = at >= 0 && at < x->t.shape[0] * x->t.stride[0] && at % x->t.stride[0] < x->t.shape[1];
        if (!own && x->memory[i] != POISON) fail_msg("element %lld outside was written", (long long)at);
    }
}

struct problem {
    int64_t sequences, queries, keys;
    int heads, kv_heads, head_dim;
    struct mask masks[3];
    const struct mask *list[3];
    bool one_mask;
    unsigned char *visible; // [sequences, queries, keys]
    struct rows q, k, v, o, d_o, dq, dk, dv;
    float *lse;
    double *want_o, *want_lse, *want_dq, *want_dk, *want_dv;
};

static void make_mask(struct random *r, struct problem *p, int kind, int i) {
    struct err e = {0};
    int rc = 0;
    if (kind == 0) p->masks[i] = mask_make_full(p->queries, p->keys);
    if (kind == 1) p->masks[i] = mask_make(p->queries, p->keys, mask_causal_visible, NULL);
    if (kind == 2) {
        struct mask_blocks h = {(uint64_t)below(r, 1 << 30), 1 + below(r, 100), (int)below(r, 9)};
        p->masks[i] = mask_make(p->queries, p->keys, mask_blocks_visible, &h);
    }
    if (kind == 3) {
        int64_t per_frame = 1 + below(r, 60), frames = 1 + p->keys / per_frame;
        if (i > 0) { // the same shape for all
            p->masks[i] = mask_make_full(p->queries, p->keys);
        } else {
            rc = mask_block_causal(&p->masks[i], frames, per_frame, below(r, 4), 1 + below(r, frames), &e);
            p->keys = p->masks[i].keys;
            p->queries = p->masks[i].queries;
        }
    }
    assert_int_equal(rc, 0);
    assert_int_equal(mask_check(&p->masks[i], &e), 0);
    p->list[i] = &p->masks[i];
}

static void mark_visible(struct problem *p, int64_t b) {
    const struct mask *m = &p->masks[p->one_mask ? 0 : b];
    for (int32_t r = 0; r < m->n_runs; r++) {
        for (int64_t q = m->runs[r].q_lo; q < m->runs[r].q_hi; q++) {
            for (int32_t v = 0; v < m->runs[r].count; v++) {
                struct mask_interval w = m->intervals[m->runs[r].first + v];
                memset(p->visible + (b * p->queries + q) * p->keys + w.lo, 1, (size_t)(w.hi - w.lo));
            }
        }
    }
}

// Random inputs, poisoned outputs.
static void fill_problem(struct random *r, struct problem *p) {
    p->visible = calloc((size_t)(p->sequences * p->queries * p->keys) + 1, 1);
    for (int64_t b = 0; b < p->sequences; b++) mark_visible(p, b);
    int64_t q_rows = p->sequences * p->queries, k_rows = p->sequences * p->keys;
    int64_t q_columns = p->heads * p->head_dim, k_columns = p->kv_heads * p->head_dim;
    p->q = new_rows(r, q_rows, q_columns, 4 / sqrt(p->head_dim));
    p->k = new_rows(r, k_rows, k_columns, 2);
    p->v = new_rows(r, k_rows, k_columns, 1);
    p->d_o = new_rows(r, q_rows, q_columns, 1);
    p->o = new_rows(r, q_rows, q_columns, 0);
    p->dq = new_rows(r, q_rows, q_columns, 0);
    p->dk = new_rows(r, k_rows, k_columns, 0);
    p->dv = new_rows(r, k_rows, k_columns, 0);
    p->lse = malloc((size_t)(q_rows * p->heads) * sizeof *p->lse);
    for (int64_t i = 0; i < q_rows * p->heads; i++) p->lse[i] = NAN;
    emulated_lend(p->lse, 1, (size_t)(q_rows * p->heads) * sizeof *p->lse, 0, false);
    p->want_o = calloc((size_t)(q_rows * q_columns), sizeof(double));
    p->want_lse = calloc((size_t)(q_rows * p->heads), sizeof(double));
    p->want_dq = calloc((size_t)(q_rows * q_columns), sizeof(double));
    p->want_dk = calloc((size_t)(k_rows * k_columns), sizeof(double));
    p->want_dv = calloc((size_t)(k_rows * k_columns), sizeof(double));
}

static void make_problem(struct random *r, struct problem *p, int head_dim, int kind) {
    *p = (struct problem){.sequences = 1 + below(r, 2), .head_dim = head_dim, .one_mask = below(r, 2)};
    p->kv_heads = 1 + (int)below(r, 2);
    p->heads = p->kv_heads * (1 + (int)below(r, 2));
    p->queries = 1 + below(r, 300);
    p->keys = 1 + below(r, 300);
    for (int i = 0; i < p->sequences; i++) make_mask(r, p, kind, i);
    fill_problem(r, p);
}

static void free_problem(struct problem *p) {
    struct rows *all[] = {&p->q, &p->k, &p->v, &p->o, &p->d_o, &p->dq, &p->dk, &p->dv};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free_rows(all[i]);
    for (int i = 0; i < p->sequences; i++) mask_fini(&p->masks[i]);
    double *wants[] = {p->want_o, p->want_lse, p->want_dq, p->want_dk, p->want_dv};
    for (size_t i = 0; i < sizeof wants / sizeof *wants; i++) free(wants[i]);
    free(p->visible);
    emulated_take_back(p->lse, 1, (size_t)(p->sequences * p->queries * p->heads) * sizeof *p->lse, 0);
    free(p->lse);
}

static double dot(const double *a, const double *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += a[i] * b[i];
    return sum;
}

// One query of one head, forward and backward.
static void reference_row(struct problem *p, int64_t b, int64_t i, int h, double *w) {
    int d = p->head_dim, hk = h / (p->heads / p->kv_heads);
    int64_t row = b * p->queries + i, at = (row * p->heads + h) * d;
    const unsigned char *seen = p->visible + row * p->keys;
    const double *q = p->q.value + at, *g = p->d_o.value + at;
    double top = -INFINITY, sum = 0, delta = 0;
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t kv = ((b * p->keys + j) * p->kv_heads + hk) * d;
        w[j] = seen[j] ? dot(q, p->k.value + kv, d) : -INFINITY;
        top = fmax(top, w[j]);
    }
    for (int64_t j = 0; j < p->keys; j++) sum += seen[j] ? exp(w[j] - top) : 0;
    p->want_lse[row * p->heads + h] = sum > 0 ? top + log(sum) : -INFINITY;
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t kv = ((b * p->keys + j) * p->kv_heads + hk) * d;
        w[j] = seen[j] ? exp(w[j] - top) / sum : 0;
        for (int c = 0; c < d && seen[j]; c++) p->want_o[at + c] += w[j] * p->v.value[kv + c];
    }
    delta = dot(p->want_o + at, g, d);
    for (int64_t j = 0; j < p->keys; j++) {
        int64_t kv = ((b * p->keys + j) * p->kv_heads + hk) * d;
        if (!seen[j]) continue;
        double ds = w[j] * (dot(g, p->v.value + kv, d) - delta);
        for (int c = 0; c < d; c++) {
            p->want_dv[kv + c] += w[j] * g[c];
            p->want_dk[kv + c] += ds * q[c];
            p->want_dq[at + c] += ds * p->k.value[kv + c];
        }
    }
}

static void reference(struct problem *p) {
    double *w = malloc((size_t)p->keys * sizeof *w);
    for (int64_t row = 0; row < p->sequences * p->queries; row++) {
        for (int h = 0; h < p->heads; h++) reference_row(p, row / p->queries, row % p->queries, h, w);
    }
    free(w);
}

// |got - want| over the whole tensor, and the largest single error, against what bf16 allows.
static void compare(const char *name, const struct rows *x, const double *want, double tolerance) {
    int64_t n = x->t.shape[0] * x->t.shape[1], columns = x->t.shape[1];
    double error = 0, norm = 0, largest = 0;
    for (int64_t i = 0; i < n; i++) {
        double got = get(x, i / columns, i % columns), by = fabs(got - want[i]);
        if (!(by <= 1e30))
            fail_msg("%s[%lld, %lld] is %g", name, (long long)(i / columns), (long long)(i % columns), got);
        error += by * by;
        norm += want[i] * want[i];
        largest = fmax(largest, by);
    }
    double mean = sqrt(norm / (double)n);
    if (!(sqrt(error) <= tolerance * sqrt(norm) + 1e-6) || !(largest <= 12 * tolerance * (mean + 0.05)))
        fail_msg("%s: relative error %g, largest %g of mean %g", name, sqrt(error / norm), largest, mean);
    check_guards(x);
}

static void run_forward(struct device *d, struct problem *p) {
    struct err e = {0};
    struct op_attention_args a = {
        .q = p->q.t, .k = p->k.t, .v = p->v.t, .o = p->o.t, .sequences = p->sequences};
    a.heads = p->heads, a.kv_heads = p->kv_heads, a.head_dim = p->head_dim;
    a.lse = tensor_2d(p->lse, p->sequences * p->queries, p->heads);
    a.mask = p->one_mask ? p->list[0] : NULL;
    a.masks = p->one_mask ? NULL : p->list;
    if (emulated_attention(d, &a, &e) != 0) fail_msg("%s", e.text);
}

static void run_backward(struct device *d, struct problem *p) {
    struct err e = {0};
    struct op_attention_backward_args a = {
        .q = p->q.t, .k = p->k.t, .v = p->v.t, .o = p->o.t, .d_o = p->d_o.t};
    a.dq = p->dq.t, a.dk = p->dk.t, a.dv = p->dv.t, a.sequences = p->sequences;
    a.heads = p->heads, a.kv_heads = p->kv_heads, a.head_dim = p->head_dim;
    a.lse = tensor_2d(p->lse, p->sequences * p->queries, p->heads);
    a.mask = p->one_mask ? p->list[0] : NULL;
    a.masks = p->one_mask ? NULL : p->list;
    if (emulated_attention_backward(d, &a, &e) != 0) fail_msg("%s", e.text);
}

static void check_lse(const struct problem *p) {
    for (int64_t i = 0; i < p->sequences * p->queries * p->heads; i++) {
        double got = (double)p->lse[i], want = p->want_lse[i];
        if (!(got == want) && !(fabs(got - want) <= 1e-4 * (1 + fabs(want))))
            fail_msg("lse[%lld] is %g, not %g", (long long)i, got, want);
    }
}

static void check_problem(struct device *d, struct problem *p) {
    reference(p);
    run_forward(d, p);
    check_lse(p);
    compare("o", &p->o, p->want_o, 0.01);
    run_backward(d, p);
    compare("dv", &p->dv, p->want_dv, 0.012);
    compare("dk", &p->dk, p->want_dk, 0.02);
    compare("dq", &p->dq, p->want_dq, 0.02);
}

static void one_problem(int compute, int head_dim, int kind, uint64_t seed) {
    struct random r = {seed};
    struct problem p;
    struct device *d = emulated_open(compute, (unsigned)(seed % 4 == 0 ? 0 : seed), seed & 1, seed & 2);
    make_problem(&r, &p, head_dim, kind);
    print_message("sm_%d D %d mask %d seed %llu: %lld x (%lld x %lld), %d heads on %d\n", compute, head_dim,
                  kind, (unsigned long long)seed, (long long)p.sequences, (long long)p.queries,
                  (long long)p.keys, p.heads, p.kv_heads);
    check_problem(d, &p);
    free_problem(&p);
    emulated_close(d);
}

static void trials(int compute, int head_dim) {
    const char *rounds = getenv("ORRERY_EMULATED_ROUNDS");
    uint64_t n = rounds != NULL ? strtoull(rounds, NULL, 10) : 1;
    for (uint64_t i = 0; i < 4 * n; i++)
        one_problem(compute, head_dim, (int)(i % 4), i + 4 * (uint64_t)head_dim);
}

static void sm80_dim32(void **state) {
    trials(80, 32);
}
static void sm80_dim64(void **state) {
    trials(80, 64);
}
static void sm80_dim128(void **state) {
    trials(80, 128);
}

static void sm90_dim64(void **state) {
    trials(90, 64);
}
static void sm90_dim128(void **state) {
    trials(90, 128);
}

static void one_random_mask(struct problem *p, struct mask_blocks h) {
    p->one_mask = true;
    p->masks[0] = mask_make(p->queries, p->keys, mask_blocks_visible, &h);
    for (int i = 0; i < p->sequences; i++) p->list[i] = &p->masks[0];
}

// Few queries against many keys: the keys are shared among blocks.
static void long_cache(void **state) {
    struct random r = {7};
    struct problem p = {
        .sequences = 1, .heads = 2, .kv_heads = 1, .head_dim = 64, .queries = 5, .keys = 2500};
    struct device *d = emulated_open(80, 0, false, false);
    one_random_mask(&p, (struct mask_blocks){5, 300, 5});
    fill_problem(&r, &p);
    reference(&p);
    run_forward(d, &p);
    check_lse(&p);
    compare("o", &p.o, p.want_o, 0.01);
    free_problem(&p);
    emulated_close(d);
}

// More key tiles than a wave of the backward's queue holds: shares of dq come in the order of two waves.
static void two_waves(void **state) {
    struct random r = {11};
    struct problem p = {
        .sequences = 2, .heads = 4, .kv_heads = 4, .head_dim = 64, .queries = 100, .keys = 2304};
    struct device *d = emulated_open(90, 5, true, true);
    one_random_mask(&p, (struct mask_blocks){3, 70, 5});
    fill_problem(&r, &p);
    check_problem(d, &p);
    free_problem(&p);
    emulated_close(d);
}

static int beside_holes(void *arg, int64_t q, int64_t k) {
    return (q < 128 || q >= 256) && k >= 256 && k < 1000;
}

// Tiles of queries that see nothing and of keys that nobody sees, between walks of many steps. In free order
// the shares of dq come as they like.
static void holes(void **state) {
    for (int i = 0; i < 4; i++) {
        struct random r = {13 + (uint64_t)i};
        struct problem p = {.sequences = 1, .heads = 2, .kv_heads = 1, .queries = 420, .keys = 1100};
        struct device *d = emulated_open(90, (unsigned)i, i & 1, i & 1);
        p.head_dim = i < 2 ? 64 : 128;
        p.one_mask = true;
        p.list[0] = &p.masks[0];
        p.masks[0] = mask_make(p.queries, p.keys, beside_holes, NULL);
        fill_problem(&r, &p);
        emulated_free_order(d, i % 2 == 0);
        check_problem(d, &p);
        free_problem(&p);
        emulated_close(d);
    }
}

// dq, dk and dv of the problem with blocks in the order of this seed.
static void gradients(struct problem *p, unsigned seed, bool free_order, uint16_t *out) {
    struct rows *all[] = {&p->dq, &p->dk, &p->dv};
    struct device *d = emulated_open(90, seed, seed & 1, seed & 2);
    emulated_free_order(d, free_order);
    run_forward(d, p);
    run_backward(d, p);
    for (int i = 0; i < 3; i++) {
        for (int64_t row = 0; row < all[i]->t.shape[0]; row++, out += all[i]->t.shape[1])
            memcpy(out, all[i]->memory + GUARD + row * all[i]->t.stride[0], (size_t)all[i]->t.shape[1] * 2);
    }
    emulated_close(d);
}

static int all_visible(void *arg, int64_t q, int64_t k) {
    return 1;
}

// Blocks side by side at different paces wait for each other's flags: nobody for ever, and dq has the bits of
// one block after another. In free order it has not: the paces do differ.
static void any_pace_the_same_bits(void **state) {
    static int (*const masks[])(void *, int64_t, int64_t) = {all_visible, mask_causal_visible, beside_holes};
    int differ = 0;
    for (int i = 0; i < 3; i++) {
        struct random r = {17 + (uint64_t)i};
        struct problem p = {.sequences = 1, .heads = 2, .kv_heads = 1, .queries = 300, .keys = 700};
        p.head_dim = 64;
        p.one_mask = true;
        p.list[0] = &p.masks[0];
        p.masks[0] = mask_make(p.queries, p.keys, masks[i], NULL);
        fill_problem(&r, &p);
        size_t bytes = (size_t)((p.queries * p.heads + 2 * p.keys * p.kv_heads) * p.head_dim) * 2;
        uint16_t *want = malloc(bytes), *got = malloc(bytes);
        gradients(&p, 0, false, want);
        for (unsigned seed = 1; seed <= 4; seed++) {
            gradients(&p, seed, false, got);
            if (memcmp(got, want, bytes) != 0) fail_msg("mask %d, seed %u: other bits", i, seed);
            gradients(&p, seed, true, got);
            differ += memcmp(got, want, bytes) != 0;
        }
        free(want);
        free(got);
        free_problem(&p);
    }
    assert_true(differ > 0);
    print_message("free order: %d of 12 have other bits\n", differ);
}

static int not_the_second_pair(void *arg, int64_t q, int64_t k) {
    return q < 256 || q >= 512;
}

// o and lse of the problem, from poison, with blocks in the order of this seed.
static void outputs(struct problem *p, unsigned seed, bool pairs, uint16_t *o, float *lse) {
    int64_t rows = p->sequences * p->queries, columns = p->o.t.shape[1];
    struct device *d = emulated_open(90, seed, seed & 1, seed & 2);
    emulated_pairs(d, pairs);
    for (int64_t i = 0; i < rows * p->heads; i++) p->lse[i] = NAN;
    for (int64_t i = 0; i < rows; i++)
        memset(p->o.memory + GUARD + i * p->o.t.stride[0], 0xff, (size_t)columns * 2);
    run_forward(d, p);
    check_guards(&p->o);
    memcpy(lse, p->lse, (size_t)(rows * p->heads) * sizeof *lse);
    for (int64_t i = 0; i < rows; i++)
        memcpy(o + i * columns, p->o.memory + GUARD + i * p->o.t.stride[0], (size_t)columns * 2);
    emulated_close(d);
}

// Pairs of blocks, by tiles or by heads, that fetch keys and values for each other, at different paces; the
// last pair of tiles has one. The last problem has many items for each pair, of one step or with nothing to
// see.
static void pairs_have_the_same_bits(void **state) {
    static int (*const masks[])(void *, int64_t, int64_t) = {all_visible, mask_causal_visible, beside_holes,
                                                             not_the_second_pair};
    for (int i = 0; i < 7; i++) {
        bool many = i == 6;
        struct random r = {29 + (uint64_t)i};
        struct problem p = {.sequences = 1 + i % 2, .heads = many ? 4 : 2, .kv_heads = many ? 4 : 1 + i % 2};
        p.queries = many ? 530 : 300, p.keys = many ? 60 : 500, p.head_dim = i < 3 ? 64 : 128,
        p.one_mask = true;
        p.masks[0] = mask_make(p.queries, p.keys, masks[many ? 3 : i % 3], NULL);
        for (int b = 0; b < p.sequences; b++) p.list[b] = &p.masks[0];
        fill_problem(&r, &p);
        int64_t rows = p.sequences * p.queries;
        size_t bytes = (size_t)(rows * p.heads * p.head_dim) * 2, sums = (size_t)(rows * p.heads) * 4;
        uint16_t *want = malloc(bytes), *got = malloc(bytes);
        float *want_lse = malloc(sums), *got_lse = malloc(sums);
        outputs(&p, 0, false, want, want_lse);
        for (unsigned seed = 0; seed < 3; seed++) {
            outputs(&p, seed, true, got, got_lse);
            if (memcmp(got, want, bytes) != 0 || memcmp(got_lse, want_lse, sums) != 0)
                fail_msg("mask %d, head_dim %d, seed %u: other bits", i % 3, p.head_dim, seed);
        }
        free(want);
        free(got);
        free(want_lse);
        free(got_lse);
        free_problem(&p);
    }
}

static void what_is_not_supported_is_named(void **state) {
    struct err e = {0};
    struct device *d = emulated_open(80, 0, false, false);
    struct op_attention_args a = {.sequences = 1, .heads = 1, .kv_heads = 1, .head_dim = 48};
    assert_int_equal(emulated_attention(d, &a, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "32, 64, 128"));
    emulated_close(d);
}

// A pattern of names: those tests only.
static const void *schedule_of(struct device *d, int64_t number, bool recording) {
    struct mask m = mask_make_full(1 + number, 8);
    struct err e = {0};
    const void *at = NULL;
    assert_int_equal(emulated_schedule(d, &m, recording, &at, &e), 0);
    mask_fini(&m);
    return at;
}

// What graphs read stays where it is while others come and go; where all that is kept is read by graphs, they
// are told.
static void recorded_schedules_stay(void **state) {
    enum { KEPT = 96 };
    struct device *d = emulated_open(80, 0, false, false);
    const void *recorded = schedule_of(d, 0, true), *plain = schedule_of(d, 1, false);
    assert_ptr_equal(schedule_of(d, 1, false), plain);
    for (int i = 1; i < 3 * KEPT; i++) (void)schedule_of(d, i, false);
    assert_ptr_equal(schedule_of(d, 0, false), recorded);
    const void *late = schedule_of(d, 3 * KEPT, true); // met for the first time while recording
    for (int i = 1; i < 3 * KEPT; i++) (void)schedule_of(d, i, false);
    assert_ptr_equal(schedule_of(d, 3 * KEPT, false), late);
    assert_int_equal(d->generation, 0);
    emulated_close(d);
    d = emulated_open(80, 0, false, false);
    for (int i = 0; i < KEPT; i++) (void)schedule_of(d, i, true);
    assert_int_equal(d->generation, 0);
    (void)schedule_of(d, KEPT, false);
    assert_int_equal(d->generation, 1);
    emulated_close(d);
    // An op asks for two in a row: the second does not take the first one's place, whatever else is recorded.
    d = emulated_open(80, 0, false, false);
    for (int i = 0; i < KEPT - 1; i++) (void)schedule_of(d, i, true);
    (void)schedule_of(d, KEPT, false);
    const void *first = schedule_of(d, KEPT + 1, false), *second = schedule_of(d, KEPT + 2, false);
    assert_ptr_not_equal(first, second);
    assert_int_equal(d->generation, 1);
    emulated_close(d);
}

int main(int argc, char **argv) {
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sm80_dim32),
        cmocka_unit_test(sm80_dim64),
        cmocka_unit_test(sm80_dim128),
        cmocka_unit_test(sm90_dim64),
        cmocka_unit_test(sm90_dim128),
        cmocka_unit_test(long_cache),
        cmocka_unit_test(two_waves),
        cmocka_unit_test(holes),
        cmocka_unit_test(any_pace_the_same_bits),
        cmocka_unit_test(pairs_have_the_same_bits),
        cmocka_unit_test(recorded_schedules_stay),
        cmocka_unit_test(what_is_not_supported_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
