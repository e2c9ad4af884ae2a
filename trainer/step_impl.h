// SPDX-License-Identifier: Apache-2.0
// The inside of a step, shared by step.c, step_comm.c and step_memory.c only.
#ifndef ORRERY_TRAINER_STEP_IMPL_H
#define ORRERY_TRAINER_STEP_IMPL_H

#include "base/clock.h"
#include "comm/exact.h"
#include "trainer/buckets.h"
#include "trainer/step.h"

enum step_reduce { REDUCE_EXACT, REDUCE_FAST }; // of comm.reduce
enum step_on_nan { ON_NAN_STOP };               // of train.on_nan

// Noise levels of all of this rank's sequences, on the host. S sequences, F frames, M modalities.
struct step_levels {
    float *tau, *past, *tau_history; // [S, F, M], [S, F], [S, F]
    float *hide, *active;            // [M, S], [M, S, F]
    uint64_t *sample;                // [S] global sample numbers
};

// What is under way beside the computation (step_comm.c).
struct step_comm {
    struct buckets buckets;
    struct step_bucket *bucket; // [buckets.n]
    int64_t shard;              // whose backward runs
    int reduced;                // buckets whose sums over ranks were begun, comm.reduce fast
    int missing;                // the first so many buckets' weights are on their way; the rest is here
    struct step_report *report; // of the step under way; NULL between steps
    struct coll_clock clock;    // at the end of the step before
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
    struct step_comm comm;
};

static inline void step_lap(struct step *s, struct step_report *out, enum step_part part) {
    double now = clock_seconds();
    out->seconds[part] += now - s->lap_at;
    s->lap_at = now;
}

int step_comm_open(struct step *s, struct err *e) ERR_CHECK; // watches the model
void step_comm_close(struct step *s);                        // waits for nobody
void step_comm_begin(struct step *s, struct step_report *out);
void step_comm_end(struct step *s);
// Waits until all buckets are summed; *own is the sum of this rank's segment.
int step_reduce(struct step *s, float **own, struct err *e) ERR_CHECK;
// Begins to spread the weights that this rank owns. Without comm.overlap they are everywhere when it returns.
int step_gather(struct step *s, struct err *e) ERR_CHECK;

int step_memory_take(struct step *s, struct err *e) ERR_CHECK;
void step_memory_release(struct step *s);

#endif
