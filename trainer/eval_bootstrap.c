// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_bootstrap.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "trainer/eval_record.h"

#define CHUNK 8 // replicates drawn between two looks at the others, whatever the number of ranks

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

// Linear interpolation between order statistics.
static double quantile(const double *sorted, int64_t n, double q) {
    double at = q * (double)(n - 1);
    int64_t i = (int64_t)at;
    if (i + 1 >= n) return sorted[n - 1];
    return sorted[i] + (at - (double)i) * (sorted[i + 1] - sorted[i]);
}

static void interval(double *column, int64_t n, double *lo, double *hi) {
    int64_t finite = 0;
    for (int64_t i = 0; i < n; i++)
        if (isfinite(column[i])) column[finite++] = column[i];
    *lo = *hi = NAN;
    if (finite == 0) return;
    qsort(column, (size_t)finite, sizeof *column, compare_doubles);
    *lo = quantile(column, finite, 0.025);
    *hi = quantile(column, finite, 0.975);
}

static void draw_replicate(const struct eval_bootstrap *b, int64_t r, double *sum) {
    int64_t elems = eval_record_elems(b->horizon);
    struct rng_stream rng;
    rng_stream_init(&rng, rng_key(b->seed, RNG_BOOTSTRAP, 0), 0, (uint64_t)r);
    memset(sum, 0, sizeof(double) * (size_t)elems);
    for (int64_t i = 0; i < b->n; i++) {
        const double *one = b->records + (int64_t)rng_next_below(&rng, (uint32_t)b->n) * elems;
        for (int64_t k = 0; k < elems; k++) sum[k] += one[k];
    }
}

static int draw_chunk(void *arg, int64_t item, double *block, struct err *e) {
    const struct eval_bootstrap *b = arg;
    int64_t first = item * CHUNK, numbers = eval_numbers_count(b->horizon);
    double *sum = calloc((size_t)eval_record_elems(b->horizon), sizeof *sum);
    if (!sum) return err_set(e, ERR_MEMORY, "no memory for a record");
    for (int64_t i = 0; i < CHUNK && first + i < b->replicates; i++) {
        draw_replicate(b, first + i, sum);
        eval_numbers(sum, b->horizon, block + i * numbers);
        if (b->watch.box) blackbox_touch(b->watch.box);
    }
    free(sum);
    return 0;
}

static int collect(const struct eval_bootstrap *b, const double *table, double *lo, double *hi,
                   struct err *e) {
    int64_t numbers = eval_numbers_count(b->horizon);
    double *column = calloc((size_t)b->replicates, sizeof *column);
    if (!column)
        return err_set(e, ERR_MEMORY, "no memory for %lld bootstrap replicates", (long long)b->replicates);
    for (int64_t k = 0; k < numbers; k++) {
        for (int64_t r = 0; r < b->replicates; r++) column[r] = table[r * numbers + k];
        interval(column, b->replicates, &lo[k], &hi[k]);
    }
    free(column);
    return 0;
}

int eval_bootstrap(const struct eval_bootstrap *b, double *lo, double *hi, struct err *e) {
    struct eval_bootstrap own = *b;
    struct eval_deal deal = {.coll = b->coll,
                             .watch = b->watch,
                             .name = "evaluate: replicates",
                             .of = "replicates",
                             .count = b->replicates,
                             .each = CHUNK,
                             .block_elems = CHUNK * eval_numbers_count(b->horizon),
                             .fn = draw_chunk,
                             .arg = &own};
    double *table = NULL;
    int rc = eval_deal_run(&deal, &table, e);
    if (!rc) rc = collect(b, table, lo, hi, e);
    free(table);
    return rc;
}
