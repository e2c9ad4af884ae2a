// SPDX-License-Identifier: Apache-2.0
// Ranks that do not call the same collectives in the same order: found from the newest collectives in their
// black boxes, before anything hangs. A pure function of the pages.
#ifndef ORRERY_LAUNCHER_DISCORD_H
#define ORRERY_LAUNCHER_DISCORD_H

#include <stdbool.h>
#include <stddef.h>

#include "base/blackbox.h"

struct discord {
    int rank;       // who is alone against the others; -1: as many on one side as on the other
    int64_t seq;    // the first collective they differ in, of those that are still known
    char text[512]; // "collective 57 is 'agree' of step 12 on ranks 0, 2, but 'losses' of step 12 on rank 1"
};

// `pages`: [n], NULL where a rank has no box. False when all agree.
bool discord_find(const struct blackbox_page *const *pages, int n, struct discord *out);

#endif
