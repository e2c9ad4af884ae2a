// SPDX-License-Identifier: Apache-2.0
// Optimisers, the running average and the global norm.
// AdamW (Loshchilov & Hutter, 1711.05101); Muon (K. Jordan et al., 2024) with the quintic Newton-Schulz
// iteration X <- a X + (b S + c S S) X, S = X X^T, on the orientation with fewer rows than columns.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

enum { OPTIM_BLOCK = 1 << 14, SQUARES_BLOCK = 4096 };

static double power(double base, int64_t n) {
    double result = 1;
    for (; n > 0; n >>= 1, base *= base) {
        if (n & 1) result *= base;
    }
    return result;
}

struct adamw_job {
    const struct op_adamw_args *a;
    float step_size, v_scale; // lr / (1 - beta1^t), 1 / (1 - beta2^t)
};

static void adamw_task(void *arg, int64_t task) {
    const struct adamw_job *j = arg;
    const struct op_adamw_args *a = j->a;
    int64_t n = a->w.shape[0], end = cpu_min(n, (task + 1) * OPTIM_BLOCK);
    float *w = tensor_f32(&a->w), *m = tensor_f32(&a->m), *v = tensor_f32(&a->v);
    const float *g = tensor_f32(&a->g);
    float keep = 1.0f - a->lr * a->weight_decay;
    for (int64_t i = task * OPTIM_BLOCK; i < end; i += VW) {
        int64_t left = end - i;
        vf grad = vf_load_n(g + i, left) * a->grad_scale;
        vf m1 = vf_load_n(m + i, left) * a->beta1 + grad * (1.0f - a->beta1);
        vf v1 = vf_load_n(v + i, left) * a->beta2 + grad * grad * (1.0f - a->beta2);
        vf update = m1 * j->step_size / (vf_sqrt(v1 * j->v_scale) + a->eps);
        vf_store_n(m + i, m1, left);
        vf_store_n(v + i, v1, left);
        vf_store_n(w + i, vf_load_n(w + i, left) * keep - update, left);
    }
}

int CPU_FN(adamw)(struct device *d, const struct op_adamw_args *a, struct err *e) {
    int64_t n = a->w.shape[0];
    CPU_REQUIRE(a->w.rank == 1 && cpu_is_vector(&a->w, n) && cpu_is_vector(&a->g, n) &&
                cpu_is_vector(&a->m, n));
    CPU_REQUIRE(cpu_is_vector(&a->v, n) && a->step >= 1);
    struct adamw_job job = {.a = a};
    job.step_size = (float)((double)a->lr / (1 - power((double)a->beta1, a->step)));
    job.v_scale = (float)(1 / (1 - power((double)a->beta2, a->step)));
    cpu_run(d, cpu_blocks(n, OPTIM_BLOCK), adamw_task, &job);
    return 0;
}

static void ema_task(void *arg, int64_t task) {
    const struct op_ema_args *a = arg;
    int64_t n = tensor_elems(&a->w), end = cpu_min(n, (task + 1) * OPTIM_BLOCK);
    float *average = tensor_f32(&a->average), rest = 1.0f - a->decay;
    const float *w = tensor_f32(&a->w);
    for (int64_t i = task * OPTIM_BLOCK; i < end; i += VW) {
        vf v = vf_load_n(average + i, end - i);
        vf_store_n(average + i, vf_fma(vf_load_n(w + i, end - i) - v, vf_set1(rest), v), end - i);
    }
}

int CPU_FN(ema)(struct device *d, const struct op_ema_args *a, struct err *e) {
    int64_t n = tensor_elems(&a->w);
    CPU_REQUIRE(cpu_is_vector(&a->w, n) && cpu_is_vector(&a->average, n));
    struct op_ema_args job = *a;
    cpu_run(d, cpu_blocks(n, OPTIM_BLOCK), ema_task, &job);
    return 0;
}

struct squares {
    double sum;
    int64_t nonfinite;
};

struct squares_job {
    const float *x;
    int64_t n;
    struct squares *block;
};

SIMD_INLINE vd widen(vf_half x) {
    return __builtin_convertvector(x, vd);
}

static void squares_task(void *arg, int64_t task) {
    const struct squares_job *j = arg;
    int64_t end = cpu_min(j->n, (task + 1) * SQUARES_BLOCK);
    vd low = {0}, high = {0};
    vi bad = {0};
    for (int64_t i = task * SQUARES_BLOCK; i < end; i += VW) {
        vf x = vf_load_n(j->x + i, end - i);
        vf_half half[2];
        memcpy(half, &x, sizeof half);
        vd a = widen(half[0]), b = widen(half[1]);
        low += a * a;
        high += b * b;
        bad -= ((vi)x & 0x7f800000) == 0x7f800000;
    }
    struct squares s = {0, 0};
    low += high;
    for (int i = 0; i < VW / 2; i++) s.sum += low[i];
    for (int i = 0; i < VW; i++) s.nonfinite += bad[i];
    j->block[task] = s;
}

static int sum_squares(struct device *d, const float *x, int64_t n, struct squares *out, struct err *e) {
    struct squares_job job = {x, n, NULL};
    int64_t blocks = cpu_blocks(n, SQUARES_BLOCK);
    *out = (struct squares){0, 0};
    int rc = cpu_scratch(d, (void **)&job.block, (size_t)blocks * sizeof *job.block, e);
    if (rc != 0) return rc;
    cpu_run(d, blocks, squares_task, &job);
    for (int64_t b = 0; b < blocks; b++) {
        out->sum += job.block[b].sum;
        out->nonfinite += job.block[b].nonfinite;
    }
    return 0;
}

int CPU_FN(sum_squares)(struct device *d, const struct op_sum_squares_args *a, struct err *e) {
    int64_t n = tensor_elems(&a->x);
    CPU_REQUIRE(n == 0 || cpu_is_vector(&a->x, n));
    CPU_REQUIRE(a->sum != NULL && a->nonfinite != NULL);
    struct squares s;
    int rc = sum_squares(d, tensor_f32(&a->x), n, &s, e);
    if (rc != 0) return rc;
    *a->sum = s.sum;
    *a->nonfinite = s.nonfinite;
    return 0;
}

// Everything that one matrix's update needs; r <= c.
struct muon {
    const struct op_muon_args *a;
    bool transposed;
    int64_t r, c;
    float *x, *next, *s, *s2; // [r, c], [r, c], [r, r], [r, r]
    float scale;              // of u, then of the update
};

enum { MUON_ROWS = 32 };

// m = momentum m + g; x = g + momentum m, in the orientation with fewer rows.
static void muon_momentum_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    const struct op_muon_args *a = u->a;
    int64_t cols = a->w.shape[1], end = cpu_min(a->w.shape[0], (task + 1) * MUON_ROWS);
    for (int64_t i = task * MUON_ROWS; i < end; i++) {
        const float *g = tensor_f32(&a->g) + i * cols;
        float *m = tensor_f32(&a->m) + i * cols;
        for (int64_t k = 0; k < cols; k++) {
            float now = a->momentum * m[k] + g[k];
            m[k] = now;
            u->x[u->transposed ? k * u->c + i : i * u->c + k] = g[k] + a->momentum * now;
        }
    }
}

static void muon_scale_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    int64_t end = cpu_min(u->r, (task + 1) * MUON_ROWS) * u->c;
    for (int64_t i = task * MUON_ROWS * u->c; i < end; i++) u->x[i] *= u->scale;
}

// s2 = b s + c s2 + a I, so that the next X is one product.
static void muon_polynomial_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    int64_t end = cpu_min(u->r, (task + 1) * MUON_ROWS);
    for (int64_t i = task * MUON_ROWS; i < end; i++) {
        float *s = u->s + i * u->r, *s2 = u->s2 + i * u->r;
        for (int64_t k = 0; k < u->r; k++) s2[k] = -4.7750f * s[k] + 2.0315f * s2[k];
        s2[i] += 3.4445f;
    }
}

static void muon_apply_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    const struct op_muon_args *a = u->a;
    int64_t cols = a->w.shape[1], end = cpu_min(a->w.shape[0], (task + 1) * MUON_ROWS);
    float keep = 1.0f - a->lr * a->weight_decay;
    for (int64_t i = task * MUON_ROWS; i < end; i++) {
        float *w = tensor_f32(&a->w) + i * cols;
        for (int64_t k = 0; k < cols; k++) {
            w[k] = w[k] * keep - u->scale * u->x[u->transposed ? k * u->c + i : i * u->c + k];
        }
    }
}

static int muon_product(struct device *d, const float *x, const float *y, float *out, int64_t m, int64_t n,
                        int64_t k, bool trans_y, struct err *e) {
    struct gemm g = {
        .m = m, .n = n, .k = k, .a = x, .b = y, .c = out, .lda = k, .ldb = trans_y ? k : n, .ldc = n};
    g.trans_b = trans_y;
    return CPU_FN(gemm_run)(d, &g, e);
}

static int muon_iterate(struct device *d, struct muon *u, struct err *e) {
    int rc = muon_product(d, u->x, u->x, u->s, u->r, u->r, u->c, true, e);
    if (rc == 0) rc = muon_product(d, u->s, u->s, u->s2, u->r, u->r, u->r, false, e);
    if (rc != 0) return rc;
    cpu_run(d, cpu_blocks(u->r, MUON_ROWS), muon_polynomial_task, u);
    rc = muon_product(d, u->s2, u->x, u->next, u->r, u->c, u->r, false, e);
    float *swap = u->x;
    u->x = u->next;
    u->next = swap;
    return rc;
}

int CPU_FN(muon)(struct device *d, const struct op_muon_args *a, struct err *e) {
    int64_t rows = a->w.shape[0], cols = a->w.shape[1];
    CPU_REQUIRE(cpu_is_rows(&a->w, rows, cols) && cpu_is_rows(&a->g, rows, cols) &&
                cpu_is_rows(&a->m, rows, cols));
    CPU_REQUIRE(a->w.stride[0] == cols && a->g.stride[0] == cols && a->m.stride[0] == cols);
    CPU_REQUIRE(a->work.data != NULL && tensor_elems(&a->work) >= op_muon_work_elems(rows, cols));
    struct muon u = {.a = a, .transposed = rows > cols};
    u.r = u.transposed ? cols : rows;
    u.c = u.transposed ? rows : cols;
    u.x = tensor_f32(&a->work);
    u.next = u.x + u.r * u.c;
    u.s = u.next + u.r * u.c;
    u.s2 = u.s + u.r * u.r;
    cpu_run(d, cpu_blocks(rows, MUON_ROWS), muon_momentum_task, &u);
    struct squares norm;
    int rc = sum_squares(d, u.x, rows * cols, &norm, e);
    if (rc != 0) return rc;
    u.scale = (float)(1 / (sqrt(norm.sum) + 1e-7));
    cpu_run(d, cpu_blocks(u.r, MUON_ROWS), muon_scale_task, &u);
    for (int i = 0; i < 5; i++) {
        rc = muon_iterate(d, &u, e);
        if (rc != 0) return rc;
    }
    u.scale = a->lr * 0.2f * sqrtf((float)u.c);
    cpu_run(d, cpu_blocks(rows, MUON_ROWS), muon_apply_task, &u);
    return 0;
}
