// SPDX-License-Identifier: Apache-2.0
// C (+)= op(A) op(B) + bias and column sums. A product is cut into the same blocks whatever the thread count;
// each block is one single-threaded BLAS call.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

enum { GEMM_PIECES = 4, GEMM_SMALL = 1 << 21, GEMM_ALIGN = 16 };

struct gemm_job {
    const struct op_gemm_args *a;
    int64_t m, n, k, step;
    bool by_rows;
};

static void gemm_block(const struct gemm_job *j, int64_t row, int64_t rows, int64_t col, int64_t cols) {
    const struct op_gemm_args *a = j->a;
    int64_t lda = a->a.stride[0], ldb = a->b.stride[0], ldc = a->c.stride[0];
    struct blas_gemm g = {.m = rows, .n = cols, .k = j->k, .lda = lda, .ldb = ldb, .ldc = ldc};
    g.a = tensor_f32(&a->a) + (a->trans_a ? row : row * lda);
    g.b = tensor_f32(&a->b) + (a->trans_b ? col * ldb : col);
    g.c = tensor_f32(&a->c) + row * ldc + col;
    g.trans_a = a->trans_a;
    g.trans_b = a->trans_b;
    g.beta = a->accumulate || a->bias.data != NULL ? 1 : 0;
    if (a->bias.data != NULL) {
        for (int64_t i = 0; i < rows; i++) {
            memcpy(g.c + i * ldc, tensor_f32(&a->bias) + col, (size_t)cols * sizeof(float));
        }
    }
    if (rows > 0 && cols > 0) blas_sgemm(&g);
}

static void gemm_task(void *arg, int64_t task) {
    const struct gemm_job *j = arg;
    int64_t lo = task * j->step;
    if (j->by_rows) {
        gemm_block(j, lo, cpu_min(j->step, j->m - lo), 0, j->n);
    } else {
        gemm_block(j, 0, j->m, lo, cpu_min(j->step, j->n - lo));
    }
}

int CPU_FN(gemm)(struct device *d, const struct op_gemm_args *a, struct err *e) {
    struct gemm_job j = {.a = a, .m = a->c.shape[0], .n = a->c.shape[1], .k = a->a.shape[a->trans_a ? 0 : 1]};
    CPU_REQUIRE(cpu_is_rows(&a->c, j.m, j.n));
    CPU_REQUIRE(cpu_is_rows(&a->a, a->trans_a ? j.k : j.m, a->trans_a ? j.m : j.k));
    CPU_REQUIRE(cpu_is_rows(&a->b, a->trans_b ? j.n : j.k, a->trans_b ? j.k : j.n));
    CPU_REQUIRE(a->bias.data == NULL || (cpu_is_vector(&a->bias, j.n) && !a->accumulate));
    j.by_rows = j.m >= j.n;
    int64_t longer = j.by_rows ? j.m : j.n;
    j.step = j.m * j.n * j.k < GEMM_SMALL
                 ? longer
                 : cpu_blocks(cpu_blocks(longer, GEMM_PIECES), GEMM_ALIGN) * GEMM_ALIGN;
    if (longer > 0) cpu_run(d, cpu_blocks(longer, j.step), gemm_task, &j);
    return 0;
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
