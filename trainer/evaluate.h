// SPDX-License-Identifier: Apache-2.0
// Evaluation on held-out windows: the model's forecasts, one-step and sampled, with its own and with another
// episode's actions, beside the baselines; what it tells of one sense from the others. Sequences are dealt
// out to the ranks in fixed chunks and their records added in sequence order: the numbers do not depend on
// the number of ranks.
#ifndef ORRERY_TRAINER_EVALUATE_H
#define ORRERY_TRAINER_EVALUATE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/config.h"
#include "base/err.h"
#include "comm/coll.h"
#include "trainer/eval_means.h"
#include "trainer/eval_record.h"
#include "trainer/eval_source.h"
#include "trainer/rollout.h"

#define EVALUATE_CHUNK 8 // sequences predicted together, whatever the number of ranks

// Which weights are measured.
struct eval_weights {
    int64_t step;
    bool average; // optim.ema's, not those of the last step
};

struct evaluate_request {
    const struct config *config;
    const struct modality_set *set;
    struct predictor predictor;
    struct eval_source held_out, train;
    struct coll *coll; // NULL: this process alone
    struct eval_watch watch;
    struct eval_weights weights;
};

enum { EVAL_TRAIN, EVAL_HELD_OUT, EVAL_DATA }; // data sets
const char *eval_data_name(int data);          // the config's key: "data.train"

struct eval_result {
    struct eval_weights weights;
    int64_t sequences, context, horizon, samples; // sequences: those that were measured
    uint64_t seed;
    int ranks;
    unsigned has;            // enum eval_has: which bars and metrics can be
    const char *no_objects;  // why constant velocity and its objects are left out; NULL: they are not
    bool bars;               // do the bars belong to this config and this world?
    bool made[EVAL_ROWS];    // rows that were made
    double *value, *lo, *hi; // [eval_numbers_count(horizon)], see eval_record.h; 95 % intervals
    struct eval_skipped skipped[EVAL_DATA];
    double seconds;
};

// CONFIG, DATA: these keys and this data cannot be evaluated on so many ranks.
int evaluate_check(const struct config *c, struct coll *coll, const struct eval_source *train,
                   const struct eval_source *held_out, struct err *e) ERR_CHECK;
// Collective. The result is filled on every rank; the caller finishes it. SAVED: some rank was asked to stop.
int evaluate_run(const struct evaluate_request *q, struct eval_result *out, struct err *e) ERR_CHECK;
void eval_result_fini(struct eval_result *r);

#endif
