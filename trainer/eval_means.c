// SPDX-License-Identifier: Apache-2.0
#include "trainer/eval_means.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 8 // windows read together, whatever the number of ranks

struct job {
    const struct eval_means_request *q;
    const struct eval_windows *w;
    int64_t marks; // where they begin in a block: behind sums, squares, frames
};

// All or none of these windows.
static int add_windows(const struct job *j, int64_t first, int64_t n, struct baseline_sums *sums,
                       struct err *e) {
    const struct eval_source *s = j->q->source;
    struct batch batch = {0};
    int rc = s->window(s->arg, j->w->episode + first, j->w->first_frame + first, n, j->w->frames, &batch, e);
    if (!rc) baseline_sums_add(sums, j->q->set, batch.x, batch.valid, n * j->w->frames);
    batch_fini(&batch);
    return rc;
}

static int add_whole_ones(const struct job *j, int64_t first, int64_t n, struct baseline_sums *sums,
                          double *marks, struct err *e) {
    for (int64_t i = 0; i < n; i++) {
        struct err here = {0};
        if (!add_windows(j, first + i, 1, sums, &here)) continue;
        marks[i] = 1;
        if (data_passes_over(j->q->config, &here)) continue;
        *e = here;
        return -(int)here.code;
    }
    return 0;
}

static int sum_chunk(void *arg, int64_t item, double *block, struct err *e) {
    const struct job *j = arg;
    int64_t first = item * CHUNK, n = j->w->n - first < CHUNK ? j->w->n - first : CHUNK;
    struct baseline_sums sums;
    int rc = baseline_sums_init(&sums, j->q->set, e);
    if (rc) return rc;
    rc = add_windows(j, first, n, &sums, e);
    if (rc && data_passes_over(j->q->config, e)) {
        err_clear(e);
        rc = add_whole_ones(j, first, n, &sums, block + j->marks, e);
    }
    if (!rc) {
        memcpy(block, sums.sum, sizeof(double) * (size_t)sums.elems);
        memcpy(block + sums.elems, sums.square, sizeof(double) * (size_t)sums.elems);
        memcpy(block + 2 * sums.elems, sums.frames, sizeof sums.frames);
    }
    baseline_sums_fini(&sums);
    return rc;
}

static void merge_block(struct baseline_sums *total, double *block) {
    struct baseline_sums one = {.elems = total->elems, .sum = block, .square = block + total->elems};
    memcpy(one.frames, block + 2 * total->elems, sizeof one.frames);
    baseline_sums_merge(total, &one);
}

// What is wrong with the first: whoever met it, each rank that tells of it looks itself.
static int find_why(const struct eval_means_request *q, struct eval_skipped *s, struct err *e) {
    struct batch batch = {0};
    struct err here = {0};
    if (q->source->window(q->source->arg, s->windows.episode, s->windows.first_frame, 1, s->windows.frames,
                          &batch, &here))
        snprintf(s->why, sizeof s->why, "%s", here.text);
    batch_fini(&batch);
    if (s->windows.n < s->of) return 0;
    return err_set(e, ERR_DATA, "all %lld windows of %s are in broken samples; the first: %.700s",
                   (long long)s->of, q->data, s->why);
}

static int drop_broken(const struct eval_means_request *q, struct eval_windows *w, const double *all,
                       const struct job *j, int64_t block, struct eval_skipped *s, struct err *e) {
    double *mark = calloc((size_t)w->n + 1, sizeof *mark);
    int64_t broken = 0;
    if (!mark) return err_set(e, ERR_MEMORY, "no memory for %lld windows", (long long)w->n);
    for (int64_t i = 0; i < w->n; i++) {
        mark[i] = all[i / CHUNK * block + j->marks + i % CHUNK];
        broken += mark[i] != 0;
    }
    s->of = w->n;
    int rc = broken ? eval_windows_drop(w, mark, &s->windows, e) : 0;
    free(mark);
    return rc || !broken ? rc : find_why(q, s, e);
}

int eval_means_take(const struct eval_means_request *q, struct eval_windows *w, struct baseline_means *out,
                    struct eval_skipped *skipped, struct err *e) {
    struct baseline_sums total;
    double *all = NULL;
    int rc = baseline_sums_init(&total, q->set, e);
    if (rc) return rc;
    struct job job = {q, w, 2 * total.elems + OPS_MODALITIES_MAX};
    struct eval_deal deal = {.coll = q->coll,
                             .watch = q->watch,
                             .name = "evaluate: means of data",
                             .of = q->of,
                             .count = w->n,
                             .each = CHUNK,
                             .block_elems = job.marks + CHUNK,
                             .fn = sum_chunk,
                             .arg = &job};
    int64_t items = eval_deal_items(&deal);
    rc = eval_deal_run(&deal, &all, e);
    for (int64_t i = 0; i < items && !rc; i++) merge_block(&total, all + i * deal.block_elems);
    if (!rc) rc = drop_broken(q, w, all, &job, deal.block_elems, skipped, e);
    if (!rc) rc = baseline_means_init(out, q->set, &total, e);
    free(all);
    baseline_sums_fini(&total);
    return rc;
}

void eval_skipped_fini(struct eval_skipped *s) {
    eval_windows_fini(&s->windows);
}
