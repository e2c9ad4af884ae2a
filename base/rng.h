// SPDX-License-Identifier: Apache-2.0
// Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
// SC'11). A draw is a pure function of (seed, purpose, step, sample, element): no state, any thread, any
// order. Header-only, so that a kernel on any device can use the same function.
#ifndef ORRERY_BASE_RNG_H
#define ORRERY_BASE_RNG_H

#include <stdint.h>

#if defined(__CUDACC__)
#define RNG_INLINE static __host__ __device__ inline
#else
#define RNG_INLINE static inline
#endif

// Every use of randomness has its own purpose, so that no two ever share a stream. Values are part of the
// file format of a run: append, never renumber.
enum rng_purpose {
    RNG_INIT_WEIGHTS = 1,
    RNG_SHUFFLE = 2,
    RNG_WINDOW = 3,
    RNG_REGIME = 4,
    RNG_TAU = 5,
    RNG_NOISE = 6,
    RNG_HISTORY_NOISE = 7,
    RNG_WORLD = 8,
    RNG_ROLLOUT = 9,
    RNG_BOOTSTRAP = 10,
    RNG_FAULT = 11,
    RNG_TEST = 12,
    RNG_BACKOFF = 13,
    RNG_SENSOR_NOISE = 14,
    RNG_ROUNDING = 15,
};

struct rng_key {
    uint32_t k0, k1;
};

RNG_INLINE uint64_t rng_mix64(uint64_t x) { // splitmix64's finaliser
    x ^= x >> 30;
    x *= 0xbf58476d1ce4e5b9u;
    x ^= x >> 27;
    x *= 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

// `sub` separates streams of one purpose (a modality, a layer).
RNG_INLINE struct rng_key rng_key(uint64_t seed, enum rng_purpose purpose, uint32_t sub) {
    uint64_t mixed = rng_mix64(rng_mix64(seed + 0x9e3779b97f4a7c15u) ^ (((uint64_t)purpose << 32) | sub));
    struct rng_key key = {(uint32_t)mixed, (uint32_t)(mixed >> 32)};
    return key;
}

// Four 32-bit words at counter (element, sample low, sample high, step).
RNG_INLINE void rng_block(struct rng_key key, uint32_t step, uint64_t sample, uint32_t element,
                          uint32_t out[4]) {
    uint32_t c0 = element, c1 = (uint32_t)sample, c2 = (uint32_t)(sample >> 32), c3 = step;
    uint32_t k0 = key.k0, k1 = key.k1;
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        uint32_t n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c1 = (uint32_t)p1;
        c3 = (uint32_t)p0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

// (0, 1): never exactly 0 or 1.
RNG_INLINE float rng_unit(uint32_t bits) {
    return ((float)(bits >> 9) + 0.5f) * (1.0f / 8388608.0f);
}

// A small sequential view for host code that draws a handful of numbers (worlds, regimes): successive
// elements of one (step, sample).
struct rng_stream {
    struct rng_key key;
    uint32_t step;
    uint64_t sample;
    uint32_t element;
    uint32_t left;
    uint32_t words[4];
};

void rng_stream_init(struct rng_stream *r, struct rng_key key, uint32_t step, uint64_t sample);
uint32_t rng_next_u32(struct rng_stream *r);
uint64_t rng_next_u64(struct rng_stream *r);
float rng_next_unit(struct rng_stream *r); // (0, 1)
double rng_next_range(struct rng_stream *r, double lo, double hi);
uint32_t rng_next_below(struct rng_stream *r, uint32_t n); // unbiased, n >= 1
double rng_next_normal(struct rng_stream *r);              // Box-Muller, one per two words

#endif
