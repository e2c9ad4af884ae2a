// SPDX-License-Identifier: Apache-2.0
// What the storage benchmarks share: the content of every object, one block of random bytes again and again,
// and the processor time that this process has used so far.
#ifndef ORRERY_TESTS_BENCH_BLOCK_H
#define ORRERY_TESTS_BENCH_BLOCK_H

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "base/rng.h"

#define BLOCK_BYTES ((size_t)8 << 20)

// Two blocks, so that any BLOCK_BYTES of the content lie in one piece.
static inline void bench_block_fill(char *out) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(5, RNG_TEST, 2), 0, 0);
    for (size_t i = 0; i < BLOCK_BYTES; i += 4) {
        uint32_t word = rng_next_u32(&r);
        memcpy(out + i, &word, sizeof word);
    }
    memcpy(out + BLOCK_BYTES, out, BLOCK_BYTES);
}

static inline double bench_cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

#endif
