// SPDX-License-Identifier: Apache-2.0
// The order of samples as a pure function: no state but (seed, epoch, next index). An item is a window:
// episode i of the data set and the number of its first frame. Episodes are shuffled in blocks that keep
// shard locality, windows inside a block are shuffled too. Any rank can compute any item, so any number of
// ranks sees each item once per epoch. Thread rule: a plan is read-only.
#ifndef ORRERY_STORAGE_LOADER_H
#define ORRERY_STORAGE_LOADER_H

#include <stdint.h>

#include "base/err.h"
#include "storage/dataset.h"

struct loader_plan;

struct loader_options {
    uint64_t seed;
    int64_t window;        // frames
    int64_t shuffle_block; // episodes
};

struct loader_item {
    int64_t sample; // number in the data set
    int64_t first_frame;
    int64_t epoch;
};

// Windows per epoch: for each episode of T frames floor((T - phase) / window) of them, phase drawn per
// (epoch, episode) in [0, window), so that over epochs windows are cut anywhere. Episodes shorter than a
// window: DATA names the first. Needs the frame counts only.
int loader_plan_create(struct loader_plan **out, const struct dataset *d,
                       const struct loader_options *options, struct err *e) ERR_CHECK;
void loader_plan_destroy(struct loader_plan *p);
// Item of global index g >= 0, counted over epochs (an epoch ends where its windows end; the next follows).
void loader_item_at(const struct loader_plan *p, int64_t g, struct loader_item *out);
int64_t loader_items_in_epoch(const struct loader_plan *p, int64_t epoch);

#endif
