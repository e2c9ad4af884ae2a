// SPDX-License-Identifier: Apache-2.0
// The inside of a step, shared by step.c and step_memory.c only.
#ifndef ORRERY_TRAINER_STEP_IMPL_H
#define ORRERY_TRAINER_STEP_IMPL_H

#include "comm/exact.h"
#include "trainer/step.h"

enum step_reduce { REDUCE_EXACT, REDUCE_FAST }; // of comm.reduce
enum step_on_nan { ON_NAN_STOP };               // of train.on_nan

// Noise levels of all of this rank's sequences, on the host. S sequences, F frames, M modalities.
struct step_levels {
    float *tau, *past, *tau_history; // [S, F, M], [S, F], [S, F]
    float *hide, *active;            // [M, S], [M, S, F]
    uint64_t *sample;                // [S] global sample numbers
};

struct step {
    struct rank *rank;
    const struct config *config;
    struct model *model;
    struct optim *optim;
    struct fault *fault;
    const struct modality_set *set;
    int64_t micro, frames; // sequences of a shard, frames of a sequence
    int64_t lo, hi;        // this rank's shards

    struct arena arena;                                         // one shard's inputs on the device
    float *z[OPS_MODALITIES_MAX], *history[OPS_MODALITIES_MAX]; // [micro, F, E]
    float *x[OPS_MODALITIES_MAX];    // [micro, F, E]: a copy on a device with memory of its own, else NULL
    double *shard_losses;            // on the device: [own shards, M]
    float *tau, *tau_history, *past; // [micro, F, M], [micro, F], [micro, F]
    float *grads;                    // sums: the own segment (exact), or all tensors (fast)
    struct exact *exact;             // NULL with comm.reduce fast
    struct step_levels levels;
    int64_t counts[OPS_MODALITIES_MAX]; // active frames of the whole global batch

    // What ranks tell each other after the backward. Doubles travel as their bits: each has one owner and
    // zeros elsewhere, so the integer sum is that very double.
    double *squares, *losses; // [tensors], [shards, M]; both lie in `told`
    int64_t *told;
    int n_told, n_squares;
    double lap_at;
};

int step_memory_take(struct step *s, struct err *e) ERR_CHECK;
void step_memory_release(struct step *s);

#endif
