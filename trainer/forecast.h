// SPDX-License-Identifier: Apache-2.0
// A model as the predictor that rollouts ask, with its memory of frames decoded. Thread rule: one thread.
#ifndef ORRERY_TRAINER_FORECAST_H
#define ORRERY_TRAINER_FORECAST_H

#include "trainer/model.h"
#include "trainer/rollout.h"

struct forecast {
    struct model *model;
    struct model_cache *cache; // NULL: nothing was decoded yet
    int64_t sequences, window; // that the cache has room for
};

// The predictor borrows `f`, and f the model. All zero but `model` is a good start.
struct predictor forecast_predictor(struct forecast *f);
void forecast_fini(struct forecast *f); // keeps the model

#endif
