// SPDX-License-Identifier: Apache-2.0
// Sampling from the model: which senses are held clean, which are generated, which stay unknown (tau = 0), by
// mode. Frame by frame, K Euler steps each (K = 1 is the one-step regression answer), on windows of the last
// `window` frames; with a predictor that decodes, the frames before are encoded once. It knows no weights: a
// predictor is anything that maps noisy senses to clean ones, so tests bring their own. Thread rule: one
// thread per predictor.
#ifndef ORRERY_TRAINER_ROLLOUT_H
#define ORRERY_TRAINER_ROLLOUT_H

#include <stdint.h>

#include "base/err.h"
#include "trainer/modality.h"
#include "trainer/model.h"

struct predictor {
    // As model_predict: pred[m] [B, F, frame_elems] = the estimate of the clean value; NULL: not wanted.
    int (*predict)(void *model, const struct model_input *in, float *const *pred, struct err *e);
    void *model;
    // Optional, as model_decode: frame `at` alone, of windows of at most `window` frames; pred[m] [B,
    // frame_elems]. Frame 0 begins anew. `in` holds up to `history` frames before it.
    int (*decode)(void *model, int64_t window, int64_t at, const struct model_input *in, float *const *pred,
                  struct err *e);
    int64_t history;
};

enum rollout_mode {
    ROLLOUT_SIMULATE, // next observations from the past and the actions
    ROLLOUT_GENERATE, // next observations, actions unknown
    ROLLOUT_POLICY,   // next action from the past alone, then the observations that it leads to
    ROLLOUT_INVERSE,  // actions from the observations, all frames at once
    ROLLOUT_PERCEIVE, // the senses in `asked` from all others, all frames at once, their own history hidden
    ROLLOUT_MODES
};
const char *rollout_mode_name(enum rollout_mode mode); // "simulate"

struct rollout_request {
    enum rollout_mode mode;
    int64_t sequences, frames;
    int64_t context;        // frames given; ignored by inverse and perceive
    int64_t window;         // frames that the model sees at most; inverse and perceive need frames <= window
    int steps;              // K >= 1
    unsigned asked;         // perceive: bit m asks for modality m
    uint64_t seed;          // with the sample's number it fixes all noise, whatever the batch
    const uint64_t *sample; // [sequences]
    // [sequences, frames, frame_elems]: clean values in; what the mode generates is overwritten.
    float *x[OPS_MODALITIES_MAX];
    // [sequences, frames]: 0 where what is given lacks the sense, and the model is told so; NULL: it lacks
    // nothing. What the mode generates is there.
    const unsigned char *valid[OPS_MODALITIES_MAX];
};

// Blocks. BUG on a request that does not fit the mode; errors of the predictor pass through. A video's values
// are kept within the range that pictures can have.
int rollout_run(const struct predictor *p, const struct modality_set *set, const struct rollout_request *q,
                struct err *e) ERR_CHECK;

#endif
