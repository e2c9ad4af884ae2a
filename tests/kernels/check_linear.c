// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <string.h>

#include "trial.h"

static double at(const double *x, int64_t ld, bool transposed, int64_t i, int64_t j) {
    return transposed ? x[j * ld + i] : x[i * ld + j];
}

void check_gemm(struct trial *t) {
    int64_t m = trial_width(t, trial_size(t, 300)), n = trial_width(t, trial_size(t, 300)),
            k = trial_width(t, trial_size(t, 700));
    if (t->round == 1) m = 570, n = 96, k = 288; // a demo's
    struct op_gemm_args a = {
        .trans_a = trial_below(t, 2), .trans_b = trial_below(t, 2), .accumulate = trial_below(t, 2)};
    a.a = trial_low(t, TRIAL_IN, a.trans_a ? k : m, a.trans_a ? m : k);
    a.b = trial_low(t, TRIAL_IN, a.trans_b ? n : k, a.trans_b ? k : n);
    bool low = trial_below(t, 2);
    a.c = (low ? trial_low : trial_rows)(t, a.accumulate ? TRIAL_INOUT : TRIAL_OUT, m, n);
    a.bias = !a.accumulate && a.c.dtype == DTYPE_F32 && trial_below(t, 2) ? trial_vector(t, TRIAL_IN, n)
                                                                          : tensor_none();
    TRIAL_RUN(t, gemm, a);
    double *x = trial_double(t, a.a), *y = trial_double(t, a.b), *c = trial_double(t, a.c);
    double *bias = a.bias.data != NULL ? trial_double(t, a.bias) : NULL;
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = a.accumulate ? c[i * n + j] : bias != NULL ? bias[j] : 0;
            for (int64_t p = 0; p < k; p++) {
                sum += at(x, a.a.shape[1], a.trans_a, i, p) * at(y, a.b.shape[1], a.trans_b, p, j);
            }
            c[i * n + j] = sum;
        }
    }
    trial_compare(t, "c", a.c, c, 2e-5);
}

void check_col_sum(struct trial *t) {
    int64_t rows = trial_size(t, 2000), n = trial_size(t, 200);
    struct op_col_sum_args a = {.accumulate = trial_below(t, 2)};
    a.x = trial_low(t, TRIAL_IN, rows, n);
    a.out = trial_vector(t, a.accumulate ? TRIAL_INOUT : TRIAL_OUT, n);
    TRIAL_RUN(t, col_sum, a);
    double *x = trial_double(t, a.x), *out = trial_double(t, a.out);
    for (int64_t j = 0; j < n; j++) {
        if (!a.accumulate) out[j] = 0;
        for (int64_t i = 0; i < rows; i++) out[j] += x[i * n + j];
    }
    trial_compare(t, "out", a.out, out, 2e-5);
}

static double silu(double x) {
    return x / (1 + exp(-x));
}

void check_silu(struct trial *t) {
    int64_t rows = trial_size(t, 300), n = trial_width(t, trial_size(t, 200));
    struct op_silu_args a = {.x = trial_low(t, TRIAL_IN, rows, n), .y = trial_low(t, TRIAL_OUT, rows, n)};
    double extreme[] = {200, -200, 0, 88.5, -104.5}; // where the exponential overflows or vanishes
    for (int64_t j = 0; j < n && j < 5; j++) trial_put(a.x, j, extreme[j]);
    trial_refilled(t);
    TRIAL_RUN(t, silu, a);
    double *y = trial_double(t, a.x);
    for (int64_t i = 0; i < rows * n; i++) y[i] = silu(y[i]);
    trial_compare(t, "y", a.y, y, 2e-6);
}

struct pointwise_loss {
    const double *x, *dy;
    int64_t rows, cols; // of dy
};

static double silu_loss(void *arg) {
    const struct pointwise_loss *l = arg;
    double sum = 0;
    for (int64_t i = 0; i < l->rows * l->cols; i++) sum += l->dy[i] * silu(l->x[i]);
    return sum;
}

void check_silu_backward(struct trial *t) {
    int64_t rows = trial_size(t, 200), n = trial_width(t, trial_size(t, 100));
    struct op_silu_backward_args a = {.x = trial_low(t, TRIAL_IN, rows, n)};
    a.dy = trial_low(t, TRIAL_IN, rows, n);
    a.dx = trial_low(t, TRIAL_OUT, rows, n);
    if (t->round % 2 == 1) a.dy = a.dx = trial_low(t, TRIAL_INOUT, rows, n);
    TRIAL_RUN(t, silu_backward, a);
    double *x = trial_double(t, a.x);
    struct pointwise_loss l = {x, trial_double(t, a.dy), rows, n};
    trial_gradient(t, "dx", a.dx, false, x, silu_loss, &l, 1e-5);
}

static double swiglu_loss(void *arg) {
    const struct pointwise_loss *l = arg;
    double sum = 0;
    for (int64_t i = 0; i < l->rows; i++) {
        const double *u = l->x + i * 2 * l->cols, *w = u + l->cols;
        for (int64_t j = 0; j < l->cols; j++) sum += l->dy[i * l->cols + j] * silu(u[j]) * w[j];
    }
    return sum;
}

void check_swiglu(struct trial *t) {
    int64_t rows = trial_size(t, 300), h = trial_width(t, trial_size(t, 260));
    struct op_swiglu_args a = {.x = trial_low(t, TRIAL_IN, rows, 2 * h),
                               .y = trial_low(t, TRIAL_OUT, rows, h)};
    TRIAL_RUN(t, swiglu, a);
    double *x = trial_double(t, a.x), *y = trial_double(t, a.y);
    for (int64_t i = 0; i < rows * h; i++)
        y[i] = silu(x[i / h * 2 * h + i % h]) * x[i / h * 2 * h + h + i % h];
    trial_compare(t, "y", a.y, y, 4e-6);
}

void check_swiglu_backward(struct trial *t) {
    int64_t rows = trial_size(t, 200), h = trial_width(t, trial_size(t, 100));
    struct op_swiglu_backward_args a = {.x = trial_low(t, TRIAL_IN, rows, 2 * h)};
    a.dy = trial_low(t, TRIAL_IN, rows, h);
    a.dx = trial_low(t, TRIAL_OUT, rows, 2 * h);
    TRIAL_RUN(t, swiglu_backward, a);
    double *x = trial_double(t, a.x);
    struct pointwise_loss l = {x, trial_double(t, a.dy), rows, h};
    trial_gradient(t, "dx", a.dx, false, x, swiglu_loss, &l, 1e-5);
}

static uint16_t rounded_at_random(const struct op_cast_args *a, double value, uint64_t number) {
    uint32_t bits, words[4];
    float x = (float)value;
    memcpy(&bits, &x, sizeof bits);
    rounding_draw(a->rounding.key, a->step, number / ROUNDING_GROUP, words);
    return rounding_random(bits, words, number);
}

void check_cast(struct trial *t) {
    int64_t rows = trial_size(t, 100), n = trial_width(t, trial_size(t, 100));
    bool low_in = trial_below(t, 2), low_out = trial_below(t, 2);
    enum dtype low = t->low;
    struct op_cast_args a = {0};
    t->low = DTYPE_BF16; // on every device
    a.x = (low_in ? trial_low : trial_rows)(t, TRIAL_IN, rows, n);
    a.y = (low_out ? trial_low : trial_rows)(t, TRIAL_OUT, rows, n);
    t->low = low;
    a.rounding.stochastic = !low_in && low_out && trial_below(t, 2);
    a.rounding.key = rng_key(t->seed, RNG_ROUNDING, (uint32_t)t->round);
    a.step = (uint32_t)trial_below(t, 1 << 30);
    a.first = trial_width(t, trial_below(t, 1 << 30) << trial_below(t, 8));
    double ties[] = {1 + 0x1p-8, 1 + 3 * 0x1p-8, -0.0, 0x1.fffffep127, INFINITY};
    for (int64_t j = 0; j < n && j < 5; j++) trial_put(a.x, j, ties[j]);
    trial_refilled(t);
    TRIAL_RUN(t, cast, a);
    for (int64_t i = 0; i < rows * n; i++) {
        double x = trial_get(a.x, i), got = trial_get(a.y, i);
        struct tensor one = tensor_1d(&(float){0}, 1);
        one.dtype = a.y.dtype;
        if (a.rounding.stochastic)
            *(uint16_t *)one.data = rounded_at_random(&a, x, (uint64_t)(a.first + i));
        else
            trial_put(one, 0, x);
        if (!(got == trial_get(one, 0))) trial_fail(t, "y[%lld] of %a is %a", (long long)i, x, got);
    }
}
