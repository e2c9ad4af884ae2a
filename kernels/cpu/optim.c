// SPDX-License-Identifier: Apache-2.0
// Optimisers, the running average and the global norm.
// AdamW (Loshchilov & Hutter, 1711.05101); Muon (K. Jordan et al., 2024) with the quintic Newton-Schulz
// iteration X <- a X + (b S + c S S) X, S = X X^T, on the orientation with fewer rows than columns.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

enum { OPTIM_BLOCK = 1 << 14, SQUARES_BLOCK = 4096 };

// What a tensor's numbers go on to after the update: the average, and the copy in bf16.
struct follow {
    float *average; // or NULL
    uint16_t *low;  // or NULL
    struct op_rounding rounding;
    uint32_t step;
    uint64_t first; // number of element 0
    float rest;
};

static struct follow follow_of(const struct tensor *average, const struct tensor *low,
                               const struct op_rounding *rounding, const struct op_update *now,
                               int64_t first) {
    return (struct follow){tensor_f32(average), low->data, *rounding, now->step, (uint64_t)first, now->rest};
}

static void lower(const struct follow *f, const float *w, int64_t lo, int64_t hi) {
    uint32_t bits, words[4] = {0};
    uint64_t drawn = UINT64_MAX;
    for (int64_t i = lo; i < hi; i++) {
        uint64_t number = f->first + (uint64_t)i;
        memcpy(&bits, w + i, sizeof bits);
        if (f->rounding.stochastic && number / ROUNDING_GROUP != drawn)
            rounding_draw(f->rounding.key, f->step, drawn = number / ROUNDING_GROUP, words);
        f->low[i] = f->rounding.stochastic ? rounding_random(bits, words, number) : rounding_nearest(bits);
    }
}

// Elements i .. of w = `now`; at most `left`.
SIMD_INLINE void put_weights(const struct follow *f, float *w, int64_t i, int64_t left, vf now) {
    vf_store_n(w + i, now, left);
    if (f->average == NULL) return;
    vf v = vf_load_n(f->average + i, left);
    vf_store_n(f->average + i, vf_fma(now - v, vf_set1(f->rest), v), left);
}

static void adamw_range(const struct op_adamw_args *a, const struct op_adamw_part *p, int64_t lo,
                        int64_t hi) {
    const struct op_update *now = a->now;
    float *w = tensor_f32(&a->w), *m = tensor_f32(&a->m), *v = tensor_f32(&a->v) + p->v - p->at;
    const float *g = tensor_f32(&a->g);
    struct follow f = follow_of(&a->average, &a->low, &a->rounding, now, a->first);
    float keep = 1.0f - now->rate * p->weight_decay;
    for (int64_t i = lo; i < hi && !now->skip; i += VW) {
        int64_t left = hi - i;
        vf grad = vf_load_n(g + i, left) * now->grad_scale;
        vf m1 = vf_load_n(m + i, left) * a->beta1 + grad * (1.0f - a->beta1);
        vf v1 = vf_load_n(v + i, left) * a->beta2 + grad * grad * (1.0f - a->beta2);
        vf update = m1 * now->step_size / (vf_sqrt(v1 * now->v_scale) + a->eps);
        vf_store_n(m + i, m1, left);
        vf_store_n(v + i, v1, left);
        put_weights(&f, w, i, left, vf_load_n(w + i, left) * keep - update);
    }
    if (f.low != NULL) lower(&f, w, lo, hi);
}

// A task is a block of one tensor; they are numbered through all tensors.
static void adamw_task(void *arg, int64_t task) {
    const struct op_adamw_args *a = arg;
    const struct op_adamw_part *p = a->part;
    for (; task >= cpu_blocks(p->n, OPTIM_BLOCK); p++) task -= cpu_blocks(p->n, OPTIM_BLOCK);
    int64_t lo = task * OPTIM_BLOCK;
    adamw_range(a, p, p->at + lo, p->at + cpu_min(p->n, lo + OPTIM_BLOCK));
}

// What follows the weights is there or not, and as long as they are.
static bool can_follow(const struct tensor *average, const struct tensor *low, int64_t n) {
    return (average->data == NULL || cpu_is_vector(average, n)) &&
           (low->data == NULL || (low->dtype == DTYPE_BF16 && tensor_elems(low) == n));
}

int CPU_FN(adamw)(struct device *d, const struct op_adamw_args *a, struct err *e) {
    int64_t n = a->w.shape[0], room = tensor_elems(&a->v), blocks = 0;
    CPU_REQUIRE(a->w.rank == 1 && cpu_is_vector(&a->w, n) && cpu_is_vector(&a->g, n) &&
                cpu_is_vector(&a->m, n));
    CPU_REQUIRE(cpu_is_vector(&a->v, room) && can_follow(&a->average, &a->low, n));
    CPU_REQUIRE(a->now != NULL && a->now->step >= 1 && a->first % ROUNDING_GROUP == 0);
    for (int i = 0; i < a->parts; i++) {
        const struct op_adamw_part *p = &a->part[i];
        CPU_REQUIRE(p->at >= 0 && p->v >= 0 && p->n >= 0 && p->at + p->n <= n && p->v + p->n <= room);
        CPU_REQUIRE(p->at % ROUNDING_GROUP == 0 && p->v % ROUNDING_GROUP == 0);
        blocks += cpu_blocks(p->n, OPTIM_BLOCK);
    }
    struct op_adamw_args job = *a;
    cpu_run(d, blocks, adamw_task, &job);
    return 0;
}

static void ema_task(void *arg, int64_t task) {
    const struct op_ema_args *a = arg;
    int64_t n = tensor_elems(&a->w), end = cpu_min(n, (task + 1) * OPTIM_BLOCK);
    float *average = tensor_f32(&a->average), rest = a->now != NULL ? a->now->rest : 1;
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
    if (a->now != NULL && a->now->skip) return 0;
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
    int rc = 0;
    for (int i = 0; rc == 0 && i < a->parts; i++) {
        const struct op_squares_part *p = &a->part[i];
        struct squares s = {0, 0};
        CPU_REQUIRE(p->at >= 0 && p->n >= 0 && p->at + p->n <= n);
        rc = sum_squares(d, tensor_f32(&a->x) + p->at, p->n, &s, e);
        a->sum[i] = s.sum;
        a->nonfinite[i] = s.nonfinite;
    }
    return rc;
}

// Everything that one matrix's update needs; side = min(rows, cols). The Gram matrix S [side, side] is X X^T
// for a wide X and X^T X for a tall one, where the polynomial in S multiplies from the right: no
// transposition.
struct muon {
    const struct op_muon_args *a;
    int64_t at, rows, cols, side;
    float *x, *next, *s, *s2; // [rows, cols] twice, [side, side] twice
    float scale;              // of X, then of the update
};

// m = momentum m + g; x = g + momentum m.
static void muon_momentum_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    const float momentum = u->a->momentum, *g = tensor_f32(&u->a->g) + u->at;
    float *m = tensor_f32(&u->a->m) + u->at;
    int64_t end = cpu_min(u->rows * u->cols, (task + 1) * OPTIM_BLOCK);
    for (int64_t i = task * OPTIM_BLOCK; i < end; i += VW) {
        vf grad = vf_load_n(g + i, end - i);
        vf now = vf_fma(vf_load_n(m + i, end - i), vf_set1(momentum), grad);
        vf_store_n(m + i, now, end - i);
        vf_store_n(u->x + i, vf_fma(now, vf_set1(momentum), grad), end - i);
    }
}

static void muon_scale_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    int64_t end = cpu_min(u->rows * u->cols, (task + 1) * OPTIM_BLOCK);
    for (int64_t i = task * OPTIM_BLOCK; i < end; i += VW) {
        vf_store_n(u->x + i, vf_load_n(u->x + i, end - i) * u->scale, end - i);
    }
}

// s2 = b s + c s2 + a I, so that the next X is one product.
static void muon_polynomial_task(void *arg, int64_t row) {
    const struct muon *u = arg;
    float *s = u->s + row * u->side, *s2 = u->s2 + row * u->side;
    for (int64_t i = 0; i < u->side; i += VW) {
        vf linear = vf_load_n(s + i, u->side - i) * -4.7750f;
        vf_store_n(s2 + i, vf_fma(vf_load_n(s2 + i, u->side - i), vf_set1(2.0315f), linear), u->side - i);
    }
    s2[row] += 3.4445f;
}

static void muon_apply_task(void *arg, int64_t task) {
    const struct muon *u = arg;
    const struct op_update *now = u->a->now;
    float *w = tensor_f32(&u->a->w), keep = 1.0f - now->rate * u->a->weight_decay;
    struct follow f = follow_of(&u->a->average, &u->a->low, &u->a->rounding, now, u->a->first);
    int64_t lo = u->at + task * OPTIM_BLOCK, end = cpu_min(u->at + u->rows * u->cols, lo + OPTIM_BLOCK);
    for (int64_t i = lo; i < end && !now->skip; i += VW) {
        vf step = vf_load_n(u->x + (i - u->at), end - i) * u->scale;
        put_weights(&f, w, i, end - i, vf_load_n(w + i, end - i) * keep - step);
    }
    if (f.low != NULL) lower(&f, w, lo, end);
}

static int muon_gram(struct device *d, const struct muon *u, struct err *e) {
    bool tall = u->rows > u->cols;
    struct gemm g = {
        .m = u->side, .n = u->side, .k = tall ? u->rows : u->cols, .a = u->x, .b = u->x, .c = u->s};
    g.lda = g.ldb = u->cols;
    g.ldc = u->side;
    g.trans_a = tall;
    g.trans_b = !tall;
    int rc = CPU_FN(gemm_run)(d, &g, e);
    if (rc != 0) return rc;
    struct gemm h = {.m = u->side, .n = u->side, .k = u->side, .a = u->s, .b = u->s, .c = u->s2};
    h.lda = h.ldb = h.ldc = u->side;
    return CPU_FN(gemm_run)(d, &h, e);
}

static int muon_iterate(struct device *d, struct muon *u, struct err *e) {
    int rc = muon_gram(d, u, e);
    if (rc != 0) return rc;
    cpu_run(d, u->side, muon_polynomial_task, u);
    bool tall = u->rows > u->cols;
    struct gemm g = {.m = u->rows, .n = u->cols, .k = u->side, .c = u->next, .ldc = u->cols};
    g.a = tall ? u->x : u->s2;
    g.b = tall ? u->s2 : u->x;
    g.lda = tall ? u->cols : u->side;
    g.ldb = tall ? u->side : u->cols;
    rc = CPU_FN(gemm_run)(d, &g, e);
    float *swap = u->x;
    u->x = u->next;
    u->next = swap;
    return rc;
}

// x = the orthogonalised momentum.
static int muon_direction(struct device *d, struct muon *u, struct err *e) {
    int64_t n = u->rows * u->cols, blocks = cpu_blocks(n, OPTIM_BLOCK);
    struct squares norm;
    cpu_run(d, blocks, muon_momentum_task, u);
    int rc = sum_squares(d, u->x, n, &norm, e);
    if (rc != 0) return rc;
    u->scale = (float)(1 / (sqrt(norm.sum) + 1e-7));
    cpu_run(d, blocks, muon_scale_task, u);
    for (int i = 0; rc == 0 && i < 5; i++) rc = muon_iterate(d, u, e);
    return rc;
}

static int muon_matrix(struct device *d, const struct op_muon_args *a, int64_t at, struct err *e) {
    int64_t rows = a->rows, cols = a->cols, n = rows * cols;
    struct muon u = {
        .a = a, .at = at, .rows = rows, .cols = cols, .side = cpu_min(rows, cols), .x = tensor_f32(&a->work)};
    u.next = u.x + n;
    u.s = u.next + n;
    u.s2 = u.s + u.side * u.side;
    int rc = a->now->skip ? 0 : muon_direction(d, &u, e);
    if (rc != 0) return rc;
    u.scale = a->now->rate * 0.2f * sqrtf((float)(rows > cols ? rows : cols));
    cpu_run(d, cpu_blocks(n, OPTIM_BLOCK), muon_apply_task, &u);
    return 0;
}

// Matrix after matrix: the products of one keep all threads busy, and its work stays in their caches.
int CPU_FN(muon)(struct device *d, const struct op_muon_args *a, struct err *e) {
    int64_t n = a->w.shape[0];
    CPU_REQUIRE(a->w.rank == 1 && cpu_is_vector(&a->w, n) && cpu_is_vector(&a->g, n) &&
                cpu_is_vector(&a->m, n));
    CPU_REQUIRE(can_follow(&a->average, &a->low, n));
    CPU_REQUIRE(a->rows > 0 && a->cols > 0 && a->count >= 1 && a->count <= op_muon_most(a->rows, a->cols));
    CPU_REQUIRE(a->work.data != NULL &&
                tensor_elems(&a->work) >= op_muon_work_elems(a->rows, a->cols, a->count));
    CPU_REQUIRE(a->now != NULL);
    for (int i = 0; i < a->count; i++) CPU_REQUIRE(a->at[i] >= 0 && a->at[i] + a->rows * a->cols <= n);
    int rc = 0;
    for (int i = 0; rc == 0 && i < a->count; i++) rc = muon_matrix(d, a, a->at[i], e);
    return rc;
}
