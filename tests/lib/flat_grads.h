// SPDX-License-Identifier: Apache-2.0
// A model's gradients, all in one buffer of the caller's.
#ifndef ORRERY_TESTS_FLAT_GRADS_H
#define ORRERY_TESTS_FLAT_GRADS_H

#include "trainer/model.h"

static inline int flat_grads_place(void *flat, int stage, struct params_place *out, struct err *e) {
    *out = (struct params_place){.at = flat};
    return 0;
}

static inline struct model_grads flat_grads(float *flat) {
    return (struct model_grads){.arg = flat, .place = flat_grads_place};
}

#endif
