// SPDX-License-Identifier: Apache-2.0
#include "launcher/pace.h"

#include <string.h>

#define SEEN_LEAST    20
#define HIGH_QUANTILE 0.999

void pace_clear(struct pace *p) {
    memset(p, 0, sizeof *p);
}

void pace_add(struct pace *p, const struct blackbox_page *page) {
    for (int row = 0; row <= PHASE_COUNT; row++)
        for (int b = 0; b < BLACKBOX_BUCKETS; b++) p->counts[row][b] += page->silences[row][b];
}

int64_t pace_high_ms(const struct pace *p, int row) {
    uint64_t total = 0, seen = 0;
    for (int b = 0; b < BLACKBOX_BUCKETS; b++) total += p->counts[row][b];
    if (total < SEEN_LEAST) return -1;
    int b = 0;
    for (; b < BLACKBOX_BUCKETS - 1; b++) {
        seen += p->counts[row][b];
        if ((double)seen >= HIGH_QUANTILE * (double)total) break;
    }
    return (INT64_C(2) << b) / 1000 + 1;
}
