// SPDX-License-Identifier: Apache-2.0
#include "trainer/buckets.h"

#include <stdlib.h>

#include "comm/grid.h"

#define AUTO_SHARE 16
#define AUTO_LEAST ((int64_t)1 << 16) // elements
#define AUTO_MOST  ((int64_t)1 << 24)

int64_t buckets_least(const struct config *c, const struct params *p) {
    int64_t each = p->elems / AUTO_SHARE;
    if (!c->comm_overlap && c->comm_zero == 1) return p->elems;
    if (c->comm_bucket_mb > 0) return (int64_t)(c->comm_bucket_mb * (1 << 20) / sizeof(float));
    if (each < AUTO_LEAST) return AUTO_LEAST;
    return each > AUTO_MOST ? AUTO_MOST : each;
}

static void close_bucket(struct buckets *b, const struct param *first) {
    b->stage[b->n++] = first->stage;
    b->cut[b->n] = first->offset;
}

int buckets_init(struct buckets *out, const struct params *p, int64_t least_elems, struct err *e) {
    *out = (struct buckets){.cut = calloc((size_t)p->stages + 1, sizeof *out->cut),
                            .stage = calloc((size_t)p->stages, sizeof *out->stage)};
    if (!out->cut || !out->stage) {
        buckets_fini(out);
        return err_set(e, ERR_MEMORY, "no memory for a table of %d buckets", p->stages);
    }
    out->cut[0] = p->elems;
    for (int i = p->n - 1; i >= 0; i--) {
        const struct param *t = &p->list[i];
        bool first_of_stage = i == 0 || p->list[i - 1].stage != t->stage;
        bool full = out->cut[out->n] - t->offset >= least_elems;
        if (i == 0 || (first_of_stage && full)) close_bucket(out, t);
    }
    return 0;
}

void buckets_fini(struct buckets *b) {
    free(b->cut);
    free(b->stage);
    free(b->share);
    *b = (struct buckets){.n = 0};
}

int64_t buckets_largest(const struct buckets *b) {
    int64_t largest = 0;
    for (int k = 0; k < b->n; k++)
        if (b->cut[k] - b->cut[k + 1] > largest) largest = b->cut[k] - b->cut[k + 1];
    return largest;
}

int buckets_of(const struct buckets *b, int stage) {
    int k = 0;
    while (b->stage[k] > stage) k++;
    return k;
}

int64_t buckets_complete(const struct buckets *b, int stage) {
    int k = buckets_of(b, stage);
    return b->cut[b->stage[k] == stage ? k + 1 : k];
}

int buckets_deal(struct buckets *b, const int64_t *offset, int ranks, struct err *e) {
    b->ranks = ranks;
    b->share = calloc((size_t)b->n * ((size_t)ranks + 1), sizeof *b->share);
    if (!b->share) return err_set(e, ERR_MEMORY, "no memory for %d shares of %d buckets", ranks, b->n);
    for (int k = 0; k < b->n; k++)
        grid_share(offset, ranks, b->cut[k + 1], b->cut[k], b->share + (int64_t)k * (ranks + 1));
    return 0;
}

const int64_t *buckets_share(const struct buckets *b, int k) {
    return b->share + (int64_t)k * (b->ranks + 1);
}
