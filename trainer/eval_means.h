// SPDX-License-Identifier: Apache-2.0
// Means of windows of a data set, dealt out to the ranks. It is the first to read them all, so it finds the
// broken ones: with data.on_error skip they leave the list, on all ranks alike, before anything is forecast.
#ifndef ORRERY_TRAINER_EVAL_MEANS_H
#define ORRERY_TRAINER_EVAL_MEANS_H

#include "trainer/eval_deal.h"
#include "trainer/eval_source.h"

struct eval_means_request {
    const struct config *config;
    const struct modality_set *set;
    const struct eval_source *source;
    struct coll *coll; // NULL: this process alone
    struct eval_watch watch;
    const char *data; // for messages: "data.train"
    const char *of;   // what the black box counts: "training windows"
};

// Windows that were passed over.
struct eval_skipped {
    struct eval_windows windows;
    int64_t of;               // all there were
    char why[ERR_TEXT_BYTES]; // what is wrong with the first
};

// Collective. Windows that are broken move from *w to *skipped. DATA: one is broken and none may be passed
// over, or none is whole. The caller finishes both results, also after a failure.
int eval_means_take(const struct eval_means_request *q, struct eval_windows *w, struct baseline_means *out,
                    struct eval_skipped *skipped, struct err *e) ERR_CHECK;
void eval_skipped_fini(struct eval_skipped *s);

#endif
