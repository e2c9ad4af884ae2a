// SPDX-License-Identifier: Apache-2.0
// Decoded episodes within a budget of memory; the one that was used longest ago goes first. An episode that
// is in use stays. Where episodes are so long that those in use together would not fit, and their film can be
// read in parts, the film is kept by windows: of each the pictures that it shows are read and decoded alone.
// Thread rule: any thread; an episode wanted by several threads at once is read once.
#ifndef ORRERY_TRAINER_DATA_CACHE_H
#define ORRERY_TRAINER_DATA_CACHE_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/dataset.h"
#include "trainer/modality.h"

struct data_cache;

struct data_episode {
    int64_t number, frames;
    int64_t first[OPS_MODALITIES_MAX];        // the frame with which what follows begins: 0, or a window's
    void *cells[OPS_MODALITIES_MAX];          // [frames, frame_elems], as modality.h's decode leaves them
    unsigned char *valid[OPS_MODALITIES_MAX]; // [frames]
};

// Borrows both. `together`: so many episodes are in use at a time.
int data_cache_create(struct data_cache **out, struct dataset *d, const struct modality_set *set,
                      size_t budget_bytes, int64_t together, struct err *e) ERR_CHECK;
void data_cache_destroy(struct data_cache *c); // no episode is in use
// Reads and decodes it unless it is there; frames [first, first + count) of it will be looked at. DATA or
// MISSING: this episode, or this window, is broken; an episode is remembered to be.
int data_cache_take(struct data_cache *c, int64_t number, int64_t first, int64_t count,
                    const struct data_episode **out, struct err *e) ERR_CHECK;
void data_cache_give_back(struct data_cache *c, const struct data_episode *episode); // NULL-safe
size_t data_cache_bytes(struct data_cache *c);

#endif
