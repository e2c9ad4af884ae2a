// SPDX-License-Identifier: Apache-2.0
// Rollouts as pictures: a strip (time to the right, truth above the model) and an animation (truth left,
// model right, with the command as an arrow, touch and audio as bars).
#ifndef ORRERY_TRAINER_ROLLOUT_DRAW_H
#define ORRERY_TRAINER_ROLLOUT_DRAW_H

#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"
#include "trainer/modality.h"

struct rollout_draw {
    const struct modality_set *set;   // has video
    int64_t count, frames, context;   // sequences, frames of each, frames given
    float *truth[OPS_MODALITIES_MAX]; // [count, frames, frame_elems]
    float *model[OPS_MODALITIES_MAX];
    // [count, frames]: 0 where the data lacks the sense: an empty field, no arrow; NULL: it lacks nothing.
    const unsigned char *valid[OPS_MODALITIES_MAX];
};

// The first `frames` frames as a PNG. Borders: grey for given frames, white for predicted ones.
int rollout_draw_strip(const struct rollout_draw *d, int64_t frames, struct buf *png,
                       struct err *e) ERR_CHECK;
// All frames as an animated GIF at `frame_hz` of the data, slowed down to at most 8 frames per second.
int rollout_draw_gif(const struct rollout_draw *d, struct buf *gif, struct err *e) ERR_CHECK;

#endif
