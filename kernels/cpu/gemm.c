// SPDX-License-Identifier: Apache-2.0
// C (+)= op(A) op(B) + bias and column sums. The layout is Goto's: B in panels of two vectors of columns,
// packed once; a block of a few rows of A, copied so that it is contiguous, meets every panel with its sums
// in registers. Each element of C is one chain of fused multiply-adds over k, in pieces of GEMM_KC that are
// added to C in order; so it does not depend on how rows and columns are shared out.
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/micro.h"

enum {
    GEMM_KC = MICRO_LONG - 16,
    GEMM_PACKED = 1 << 18,     // floats of B packed at a time
    GEMM_TASK_ELEMS = 1 << 14, // of C in a task, about
};

struct gemm_job {
    const struct gemm *g;
    float *packed;            // [panels][k][MICRO_NR]
    int64_t col, cols;        // the columns at hand
    int64_t blocks, per_task; // row blocks, and of them in a task
    int64_t k_step;
};

static void pack_task(void *arg, int64_t panel) {
    const struct gemm_job *j = arg;
    const struct gemm *g = j->g;
    float *out = j->packed + panel * g->k * MICRO_NR;
    int64_t col = j->col + panel * MICRO_NR;
    if (g->trans_b) {
        micro_pack_turned(g->b, g->ldb, col, g->n, g->k, out);
    } else {
        micro_pack_straight(g->b + col, g->ldb, g->k, g->n - col, out);
    }
}

// Rows of A transposed: lanes beyond the block are other rows', never used; beyond A they are not read.
static void copy_columns(const struct gemm *g, int64_t row, int64_t lo, int64_t n, float *out) {
    const float *a = g->a + lo * g->lda + row;
    int64_t left = g->m - row;
    if (left >= MICRO_NARROW) {
        for (int64_t p = 0; p < n; p++) {
            for (int v = 0; v < MICRO_NARROW; v += VW)
                vf_store(out + p * MICRO_NARROW + v, vf_load(a + p * g->lda + v));
        }
    } else {
        for (int64_t p = 0; p < n; p++) vf_copy(out + p * MICRO_NARROW, a + p * g->lda, left);
    }
}

static void copy_block(const struct gemm *g, int64_t row, int64_t rows, int64_t lo, int64_t n, float *out) {
    if (g->trans_a) {
        copy_columns(g, row, lo, n, out);
    } else {
        for (int64_t i = 0; i < rows; i++) vf_copy(out + i * MICRO_LONG, g->a + (row + i) * g->lda + lo, n);
    }
}

static void gemm_block(const struct gemm_job *j, int64_t block, int64_t lo, int64_t n, float *a) {
    const struct gemm *g = j->g;
    int64_t row = block * g->m / j->blocks, rows = (block + 1) * g->m / j->blocks - row;
    copy_block(g, row, rows, lo, n, a);
    struct micro t = {.a = a, .k = n, .ldb = MICRO_NR, .ldc = g->ldc};
    t.add = lo > 0 || g->accumulate;
    micro_fn *run = (g->trans_a ? CPU_FN(micro_columns_narrow) : CPU_FN(micro_long))[rows];
    for (int64_t col = 0; col < j->cols; col += MICRO_NR) {
        t.b = j->packed + col * g->k + lo * MICRO_NR;
        t.c = g->c + row * g->ldc + j->col + col;
        t.left = j->cols - col;
        t.bias = lo == 0 && g->bias != NULL ? g->bias + j->col + col : NULL;
        run(&t);
    }
}

static void gemm_task(void *arg, int64_t task) {
    const struct gemm_job *j = arg;
    enum { ROWS = MICRO_MR * MICRO_LONG, COLUMNS = GEMM_KC * MICRO_NARROW };
    float a[ROWS > COLUMNS ? ROWS : COLUMNS] __attribute__((aligned(64)));
    int64_t end = cpu_min(j->blocks, (task + 1) * j->per_task);
    for (int64_t lo = 0; lo < j->g->k; lo += j->k_step) {
        int64_t n = cpu_min(j->k_step, j->g->k - lo);
        for (int64_t block = task * j->per_task; block < end; block++) gemm_block(j, block, lo, n, a);
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
    struct gemm_job j = {.g = g, .blocks = cpu_blocks(g->m, MICRO_MR)};
    int64_t strip = GEMM_PACKED / g->k / MICRO_NR * MICRO_NR;
    if (strip < MICRO_NR) strip = MICRO_NR;
    j.k_step = cpu_blocks(g->k, cpu_blocks(g->k, GEMM_KC));
    j.per_task = GEMM_TASK_ELEMS / (MICRO_MR * cpu_min(strip, g->n)) + 1;
    int64_t panels = cpu_blocks(cpu_min(strip, g->n), MICRO_NR);
    int rc = cpu_scratch(d, (void **)&j.packed, (size_t)(panels * MICRO_NR * g->k) * sizeof(float), e);
    if (rc != 0) return rc;
    for (j.col = 0; j.col < g->n; j.col += strip) {
        j.cols = cpu_min(strip, g->n - j.col);
        cpu_run(d, cpu_blocks(j.cols, MICRO_NR), pack_task, &j);
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
