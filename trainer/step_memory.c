// SPDX-License-Identifier: Apache-2.0
// The memory of a step: taken once, used by every step.
#include <stdlib.h>

#include "trainer/step_impl.h"

#define SLACK_BYTES 64 // what aligning one piece of an arena may cost

static size_t floats(int64_t n) {
    return (size_t)n * sizeof(float);
}

// `copies` of each sense's frames: what is noised, what is seen of the past, the batch itself on a GPU.
static size_t input_bytes(const struct modality_set *set, int64_t micro, int64_t frames, int64_t own_shards,
                          size_t copies) {
    size_t bytes = floats(micro * frames * (set->n + 2)) + 4 * SLACK_BYTES;
    bytes += (size_t)(own_shards * set->n) * sizeof(double);
    for (int i = 0; i < set->n; i++)
        bytes += copies * (floats(micro * frames * set->spec[i].frame_elems) + SLACK_BYTES);
    return bytes;
}

static size_t grads_elems(const struct config *c, const struct params *p, const int64_t *offset, int rank) {
    return (size_t)(c->comm_reduce == REDUCE_FAST ? p->elems : offset[rank + 1] - offset[rank]);
}

static int take(struct step *s, float **out, int64_t n, struct err *e) {
    void *at = NULL;
    int rc = arena_take(&s->arena, &at, floats(n), e);
    *out = at;
    return rc;
}

static int take_inputs(struct step *s, struct err *e) {
    int64_t frames = s->micro * s->frames;
    const struct params *p = model_params(s->model);
    size_t sums = grads_elems(s->config, p, optim_offsets(s->optim), s->rank->number) * sizeof(float);
    bool host = s->rank->device->host_memory, exact = s->config->comm_reduce == REDUCE_EXACT;
    size_t inputs = input_bytes(s->set, s->micro, s->frames, s->hi - s->lo, host ? 2 : 3);
    void *losses = NULL;
    int rc = arena_init(&s->arena, s->rank->device, inputs + SLACK_BYTES, e);
    if (!rc) rc = arena_take(&s->arena, &losses, (size_t)((s->hi - s->lo) * s->set->n) * sizeof(double), e);
    s->shard_losses = losses;
    for (int i = 0; !rc && i < s->set->n; i++) {
        if (!host) rc = take(s, &s->x[i], frames * s->set->spec[i].frame_elems, e);
        if (rc) break;
        rc = take(s, &s->z[i], frames * s->set->spec[i].frame_elems, e);
        if (!rc) rc = take(s, &s->history[i], frames * s->set->spec[i].frame_elems, e);
    }
    if (!rc) rc = take(s, &s->tau, frames * s->set->n, e);
    if (!rc) rc = take(s, &s->tau_history, frames, e);
    if (!rc) rc = take(s, &s->past, frames, e);
    void *grads = NULL;
    if (!rc) rc = device_alloc_shared(s->rank->device, &grads, sums + SLACK_BYTES, !exact, e);
    s->grads = grads;
    return rc;
}

static int take_levels(struct step *s, struct err *e) {
    struct step_levels *l = &s->levels;
    size_t n = (size_t)((s->hi - s->lo) * s->micro), frames = n * (size_t)s->frames, m = (size_t)s->set->n;
    l->tau = calloc(frames * m, sizeof(float));
    l->past = calloc(frames, sizeof(float));
    l->tau_history = calloc(frames, sizeof(float));
    l->hide = calloc(n * m, sizeof(float));
    l->active = calloc(frames * m, sizeof(float));
    l->sample = calloc(n, sizeof(uint64_t));
    if (l->tau && l->past && l->tau_history && l->hide && l->active && l->sample) return 0;
    return err_set(e, ERR_MEMORY, "no memory for the noise levels of %zu sequences", n);
}

static int take_told(struct step *s, struct err *e) {
    s->n_squares = model_params(s->model)->n;
    s->n_told = s->n_squares + (int)s->config->comm_shards * s->set->n + 1;
    s->told = calloc((size_t)s->n_told, sizeof *s->told);
    s->squares = calloc((size_t)s->n_told, sizeof *s->squares);
    if (!s->told || !s->squares) return err_set(e, ERR_MEMORY, "no memory for %d sums", s->n_told);
    s->losses = s->squares + s->n_squares;
    return 0;
}

int step_memory_take(struct step *s, struct err *e) {
    int rc = take_inputs(s, e);
    if (!rc) rc = take_levels(s, e);
    if (!rc) rc = take_told(s, e);
    if (!rc) rc = model_reserve(s->model, s->micro, s->frames, e);
    if (!rc) rc = step_comm_open(s, e);
    if (rc || s->config->comm_reduce == REDUCE_FAST) return rc;
    const struct exact_cut cut = {.n = s->comm.buckets.n, .cut = s->comm.buckets.cut};
    return exact_open(&s->exact, s->rank->coll, s->config->comm_shards, optim_offsets(s->optim), &cut,
                      s->rank->device, e);
}

void step_memory_release(struct step *s) {
    exact_close(s->exact);
    step_comm_close(s);
    if (s->grads) device_release_shared(s->rank->device, s->grads);
    arena_fini(&s->arena);
    free(s->levels.tau);
    free(s->levels.past);
    free(s->levels.tau_history);
    free(s->levels.hide);
    free(s->levels.active);
    free(s->levels.sample);
    free(s->told);
    free(s->squares);
}

int64_t step_bytes(const struct config *c, const struct modality_set *set, const struct params *p, int world,
                   int rank) {
    int64_t *offset = calloc((size_t)world + 1, sizeof *offset);
    if (!offset) return -1;
    optim_split(c, p, world, offset);
    int64_t lo, hi;
    grid_split(c->comm_shards, world, rank, &lo, &hi);
    size_t bytes = input_bytes(set, c->train_batch / c->comm_shards, c->data_frames, hi - lo, 2);
    bytes += grads_elems(c, p, offset, rank) * sizeof(float);
    if (c->comm_reduce == REDUCE_EXACT)
        bytes += (size_t)exact_bytes(c->comm_shards, world, rank, p->elems, offset);
    free(offset);
    return (int64_t)bytes;
}
