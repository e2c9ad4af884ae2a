// SPDX-License-Identifier: Apache-2.0
// What a step sends beside its computation, bucket by bucket: gradients while the backward goes on, weights
// while the next forward does. The model tells when a stage's gradients are complete and when it is about to
// read a stage's weights.
#include <stdio.h>
#include <stdlib.h>

#include "trainer/step_impl.h"

#define GATHER_NAME "all-gather weights"

struct comm_bucket {
    char gather_name[48];
    struct coll_op *gathering;
};

// ---- gradients

// It may wait until a buffer is free.
static int place_gradients(void *arg, int stage, struct params_place *out, struct err *e) {
    struct step *s = arg;
    step_lap(s, STEP_BACKWARD);
    int rc = grads_place(s->grads, stage, out, e);
    step_lap(s, STEP_REDUCE);
    return rc;
}

static int gradients_final(void *arg, int stage, struct err *e) {
    struct step *s = arg;
    if (step_graph_holds_shard(s)) return 0;
    int rc = grads_final(s->grads, stage, e);
    return rc ? rc : coll_progress(s->rank->coll, e);
}

struct model_grads step_gradients(struct step *s) {
    return (struct model_grads){.arg = s, .place = place_gradients, .final = gradients_final};
}

// ---- weights

// As the forward reads them: the first weights are those of the last bucket.
static int start_gather(struct step *s, struct err *e) {
    const struct buckets *b = &s->comm.buckets;
    int rc = 0;
    s->comm.stale = false;
    for (int k = b->n - 1; !rc && k >= 0; k--) {
        struct comm_bucket *to = &s->comm.bucket[k];
        rc = coll_all_gather(s->rank->coll, &to->gathering, to->gather_name,
                             model_weights(s->model) + b->cut[k + 1], buckets_share(b, k), e);
        if (!rc) s->comm.missing = b->n - k;
    }
    return rc;
}

// The copy that products read: the update has brought the own part along, others' follow here. A step that
// was skipped rounds all of it anew too, as a resume after that step does.
static int refresh(struct step *s, int64_t first, int64_t end, struct err *e) {
    const struct op_rounding how = optim_rounding(s->config);
    // A recorded step is repeated with other numbers: one before its own is that of the update.
    const struct op_update *now = s->graphs.recording ? s->device.update : NULL;
    const int64_t *offset = optim_offsets(s->optim);
    int64_t lo = offset[s->rank->number], hi = offset[s->rank->number + 1], step = now ? 1 : s->comm.updates;
    if (lo < first) lo = first < hi ? first : hi;
    if (hi > end) hi = end > lo ? end : lo;
    if (hi <= first || lo >= end) return model_round(s->model, &how, step, now, first, end, e);
    int rc = model_round(s->model, &how, step, now, first, lo, e);
    return rc ? rc : model_round(s->model, &how, step, now, hi, end, e);
}

static int receive_weights(struct step *s, int k, struct err *e) {
    const struct buckets *b = &s->comm.buckets;
    struct coll_op *op = s->comm.bucket[k].gathering;
    s->comm.bucket[k].gathering = NULL;
    s->comm.missing--;
    int rc = coll_join(s->rank->coll, op, e);
    return rc ? rc : refresh(s, b->cut[k + 1], b->cut[k], e);
}

static int receive_all(struct step *s, struct err *e) {
    int rc = 0;
    while (!rc && s->comm.missing > 0) rc = receive_weights(s, s->comm.missing - 1, e);
    return rc;
}

static int weights_needed(void *arg, int stage, struct err *e) {
    struct step *s = arg;
    int rc = 0;
    if (s->comm.missing == 0) return 0;
    if (s->out) step_lap(s, STEP_FORWARD);
    while (!rc && s->comm.missing > 0 && s->comm.buckets.stage[s->comm.missing - 1] <= stage)
        rc = receive_weights(s, s->comm.missing - 1, e);
    if (!rc) rc = coll_progress(s->rank->coll, e);
    if (s->out) step_lap(s, STEP_GATHER);
    return rc;
}

// A step that is recorded as a whole begins with what the one before has left: so its graph holds both. One
// that is recorded in pieces has all weights before it begins.
int step_gather_early(struct step *s, struct err *e) {
    bool holds_both = s->graphs.recording && s->config->comm_overlap;
    int rc = s->comm.stale || holds_both ? start_gather(s, e) : 0;
    return rc || !step_graph_in_pieces(s) ? rc : receive_all(s, e);
}

int step_gather_late(struct step *s, struct err *e) {
    s->comm.stale = true;
    s->comm.updates = s->number + 1;
    if (s->graphs.on && s->graphs.whole && s->config->comm_overlap) return 0;
    int rc = start_gather(s, e);
    return rc || s->config->comm_overlap ? rc : receive_all(s, e);
}

int step_settle(struct step *s, struct err *e) {
    int rc = s->comm.stale ? start_gather(s, e) : 0;
    if (!rc) rc = receive_all(s, e);
    return rc ? rc : coll_settle(s->rank->coll, e);
}

// ---- for a step

void step_comm_end(struct step *s) {
    struct coll_clock now = coll_clock(s->rank->coll);
    s->out->comm_busy = now.busy - s->comm.clock.busy;
    s->out->comm_wait = now.wait - s->comm.clock.wait;
    s->comm.clock = now;
}

static void name_bucket(struct comm_bucket *b, int k, int n) {
    snprintf(b->gather_name, sizeof b->gather_name, n > 1 ? GATHER_NAME " %d" : GATHER_NAME, k + 1);
}

int step_comm_open(struct step *s, struct err *e) {
    const struct params *p = model_params(s->model);
    struct step_comm *c = &s->comm;
    int rc = buckets_init(&c->buckets, p, buckets_least(s->config, p), e);
    if (!rc) rc = buckets_deal(&c->buckets, optim_offsets(s->optim), s->rank->world, e);
    if (rc) return rc;
    c->bucket = calloc((size_t)c->buckets.n, sizeof *c->bucket);
    if (!c->bucket) return err_set(e, ERR_MEMORY, "no memory for %d buckets", c->buckets.n);
    for (int k = 0; k < c->buckets.n; k++) name_bucket(&c->bucket[k], k, c->buckets.n);
    c->clock = coll_clock(s->rank->coll);
    const struct model_watch watch = {.arg = s, .need = weights_needed};
    model_set_watch(s->model, &watch);
    return 0;
}

void step_comm_close(struct step *s) {
    model_set_watch(s->model, NULL);
    for (int k = 0; s->comm.bucket && k < s->comm.buckets.n; k++)
        coll_drop(s->rank->coll, s->comm.bucket[k].gathering);
    free(s->comm.bucket);
    buckets_fini(&s->comm.buckets);
}
