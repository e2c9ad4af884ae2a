// SPDX-License-Identifier: Apache-2.0
#include "trainer/schedule.h"

#include <math.h>

double schedule_rate(const struct config *c, int64_t step) {
    double left = 1 - (double)step / (double)c->train_steps;
    double up = c->train_warmup > 0 ? fmin(1, (double)(step + 1) / (double)c->train_warmup) : 1;
    double down = c->train_decay > 0 ? fmin(1, fmax(c->train_floor, left / c->train_decay)) : 1;
    return c->optim_lr * up * down;
}
