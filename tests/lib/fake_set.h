// SPDX-License-Identifier: Apache-2.0
// A modality set as the config describes it, without a data set: for tests of model, step and optimiser.
#ifndef ORRERY_TESTS_FAKE_SET_H
#define ORRERY_TESTS_FAKE_SET_H

#include <string.h>

#include "trainer/modality.h"

static const struct modality fake_senses[] = {
    {.name = "action", .is_action = true}, {.name = "touch"}, {.name = "audio"}, {.name = "video"}};

static inline void fake_sense(struct modality_set *set, int kind, struct patch_grid grid, int history,
                              double weight) {
    struct modality_spec *s = &set->spec[set->n];
    *s = (struct modality_spec){.modality = &fake_senses[kind], .grid = grid, .loss_weight = weight};
    s->frame_elems = patch_grid_frame(&grid);
    s->tokens = patch_grid_tokens(&grid);
    s->value_width = patch_grid_value(&grid);
    s->seen_width = kind == 0 ? 0 : patch_grid_seen(&grid);
    s->history = kind == 0 ? 0 : history;
    set->slot_first[set->n] = set->tokens_per_frame;
    for (int64_t t = 0; t < s->tokens; t++) set->slot_modality[set->tokens_per_frame++] = set->n;
    if (kind == 0) set->action = set->n;
    set->n++;
}

static inline void fake_set(struct modality_set *set, const struct config *c) {
    memset(set, 0, sizeof *set);
    int history = (int)c->model_history;
    struct patch_grid action = {1, 1, (int32_t)c->action_width, 1, 0};
    struct patch_grid touch = {1, 1, (int32_t)(c->touch_channels * c->touch_subsamples), 1, 0};
    struct patch_grid audio = {1, (int32_t)c->audio_bins, (int32_t)c->audio_mels, 1, 0};
    struct patch_grid video = {(int32_t)c->video_height, (int32_t)c->video_width, (int32_t)c->video_channels,
                               (int32_t)c->video_patch, (int32_t)c->video_margin};
    fake_sense(set, 0, action, history, c->action_weight);
    fake_sense(set, 1, touch, history, c->touch_weight);
    fake_sense(set, 2, audio, history, c->audio_weight);
    fake_sense(set, 3, video, history, c->video_weight);
}

#endif
