// SPDX-License-Identifier: Apache-2.0
// C (+)= op(A) op(B) + bias and column sums. The layout is Goto's: B in panels of two vectors of columns,
// packed once; a block of up to GEMM_MR rows of A, copied so that a row or a column of it is contiguous,
// meets every panel with its sums in registers. Each element of C is one chain of fused multiply-adds over k,
// in pieces of GEMM_KC that are added to C in order; so it does not depend on how rows and columns are shared
// out.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/simd.h"

#if VW == 16
enum { GEMM_MR = 14 };
#else
enum { GEMM_MR = 6 };
#endif
enum {
    GEMM_NR = 2 * VW,
    GEMM_KC = 576,
    GEMM_LDA = GEMM_KC + 16,   // rows of a copied block: not a power of two apart
    GEMM_PACKED = 1 << 18,     // floats of B packed at a time
    GEMM_TASK_ELEMS = 1 << 17, // multiply-adds / GEMM_KC of a task, about
    GEMM_PACK_TASK = 1 << 14,
};

// Sums of MR rows and one panel. A block is [MR][GEMM_LDA], or [KC][VW-padded MR] where A is transposed.
enum { GEMM_LDT = 16 };

SIMD_INLINE void gemm_kernel(int mr, bool columns, const float *a, const float *b, int64_t k, vf acc[][2]) {
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) acc[i][0] = acc[i][1] = (vf){0};
    for (int64_t p = 0; p < k; p++, b += GEMM_NR) {
        vf b0 = vf_load(b), b1 = vf_load(b + VW);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            vf x = vf_set1(columns ? a[p * GEMM_LDT + i] : a[i * GEMM_LDA + p]);
            acc[i][0] = vf_fma(x, b0, acc[i][0]);
            acc[i][1] = vf_fma(x, b1, acc[i][1]);
        }
    }
}

// What to do with the sums: C has `left` columns from here.
struct gemm_store {
    float *c;
    int64_t ldc, left;
    const float *bias; // first piece only, may be NULL
    bool add;          // to what is in C
};

SIMD_INLINE void gemm_put(const struct gemm_store *s, int mr, vf acc[][2]) {
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            int64_t left = s->left - v * VW;
            if (left <= 0) break;
            float *c = s->c + i * s->ldc + v * VW;
            vf sum = acc[i][v];
            if (s->add) sum += vf_load_n(c, left);
            if (s->bias != NULL) sum += vf_load_n(s->bias + v * VW, left);
            vf_store_n(c, sum, left);
        }
    }
}

#define GEMM_ROWS(n)                                                                                         \
    static void gemm_rows_##n(bool columns, const float *a, const float *b, int64_t k,                       \
                              const struct gemm_store *s) {                                                  \
        vf acc[n][2];                                                                                        \
        if (columns) {                                                                                       \
            gemm_kernel(n, true, a, b, k, acc);                                                              \
        } else {                                                                                             \
            gemm_kernel(n, false, a, b, k, acc);                                                             \
        }                                                                                                    \
        gemm_put(s, n, acc);                                                                                 \
    }
GEMM_ROWS(1)
GEMM_ROWS(2)
GEMM_ROWS(3)
GEMM_ROWS(4)
GEMM_ROWS(5)
GEMM_ROWS(6)
#if VW == 16
GEMM_ROWS(7)
GEMM_ROWS(8)
GEMM_ROWS(9)
GEMM_ROWS(10)
GEMM_ROWS(11)
GEMM_ROWS(12)
GEMM_ROWS(13)
GEMM_ROWS(14)
#endif

typedef void gemm_rows_fn(bool columns, const float *a, const float *b, int64_t k,
                          const struct gemm_store *s);
static gemm_rows_fn *const gemm_rows[GEMM_MR + 1] = {
    NULL,         gemm_rows_1, gemm_rows_2, gemm_rows_3,  gemm_rows_4,  gemm_rows_5,  gemm_rows_6,
#if VW == 16
    gemm_rows_7,  gemm_rows_8, gemm_rows_9, gemm_rows_10, gemm_rows_11, gemm_rows_12, gemm_rows_13,
    gemm_rows_14,
#endif
};

struct gemm_job {
    const struct gemm *g;
    float *packed;            // [panels][k][GEMM_NR]
    int64_t col, cols;        // the columns at hand
    int64_t blocks, per_task; // row blocks, and of them in a task
    int64_t k_step;
};

// Columns [col, col + NR) of op(B), rows [lo, hi), zero beyond the last column.
static void pack_straight(const struct gemm *g, int64_t col, int64_t lo, int64_t hi, float *out) {
    int64_t left = g->n - col;
    for (int64_t p = lo; p < hi; p++, out += GEMM_NR) {
        const float *b = g->b + p * g->ldb + col;
        vf_store(out, vf_load_n(b, left));
        vf_store(out + VW, left > VW ? vf_load_n(b + VW, left - VW) : (vf){0});
    }
}

static void pack_turned(const struct gemm *g, int64_t col, int64_t lo, int64_t hi, float *out) {
    for (int64_t p = lo; p < hi; p += VW) {
        for (int v = 0; v < 2; v++) {
            vf r[VW];
            for (int i = 0; i < VW; i++) {
                int64_t row = col + v * VW + i;
                r[i] = row < g->n ? vf_load_n(g->b + row * g->ldb + p, hi - p) : (vf){0};
            }
            vf_transpose(r);
            for (int i = 0; i < VW && p + i < hi; i++) vf_store(out + (p - lo + i) * GEMM_NR + v * VW, r[i]);
        }
    }
}

static void pack_task(void *arg, int64_t panel) {
    const struct gemm_job *j = arg;
    float *out = j->packed + panel * j->g->k * GEMM_NR;
    int64_t col = j->col + panel * GEMM_NR;
    if (j->g->trans_b) {
        pack_turned(j->g, col, 0, j->g->k, out);
    } else {
        pack_straight(j->g, col, 0, j->g->k, out);
    }
}

static void copy_block(const struct gemm *g, int64_t row, int64_t rows, int64_t lo, int64_t n, float *out) {
    if (g->trans_a) {
        for (int64_t p = 0; p < n; p++) vf_copy(out + p * GEMM_LDT, g->a + (lo + p) * g->lda + row, rows);
    } else {
        for (int64_t i = 0; i < rows; i++) vf_copy(out + i * GEMM_LDA, g->a + (row + i) * g->lda + lo, n);
    }
}

static int64_t block_start(const struct gemm_job *j, int64_t block) {
    return block * j->g->m / j->blocks;
}

static void gemm_task(void *arg, int64_t task) {
    const struct gemm_job *j = arg;
    const struct gemm *g = j->g;
    float a[GEMM_MR * GEMM_LDA > GEMM_KC * GEMM_LDT ? GEMM_MR * GEMM_LDA : GEMM_KC * GEMM_LDT]
        __attribute__((aligned(64)));
    int64_t end = cpu_min(j->blocks, (task + 1) * j->per_task);
    for (int64_t lo = 0; lo < g->k; lo += j->k_step) {
        int64_t n = cpu_min(j->k_step, g->k - lo);
        for (int64_t block = task * j->per_task; block < end; block++) {
            int64_t row = block_start(j, block), rows = block_start(j, block + 1) - row;
            copy_block(g, row, rows, lo, n, a);
            for (int64_t col = 0; col < j->cols; col += GEMM_NR) {
                struct gemm_store s = {g->c + row * g->ldc + j->col + col, g->ldc, j->cols - col, NULL,
                                       lo > 0 || g->accumulate};
                if (lo == 0 && g->bias != NULL) s.bias = g->bias + j->col + col;
                gemm_rows[rows](g->trans_a, a, j->packed + col * g->k + lo * GEMM_NR, n, &s);
            }
        }
    }
}

// k = 0: the sum over nothing.
static void gemm_empty(const struct gemm *g) {
    for (int64_t i = 0; i < g->m && !g->accumulate; i++) {
        for (int64_t c = 0; c < g->n; c++) g->c[i * g->ldc + c] = g->bias != NULL ? g->bias[c] : 0;
    }
}

int CPU_FN(gemm_run)(struct device *d, const struct gemm *g, struct err *e) {
    if (g->m == 0 || g->n == 0) return 0;
    if (g->k == 0) {
        gemm_empty(g);
        return 0;
    }
    struct gemm_job j = {.g = g, .blocks = cpu_blocks(g->m, GEMM_MR)};
    int64_t strip = GEMM_PACKED / g->k / GEMM_NR * GEMM_NR;
    if (strip < GEMM_NR) strip = GEMM_NR;
    j.k_step = cpu_blocks(g->k, cpu_blocks(g->k, GEMM_KC));
    j.per_task = GEMM_TASK_ELEMS / (GEMM_MR * cpu_min(strip, g->n)) + 1;
    int64_t panels = cpu_blocks(cpu_min(strip, g->n), GEMM_NR);
    int rc = cpu_scratch(d, (void **)&j.packed, (size_t)(panels * GEMM_NR * g->k) * sizeof(float), e);
    if (rc != 0) return rc;
    for (j.col = 0; j.col < g->n; j.col += strip) {
        j.cols = cpu_min(strip, g->n - j.col);
        cpu_run(d, cpu_blocks(j.cols, GEMM_NR), pack_task, &j);
        cpu_run(d, cpu_blocks(j.blocks, j.per_task), gemm_task, &j);
    }
    return 0;
}

int CPU_FN(gemm)(struct device *d, const struct op_gemm_args *a, struct err *e) {
    int64_t m = a->c.shape[0], n = a->c.shape[1], k = a->a.shape[a->trans_a ? 0 : 1];
    CPU_REQUIRE(cpu_is_rows(&a->c, m, n));
    CPU_REQUIRE(cpu_is_rows(&a->a, a->trans_a ? k : m, a->trans_a ? m : k));
    CPU_REQUIRE(cpu_is_rows(&a->b, a->trans_b ? n : k, a->trans_b ? k : n));
    CPU_REQUIRE(a->bias.data == NULL || (cpu_is_vector(&a->bias, n) && !a->accumulate));
    struct gemm g = {
        .m = m, .n = n, .k = k, .a = tensor_f32(&a->a), .b = tensor_f32(&a->b), .c = tensor_f32(&a->c)};
    g.lda = a->a.stride[0];
    g.ldb = a->b.stride[0];
    g.ldc = a->c.stride[0];
    g.trans_a = a->trans_a;
    g.trans_b = a->trans_b;
    g.accumulate = a->accumulate;
    g.bias = tensor_f32(&a->bias);
    return CPU_FN(gemm_run)(d, &g, e);
}

// A task owns a strip of columns and adds all rows in order.
enum { SUM_COLUMNS = 4 * VW };

static void col_sum_task(void *arg, int64_t task) {
    const struct op_col_sum_args *a = arg;
    int64_t lo = task * SUM_COLUMNS, rows = a->x.shape[0], left = a->x.shape[1] - lo;
    vf sum[4] = {0};
    for (int64_t i = 0; i < rows; i++) {
        const float *x = cpu_row(&a->x, i) + lo;
        for (int v = 0; v < 4 && v * VW < left; v++) sum[v] += vf_load_n(x + v * VW, left - v * VW);
    }
    float *out = tensor_f32(&a->out) + lo;
    for (int v = 0; v < 4 && v * VW < left; v++) {
        if (a->accumulate) sum[v] += vf_load_n(out + v * VW, left - v * VW);
        vf_store_n(out + v * VW, sum[v], left - v * VW);
    }
}

int CPU_FN(col_sum)(struct device *d, const struct op_col_sum_args *a, struct err *e) {
    int64_t n = a->x.shape[1];
    CPU_REQUIRE(cpu_is_rows(&a->x, a->x.shape[0], n) && cpu_is_vector(&a->out, n));
    struct op_col_sum_args job = *a;
    cpu_run(d, cpu_blocks(n, SUM_COLUMNS), col_sum_task, &job);
    return 0;
}
