// SPDX-License-Identifier: Apache-2.0
// Rollouts for people: picks held-out sequences in which something is touched and moves, lets the model go on
// from their first frames with the true actions (one-step, K = 1), and draws both side by side.
#ifndef ORRERY_TRAINER_ROLLOUT_SHOW_H
#define ORRERY_TRAINER_ROLLOUT_SHOW_H

#include "base/config.h"
#include "base/err.h"
#include "trainer/eval_deal.h"
#include "trainer/eval_source.h"
#include "trainer/rollout.h"

struct rollout_show_request {
    const struct config *config;
    const struct modality_set *set;
    struct predictor predictor;
    struct eval_source source;
    struct coll *coll; // NULL: this process alone
    struct eval_watch watch;
};

// Collective: the windows that might be drawn are dealt out to the ranks to be looked at; the first rank
// draws, and the others return before it does. SAVED: some rank was asked to stop. Writes
// RUN_DIR/rollouts/strip.png (eval.context + eval.horizon frames) and rollout.gif (eval.context +
// rollout.frames, fewer where no episode is that long). The choice of sequences looks at the truth alone,
// never at the model.
int rollout_show(const struct rollout_show_request *q, const char *run_dir, struct err *e) ERR_CHECK;

#endif
