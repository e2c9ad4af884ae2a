// SPDX-License-Identifier: Apache-2.0
// A small set of senses for tests of evaluation: action [2], touch [2 x 2], audio [4], video [16, 16, 2].
#ifndef ORRERY_TESTS_EVAL_SET_H
#define ORRERY_TESTS_EVAL_SET_H

#include <string.h>

#include "trainer/modality.h"

enum { SET_ACTION, SET_TOUCH, SET_AUDIO, SET_VIDEO, SET_SENSES };
#define SET_SIDE 16

static const struct modality set_modalities[SET_SENSES] = {
    {.name = "action", .is_action = true}, {.name = "touch"}, {.name = "audio"}, {.name = "video"}};

static inline void set_sense(struct modality_set *set, int m, int height, int width, int channels) {
    struct modality_spec *s = &set->spec[m];
    s->modality = &set_modalities[m];
    s->grid = (struct patch_grid){height, width, channels, height > 1 ? 8 : 1, 0};
    s->frame_elems = (int64_t)height * width * channels;
    s->frame_hz = 10;
}

static inline void set_make(struct modality_set *set) {
    memset(set, 0, sizeof *set);
    set->n = SET_SENSES;
    set->action = SET_ACTION;
    set_sense(set, SET_ACTION, 1, 1, 2);
    set_sense(set, SET_TOUCH, 1, 2, 2);
    set->spec[SET_TOUCH].stream.rank = 1;
    set->spec[SET_TOUCH].stream.shape[0] = 2;
    set->spec[SET_TOUCH].stream.scale = 0.1;
    set_sense(set, SET_AUDIO, 1, 1, 4);
    set_sense(set, SET_VIDEO, SET_SIDE, SET_SIDE, 2);
}

#endif
