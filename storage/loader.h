// SPDX-License-Identifier: Apache-2.0
// The order of samples as a pure function: no state but (seed, next index). An item is a window: episode i of
// the data set and the number of its first frame. All windows of the data set, in the order of its shards,
// form a ring; each epoch cuts the ring at a random place into blocks of about `shuffle_block` episodes,
// permutes the blocks, and permutes the windows of each block: shards stay local to a block, and block
// borders move from epoch to epoch. The permutations are keyed ciphers (Feistel networks over Philox), so any
// item is found in constant time without a table: any rank can compute any item, and any number of ranks sees
// each item once per epoch. Thread rule: a plan is read-only.
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

// An episode of T frames gives n = max(1, floor((T - window + 1) / window)) windows in every epoch, whatever
// its phase, so all epochs are equally long. Its phase is drawn per (epoch, episode) in [0, T - n window]: at
// least a whole window wide where the episode has the room, so that over epochs windows are cut anywhere, and
// both ends are seen. Of a list of data sets with weights each has a ring of its own, and of every 1024 items
// its share: item.epoch counts its own epochs. An episode shorter than a window has none and is left out.
// Needs the frame counts only. DATA: none is long enough.
int loader_plan_create(struct loader_plan **out, const struct dataset *d,
                       const struct loader_options *options, struct err *e) ERR_CHECK;
// The same from frame counts alone.
int loader_plan_create_frames(struct loader_plan **out, const int64_t *frames, int64_t n,
                              const struct loader_options *options, struct err *e) ERR_CHECK;
void loader_plan_destroy(struct loader_plan *p);
// Item of global index g >= 0, counted over epochs (where the windows of one end, the next follows).
void loader_item_at(const struct loader_plan *p, int64_t g, struct loader_item *out);
int64_t loader_items_in_epoch(const struct loader_plan *p); // the same for every epoch

#endif
