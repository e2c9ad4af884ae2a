// SPDX-License-Identifier: Apache-2.0
// Intervals by percentile bootstrap over sequences (Efron 1979). Replicates are dealt out to the ranks: with
// many sequences they take minutes.
#ifndef ORRERY_TRAINER_EVAL_BOOTSTRAP_H
#define ORRERY_TRAINER_EVAL_BOOTSTRAP_H

#include "base/err.h"
#include "trainer/eval_deal.h"

struct eval_bootstrap {
    struct coll *coll; // NULL: this process alone
    struct eval_watch watch;
    const double *records; // [n, eval_record_elems(horizon)], the same on every rank
    int64_t n, horizon, replicates;
    uint64_t seed;
};

// Collective. Replicate r draws n records with Philox (seed, r) and adds them in the order drawn. lo and hi
// [eval_numbers_count]: the 2.5 % and 97.5 % points of the replicates that have the number. SAVED: some rank
// was asked to stop.
int eval_bootstrap(const struct eval_bootstrap *b, double *lo, double *hi, struct err *e) ERR_CHECK;

#endif
