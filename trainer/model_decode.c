// SPDX-License-Identifier: Apache-2.0
// Decoding: one frame at a time against the keys and values of the frames before it. Shape words are those of
// model_impl.h. The new frame sees its history slots, so the frames that those reach are embedded with it and
// dropped again.
#include <stdlib.h>

#include "base/bytes.h"
#include "trainer/model_impl.h"

struct model_cache {
    struct model *model;
    int64_t sequences, filled; // frames whose keys and values are there
    struct model_space one;    // one frame of every sequence
    struct model_past past;
    struct arena arena;       // of the tensors in `past`, tau and tau_history
    struct tensor tau, early; // [B, M], [B, 1]: of the new frame
    int32_t *slots;           // (frames - 1) P zeros, P ones, (frames - 1) P twos: see slots_at
    struct mask_run run;
    struct mask_interval seen;
    unsigned char *there[OPS_MODALITIES_MAX]; // [B, frames]: 0 where a decoded frame lacks the sense
};

int64_t model_history(const struct model *m) {
    int64_t most = 0;
    for (int i = 0; i < m->set.n; i++) {
        const struct modality_spec *spec = &m->set.spec[i];
        if (spec->seen_width > 0 && spec->history > most) most = spec->history;
    }
    return most;
}

// ---- memory

static int64_t rows_of(const struct model_cache *c) {
    return c->sequences * c->past.frames * c->model->set.tokens_per_frame;
}

static int take(struct model_cache *c, struct tensor *out, enum dtype dtype, int64_t rows, int64_t cols,
                struct err *e) {
    void *at = NULL;
    int rc = arena_take(&c->arena, &at, (size_t)(rows * cols) * dtype_bytes(dtype), e);
    *out = tensor_2d(at, rows, cols);
    out->dtype = dtype;
    return rc;
}

// Every block of memory begins at a multiple of 64 bytes.
static int64_t padded(int64_t elems, enum dtype dtype) {
    return (elems * (int64_t)dtype_bytes(dtype) + 63) / 64 * 64;
}

int64_t model_past_bytes(const struct model *m, int64_t sequences, int64_t frames) {
    int64_t positions = frames * m->set.tokens_per_frame;
    return 2 * m->config->model_layers * padded(sequences * positions * model_kv_width(m), model_compute(m)) +
           2 * padded(positions * (m->head_dim / 2), DTYPE_F32) + padded(sequences * m->set.n, DTYPE_F32) +
           padded(sequences, DTYPE_F32);
}

static int take_all(struct model_cache *c, struct err *e) {
    const struct model *m = c->model;
    int64_t positions = c->past.frames * m->set.tokens_per_frame;
    int rc = arena_init(&c->arena, m->device, (size_t)model_past_bytes(m, c->sequences, c->past.frames), e);
    for (int64_t i = 0; !rc && i < m->config->model_layers; i++) {
        rc = take(c, &c->past.k[i], model_compute(m), rows_of(c), model_kv_width(m), e);
        if (!rc) rc = take(c, &c->past.v[i], model_compute(m), rows_of(c), model_kv_width(m), e);
    }
    if (!rc) rc = take(c, &c->past.cos, DTYPE_F32, positions, m->head_dim / 2, e);
    if (!rc) rc = take(c, &c->past.sin, DTYPE_F32, positions, m->head_dim / 2, e);
    if (!rc) rc = take(c, &c->tau, DTYPE_F32, c->sequences, m->set.n, e);
    if (!rc) rc = take(c, &c->early, DTYPE_F32, c->sequences, 1, e);
    // Keys and values that no frame has written yet take part with weight 0, so they must be numbers.
    return rc ? rc : m->device->vtable->zero(m->device, c->arena.base, c->arena.size, e);
}

static void fill_slots(struct model_cache *c) {
    int64_t p = c->model->set.tokens_per_frame, before = (c->past.frames - 1) * p;
    for (int64_t i = 0; i < 2 * before + p; i++) c->slots[i] = i < before ? 0 : i < before + p ? 1 : 2;
}

static bool take_there(struct model_cache *c) {
    bool ok = true;
    for (int i = 0; i < c->model->set.n; i++) {
        c->there[i] = calloc((size_t)c->sequences, (size_t)c->past.frames);
        ok = ok && c->there[i];
    }
    return ok;
}

int model_cache_create(struct model_cache **out, struct model *m, int64_t sequences, int64_t frames,
                       struct err *e) {
    struct model_cache *c = calloc(1, sizeof *c);
    size_t layers = (size_t)m->config->model_layers;
    int rc = -ERR_MEMORY;
    if (!c) return err_set(e, ERR_MEMORY, "no memory for a cache of keys and values");
    c->model = m;
    c->sequences = sequences;
    c->past.frames = frames;
    c->past.k = calloc(layers, sizeof *c->past.k);
    c->past.v = calloc(layers, sizeof *c->past.v);
    c->slots = calloc((size_t)((2 * frames - 1) * m->set.tokens_per_frame), sizeof *c->slots);
    if (!c->past.k || !c->past.v || !c->slots || !take_there(c)) {
        err_set(e, ERR_MEMORY, "no memory for a cache of %lld frames", (long long)frames);
        goto out;
    }
    fill_slots(c);
    rc = take_all(c, e);
    if (!rc) rc = model_fill_angles(m, &c->past.cos, &c->past.sin, frames, e);
    if (!rc) rc = model_space_shape(&c->one, m, sequences, 1, e);
    c->one.past = &c->past;
out:
    if (rc)
        model_cache_destroy(c);
    else
        *out = c;
    return rc;
}

void model_cache_destroy(struct model_cache *c) {
    if (!c) return;
    model_space_fini(&c->one);
    model_masks_fini(&c->past.masks);
    arena_fini(&c->arena);
    for (int i = 0; i < OPS_MODALITIES_MAX; i++) free(c->there[i]);
    free(c->past.k);
    free(c->past.v);
    free(c->slots);
    free(c);
}

// ---- one frame

// A map whose slots are numbered 0 before, 1 in and 2 after the last `ones` of the first `upto` of
// `per_frame`.
static struct token_map map_of(const struct model_cache *c, int64_t per_frame, int64_t from) {
    int64_t before = (c->past.frames - 1) * c->model->set.tokens_per_frame;
    return (struct token_map){.frames = c->sequences,
                              .per_frame = (int32_t)per_frame,
                              .modalities = 3,
                              .slot_modality = c->slots + before - from};
}

// The last `each` of every `frames * each` rows.
static int take_last(struct model_cache *c, struct tensor x, int64_t frames, int64_t each, struct tensor rows,
                     struct err *e) {
    struct device *d = c->model->device;
    struct token_map map = map_of(c, frames * each, (frames - 1) * each);
    struct op_gather_args a = {.x = x, .rows = rows, .modality = 1, .map = &map};
    return d->ops->gather(d, &a, e);
}

// What the new frame's tokens may see, and where among the past they stand.
static void place(struct model_cache *c, int64_t at) {
    int64_t p = c->model->set.tokens_per_frame, window = c->model->config->model_window;
    int64_t first = window > 0 && at + 1 > window ? at + 1 - window : 0;
    c->past.at = at;
    c->past.map = map_of(c, c->past.frames * p, at * p);
    c->run = (struct mask_run){0, (int32_t)p, 0, 1};
    c->seen = (struct mask_interval){(int32_t)(first * p), (int32_t)((at + 1) * p)};
    c->past.mask = (struct mask){.queries = p,
                                 .keys = c->past.frames * p,
                                 .n_runs = 1,
                                 .n_intervals = 1,
                                 .runs = &c->run,
                                 .intervals = &c->seen};
}

// Which senses the new frame has, for itself and for the frames after it.
static int note_gaps(struct model_cache *c, int64_t at, const struct model_input *in, struct err *e) {
    const struct modality_set *set = &c->model->set;
    for (int i = 0; i < set->n; i++)
        for (int64_t b = 0; b < c->sequences; b++)
            c->there[i][b * c->past.frames + at] =
                !in->valid[i] || in->valid[i][b * in->frames + in->frames - 1];
    return model_masks_look_at(&c->past.masks, set, (const unsigned char *const *)c->there, c->sequences,
                               c->past.frames, at, c->model->config->model_window, &c->past.mask, e);
}

static int check(const struct model_cache *c, int64_t at, const struct model_input *in, struct err *e) {
    int64_t recent = model_history(c->model) < at ? model_history(c->model) : at;
    if (at < 0 || at > c->filled || at >= c->past.frames || in->sequences != c->sequences ||
        in->frames != recent + 1)
        return err_set(
            e, ERR_BUG,
            "decode: frame %lld of %lld x %lld, given %lld x %lld, with %lld of %lld x %lld before it",
            (long long)at, (long long)c->sequences, (long long)c->past.frames, (long long)in->sequences,
            (long long)in->frames, (long long)c->filled, (long long)c->sequences, (long long)c->past.frames);
    return 0;
}

static struct tensor borrow(const float *data, int64_t rows, int64_t cols) {
    return tensor_2d((void *)data, rows, cols);
}

int model_decode(struct model_cache *c, int64_t at, const struct model_input *in, float *const *pred,
                 struct err *e) {
    struct model *m = c->model;
    struct model_space *recent = &m->predicting;
    struct model_input here = *in;
    int64_t frames = in->frames, rows = c->sequences * frames, p = m->set.tokens_per_frame;
    struct model_input last = {
        .sequences = c->sequences, .frames = 1, .tau = c->tau.data, .tau_history = c->early.data};
    int rc = check(c, at, in, e);
    if (!rc) rc = model_space_shape(recent, m, c->sequences, frames, e);
    if (!rc) rc = model_bring_in(m, recent, &here, e);
    if (!rc) rc = model_embed(m, recent, &here, recent->x, e);
    if (!rc) rc = take_last(c, recent->x, frames, p, c->one.layers[0].x, e);
    if (!rc) rc = take_last(c, borrow(here.tau, rows, m->set.n), frames, 1, c->tau, e);
    if (!rc) rc = take_last(c, borrow(here.tau_history, rows, 1), frames, 1, c->early, e);
    if (rc) return rc;
    place(c, at);
    rc = note_gaps(c, at, in, e);
    if (!rc) rc = model_transform(m, &c->one, &last, e);
    if (!rc) rc = model_predicted(m, &c->one, c->sequences, pred, e);
    c->filled = rc ? 0 : at + 1;
    return rc;
}
