// SPDX-License-Identifier: Apache-2.0
// silu(x) = x sigma(x), silu'(x) = sigma(x) (1 + x (1 - sigma(x))); swiglu: y = silu(u) w with [u; w] = x.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

enum { ROWS_PER_TASK = 64 };

SIMD_INLINE vf silu_slope(vf x, vf sigma) {
    return sigma * (1.0f + x * (1.0f - sigma));
}

static void silu_task(void *arg, int64_t task) {
    const struct op_silu_args *a = arg;
    int64_t cols = a->x.shape[1], end = cpu_min(a->x.shape[0], (task + 1) * ROWS_PER_TASK);
    for (int64_t r = task * ROWS_PER_TASK; r < end; r++) {
        const float *x = cpu_row(&a->x, r);
        float *y = cpu_row(&a->y, r);
        for (int64_t i = 0; i < cols; i += VW) {
            vf v = vf_load_n(x + i, cols - i);
            vf_store_n(y + i, v * vf_sigmoid(v), cols - i);
        }
    }
}

static void silu_backward_task(void *arg, int64_t task) {
    const struct op_silu_backward_args *a = arg;
    int64_t cols = a->x.shape[1], end = cpu_min(a->x.shape[0], (task + 1) * ROWS_PER_TASK);
    for (int64_t r = task * ROWS_PER_TASK; r < end; r++) {
        const float *x = cpu_row(&a->x, r), *dy = cpu_row(&a->dy, r);
        float *dx = cpu_row(&a->dx, r);
        for (int64_t i = 0; i < cols; i += VW) {
            vf v = vf_load_n(x + i, cols - i);
            vf_store_n(dx + i, vf_load_n(dy + i, cols - i) * silu_slope(v, vf_sigmoid(v)), cols - i);
        }
    }
}

static void swiglu_task(void *arg, int64_t task) {
    const struct op_swiglu_args *a = arg;
    int64_t h = a->y.shape[1], end = cpu_min(a->x.shape[0], (task + 1) * ROWS_PER_TASK);
    for (int64_t r = task * ROWS_PER_TASK; r < end; r++) {
        const float *u = cpu_row(&a->x, r), *w = u + h;
        float *y = cpu_row(&a->y, r);
        for (int64_t i = 0; i < h; i += VW) {
            vf x = vf_load_n(u + i, h - i);
            vf_store_n(y + i, x * vf_sigmoid(x) * vf_load_n(w + i, h - i), h - i);
        }
    }
}

static void swiglu_backward_task(void *arg, int64_t task) {
    const struct op_swiglu_backward_args *a = arg;
    int64_t h = a->dy.shape[1], end = cpu_min(a->x.shape[0], (task + 1) * ROWS_PER_TASK);
    for (int64_t r = task * ROWS_PER_TASK; r < end; r++) {
        const float *u = cpu_row(&a->x, r), *w = u + h, *dy = cpu_row(&a->dy, r);
        float *du = cpu_row(&a->dx, r), *dw = du + h;
        for (int64_t i = 0; i < h; i += VW) {
            vf x = vf_load_n(u + i, h - i), g = vf_load_n(dy + i, h - i), gate = vf_load_n(w + i, h - i);
            vf sigma = vf_sigmoid(x);
            vf_store_n(du + i, g * gate * silu_slope(x, sigma), h - i);
            vf_store_n(dw + i, g * x * sigma, h - i);
        }
    }
}

static bool same_rows(const struct tensor *a, const struct tensor *b) {
    return cpu_is_rows(a, b->shape[0], b->shape[1]) && cpu_is_rows(b, a->shape[0], a->shape[1]);
}

int CPU_FN(silu)(struct device *d, const struct op_silu_args *a, struct err *e) {
    CPU_REQUIRE(same_rows(&a->x, &a->y));
    struct op_silu_args job = *a;
    cpu_run(d, cpu_blocks(a->x.shape[0], ROWS_PER_TASK), silu_task, &job);
    return 0;
}

int CPU_FN(silu_backward)(struct device *d, const struct op_silu_backward_args *a, struct err *e) {
    CPU_REQUIRE(same_rows(&a->x, &a->dy) && same_rows(&a->x, &a->dx));
    struct op_silu_backward_args job = *a;
    cpu_run(d, cpu_blocks(a->x.shape[0], ROWS_PER_TASK), silu_backward_task, &job);
    return 0;
}

int CPU_FN(swiglu)(struct device *d, const struct op_swiglu_args *a, struct err *e) {
    CPU_REQUIRE(cpu_is_rows(&a->y, a->y.shape[0], a->y.shape[1]));
    CPU_REQUIRE(cpu_is_rows(&a->x, a->y.shape[0], 2 * a->y.shape[1]));
    struct op_swiglu_args job = *a;
    cpu_run(d, cpu_blocks(a->x.shape[0], ROWS_PER_TASK), swiglu_task, &job);
    return 0;
}

int CPU_FN(swiglu_backward)(struct device *d, const struct op_swiglu_backward_args *a, struct err *e) {
    CPU_REQUIRE(same_rows(&a->x, &a->dx));
    CPU_REQUIRE(cpu_is_rows(&a->dy, a->x.shape[0], a->x.shape[1] / 2) && a->x.shape[1] % 2 == 0);
    struct op_swiglu_backward_args job = *a;
    cpu_run(d, cpu_blocks(a->x.shape[0], ROWS_PER_TASK), swiglu_backward_task, &job);
    return 0;
}

static float read_number(const struct tensor *t, int64_t row, int64_t col) {
    if (t->dtype == DTYPE_F32) return cpu_row(t, row)[col];
    uint32_t bits = (uint32_t)((const uint16_t *)t->data)[row * t->stride[0] + col] << 16;
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

// `words` NULL: to nearest even.
static void write_number(const struct tensor *t, int64_t row, int64_t col, float x, const uint32_t *words,
                         uint64_t number) {
    uint32_t bits;
    if (t->dtype == DTYPE_F32) {
        cpu_row(t, row)[col] = x;
        return;
    }
    memcpy(&bits, &x, sizeof bits);
    ((uint16_t *)t->data)[row * t->stride[0] + col] =
        words != NULL ? rounding_random(bits, words, number) : rounding_nearest(bits);
}

static void cast_row(const struct op_cast_args *a, int64_t r) {
    uint32_t words[4];
    uint64_t drawn = UINT64_MAX;
    for (int64_t i = 0; i < a->x.shape[1]; i++) {
        uint64_t number = (uint64_t)(a->first + r * a->x.shape[1] + i);
        if (a->rounding.stochastic && number / ROUNDING_GROUP != drawn)
            rounding_draw(a->rounding.key, a->now ? a->now->step - a->step : a->step,
                          drawn = number / ROUNDING_GROUP, words);
        write_number(&a->y, r, i, read_number(&a->x, r, i), a->rounding.stochastic ? words : NULL, number);
    }
}

static void cast_task(void *arg, int64_t task) {
    const struct op_cast_args *a = arg;
    int64_t end = cpu_min(a->x.shape[0], (task + 1) * ROWS_PER_TASK);
    for (int64_t r = task * ROWS_PER_TASK; r < end; r++) cast_row(a, r);
}

static bool any_rows(const struct tensor *t, const struct tensor *like) {
    return t->data != NULL && t->rank == 2 && (t->dtype == DTYPE_F32 || t->dtype == DTYPE_BF16) &&
           t->shape[0] == like->shape[0] && t->shape[1] == like->shape[1] && t->stride[0] >= t->shape[1];
}

int CPU_FN(cast)(struct device *d, const struct op_cast_args *a, struct err *e) {
    CPU_REQUIRE(any_rows(&a->x, &a->y) && any_rows(&a->y, &a->x));
    CPU_REQUIRE(!a->rounding.stochastic || (a->x.dtype == DTYPE_F32 && a->y.dtype == DTYPE_BF16));
    struct op_cast_args job = *a;
    cpu_run(d, cpu_blocks(a->x.shape[0], ROWS_PER_TASK), cast_task, &job);
    return 0;
}
