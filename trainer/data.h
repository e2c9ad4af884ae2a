// SPDX-License-Identifier: Apache-2.0
// Batches: loader order -> sample bytes -> decoded episodes (cached within data.memory_mb) -> windows. A
// background thread stays ahead of the step. What a batch holds is a pure function of its global sample
// numbers.
#ifndef ORRERY_TRAINER_DATA_H
#define ORRERY_TRAINER_DATA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "storage/loader.h"
#include "trainer/modality.h"

struct data;

// Sequences [first, first + count) of the global sequence of samples; floats in host memory, owned by the
// batch. A frame that the data lacks is 0 and not valid.
struct batch {
    int64_t first, count, frames;
    float *x[OPS_MODALITIES_MAX];             // [count, frames, frame_elems]
    unsigned char *valid[OPS_MODALITIES_MAX]; // [count, frames]
    int64_t *episode, *first_frame;           // [count], provenance
    int64_t replaced; // sequences cut from another episode, since theirs is broken (data.on_error: skip)
    struct err why;   // what is wrong with the first of them
};

// `url` training or held-out shards; opens the data set and fits the modalities to it. CONFIG when they do
// not fit; DATA when all episodes are shorter than data.frames. Those that are give no sequences.
int data_open(struct data **out, const struct config *c, const char *url, struct err *e) ERR_CHECK;
void data_close(struct data *d);
int64_t data_shorter(const struct data *d, int64_t frames); // episodes that are
const struct modality_set *data_modalities(const struct data *d);
struct dataset *data_dataset(const struct data *d); // borrowed; for reading samples beside the batches
// Prefetch: announces the ranges this rank will ask for: runs of `count` sequences starting at
// first + k * stride, k = 0, 1, ... data.threads threads stay two batches ahead. Announcing again starts
// anew; batches handed out before are void then.
int data_prefetch(struct data *d, int64_t first, int64_t count, int64_t stride, struct err *e) ERR_CHECK;
// The next announced batch; waits for the prefetch threads when it must. Valid until the next call but one.
// A broken sample: with data.on_error stop DATA, naming shard, member and offset; with skip its window is cut
// from the next sample of the data set that is whole. That is a pure function of which samples are broken, so
// all ranks agree on it without a word.
int data_next(struct data *d, const struct batch **out, struct err *e) ERR_CHECK;
// Any windows, at once, without prefetch (evaluation); `frames` may exceed the training window. Nothing is
// replaced. Caller frees with batch_fini, also after a failure.
int data_window(struct data *d, const int64_t *episode, const int64_t *first_frame, int64_t count,
                int64_t frames, struct batch *out, struct err *e) ERR_CHECK;
void batch_fini(struct batch *b);
// Is this a broken sample, and are those passed over (data.on_error: skip)?
bool data_passes_over(const struct config *c, const struct err *e);
// What global sample g is, before any replacement: a pure function of seed and data set.
void data_item(const struct data *d, int64_t global_sample, struct loader_item *out);

#endif
