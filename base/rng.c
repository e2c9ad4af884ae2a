// SPDX-License-Identifier: Apache-2.0
#include "base/rng.h"

#include <math.h>

void rng_stream_init(struct rng_stream *r, struct rng_key key, uint32_t step, uint64_t sample) {
    r->key = key;
    r->step = step;
    r->sample = sample;
    r->element = 0;
    r->left = 0;
}

uint32_t rng_next_u32(struct rng_stream *r) {
    if (!r->left) {
        rng_block(r->key, r->step, r->sample, r->element++, r->words);
        r->left = 4;
    }
    return r->words[4 - r->left--];
}

uint64_t rng_next_u64(struct rng_stream *r) {
    uint64_t low = rng_next_u32(r);
    return low | (uint64_t)rng_next_u32(r) << 32;
}

float rng_next_unit(struct rng_stream *r) {
    return rng_unit(rng_next_u32(r));
}

// 53 bits in (0, 1): half a step away from both ends.
static double next_unit53(struct rng_stream *r) {
    return ((double)(rng_next_u64(r) >> 12) + 0.5) * (1.0 / 4503599627370496.0);
}

double rng_next_range(struct rng_stream *r, double lo, double hi) {
    return lo + (hi - lo) * next_unit53(r);
}

uint32_t rng_next_below(struct rng_stream *r, uint32_t n) {
    uint32_t reject_below =
        (uint32_t)-n % n; // 2^32 mod n: what is left over makes every residue equally likely
    uint32_t v;
    do v = rng_next_u32(r);
    while (v < reject_below);
    return v % n;
}

double rng_next_normal(struct rng_stream *r) {
    double radius = ((double)rng_next_u32(r) + 0.5) * (1.0 / 4294967296.0);
    double angle = (double)rng_next_u32(r) * (6.283185307179586 / 4294967296.0);
    return sqrt(-2.0 * log(radius)) * cos(angle);
}
