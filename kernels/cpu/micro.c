// SPDX-License-Identifier: Apache-2.0
#include "kernels/cpu/micro.h"

SIMD_INLINE void micro_sums(int mr, int lda, bool columns, const struct micro *t, vf acc[][2]) {
    const float *a = t->a, *b = t->b;
    int64_t k = t->k, ldb = t->ldb;
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) acc[i][0] = acc[i][1] = (vf){0};
    for (int64_t p = 0; p < k; p++, b += ldb, a += columns ? lda : 1) {
        vf b0 = vf_load(b), b1 = vf_load(b + VW);
#pragma GCC unroll 16
        for (int i = 0; i < mr; i++) {
            vf x = vf_set1(columns ? a[i] : a[i * lda]);
            acc[i][0] = vf_fma(x, b0, acc[i][0]);
            acc[i][1] = vf_fma(x, b1, acc[i][1]);
        }
    }
}

SIMD_INLINE void micro_put(int mr, const struct micro *t, vf acc[][2]) {
#pragma GCC unroll 16
    for (int i = 0; i < mr; i++) {
#pragma GCC unroll 2
        for (int v = 0; v < 2; v++) {
            int64_t left = t->left - v * VW;
            if (left <= 0) break;
            float *c = t->c + i * t->ldc + v * VW;
            vf sum = acc[i][v];
            if (t->scale != NULL) {
                sum = vf_fma(vf_load_n(c, left), vf_set1(t->scale[i]), sum);
            } else if (t->add) {
                sum += vf_load_n(c, left);
            } else if (t->bias != NULL) {
                sum += vf_load_n(t->bias + v * VW, left);
            }
            vf_store_n(c, sum, left);
        }
    }
}

#define MICRO_ROWS(name, lda, columns, n)                                                                    \
    static void name##_##n(const struct micro *t) {                                                          \
        vf acc[n][2];                                                                                        \
        micro_sums(n, lda, columns, t, acc);                                                                 \
        micro_put(n, t, acc);                                                                                \
    }
#define MICRO_SIX(name, lda, columns)                                                                        \
    MICRO_ROWS(name, lda, columns, 1)                                                                        \
    MICRO_ROWS(name, lda, columns, 2)                                                                        \
    MICRO_ROWS(name, lda, columns, 3)                                                                        \
    MICRO_ROWS(name, lda, columns, 4)                                                                        \
    MICRO_ROWS(name, lda, columns, 5)                                                                        \
    MICRO_ROWS(name, lda, columns, 6)
#define MICRO_SIX_NAMES(name) NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6
#if VW == 16
#define MICRO_TABLE(name, lda, columns)                                                                      \
    MICRO_SIX(name, lda, columns)                                                                            \
    MICRO_ROWS(name, lda, columns, 7)                                                                        \
    MICRO_ROWS(name, lda, columns, 8)                                                                        \
    MICRO_ROWS(name, lda, columns, 9)                                                                        \
    MICRO_ROWS(name, lda, columns, 10)                                                                       \
    MICRO_ROWS(name, lda, columns, 11)                                                                       \
    MICRO_ROWS(name, lda, columns, 12)                                                                       \
    MICRO_ROWS(name, lda, columns, 13)                                                                       \
    MICRO_ROWS(name, lda, columns, 14)                                                                       \
    micro_fn *const CPU_FN(name)[MICRO_MR + 1] = {MICRO_SIX_NAMES(name),                                     \
                                                  name##_7,                                                  \
                                                  name##_8,                                                  \
                                                  name##_9,                                                  \
                                                  name##_10,                                                 \
                                                  name##_11,                                                 \
                                                  name##_12,                                                 \
                                                  name##_13,                                                 \
                                                  name##_14};
#else
#define MICRO_TABLE(name, lda, columns)                                                                      \
    MICRO_SIX(name, lda, columns)                                                                            \
    micro_fn *const CPU_FN(name)[MICRO_MR + 1] = {MICRO_SIX_NAMES(name)};
#endif

MICRO_TABLE(micro_long, MICRO_LONG, false)
MICRO_TABLE(micro_local, MICRO_LOCAL, false)
MICRO_TABLE(micro_columns_local, MICRO_LOCAL, true)
MICRO_TABLE(micro_columns_narrow, MICRO_NARROW, true)
