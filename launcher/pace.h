// SPDX-License-Identifier: Apache-2.0
// What is usual in this run: how long ranks are silent in each phase, learned from the counts in their black
// boxes. Pure functions of the pages.
#ifndef ORRERY_LAUNCHER_PACE_H
#define ORRERY_LAUNCHER_PACE_H

#include <stdint.h>

#include "base/blackbox.h"

struct pace {
    uint64_t counts[PHASE_COUNT + 1][BLACKBOX_BUCKETS];
};

void pace_clear(struct pace *p);
void pace_add(struct pace *p, const struct blackbox_page *page);
// The upper edge of the bucket of the 999th thousandth of the silences of a row (a phase, or
// BLACKBOX_WAITING), in ms; -1 while fewer than 20 were seen.
int64_t pace_high_ms(const struct pace *p, int row);

#endif
