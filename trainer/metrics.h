// SPDX-License-Identifier: Apache-2.0
// metrics.jsonl: one line per logged step, written by rank 0. A run that resumes drops what lies after its
// step, so the file reads as if nothing had happened. Thread rule: one thread.
#ifndef ORRERY_TRAINER_METRICS_H
#define ORRERY_TRAINER_METRICS_H

#include <stdint.h>

#include "base/err.h"
#include "trainer/step.h"

struct metrics;

struct metrics_line {
    int64_t step; // steps done
    const struct modality_set *set;
    const struct step_report *report; // of this step
    double samples_per_s;             // since the line before
    double seconds[STEP_PARTS];       // mean of a step since the line before
    double data_wait;                 // share of the time since the line before
    double comm_busy, comm_wait;      // as in step_report, mean of a step since the line before
};

// Opens DIR/metrics.jsonl for appending; lines with a step above `keep` go, as does a last line cut short.
int metrics_open(struct metrics **out, const char *dir, int64_t keep, struct err *e) ERR_CHECK;
void metrics_close(struct metrics *m); // NULL-safe
int metrics_write(struct metrics *m, const struct metrics_line *line, struct err *e) ERR_CHECK;

#endif
