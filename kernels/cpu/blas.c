// SPDX-License-Identifier: Apache-2.0
// The one file that knows OpenBLAS. It is loaded at run time, because it chooses its kernels when it is
// loaded and version 0.3.21 takes its AVX2 kernels on newer AVX-512 processors, at half the speed.
#include "kernels/cpu/cpu.h"

#include <dlfcn.h>
#include <stdlib.h>

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);

enum { BLAS_ROW_MAJOR = 101, BLAS_NO_TRANS = 111, BLAS_TRANS = 112 };

static struct { sgemm_fn *sgemm; } blas;

void blas_open(void) {
    if (blas.sgemm != NULL) return;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("x86-64-v4")) setenv("OPENBLAS_CORETYPE", "SkylakeX", 0);
#endif
    setenv("OPENBLAS_NUM_THREADS", "1", 1);
    void *lib = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (lib != NULL) blas.sgemm = (sgemm_fn *)dlsym(lib, "cblas_sgemm");
}

const char *blas_name(void) {
    return blas.sgemm != NULL ? "OpenBLAS" : "plain loops";
}

static void plain_sgemm(const struct blas_gemm *g) {
    for (int64_t i = 0; i < g->m; i++) {
        for (int64_t j = 0; j < g->n; j++) {
            float sum = g->beta == 0 ? 0 : g->beta * g->c[i * g->ldc + j];
            for (int64_t p = 0; p < g->k; p++) {
                float x = g->trans_a ? g->a[p * g->lda + i] : g->a[i * g->lda + p];
                sum += x * (g->trans_b ? g->b[j * g->ldb + p] : g->b[p * g->ldb + j]);
            }
            g->c[i * g->ldc + j] = sum;
        }
    }
}

void blas_sgemm(const struct blas_gemm *g) {
    if (blas.sgemm == NULL) {
        plain_sgemm(g);
        return;
    }
    blas.sgemm(BLAS_ROW_MAJOR, g->trans_a ? BLAS_TRANS : BLAS_NO_TRANS,
               g->trans_b ? BLAS_TRANS : BLAS_NO_TRANS, (int)g->m, (int)g->n, (int)g->k, 1.0f, g->a,
               (int)g->lda, g->b, (int)g->ldb, g->beta, g->c, (int)g->ldc);
}
