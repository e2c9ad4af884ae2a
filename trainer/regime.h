// SPDX-License-Identifier: Apache-2.0
// The training regimes: for one sequence, which (modality, frame) is clean and which is noise. A pure
// function of (run.seed, global sample number), so any rank can draw any sequence.
#ifndef ORRERY_TRAINER_REGIME_H
#define ORRERY_TRAINER_REGIME_H

#include <stdint.h>

#include "base/config.h"
#include "trainer/modality.h"

enum regime { REGIME_FORWARD, REGIME_INDEPENDENT, REGIME_INVERSE, REGIME_POLICY, REGIME_CROSS };

struct regime_draw {
    float *tau;         // [F, M]
    float *past;        // [F]: noise level of history[f]
    float *tau_history; // [F]: past, one frame later; 1 at f = 0
    float *hide;        // [M]: 0 where a sense's history is withheld, else 1
};

// Fills the caller's arrays for one sequence.
enum regime regime_sample(const struct config *c, const struct modality_set *set, int64_t frames,
                          uint64_t sample, const struct regime_draw *out);

#endif
