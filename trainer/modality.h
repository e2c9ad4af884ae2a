// SPDX-License-Identifier: Apache-2.0
// A sense: how its stream in a sample becomes numbers per frame, and how a frame becomes tokens. One file per
// modality and one row in modality.c's registry; model, loss, data and evaluation loop over the registry.
// Order in the registry is order of tokens in a frame: action, touch, audio, video.
#ifndef ORRERY_TRAINER_MODALITY_H
#define ORRERY_TRAINER_MODALITY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "kernels/ops.h"
#include "storage/dataset.h"

// A modality as this run uses it: fixed by the config and the data set's schema.
struct modality_spec {
    const struct modality *modality;
    struct stream_schema stream;
    struct patch_grid grid; // height*width*channels floats per frame
    int64_t frame_elems;    // height * width * channels
    int64_t tokens;         // per frame
    int64_t value_width;    // floats of a token: patch^2 channels
    int64_t seen_width;     // floats of one history slot, 0 for actions
    int history;            // slots
    double loss_weight;
    double frame_hz; // data.rate_hz
};

// A film of which parts can be read: its table, which has times and crcs, and its header.
struct modality_film {
    struct film_table table;
    struct dataset_part lead, moov; // moov: nothing where it lies within the lead
    // As dataset_read_part.
    int (*read)(void *arg, int64_t lo, int64_t hi, struct dataset_part *out, struct err *e);
    void *arg;
};

struct modality {
    const char *name; // "video": the stream's modality in the sample metadata
    bool is_action;   // conditions every token, has no history slots
    size_t cell;      // bytes of a number as decoded and cached: 4 (float), or 1 (u8) with `expand`
    // Fills grid and frame_hz from the config, and checks that the stream fits; the rest is
    // modality_set_init's. CONFIG when it does not.
    int (*specify)(const struct config *c, const struct stream_schema *stream, struct modality_spec *out,
                   struct err *e);
    // Decodes a whole episode into cells [frames, frame_elems], zeroed by the caller. valid [frames]: 1 where
    // the frame has data. Frame f covers the interval ((f-1)/rate, f/rate].
    int (*decode)(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames, void *cells,
                  unsigned char *valid, struct err *e);
    // The same for frames [first, first + count) of an episode's film, with only the bytes that they need,
    // and to the same bits. NULL: only whole episodes can be decoded. `frames`: of the episode.
    int (*decode_part)(const struct modality_spec *spec, const struct modality_film *film, int64_t frames,
                       int64_t first, int64_t count, void *cells, unsigned char *valid, struct err *e);
    // Cells as the model sees them. NULL: they are these floats.
    void (*expand)(const struct modality_spec *spec, const void *cells, int64_t n, float *out);
};

struct modality_set {
    int n;      // modalities present in both model and data, in registry order
    int action; // index of the action modality, -1: none
    struct modality_spec spec[OPS_MODALITIES_MAX];
    int64_t tokens_per_frame;
    int32_t slot_modality[1024];            // [tokens_per_frame]
    int64_t slot_first[OPS_MODALITIES_MAX]; // first slot of each modality
};
// A data set that lacks a modality which the config asks for, or whose streams do not fit: CONFIG, with both
// lists. `streams` NULL: the config's word for all shapes (a plan without data).
int modality_set_init(struct modality_set *out, const struct config *c, const struct stream_schema *streams,
                      int n_streams, struct err *e) ERR_CHECK;

#endif
