// SPDX-License-Identifier: Apache-2.0
// The inner product of all dense kernels: a few rows of A against one panel of B, the sums in registers.
// C[i, 0..NR) = sum over p of A[i, p] B[p, 0..NR), each element one chain of fused multiply-adds in the order
// of p. MICRO_TABLE(name, lda) makes name[1..MICRO_MR], one function per number of rows, for rows of A (or of
// A transposed) that lie lda floats apart; a constant, since that many row pointers do not fit the registers.
#ifndef ORRERY_KERNELS_CPU_MICRO_H
#define ORRERY_KERNELS_CPU_MICRO_H

#include <stdbool.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#if VW == 16
enum { MICRO_MR = 14 };
#else
enum { MICRO_MR = 6 };
#endif
enum { MICRO_NR = 2 * VW };

struct micro {
    const float *a; // [rows, k] or [k, rows]
    const float *b; // [k, NR], rows ldb apart
    int64_t k, ldb;
    // The sums go to C, of which the first `left` columns exist: C = sums (+ bias), C += sums, or
    // C = C scale[row] + sums.
    float *c;
    int64_t ldc, left;
    bool add;
    const float *bias, *scale; // or NULL
};

typedef void micro_fn(const struct micro *t);

// [1..MICRO_MR]: the function for that many rows. Rows of A lie a constant apart, since that many row
// pointers do not fit the registers; "columns" reads A transposed, [k, rows].
enum {
    MICRO_LONG = 592,
    MICRO_LOCAL = 272,
    MICRO_NARROW = 16
};                                                        // floats; not powers of two, but for the last
extern micro_fn *const CPU_FN(micro_long)[MICRO_MR + 1];  // MICRO_LONG apart
extern micro_fn *const CPU_FN(micro_local)[MICRO_MR + 1]; // MICRO_LOCAL apart
extern micro_fn *const CPU_FN(micro_columns_local)[MICRO_MR + 1];  // transposed, MICRO_LOCAL apart
extern micro_fn *const CPU_FN(micro_columns_narrow)[MICRO_MR + 1]; // transposed, MICRO_NARROW apart

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
    if (left >= MICRO_NR) {
        for (int64_t p = 0; p < rows; p++, x += ld, out += MICRO_NR) {
            vf_store(out, vf_load(x));
            vf_store(out + VW, vf_load(x + VW));
        }
        return;
    }
    for (int64_t p = 0; p < rows; p++, x += ld, out += MICRO_NR) {
        vf_store(out, vf_load_n(x, left));
        vf_store(out + VW, left > VW ? vf_load_n(x + VW, left - VW) : (vf){0});
    }
}

#endif
