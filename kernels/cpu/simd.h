// SPDX-License-Identifier: Apache-2.0
// Vectors of floats as wide as the instruction set that this file is compiled for, and the elementary
// functions on them. Own polynomials, so that the bits do not depend on libm; error below 2 ulp over the
// ranges that are named. Only for the sources of kernels/cpu, which are compiled once per instruction set.
#ifndef ORRERY_KERNELS_CPU_SIMD_H
#define ORRERY_KERNELS_CPU_SIMD_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define SIMD_AVX512 1
#define VW          16
#elif defined(__AVX2__) && defined(__FMA__)
#define SIMD_AVX2 1
#define VW        8
#else
#define VW 4
#endif
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
#include <immintrin.h>
#endif

#define SIMD_INLINE static inline __attribute__((always_inline, unused))

typedef float vf __attribute__((vector_size(VW * 4)));
typedef int32_t vi __attribute__((vector_size(VW * 4)));
typedef uint32_t vu __attribute__((vector_size(VW * 4)));
typedef float vf_unaligned __attribute__((vector_size(VW * 4), aligned(4), may_alias));
typedef double vd __attribute__((vector_size(VW * 4)));
typedef float vf_half __attribute__((vector_size(VW * 2)));

SIMD_INLINE vf vf_load(const float *p) {
    return *(const vf_unaligned *)p;
}
SIMD_INLINE void vf_store(float *p, vf v) {
    *(vf_unaligned *)p = v;
}
SIMD_INLINE vf vf_set1(float x) {
    return x - (vf){0};
}
SIMD_INLINE vu vu_set1(uint32_t x) {
    return x - (vu){0};
}

// The first n lanes (n >= VW: all); the others read as zero and are not written.
SIMD_INLINE vf vf_load_n(const float *p, int64_t n) {
    if (__builtin_expect(n >= VW, 1)) return vf_load(p);
#if defined(SIMD_AVX512)
    return (vf)_mm512_maskz_loadu_ps((__mmask16)((1u << n) - 1), p);
#else
    vf v = {0};
    memcpy(&v, p, (size_t)n * sizeof *p);
    return v;
#endif
}

SIMD_INLINE void vf_store_n(float *p, vf v, int64_t n) {
    if (__builtin_expect(n >= VW, 1)) {
        vf_store(p, v);
        return;
    }
#if defined(SIMD_AVX512)
    _mm512_mask_storeu_ps(p, (__mmask16)((1u << n) - 1), (__m512)v);
#else
    memcpy(p, &v, (size_t)n * sizeof *p);
#endif
}

SIMD_INLINE void vf_copy(float *out, const float *in, int64_t n) {
    int64_t i = 0;
    for (; i + 4 * VW <= n; i += 4 * VW) {
        vf a = vf_load(in + i), b = vf_load(in + i + VW), c = vf_load(in + i + 2 * VW),
           d = vf_load(in + i + 3 * VW);
        vf_store(out + i, a);
        vf_store(out + i + VW, b);
        vf_store(out + i + 2 * VW, c);
        vf_store(out + i + 3 * VW, d);
    }
    for (; i < n; i += VW) vf_store_n(out + i, vf_load_n(in + i, n - i), n - i);
}

SIMD_INLINE vf vf_fma(vf a, vf b, vf c) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return a * b + c;
#endif
}

SIMD_INLINE vf vf_select(vi mask, vf yes, vf no) {
    return (vf)((mask & (vi)yes) | (~mask & (vi)no));
}

// A NaN in x survives both.
SIMD_INLINE vf vf_at_least(vf x, float lo) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_max_ps((__m512)vf_set1(lo), (__m512)x);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_max_ps((__m256)vf_set1(lo), (__m256)x);
#else
    return vf_select(x < vf_set1(lo), vf_set1(lo), x);
#endif
}

SIMD_INLINE vf vf_at_most(vf x, float hi) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_min_ps((__m512)vf_set1(hi), (__m512)x);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_min_ps((__m256)vf_set1(hi), (__m256)x);
#else
    return vf_select(x > vf_set1(hi), vf_set1(hi), x);
#endif
}

SIMD_INLINE vf vf_max(vf a, vf b) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return vf_select(a > b, a, b);
#endif
}

SIMD_INLINE vf vf_sqrt(vf x) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_sqrt_ps((__m512)x);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_sqrt_ps((__m256)x);
#else
    for (int i = 0; i < VW; i++) x[i] = sqrtf(x[i]);
    return x;
#endif
}

// To the nearest integer; |x| < 2^22.
SIMD_INLINE vf vf_round(vf x) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(SIMD_AVX2)
    return (vf)_mm256_round_ps((__m256)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    const vf magic = vf_set1(12582912.0f);
    return (x + magic) - magic;
#endif
}

SIMD_INLINE vi vf_to_int(vf x) {
    return __builtin_convertvector(x, vi);
}

// Lanes are added as a fixed tree.
SIMD_INLINE float vf_sum(vf v) {
#if defined(SIMD_AVX512)
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(SIMD_AVX2)
    __m256 half = (__m256)v;
#endif
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
    __m128 quarter = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_add_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
#else
    return (v[0] + v[2]) + (v[1] + v[3]);
#endif
}

SIMD_INLINE float vf_max_lane(vf v) {
#if defined(SIMD_AVX512)
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256((__m512)v), _mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(SIMD_AVX2)
    __m256 half = (__m256)v;
#endif
#if defined(SIMD_AVX512) || defined(SIMD_AVX2)
    __m128 quarter = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    quarter = _mm_max_ps(quarter, _mm_movehl_ps(quarter, quarter));
    return _mm_cvtss_f32(_mm_max_ss(quarter, _mm_shuffle_ps(quarter, quarter, 1)));
#else
    float a = v[0] > v[2] ? v[0] : v[2], b = v[1] > v[3] ? v[1] : v[3];
    return a > b ? a : b;
#endif
}

// Interleaves two vectors: lo is a0 b0 a1 b1 ..., hi the second halves.
#if VW == 16
#define SIMD_LANES_LO 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define SIMD_LANES_HI 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif VW == 8
#define SIMD_LANES_LO 0, 8, 1, 9, 2, 10, 3, 11
#define SIMD_LANES_HI 4, 12, 5, 13, 6, 14, 7, 15
#else
#define SIMD_LANES_LO 0, 4, 1, 5
#define SIMD_LANES_HI 2, 6, 3, 7
#endif
SIMD_INLINE vf vf_zip_lo(vf a, vf b) {
    return __builtin_shufflevector(a, b, SIMD_LANES_LO);
}
SIMD_INLINE vf vf_zip_hi(vf a, vf b) {
    return __builtin_shufflevector(a, b, SIMD_LANES_HI);
}

// A square of VW x VW: log2 VW rounds of interleaving rows that lie half the square apart.
SIMD_INLINE void vf_transpose(vf r[VW]) {
#pragma GCC unroll 4
    for (int round = 1; round < VW; round *= 2) {
        vf t[VW];
#pragma GCC unroll 8
        for (int i = 0; i < VW / 2; i++) {
            t[2 * i] = vf_zip_lo(r[i], r[i + VW / 2]);
            t[2 * i + 1] = vf_zip_hi(r[i], r[i + VW / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VW; i++) r[i] = t[i];
    }
}

// The two 64-bit halves of the products of each lane with a constant.
SIMD_INLINE void vu_mul_wide(vu a, uint32_t factor, vu *hi, vu *lo) {
#if defined(SIMD_AVX512)
    __m512i f = _mm512_set1_epi32((int)factor), x = (__m512i)a;
    __m512i even = _mm512_mul_epu32(x, f), odd = _mm512_mul_epu32(_mm512_srli_epi64(x, 32), f);
    *hi = (vu)_mm512_mask_blend_epi32(0xaaaa, _mm512_srli_epi64(even, 32), odd);
    *lo = (vu)_mm512_mask_blend_epi32(0xaaaa, even, _mm512_slli_epi64(odd, 32));
#elif defined(SIMD_AVX2)
    __m256i f = _mm256_set1_epi32((int)factor), x = (__m256i)a;
    __m256i even = _mm256_mul_epu32(x, f), odd = _mm256_mul_epu32(_mm256_srli_epi64(x, 32), f);
    *hi = (vu)_mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xaa);
    *lo = (vu)_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xaa);
#else
    for (int i = 0; i < VW; i++) {
        uint64_t p = (uint64_t)a[i] * factor;
        (*hi)[i] = (uint32_t)(p >> 32);
        (*lo)[i] = (uint32_t)p;
    }
#endif
}

// x 2^n for integral n in [-160, 160]: two steps, so that subnormal results and overflow come out right.
SIMD_INLINE vf vf_scale2(vf x, vf n) {
#if defined(SIMD_AVX512)
    return (vf)_mm512_scalef_ps((__m512)x, (__m512)n);
#else
    vi whole = vf_to_int(n), half = whole >> 1;
    vf a = (vf)((half + 127) << 23), b = (vf)((whole - half + 127) << 23);
    return x * a * b;
#endif
}

// e^x for all x; 0 for -inf.
SIMD_INLINE vf vf_exp(vf x) {
    x = vf_at_most(vf_at_least(x, -104.0f), 89.0f);
    vf n = vf_round(x * 1.44269504f);
    vf r = vf_fma(n, vf_set1(-0.693359375f), x);
    r = vf_fma(n, vf_set1(2.12194440e-4f), r);
    vf p = vf_set1(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set1(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set1(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set1(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set1(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set1(0.5f));
    p = vf_fma(p, r * r, r + 1.0f);
    return vf_scale2(p, n);
}

// ln x for normal x > 0.
SIMD_INLINE vf vf_log(vf x) {
    vi bits = (vi)x;
    vi e = ((bits - 0x3f3504f3) >> 23); // mantissa in [sqrt 1/2, sqrt 2)
    vf m = (vf)(bits - (e << 23)) - 1.0f;
    vf n = __builtin_convertvector(e, vf), s = m * m;
    vf p = vf_set1(7.0376836292e-2f);
    p = vf_fma(p, m, vf_set1(-1.1514610310e-1f));
    p = vf_fma(p, m, vf_set1(1.1676998740e-1f));
    p = vf_fma(p, m, vf_set1(-1.2420140846e-1f));
    p = vf_fma(p, m, vf_set1(1.4249322787e-1f));
    p = vf_fma(p, m, vf_set1(-1.6668057665e-1f));
    p = vf_fma(p, m, vf_set1(2.0000714765e-1f));
    p = vf_fma(p, m, vf_set1(-2.4999993993e-1f));
    p = vf_fma(p, m, vf_set1(3.3333331174e-1f));
    vf y = p * m * s;
    y = vf_fma(n, vf_set1(-2.12194440e-4f), y);
    y = vf_fma(s, vf_set1(-0.5f), y);
    return vf_fma(n, vf_set1(0.693359375f), m + y);
}

// sin and cos of 2 pi t, |t| < 2^19; the reduction is exact.
SIMD_INLINE void vf_sincos_turns(vf t, vf *sine, vf *cosine) {
    vf k = vf_round(t * 4.0f);
    vf r = (t * 4.0f - k) * 1.57079632679f, s = r * r;
    vf a = vf_set1(-1.9515295891e-4f);
    a = vf_fma(a, s, vf_set1(8.3321608736e-3f));
    a = vf_fma(a, s, vf_set1(-1.6666654611e-1f));
    a = vf_fma(a * s, r, r);
    vf b = vf_set1(2.443315711809948e-5f);
    b = vf_fma(b, s, vf_set1(-1.388731625493765e-3f));
    b = vf_fma(b, s, vf_set1(4.166664568298827e-2f));
    b = vf_fma(b * s, s, vf_fma(s, vf_set1(-0.5f), vf_set1(1.0f)));
    vi q = vf_to_int(k), swap = -(q & 1);
    vf si = vf_select(swap, b, a), co = vf_select(swap, a, b);
    *sine = (vf)((vi)si ^ ((q & 2) << 30));
    *cosine = (vf)((vi)co ^ (((q + 1) & 2) << 30));
}

SIMD_INLINE vf vf_sigmoid(vf x) {
    return 1.0f / (1.0f + vf_exp(-x));
}

#endif
