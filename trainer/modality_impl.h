// SPDX-License-Identifier: Apache-2.0
// What modality.c and the modality_*.c files share. Nobody else includes it.
#ifndef ORRERY_TRAINER_MODALITY_IMPL_H
#define ORRERY_TRAINER_MODALITY_IMPL_H

#include "trainer/modality.h"

extern const struct modality modality_action, modality_touch, modality_audio, modality_video;

// Steps [from, to) of a stream that lie in part `part` of `parts` of a frame's interval. May reach outside
// the stream on either side.
struct modality_span {
    int64_t from, to;
};
struct modality_span modality_span(const struct modality_spec *spec, int64_t frame, int64_t part,
                                   int64_t parts);

// More steps than an episode of `frames` can have: the cap for decoders.
int64_t modality_steps_max(const struct modality_spec *spec, int64_t frames);

#endif
