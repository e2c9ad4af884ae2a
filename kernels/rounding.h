// SPDX-License-Identifier: Apache-2.0
// From fp32 to bf16: to nearest even, or at random up or down with the chances that make the mean right
// (Gupta et al., "Deep learning with limited numerical precision", ICML 2015). Random bits belong to the
// number of a parameter, so they are the same on any number of ranks, in any order, on any device.
// Header-only: the CPU's ops and the GPU's kernels use these very functions.
#ifndef ORRERY_KERNELS_ROUNDING_H
#define ORRERY_KERNELS_ROUNDING_H

#include "base/rng.h"

#define ROUNDING_GROUP 8 // parameters that share one Philox block: 16 bits each

// Infinity stays, and a NaN keeps being one: rounding must not carry its mantissa away.
RNG_INLINE uint16_t rounding_special(uint32_t bits) {
    return (uint16_t)(bits >> 16 | ((bits & 0x7fffffu) ? 0x40u : 0));
}

RNG_INLINE uint16_t rounding_nearest(uint32_t bits) {
    if ((bits & 0x7f800000u) == 0x7f800000u) return rounding_special(bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

// The random bits of parameters 8 group .. 8 group + 7, two in each word.
RNG_INLINE void rounding_draw(struct rng_key key, uint32_t step, uint64_t group, uint32_t words[4]) {
    rng_block(key, step, group >> 32, (uint32_t)group, words);
}

// Away from zero with a chance of (what bf16 cannot hold) / (a bf16's last place); `number` of the parameter,
// `words` of its group. What bf16 holds stays as it is.
RNG_INLINE uint16_t rounding_random(uint32_t bits, const uint32_t words[4], uint64_t number) {
    uint32_t word = words[number / 2 % 4], random = number % 2 ? word >> 16 : word & 0xffffu;
    if ((bits & 0x7f800000u) == 0x7f800000u) return rounding_special(bits);
    return (uint16_t)((bits + random) >> 16);
}

#endif
