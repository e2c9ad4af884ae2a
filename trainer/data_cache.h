// SPDX-License-Identifier: Apache-2.0
// Decoded episodes within a budget of memory; the one that was used longest ago goes first. An episode that
// is in use stays. Thread rule: any thread; an episode wanted by several threads at once is read once.
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
    void *cells[OPS_MODALITIES_MAX];          // [frames, frame_elems], as modality.h's decode leaves them
    unsigned char *valid[OPS_MODALITIES_MAX]; // [frames]
};

// Borrows both.
int data_cache_create(struct data_cache **out, struct dataset *d, const struct modality_set *set,
                      size_t budget_bytes, struct err *e) ERR_CHECK;
void data_cache_destroy(struct data_cache *c); // no episode is in use
// Reads and decodes it unless it is there. DATA or MISSING: this episode is broken, and is remembered to be.
int data_cache_take(struct data_cache *c, int64_t number, const struct data_episode **out,
                    struct err *e) ERR_CHECK;
void data_cache_give_back(struct data_cache *c, const struct data_episode *episode); // NULL-safe
size_t data_cache_bytes(struct data_cache *c);

#endif
