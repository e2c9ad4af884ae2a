// SPDX-License-Identifier: Apache-2.0
// The inner product of all dense kernels: a few rows of A against one panel of B, the sums in registers.
// C[i, 0..NR) = sum over p of A[i, p] B[p, 0..NR), each element one chain of fused multiply-adds in the order
// of p. MICRO_TABLE(name, lda) makes name[1..MICRO_MR], one function per number of rows, for rows of A (or of
// A transposed) that lie lda floats apart; a constant, since that many row pointers do not fit the registers.
#ifndef ORRERY_KERNELS_CPU_MICRO_H
#define ORRERY_KERNELS_CPU_MICRO_H

#include <stdbool.h>

#include "kernels/cpu/simd.h"

#if VW == 16
enum { MICRO_MR = 14 };
#else
enum { MICRO_MR = 6 };
#endif
enum { MICRO_NR = 2 * VW };

struct micro {
    const float *a; // [rows, k], or [k, rows] with `columns`
    const float *b; // [k, NR], rows ldb apart
    int64_t k, ldb;
    bool columns;
    // The sums go to C, of which the first `left` columns exist: C = sums (+ bias), C += sums, or
    // C = C scale[row] + sums.
    float *c;
    int64_t ldc, left;
    bool add;
    const float *bias, *scale; // or NULL
};

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

typedef void micro_fn(const struct micro *t);

#define MICRO_ROWS(name, lda, n)                                                                             \
    static void name##_##n(const struct micro *t) {                                                          \
        vf acc[n][2];                                                                                        \
        if (t->columns) {                                                                                    \
            micro_sums(n, lda, true, t, acc);                                                                \
        } else {                                                                                             \
            micro_sums(n, lda, false, t, acc);                                                               \
        }                                                                                                    \
        micro_put(n, t, acc);                                                                                \
    }
#define MICRO_SIX(name, lda)                                                                                 \
    MICRO_ROWS(name, lda, 1)                                                                                 \
    MICRO_ROWS(name, lda, 2)                                                                                 \
    MICRO_ROWS(name, lda, 3)                                                                                 \
    MICRO_ROWS(name, lda, 4)                                                                                 \
    MICRO_ROWS(name, lda, 5)                                                                                 \
    MICRO_ROWS(name, lda, 6)
#define MICRO_SIX_NAMES(name) NULL, name##_1, name##_2, name##_3, name##_4, name##_5, name##_6
#if VW == 16
#define MICRO_TABLE(name, lda)                                                                               \
    MICRO_SIX(name, lda)                                                                                     \
    MICRO_ROWS(name, lda, 7)                                                                                 \
    MICRO_ROWS(name, lda, 8)                                                                                 \
    MICRO_ROWS(name, lda, 9)                                                                                 \
    MICRO_ROWS(name, lda, 10)                                                                                \
    MICRO_ROWS(name, lda, 11)                                                                                \
    MICRO_ROWS(name, lda, 12)                                                                                \
    MICRO_ROWS(name, lda, 13)                                                                                \
    MICRO_ROWS(name, lda, 14)                                                                                \
    static micro_fn *const name[MICRO_MR + 1] = {MICRO_SIX_NAMES(name),                                      \
                                                 name##_7,                                                   \
                                                 name##_8,                                                   \
                                                 name##_9,                                                   \
                                                 name##_10,                                                  \
                                                 name##_11,                                                  \
                                                 name##_12,                                                  \
                                                 name##_13,                                                  \
                                                 name##_14};
#else
#define MICRO_TABLE(name, lda)                                                                               \
    MICRO_SIX(name, lda)                                                                                     \
    static micro_fn *const name[MICRO_MR + 1] = {MICRO_SIX_NAMES(name)};
#endif

// Packs rows [lo, hi) of x (each `ld` apart, `cols` long) as columns of panels: out[p][i], p < cols, i < NR,
// row lo + i; rows beyond hi are zero.
SIMD_INLINE void micro_pack_turned(const float *x, int64_t ld, int64_t lo, int64_t hi, int64_t cols,
                                   float *out) {
    for (int64_t p = 0; p < cols; p += VW) {
        for (int v = 0; v < 2; v++) {
            vf r[VW];
            for (int i = 0; i < VW; i++) {
                int64_t row = lo + v * VW + i;
                r[i] = row < hi ? vf_load_n(x + row * ld + p, cols - p) : (vf){0};
            }
            vf_transpose(r);
            for (int i = 0; i < VW && p + i < cols; i++) vf_store(out + (p + i) * MICRO_NR + v * VW, r[i]);
        }
    }
}

// Copies `rows` rows of NR columns, of which `left` exist: out[row][NR], zero beyond.
SIMD_INLINE void micro_pack_straight(const float *x, int64_t ld, int64_t rows, int64_t left, float *out) {
    for (int64_t p = 0; p < rows; p++, x += ld, out += MICRO_NR) {
        vf_store(out, vf_load_n(x, left));
        vf_store(out + VW, left > VW ? vf_load_n(x + VW, left - VW) : (vf){0});
    }
}

#endif
