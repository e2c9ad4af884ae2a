// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_deal.h"

#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "comm/grid.h"

#define BYTES_MAX ((size_t)2 << 30)

int64_t eval_deal_items(const struct eval_deal *d) {
    return (d->count + d->each - 1) / d->each;
}

static int size_of(const struct eval_deal *d) {
    return d->coll ? coll_size(d->coll) : 1;
}

// Of the rank that has most.
static int64_t most_items(const struct eval_deal *d) {
    return (eval_deal_items(d) + size_of(d) - 1) / size_of(d);
}

int eval_deal_check(const struct eval_deal *d, struct err *e) {
    size_t bytes;
    if (bytes_mul((size_t)(most_items(d) * size_of(d)), (size_t)d->block_elems, &bytes) &&
        bytes_mul(bytes, sizeof(double), &bytes) && bytes <= BYTES_MAX)
        return 0;
    return err_set(e, ERR_CONFIG,
                   "evaluation would need more than 2 GiB for its %s; lower eval.sequences or eval.horizon",
                   d->of);
}

static int take_blocks(double **out, int64_t items, int64_t block_elems, struct err *e) {
    size_t bytes = sizeof(double) * (size_t)(items * block_elems);
    *out = calloc(bytes ? bytes : 1, 1);
    return *out ? 0 : err_set(e, ERR_MEMORY, "no memory for evaluation records (%zu bytes)", bytes);
}

// Pieces of all ranks stand one after the other, each as long as the longest; closes the gaps.
static void close_gaps(const double *pieces, int64_t items, int size, int64_t most, int64_t block_elems,
                       double *all) {
    for (int r = 0; r < size; r++) {
        int64_t lo, hi;
        grid_split(items, size, r, &lo, &hi);
        memcpy(all + lo * block_elems, pieces + r * most * block_elems,
               sizeof(double) * (size_t)((hi - lo) * block_elems));
    }
}

// Before round `round`: all ranks have done as many items, but for the last, shorter round.
static int pause_between(const struct eval_deal *d, int size, int64_t round, struct err *e) {
    int64_t done = round * size * d->each;
    if (d->watch.box) blackbox_set_part(d->watch.box, done < d->count ? done : d->count, d->count, d->of);
    if (!d->watch.stop_asked) return 0;
    int64_t stop = d->watch.stop_asked(d->watch.arg);
    int rc = size > 1 ? coll_sum_i64(d->coll, "evaluate: go on", &stop, 1, e) : 0;
    if (rc || !stop) return rc;
    return err_set(e, ERR_SAVED, "stopped before the evaluation was done; the same command evaluates again");
}

static int do_share(const struct eval_deal *d, int size, int rank, int64_t most, double *own, struct err *e) {
    int64_t lo, hi;
    int rc = 0;
    grid_split(eval_deal_items(d), size, rank, &lo, &hi);
    for (int64_t i = 0; i < most && !rc; i++) {
        rc = pause_between(d, size, i, e);
        if (!rc && lo + i < hi) rc = d->fn(d->arg, lo + i, own + i * d->block_elems, e);
    }
    return rc;
}

int eval_deal_run(const struct eval_deal *d, double **all, struct err *e) {
    int size = size_of(d), rank = d->coll ? coll_rank(d->coll) : 0;
    int64_t items = eval_deal_items(d), most = most_items(d);
    double *own = NULL, *pieces = NULL;
    *all = NULL;
    int rc = eval_deal_check(d, e);
    if (!rc) rc = take_blocks(&own, most, d->block_elems, e);
    if (!rc) rc = take_blocks(&pieces, most * size, d->block_elems, e);
    if (!rc) rc = take_blocks(all, items, d->block_elems, e);
    if (!rc) rc = do_share(d, size, rank, most, own, e);
    if (rc) goto out;
    size_t bytes = sizeof(double) * (size_t)(most * d->block_elems);
    if (d->coll)
        rc = coll_gather_all(d->coll, d->name, own, bytes, pieces, e);
    else
        memcpy(pieces, own, bytes);
    if (!rc) close_gaps(pieces, items, size, most, d->block_elems, *all);
out:
    free(own);
    free(pieces);
    if (rc) {
        free(*all);
        *all = NULL;
    }
    return rc;
}
