// SPDX-License-Identifier: Apache-2.0
// From one sequence's truth and predictions to its record. Holds the work space for it; knows nothing of
// models.
#ifndef ORRERY_TRAINER_EVAL_MEASURE_H
#define ORRERY_TRAINER_EVAL_MEASURE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "trainer/baseline.h"
#include "trainer/eval_record.h"
#include "trainer/modality.h"

struct eval_measure {
    const struct modality_set *set;
    const struct baseline_means *truth; // of the held-out windows themselves: R^2 is against their mean
    int video, touch, audio, action;    // index in the set, -1: none
    bool objects;                       // video channel 0 is the pusher, 1 the rest
    int64_t frames, context;
    float *last, *there, *guess;  // pictures in 0..1
    bool given;                   // `last`: the sequence has a given picture
    unsigned char *near, *moving; // regions of a picture
};
// Keeps `set` and `truth`.
int eval_measure_init(struct eval_measure *m, const struct modality_set *set,
                      const struct baseline_means *truth, bool objects, int64_t frames, int64_t context,
                      struct err *e) ERR_CHECK;
void eval_measure_fini(struct eval_measure *m);

// One sequence, [frames, frame_elems] per modality.
struct eval_sequence {
    const float *truth[OPS_MODALITIES_MAX];
    const unsigned char *valid[OPS_MODALITIES_MAX];    // [frames]; NULL: all
    const float *guess[EVAL_ROWS][OPS_MODALITIES_MAX]; // NULL: this row says nothing of it
};
// Adds the forecast's cells of frames context .. frames - 1 to the record.
int eval_measure_forecast(struct eval_measure *m, const struct eval_sequence *q, double *record,
                          struct err *e) ERR_CHECK;
// Adds squared error and power about the mean of one modality, frames [from, to), to a probe's pair.
void eval_measure_probe(const struct eval_measure *m, int modality, const float *truth, const float *guess,
                        const unsigned char *valid, int64_t from, int64_t to, double *pair);

// Video as the model sees it to 0..1, clamped; NaN stays.
void eval_picture(const float *x, int64_t n, float *out);
// The modality's index in the set, -1: none.
int eval_find(const struct modality_set *set, const char *name);

#endif
