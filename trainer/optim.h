// SPDX-License-Identifier: Apache-2.0
// The optimiser under ZeRO-1: every rank owns whole tensors, a contiguous run of the flat layout, and holds
// state and gradients' sums for those alone. Muon (Jordan et al., 2024) on the blocks' matrices, AdamW on the
// rest, or AdamW for all. Does not communicate. Thread rule: one thread.
#ifndef ORRERY_TRAINER_OPTIM_H
#define ORRERY_TRAINER_OPTIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "kernels/ops.h"
#include "trainer/params.h"

struct optim;

// offset[size + 1]: who owns what, in floats, cut at tensor borders, balanced by the optimiser's work.
void optim_split(const struct config *c, const struct params *p, int size, int64_t *offset);
// Device memory that a rank's optimiser takes; of `d` what counts is whether its memory is the host's.
int64_t optim_bytes(const struct config *c, const struct params *p, int size, int rank,
                    const struct device *d);
// How many of Muon's matrices of a shape are updated at a time.
int optim_batch(const struct device *d, int64_t rows, int64_t cols);
int64_t optim_average_bytes(const struct config *c, const struct params *p, int size, int rank); // of these
// Which tensors of the table, [*lo, *hi), a rank owns. Not 0: no memory.
int optim_tensors(const struct config *c, const struct params *p, int size, int rank, int *lo, int *hi);

// `c` and `p` outlive it. State starts at zero; the average starts as `weights`.
int optim_create(struct optim **out, const struct config *c, const struct params *p, struct device *d,
                 int size, int rank, const float *weights, struct err *e) ERR_CHECK;
void optim_destroy(struct optim *o); // NULL-safe
const int64_t *optim_offsets(const struct optim *o);
// Tensors [*lo, *hi) of the table are this rank's.
void optim_owned(const struct optim *o, int *lo, int *hi);

// Of the gradients of this rank's tensors: sums of squares, and how many numbers are not finite; one of each
// per own tensor, in device memory.
int optim_squares(struct optim *o, const float *grads, double *squares, int64_t *nonfinite,
                  struct err *e) ERR_CHECK;
// Is the gradient of tensor i part of the norm that is clipped? Muon's are not: their scale has no effect.
bool optim_clips(const struct optim *o, int i);
// The host's share of an update's numbers; `step` counts from 1.
struct op_update optim_numbers(const struct config *c, double rate, int64_t step);
// Queues one update of this rank's tensors: grads points at the own segment, weights at the whole flat
// buffer, and so does `low`, their copy in bf16, which follows in the same pass (NULL: there is none); `now`
// into device memory.
int optim_update(struct optim *o, float *weights, void *low, const float *grads, const struct op_update *now,
                 struct err *e) ERR_CHECK;
// How that copy is rounded, of whichever rank's tensors.
struct op_rounding optim_rounding(const struct config *c);

// State of own tensor i, NULL where it has none: for checkpoints.
enum optim_state { OPTIM_M, OPTIM_V, OPTIM_AVERAGE, OPTIM_STATES };
float *optim_state_of(struct optim *o, int i, enum optim_state which);
const char *optim_state_name(enum optim_state which); // "optim.m"

#endif
