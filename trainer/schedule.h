// SPDX-License-Identifier: Apache-2.0
// The learning rate over the run: linear warm-up, flat, linear decay to a floor. Pure.
#ifndef ORRERY_TRAINER_SCHEDULE_H
#define ORRERY_TRAINER_SCHEDULE_H

#include <stdint.h>

#include "base/config.h"

// Rate of step `step` (from 0): optim.lr min(1, (step + 1) / warmup) min(1, max(floor, (1 - step/steps) /
// decay)).
double schedule_rate(const struct config *c, int64_t step);

#endif
