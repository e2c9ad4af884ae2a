// SPDX-License-Identifier: Apache-2.0
// Where evaluation's sequences come from: windows of episodes, chosen by a pure function, and what a
// simulator knows of the objects in them. A source is a small vtable, so that tests bring episodes of their
// own.
#ifndef ORRERY_TRAINER_EVAL_SOURCE_H
#define ORRERY_TRAINER_EVAL_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "trainer/baseline.h"
#include "trainer/data.h"

struct eval_source {
    void *arg;
    int64_t episodes;
    int64_t (*frames)(void *arg, int64_t episode);
    // As data_window.
    int (*window)(void *arg, const int64_t *episode, const int64_t *first_frame, int64_t count,
                  int64_t frames, struct batch *out, struct err *e);
    // Objects around frames `now - 1` and `now` of an episode. NULL: this source knows of no objects. Sets n
    // = 0 where an episode has none.
    int (*objects)(void *arg, int64_t episode, int64_t now, struct baseline_objects *out, struct err *e);
};

// Episodes of an open data set; objects when its samples carry a simulator's "objects" and a "state" stream,
// and the video has a channel for the pusher and one for the rest.
void eval_source_data(struct eval_source *out, struct data *d);

// Seed of every choice of evaluation: not the run's, so that runs of different seeds meet the same windows.
#define EVAL_SEED 1

struct eval_windows {
    int64_t n, frames;
    int64_t *episode, *first_frame; // [n]
};
// DATA: no episode has `frames` frames.
int eval_windows_check(const struct eval_source *s, int64_t frames, struct err *e) ERR_CHECK;
// n windows spread evenly: every episode that is long enough is used k times before one is used k + 1 times,
// its windows at different places (Philox (seed, window)). Neighbours come from different episodes where
// there are two. DATA: no episode has that many frames.
int eval_windows_init(struct eval_windows *w, const struct eval_source *s, int64_t n, int64_t frames,
                      uint64_t seed, struct err *e) ERR_CHECK;
void eval_windows_fini(struct eval_windows *w);
// Moves the windows whose mark is not 0 to `dropped` (its frames are w's), the order kept.
int eval_windows_drop(struct eval_windows *w, const double *mark, struct eval_windows *dropped,
                      struct err *e) ERR_CHECK;

#endif
