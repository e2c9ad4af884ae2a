// SPDX-License-Identifier: Apache-2.0
// One training step: noise, forward, loss, backward for each logical shard of the batch, sum over ranks,
// clip, update, gather. The same bits on any number of ranks with comm.reduce exact. Thread rule: the main
// thread.
#ifndef ORRERY_TRAINER_STEP_H
#define ORRERY_TRAINER_STEP_H

#include <stdbool.h>
#include <stdint.h>

#include "trainer/data.h"
#include "trainer/fault.h"
#include "trainer/model.h"
#include "trainer/optim.h"
#include "trainer/rank.h"

enum step_part {
    STEP_DATA,
    STEP_NOISE,
    STEP_FORWARD,
    STEP_BACKWARD,
    STEP_REDUCE,
    STEP_UPDATE,
    STEP_GATHER,
    STEP_PARTS
};
const char *step_part_name(enum step_part part);

struct step;

struct step_report {
    double loss;                        // sum of weight x loss of each modality
    double loss_of[OPS_MODALITIES_MAX]; // mean over active frames of the whole global batch
    double grad_norm; // of what is clipped: with Muon without the blocks' matrices (optim_clips)
    double rate;
    bool skipped;                    // a NaN or a spike: nothing was updated
    int64_t suspect_first, suspects; // skipped: the global samples it comes from, as narrow as is known
    double seconds[STEP_PARTS];      // of this step; STEP_DATA is the caller's
    // Seconds in which gradients or weights were on their way, and of those that were spent waiting for them.
    double comm_busy, comm_wait;
};

// Things all ranks count together once a step, at no extra cost: how many ranks say so.
#define STEP_VOTES 4

// Takes all memory that steps need.
int step_open(struct step **out, struct rank *r, struct model *m, struct optim *o, struct fault *f,
              struct err *e) ERR_CHECK;
void step_close(struct step *s); // NULL-safe

// Which global samples this rank works on in step `number` (from 0).
void step_range(const struct config *c, int world, int rank, int64_t number, int64_t *first, int64_t *count);

// `batch` holds exactly this rank's range. votes[STEP_VOTES]: in, this rank's; out, the sums over ranks.
int step_run(struct step *s, const struct batch *batch, int64_t number, int64_t *votes,
             struct step_report *out, struct err *e) ERR_CHECK;

// The weights of other ranks may still be on their way when a step has ended; the model's own passes wait for
// what they read. Whoever reads or writes model_weights otherwise calls this first, on all ranks.
int step_settle(struct step *s, struct err *e) ERR_CHECK;

// Of the last step: what logical shard `shard` adds to the mean loss of sense `i`, on every rank.
double step_share(const struct step *s, int64_t shard, int i);

// Memory of the step's own buffers for a rank of a world, reduction included, on a device with memory like
// d's; of these, all but gradients and reduction.
int64_t step_bytes(const struct config *c, const struct modality_set *set, const struct params *p, int world,
                   int rank, const struct device *d);
int64_t step_input_bytes(const struct config *c, const struct modality_set *set, const struct params *p,
                         int world, int rank, const struct device *d);

#endif
