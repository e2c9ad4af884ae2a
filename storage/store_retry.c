// SPDX-License-Identifier: Apache-2.0
// How long to wait before trying again, and what is worth trying again.
#include "base/clock.h"
#include "base/rng.h"
#include "storage/store_backend.h"

#define BACKOFF_FIRST_MS 50
#define BACKOFF_MOST_MS  5000
#define LAST_CHANCE_NS   100000000 // with less time left, no further attempt

bool store_transient(int rc) {
    return rc == -ERR_UNAVAILABLE || rc == -ERR_TIMEOUT || rc == -ERR_PEER;
}

// How long to wait before attempt + 1 of a request.
// Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): uniform in
// [0, first * 2^attempt), capped, so that clients which failed together do not come back together.
static int64_t backoff_ms(uint64_t jitter, uint64_t request, int attempt) {
    uint32_t words[4];
    int64_t span = attempt < 7 ? (int64_t)BACKOFF_FIRST_MS << attempt : BACKOFF_MOST_MS;
    if (span > BACKOFF_MOST_MS) span = BACKOFF_MOST_MS;
    rng_block(rng_key(jitter, RNG_BACKOFF, 0), (uint32_t)attempt, request, 0, words);
    return (int64_t)((double)rng_unit(words[0]) * (double)span);
}

// Never beyond half of what is left, so that the deadline, not one long wait, ends the attempts.
int64_t store_retry_ns(uint64_t jitter, uint64_t request, int attempt, int64_t least_ms,
                       int64_t deadline_ns) {
    int64_t now = clock_monotonic_ns(), left = deadline_ns - now;
    int64_t wait = backoff_ms(jitter, request, attempt) * 1000000;
    if (wait > left / 2) wait = left / 2;
    if (wait < least_ms * 1000000) wait = least_ms * 1000000;
    return left < LAST_CHANCE_NS || wait >= left ? 0 : now + wait;
}
