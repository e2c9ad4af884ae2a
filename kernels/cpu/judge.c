// SPDX-License-Identifier: Apache-2.0
// The verdict on a step: a few hundred numbers, added in order on one thread.
#include <math.h>
#include <string.h>

#include "kernels/cpu/cpu.h"

static double sum_of(const struct op_judge_args *a, const int32_t *at, int32_t n) {
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += a->told[at[i]];
    return sum;
}

static int64_t count_of(const struct op_judge_args *a, const int32_t *at) {
    int64_t sum = 0;
    for (int32_t i = 0; i < a->counts; i++) {
        int64_t one;
        memcpy(&one, &a->told[at[i]], sizeof one);
        sum += one;
    }
    return sum;
}

static double loss_of(const struct op_judge_args *a, const int32_t *at) {
    double loss = 0;
    for (int32_t i = 0; i < a->senses; i++) {
        double sum = sum_of(a, at + i * a->shards, a->shards);
        if (a->frames[i] > 0) loss += a->weight[i] * (sum / a->frames[i]);
    }
    return loss;
}

int CPU_FN(judge)(struct device *d, const struct op_judge_args *a, struct err *e) {
    CPU_REQUIRE(a->told != NULL && a->at != NULL && a->update != NULL && a->verdict != NULL);
    CPU_REQUIRE(a->senses == 0 || (a->frames != NULL && a->weight != NULL));
    double norm = sqrt(sum_of(a, a->at, a->squares));
    int64_t bad = count_of(a, a->at + a->squares);
    bool sound = bad == 0 && isfinite(norm) && isfinite(loss_of(a, a->at + a->squares + a->counts));
    bool skip = !sound || (a->spike > 0 && norm > a->spike);
    *a->verdict = (struct op_verdict){.norm = norm, .nonfinite = bad, .skip = skip};
    a->update->grad_scale = a->clip > 0 && norm > a->clip ? (float)(a->clip / (norm + 1e-6)) : 1;
    a->update->skip = skip;
    return 0;
}
