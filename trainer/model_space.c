// SPDX-License-Identifier: Apache-2.0
// The activations' layout and the tables that depend on the shape of a batch: mask, rotation angles.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "trainer/model_impl.h"

#define ALIGN_BYTES 64

// Hands out views front to back; without a base it only counts.
struct taker {
    char *base;
    enum dtype compute;
    size_t used;
    bool overflow;
};

static struct tensor take_as(struct taker *t, enum dtype dtype, int64_t rows, int64_t cols) {
    size_t elems, bytes, end;
    if (!bytes_mul((size_t)rows, (size_t)cols, &elems) || !bytes_mul(elems, dtype_bytes(dtype), &bytes) ||
        !bytes_add(bytes, t->used + ALIGN_BYTES - 1, &end)) {
        t->overflow = true;
        return tensor_none();
    }
    void *at = t->base ? t->base + t->used : NULL;
    t->used = end / ALIGN_BYTES * ALIGN_BYTES;
    struct tensor x = tensor_2d(at, rows, cols);
    x.dtype = dtype;
    return x;
}

static struct tensor take(struct taker *t, int64_t rows, int64_t cols) {
    return take_as(t, DTYPE_F32, rows, cols);
}

// What goes into products and attention, and comes out of them.
static struct tensor take_low(struct taker *t, int64_t rows, int64_t cols) {
    return take_as(t, t->compute, rows, cols);
}

static struct tensor take_1d(struct taker *t, int64_t n) {
    struct tensor v = take(t, 1, n);
    return tensor_1d(v.data, n);
}

static void lay_layer(struct model_layer *l, struct taker *t, const struct model *m, int64_t n) {
    int64_t d = m->config->model_width, h = m->hidden, keys = model_kv_width(m);
    l->h1 = take_low(t, n, d);
    l->rstd1 = take_1d(t, n);
    l->qkv = take_low(t, n, d + 2 * keys);
    l->q = take_low(t, n, d);
    l->k = take_low(t, n, keys);
    l->rstd_qk = take(t, n, m->heads + m->kv_heads);
    l->o = take_low(t, n, d);
    l->lse = take(t, n, m->heads);
    l->y1 = take_low(t, n, d);
    l->x2 = take(t, n, d);
    l->h2 = take_low(t, n, d);
    l->rstd2 = take_1d(t, n);
    l->up = take_low(t, n, 2 * h);
    l->act = take_low(t, n, h);
    l->y2 = take_low(t, n, d);
}

static void lay_modalities(struct model_space *s, struct taker *t, const struct model *m, int64_t frames) {
    int64_t d = m->config->model_width;
    for (int i = 0; i < m->set.n; i++) {
        const struct modality_spec *spec = &m->set.spec[i];
        int64_t rows = frames * spec->tokens;
        s->rows[i] = take_low(t, rows, spec->value_width + spec->history * spec->seen_width);
        s->e[i] = take_low(t, rows, d);
        s->last[i] = take_low(t, rows, d);
        s->out[i] = take(t, rows, spec->value_width);
        if (s->training) s->dout[i] = take_low(t, rows, spec->value_width);
    }
}

// A prediction's frames, on a device with memory of its own.
static void lay_frames(struct model_space *s, struct taker *t, const struct model *m, int64_t frames) {
    s->tau = take(t, frames, m->set.n).data;
    s->tau_history = take_1d(t, frames).data;
    for (int i = 0; i < m->set.n; i++) {
        s->z[i] = take(t, frames, m->set.spec[i].frame_elems).data;
        s->history[i] = take(t, frames, m->set.spec[i].frame_elems).data;
        s->pred[i] = take(t, frames, m->set.spec[i].frame_elems).data;
    }
}

static void lay_gradients(struct model_space *s, struct taker *t, const struct model *m, int64_t n, int64_t g,
                          int64_t frames) {
    int64_t d = m->config->model_width, keys = model_kv_width(m);
    s->dx = take(t, n, d);
    s->dy = take_low(t, n, d);
    s->dh = take_low(t, n, d);
    s->dup = take_low(t, n, 2 * m->hidden);
    s->dact = take_low(t, n, m->hidden);
    s->dqkv = take_low(t, n, d + 2 * keys);
    s->dq = take_low(t, n, d);
    s->dk = take_low(t, n, keys);
    s->dc = take(t, g, 6 * d);
    s->dcond1 = take(t, g, m->config->model_cond_width);
    s->daction = take_low(t, frames, d);
}

// `s->layers` may be NULL when only the size is wanted.
static void lay_out(struct model_space *s, struct taker *t, const struct model *m, int64_t b, int64_t f) {
    const struct config *c = m->config;
    int64_t frames = b * f, n = frames * m->set.tokens_per_frame, g = frames * m->set.n, d = c->model_width;
    s->cos = take(t, f * m->set.tokens_per_frame, m->head_dim / 2);
    s->sin = take(t, f * m->set.tokens_per_frame, m->head_dim / 2);
    lay_modalities(s, t, m, frames);
    s->act = take_low(t, frames, d);
    s->features = take(t, g, 24 + m->set.n);
    s->cond1 = take(t, g, c->model_cond_width);
    s->cond1_act = take(t, g, c->model_cond_width);
    s->c = take(t, g, 6 * d);
    s->normed = take_low(t, n, d);
    s->rstd = take_1d(t, n);
    s->x = take(t, n, d);
    struct model_layer spare = {0};
    for (int64_t i = 0; i < c->model_layers; i++) {
        struct model_layer *l = s->layers ? &s->layers[i] : &spare;
        if (i > 0 && !s->training) {
            *l = s->layers ? s->layers[0] : spare;
            continue;
        }
        l->x = s->training ? take(t, n, d) : s->x;
        lay_layer(l, t, m, n);
    }
    if (s->training) lay_gradients(s, t, m, n, g, frames);
    if (!s->training && m->device && !m->device->host_memory) lay_frames(s, t, m, frames);
}

enum dtype model_compute(const struct model *m) {
    return m->device ? m->device->compute : DTYPE_F32;
}

int64_t model_space_bytes(const struct model *m, int64_t sequences, int64_t frames, bool training) {
    struct model_space s = {.training = training};
    struct taker t = {.compute = model_compute(m)};
    lay_out(&s, &t, m, sequences, frames);
    return t.overflow || t.used > INT64_MAX ? INT64_MAX : (int64_t)t.used;
}

static int reserve(struct model_space *s, const struct model *m, int64_t b, int64_t f, struct err *e) {
    struct taker t = {.compute = model_compute(m)};
    if (!s->layers) s->layers = calloc((size_t)m->config->model_layers, sizeof *s->layers);
    if (!s->layers) return err_set(e, ERR_MEMORY, "no memory for a table of layers");
    lay_out(s, &t, m, b, f);
    if (t.overflow)
        return err_set(e, ERR_MEMORY, "activations of %lld x %lld frames overflow", (long long)b,
                       (long long)f);
    if (t.used <= s->arena.size) return 0;
    arena_fini(&s->arena);
    return arena_init(&s->arena, m->device, t.used, e);
}

// Angle of pair i of a head at time f and patch (y, x): the first third-and-rest of the pairs turn with time,
// then y, then x; geometric frequencies from 1.5 down to 1.5/12 (time) and 1.5/6 (place; a quarter of the
// picture is 1).
static double angle(int pairs, int i, double time, double y, double x) {
    int space = pairs / 3, turns = pairs - 2 * space;
    if (i < turns) return time * 1.5 * pow(1.0 / 12, (double)i / (turns > 1 ? turns - 1 : 1));
    int k = (i - turns) % space;
    double frequency = 1.5 * pow(1.0 / 6, (double)k / (space > 1 ? space - 1 : 1));
    return frequency * (i - turns < space ? y : x);
}

// Visual tokens stand at (row + 1, column + 1) in quarters of the picture, others at (0, 0).
static void place_of(const struct model *m, int64_t slot, double *y, double *x) {
    int i = m->set.slot_modality[slot];
    const struct patch_grid *g = &m->set.spec[i].grid;
    *y = *x = 0;
    if (g->height / g->patch <= 1) return;
    int64_t token = slot - m->set.slot_first[i], across = g->width / g->patch;
    *y = 4.0 / (g->height / g->patch) * (double)(token / across + 1);
    *x = 4.0 / (double)across * (double)(token % across + 1);
}

int model_fill_angles(const struct model *m, const struct tensor *cos_at, const struct tensor *sin_at,
                      int64_t f, struct err *e) {
    int64_t p = m->set.tokens_per_frame, pairs = m->head_dim / 2, n = f * p * pairs;
    size_t bytes = (size_t)n * sizeof(float);
    float *cosines = malloc(bytes), *sines = malloc(bytes);
    int rc = -ERR_MEMORY;
    if (!cosines || !sines) {
        err_set(e, ERR_MEMORY, "no memory for %lld rotation angles", (long long)n);
        goto out;
    }
    for (int64_t t = 0; t < f * p; t++) {
        double y, x;
        place_of(m, t % p, &y, &x);
        for (int i = 0; i < pairs; i++) {
            double a = angle((int)pairs, i, (double)(t / p), y, x);
            cosines[t * pairs + i] = (float)cos(a);
            sines[t * pairs + i] = (float)sin(a);
        }
    }
    rc = m->device->vtable->copy_in(m->device, cos_at->data, cosines, bytes, e);
    if (!rc) rc = m->device->vtable->copy_in(m->device, sin_at->data, sines, bytes, e);
out:
    free(cosines);
    free(sines);
    return rc;
}

int model_space_shape(struct model_space *s, const struct model *m, int64_t sequences, int64_t frames,
                      struct err *e) {
    if (s->sequences == sequences && s->frames == frames) return 0;
    s->sequences = s->frames = 0;
    int rc = reserve(s, m, sequences, frames, e);
    if (rc) return rc;
    struct taker t = {.base = s->arena.base, .compute = model_compute(m)};
    lay_out(s, &t, m, sequences, frames);
    mask_fini(&s->mask);
    rc = mask_block_causal(&s->mask, frames, m->set.tokens_per_frame, m->config->model_window, frames, e);
    if (!rc) rc = model_fill_angles(m, &s->cos, &s->sin, frames, e);
    if (rc) return rc;
    s->map = (struct token_map){.frames = sequences * frames,
                                .per_frame = (int32_t)m->set.tokens_per_frame,
                                .modalities = m->set.n,
                                .slot_modality = m->set.slot_modality};
    s->sequences = sequences;
    s->frames = frames;
    return 0;
}

void model_space_fini(struct model_space *s) {
    mask_fini(&s->mask);
    model_masks_fini(&s->masks);
    arena_fini(&s->arena);
    free(s->layers);
    *s = (struct model_space){0};
}
