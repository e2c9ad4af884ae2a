// SPDX-License-Identifier: Apache-2.0
// The memory of a step: taken once, used by every step.
#include <stdlib.h>
#include <string.h>

#include "trainer/step_impl.h"

#define SLACK_BYTES 64 // what aligning one piece of an arena may cost

static size_t floats(int64_t n) {
    return (size_t)n * sizeof(float);
}

// Hands out pieces front to back; without a base it only counts.
struct taker {
    char *base;
    size_t used;
};

static void *piece(struct taker *t, int64_t n, size_t size) {
    void *at = t->base ? t->base + t->used : NULL;
    t->used += ((size_t)n * size + SLACK_BYTES - 1) / SLACK_BYTES * SLACK_BYTES;
    return at;
}

static size_t lay_numbers(struct step_numbers *n, void *base, int64_t sequences, int64_t frames, int64_t m) {
    struct taker t = {.base = base};
    int64_t all = sequences * frames;
    n->update = piece(&t, 1, sizeof *n->update);
    n->frames = piece(&t, m, sizeof *n->frames);
    n->weight = piece(&t, m, sizeof *n->weight);
    n->scale = piece(&t, m, sizeof *n->scale);
    n->tau = piece(&t, all * m, sizeof *n->tau);
    n->past = piece(&t, all, sizeof *n->past);
    n->tau_history = piece(&t, all, sizeof *n->tau_history);
    n->hide = piece(&t, sequences * m, sizeof *n->hide);
    n->active = piece(&t, all * m, sizeof *n->active);
    n->sample = piece(&t, sequences, sizeof *n->sample);
    n->valid = piece(&t, all * m, sizeof *n->valid);
    return t.used;
}

// Two numbers of each tensor, a loss of each shard and sense.
static size_t told_doubles(const struct config *c, const struct modality_set *set, const struct params *p) {
    return 2 * (size_t)p->n + (size_t)(c->comm_shards * set->n);
}

// Everything but the gradients. The frames: what is noised and what is seen of the past, of one shard; on a
// device with memory of its own the rank's whole batch.
static size_t input_bytes(const struct config *c, const struct modality_set *set, const struct params *p,
                          int64_t own_shards, bool host) {
    int64_t micro = c->train_batch / c->comm_shards, frames = c->data_frames;
    struct step_numbers unused;
    size_t bytes = lay_numbers(&unused, NULL, own_shards * micro, frames, set->n) + 4 * SLACK_BYTES;
    bytes += told_doubles(c, set, p) * (sizeof(double) + sizeof(int32_t)) + sizeof(struct op_verdict);
    for (int i = 0; i < set->n; i++) {
        int64_t sequences = 2 * micro + (host ? 0 : own_shards * micro);
        bytes += floats(sequences * frames * set->spec[i].frame_elems) + 3 * SLACK_BYTES;
    }
    return bytes;
}

static int take(struct step *s, float **out, int64_t n, struct err *e) {
    void *at = NULL;
    int rc = arena_take(&s->arena, &at, floats(n), e);
    *out = at;
    return rc;
}

static int take_frames(struct step *s, struct err *e) {
    int64_t frames = s->micro * s->frames;
    bool host = s->rank->device->host_memory;
    int rc = 0;
    for (int i = 0; !rc && i < s->set->n; i++) {
        int64_t elems = frames * s->set->spec[i].frame_elems;
        if (!host) rc = take(s, &s->x[i], (s->hi - s->lo) * elems, e);
        if (!rc) rc = take(s, &s->z[i], elems, e);
        if (!rc) rc = take(s, &s->history[i], elems, e);
    }
    return rc;
}

static int take_numbers(struct step *s, struct err *e) {
    int64_t sequences = (s->hi - s->lo) * s->micro;
    s->block_bytes = lay_numbers(&s->host, NULL, sequences, s->frames, s->set->n);
    int rc = arena_take(&s->arena, &s->device_block, s->block_bytes, e);
    if (rc) return rc;
    bool host = s->rank->device->host_memory;
    s->host_block = host ? s->device_block : calloc(1, s->block_bytes);
    if (!s->host_block)
        return err_set(e, ERR_MEMORY, "no memory for the noise levels of %lld sequences",
                       (long long)sequences);
    lay_numbers(&s->host, s->host_block, sequences, s->frames, s->set->n);
    lay_numbers(&s->device, s->device_block, sequences, s->frames, s->set->n);
    for (int i = 0; i < s->set->n; i++) s->host.weight[i] = s->set->spec[i].loss_weight;
    return 0;
}

// The tensors [*lo, *hi) that rank r owns.
static void tensors_of(const struct step *s, int r, int *lo, int *hi) {
    const struct params *p = model_params(s->model);
    const int64_t *offset = optim_offsets(s->optim);
    for (*lo = 0; *lo < p->n && p->list[*lo].offset < offset[r]; (*lo)++) {
    }
    for (*hi = *lo; *hi < p->n && p->list[*hi].offset < offset[r + 1]; (*hi)++) {
    }
}

// Where each number of a rank stands in `told`, for the verdict: squares of the clipped tensors, then counts
// of all, then losses sense by sense, all in the order of tensors and shards. Returns where its part ends.
static int64_t place_told(struct step *s, int r, int64_t at, int32_t *to) {
    int lo, hi, tensors = model_params(s->model)->n;
    int64_t first, end, shards = s->config->comm_shards;
    tensors_of(s, r, &lo, &hi);
    for (int i = lo; i < hi; i++) {
        if (optim_clips(s->optim, i)) to[s->n_clipped++] = (int32_t)(at + i - lo);
        to[tensors + i] = (int32_t)(at + hi - lo + i - lo);
    }
    at += 2 * (hi - lo);
    grid_split(shards, s->rank->world, r, &first, &end);
    for (int64_t k = first; k < end; k++)
        for (int i = 0; i < s->set->n; i++)
            to[2 * tensors + i * shards + k] = (int32_t)(at + (k - first) * s->set->n + i);
    return at + (end - first) * s->set->n;
}

static int plan_told(struct step *s, int32_t *to, struct err *e) {
    struct device *d = s->rank->device;
    int tensors = model_params(s->model)->n, world = s->rank->world;
    size_t doubles = told_doubles(s->config, s->set, model_params(s->model));
    for (int r = 0; r < world; r++) s->told_at[r + 1] = 2 * place_told(s, r, s->told_at[r] / 2, to);
    s->verdict = (struct op_verdict *)(void *)(s->told + doubles);
    // Closes the gap that Muon's tensors leave: one table without holes.
    memmove(to + s->n_clipped, to + tensors, (doubles - (size_t)tensors) * sizeof *to);
    return d->vtable->copy_in(d, s->judge_at, to, doubles * sizeof *to, e);
}

static int take_told(struct step *s, struct err *e) {
    size_t doubles = told_doubles(s->config, s->set, model_params(s->model));
    void *told = NULL, *at = NULL;
    s->told_bytes = doubles * sizeof(double) + sizeof *s->verdict;
    int32_t *table = calloc(doubles, sizeof *table);
    s->host_told = malloc(s->told_bytes);
    s->told_at = calloc((size_t)s->rank->world + 1, sizeof *s->told_at);
    s->losses = calloc((size_t)(s->config->comm_shards * s->set->n), sizeof *s->losses);
    int rc = 0;
    if (!table || !s->host_told || !s->told_at || !s->losses)
        rc = err_set(e, ERR_MEMORY, "no memory for %zu sums", doubles);
    if (!rc) rc = arena_take(&s->arena, &told, s->told_bytes, e);
    if (!rc) rc = arena_take(&s->arena, &at, doubles * sizeof *table, e);
    s->told = told;
    s->judge_at = at;
    if (!rc) rc = plan_told(s, table, e);
    free(table);
    return rc;
}

static int take_all(struct step *s, struct err *e) {
    struct device *d = s->rank->device;
    size_t inputs = input_bytes(s->config, s->set, model_params(s->model), s->hi - s->lo, d->host_memory);
    int rc = arena_init(&s->arena, d, inputs + SLACK_BYTES, e);
    if (!rc) rc = take_numbers(s, e);
    if (!rc) rc = take_told(s, e);
    return rc ? rc : take_frames(s, e);
}

int step_memory_take(struct step *s, struct err *e) {
    int rc = take_all(s, e);
    if (!rc) rc = model_reserve(s->model, s->micro, s->frames, e);
    if (!rc) rc = step_comm_open(s, e);
    const struct grads_options o = {.config = s->config,
                                    .buckets = &s->comm.buckets,
                                    .offset = optim_offsets(s->optim),
                                    .coll = s->rank->coll,
                                    .device = s->rank->device};
    return rc ? rc : grads_open(&s->grads, &o, e);
}

void step_memory_release(struct step *s) {
    grads_close(s->grads);
    step_comm_close(s);
    if (s->host_block != s->device_block) free(s->host_block);
    arena_fini(&s->arena);
    free(s->host_told);
    free(s->told_at);
    free(s->losses);
}

int64_t step_input_bytes(const struct config *c, const struct modality_set *set, const struct params *p,
                         int world, int rank, const struct device *d) {
    int64_t lo, hi;
    grid_split(c->comm_shards, world, rank, &lo, &hi);
    return (int64_t)input_bytes(c, set, p, hi - lo, d->host_memory);
}

int64_t step_bytes(const struct config *c, const struct modality_set *set, const struct params *p, int world,
                   int rank, const struct device *d) {
    return step_input_bytes(c, set, p, world, rank, d) + grads_bytes(c, p, world, rank);
}
