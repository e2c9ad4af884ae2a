// SPDX-License-Identifier: Apache-2.0
// Division of a thread's number by one that the host knows.
#ifndef ORRERY_KERNELS_CUDA_DIVIDER_CUH
#define ORRERY_KERNELS_CUDA_DIVIDER_CUH

#include <cuda_runtime.h>
#include <stdint.h>

// Which row, and which pack of it, a thread's number is: a product and a shift where a division would cost as
// much as the rest of a small kernel (Granlund, Montgomery, PLDI 1994). For numbers below 2^31 (cuda_is_few).
struct divider {
    uint32_t by, magic, shift;
    __device__ __forceinline__ uint32_t of(uint32_t n) const { return (__umulhi(n, magic) + n) >> shift; }
};
static inline divider divide_by(int64_t by) {
    uint32_t shift = 0;
    if (by < 1) by = 1; // no numbers
    while ((int64_t)1 << shift < by) shift++;
    uint64_t magic = (((uint64_t)1 << 32) * (((uint64_t)1 << shift) - (uint64_t)by)) / (uint64_t)by + 1;
    return divider{(uint32_t)by, (uint32_t)magic, shift};
}
static inline bool cuda_is_few(int64_t n) {
    return n >= 0 && n < INT32_MAX;
}

#endif
