// SPDX-License-Identifier: Apache-2.0
// How long to wait before trying again, and what is worth trying again.
#include "base/rng.h"
#include "storage/store_backend.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MOST_MS  5000

bool store_transient(int rc) {
    return rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT || rc == -ERR_PEER;
}

// Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): uniform in
// [0, first * 2^attempt), capped, so that clients which failed together do not come back together.
int64_t store_backoff_ms(uint64_t seed, uint64_t request, int attempt) {
    uint32_t words[4];
    int64_t span = attempt < 7 ? (int64_t)BACKOFF_FIRST_MS << attempt : BACKOFF_MOST_MS;
    if (span > BACKOFF_MOST_MS) span = BACKOFF_MOST_MS;
    rng_block(rng_key(seed, RNG_BACKOFF, 0), (uint32_t)attempt, request, 0, words);
    return (int64_t)((double)rng_unit(words[0]) * (double)span);
}
