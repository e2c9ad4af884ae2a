// SPDX-License-Identifier: Apache-2.0
// Evaluation and rollouts as tasks of orrery-rank, and what training calls when it is done. All write into
// the run folder, rank 0 alone: eval.json and eval.txt, or what eval.name says (evaluation),
// rollouts/strip.png and rollouts/rollout.gif (pictures).
#ifndef ORRERY_TRAINER_EVAL_TASK_H
#define ORRERY_TRAINER_EVAL_TASK_H

#include <stdint.h>

#include "base/err.h"
#include "trainer/data.h"
#include "trainer/evaluate.h"
#include "trainer/model.h"
#include "trainer/rank.h"

// All are collective.
// Of the newest checkpoint. CONFIG: data.eval is not set; MISSING: no checkpoint yet.
int task_evaluate(struct rank *r, struct err *e) ERR_CHECK;
int task_rollout(struct rank *r, struct err *e) ERR_CHECK;

// Whether an evaluation will be possible, asked before a training that ends with one.
int eval_task_check(const struct rank *r, struct data *train, struct data *held_out, struct err *e) ERR_CHECK;
// Of the weights that the model holds now, and `weights` says which these are. `train` is an open training
// set, or NULL: data.train is opened.
int eval_task_measure(struct rank *r, struct model *m, struct data *train, struct data *held_out,
                      struct eval_weights weights, struct err *e) ERR_CHECK;
// The same with pictures: the end of training. `held_out` NULL (data.eval is not set): does nothing but log.
int eval_task_finish(struct rank *r, struct model *m, struct data *train, struct data *held_out,
                     struct eval_weights weights, struct err *e) ERR_CHECK;

#endif
