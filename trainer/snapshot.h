// SPDX-License-Identifier: Apache-2.0
// Saving and resuming a training run. A save copies this rank's tensors to host memory and returns; a thread
// writes them; the ranks notice at their step boundaries, by votes that ride on the step's own exchange, when
// all parts are written, and rank 0 commits. Thread rule: the main thread; the writer is inside.
#ifndef ORRERY_TRAINER_SNAPSHOT_H
#define ORRERY_TRAINER_SNAPSHOT_H

#include <stdbool.h>
#include <stdint.h>

#include "storage/ckpt.h"
#include "trainer/fault.h"
#include "trainer/model.h"
#include "trainer/optim.h"
#include "trainer/rank.h"
#include "trainer/step.h"

enum snapshot_vote { VOTE_STOP, VOTE_WRITTEN, VOTE_COMMITTED, VOTE_FAILED }; // places in votes[STEP_VOTES]

struct snapshot;

// Takes host memory for one copy of this rank's tensors.
int snapshot_open(struct snapshot **out, struct rank *r, struct model *m, struct optim *o, struct fault *f,
                  struct err *e) ERR_CHECK;
// NULL-safe; waits for a writer that is still at work, commits nothing.
void snapshot_close(struct snapshot *s);
int64_t snapshot_bytes(const struct config *c, const struct params *p, int world, int rank); // host memory

// Collective. Loads weights and this rank's optimiser state of the newest complete checkpoint. *found false:
// there is none, nothing changed. CONFIG names the keys that differ in a way that matters; others are logged.
int snapshot_resume(struct snapshot *s, bool *found, struct ckpt_state *state, struct err *e) ERR_CHECK;
// The same from the newest one whose step is at most `most`.
int snapshot_resume_at(struct snapshot *s, int64_t most, bool *found, struct ckpt_state *state,
                       struct err *e) ERR_CHECK;

// Collective: every rank begins the same save at the same step, right after its update. Waits for the save
// before it.
int snapshot_begin(struct snapshot *s, const struct ckpt_state *state, struct err *e) ERR_CHECK;
// Around the step's exchange: what this rank says, and what all said.
void snapshot_say(const struct snapshot *s, int64_t *votes);
int snapshot_hear(struct snapshot *s, const int64_t *votes, struct err *e) ERR_CHECK;
// Collective: waits until the save under way is complete.
int snapshot_finish(struct snapshot *s, struct err *e) ERR_CHECK;
int64_t snapshot_newest(const struct snapshot *s); // step of the newest complete checkpoint, -1 none

#endif
