// SPDX-License-Identifier: Apache-2.0
// The memory of a GPU that a rank's training takes, part by part: a function of the config, counted by the
// same functions that the parts allocate by. `orrery plan` shows it; a rank on a GPU compares it with what is
// free before step 0. Thread rule: any thread.
#ifndef ORRERY_TRAINER_MEMORY_H
#define ORRERY_TRAINER_MEMORY_H

#include <stdint.h>

#include "trainer/params.h"
#include "trainer/rank.h"

// X(name, words)
#define MEMORY_PARTS_LIST(X)                                                                                 \
    X(weights, "fp32 weights")                                                                               \
    X(copy, "bf16 copy")                                                                                     \
    X(gradients, "gradients")                                                                                \
    X(optimiser, "optimiser")                                                                                \
    X(average, "average")                                                                                    \
    X(activations, "activations")                                                                            \
    X(inputs, "inputs")                                                                                      \
    X(schedules, "attention's schedules")                                                                    \
    X(scratch, "scratch")                                                                                    \
    X(products, "cuBLASLt's workspace")                                                                      \
    X(evaluation, "evaluation")                                                                              \
    X(nccl, "NCCL (allowance)")                                                                              \
    X(context, "CUDA context (allowance)")

enum memory_part {
#define MEMORY_ENUM(name, words) MEMORY_##name,
    MEMORY_PARTS_LIST(MEMORY_ENUM)
#undef MEMORY_ENUM
        MEMORY_PARTS
};
const char *memory_part_name(enum memory_part part); // "weights"

struct memory_gpu {
    int64_t bytes[MEMORY_PARTS], total;
};

// For rank `rank` of `world` on a GPU of that compute capability (90: 9.0). CONFIG: a shape that the GPU's
// kernels do not know, with what they do.
int memory_gpu_plan(struct memory_gpu *out, const struct config *c, const struct modality_set *set,
                    const struct params *p, int world, int rank, int compute, struct err *e) ERR_CHECK;

// One sentence: which keys to change so that less is taken.
#define MEMORY_ADVICE_BYTES 256
void memory_gpu_advice(const struct memory_gpu *m, const struct config *c, char out[MEMORY_ADVICE_BYTES]);

// Before step 0 and before anything large is taken: is there room for training on this rank's device? CONFIG
// when this GPU is too small, MEMORY when others hold what is missing; with the parts, what is free, and what
// to change. Nothing to do on a CPU.
int memory_check(const struct rank *r, const struct modality_set *set, struct err *e) ERR_CHECK;

#endif
