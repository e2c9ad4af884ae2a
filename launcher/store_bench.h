// SPDX-License-Identifier: Apache-2.0
// How fast a store is from here: one large object up and down, parts and small objects with several requests
// under way. Every byte that comes back is checked against its CRC32C. What it wrote, it deletes.
#ifndef ORRERY_LAUNCHER_STORE_BENCH_H
#define ORRERY_LAUNCHER_STORE_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "launcher/store_place.h"

struct store_bench {
    int64_t bytes;    // of the large object
    int64_t requests; // small ones at each width
    bool json;
};

int store_bench_run(const struct store_bench *b, const struct store_place *at, struct err *e) ERR_CHECK;

#endif
