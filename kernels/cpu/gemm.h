// SPDX-License-Identifier: Apache-2.0
// The matrix product as other kernels use it. Row-major; op(A) is [m, k], op(B) is [k, n]. Uses the scratch
// memory.
#ifndef ORRERY_KERNELS_CPU_GEMM_H
#define ORRERY_KERNELS_CPU_GEMM_H

#include "kernels/cpu/cpu.h"

struct gemm {
    int64_t m, n, k;
    const float *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    bool trans_a, trans_b, accumulate;
    const float *bias; // [n] or NULL
};
int CPU_FN(gemm_run)(struct device *d, const struct gemm *g, struct err *e);

#endif
