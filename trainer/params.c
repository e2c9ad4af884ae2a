// SPDX-License-Identifier: Apache-2.0
#include "trainer/params.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"

#define PARAMS_ALIGN     16
#define PARAMS_ELEMS_MAX (INT64_C(1) << 40)

int64_t params_hidden(const struct config *c) {
    if (c->model_hidden > 0) return c->model_hidden;
    return (int64_t)((double)c->model_width * 8 / 3 / 32 + 0.5) * 32;
}

int params_heads(const struct config *c) {
    return (int)(c->model_width / c->model_head_dim);
}

int params_kv_heads(const struct config *c) {
    return c->model_kv_heads > 0 ? (int)c->model_kv_heads : params_heads(c);
}

// Appends a tensor; `cols` 0 makes it a vector. The caller has reserved the room.
static struct param *add(struct params *p, int64_t rows, int64_t cols, enum param_init init,
                         const char *name) {
    struct param *t = &p->list[p->n++];
    *t = (struct param){.rank = cols ? 2 : 1, .shape = {rows, cols ? cols : 1}, .parts = 1, .init = init};
    t->stage = p->stages;
    t->group = PARAM_OTHER;
    t->offset = p->elems;
    t->elems = rows * (cols ? cols : 1);
    t->first_fan = cols;
    t->part_rows[0] = rows;
    snprintf(t->name, sizeof t->name, "%s", name);
    p->count += t->elems;
    p->elems += (t->elems + PARAMS_ALIGN - 1) / PARAMS_ALIGN * PARAMS_ALIGN;
    return t;
}

// Matrices of the given rows on top of each other; unused parts have none.
static void add_matrix(struct params *p, int layer, const char *what, const int64_t rows[PARAM_PARTS_MAX],
                       int64_t cols, enum param_init init) {
    char name[64];
    int64_t all = 0;
    int parts = 0;
    for (; parts < PARAM_PARTS_MAX && rows[parts] > 0; parts++) all += rows[parts];
    snprintf(name, sizeof name, "blocks.%d.%s.weight", layer, what);
    struct param *t = add(p, all, cols, init, name);
    t->group = PARAM_MATRIX;
    t->parts = parts;
    memcpy(t->part_rows, rows, sizeof t->part_rows);
}

static void add_block(struct params *p, const struct config *c, int layer) {
    int64_t d = c->model_width, h = params_hidden(c), kv = params_kv_heads(c) * c->model_head_dim;
    char name[64];
    add_matrix(p, layer, "qkv", (int64_t[]){d, kv, kv}, d, PARAM_FAN_IN);
    add_matrix(p, layer, "out", (int64_t[]){d, 0, 0}, d, PARAM_ZERO);
    add_matrix(p, layer, "up", (int64_t[]){h, h, 0}, d, PARAM_FAN_IN);
    add_matrix(p, layer, "down", (int64_t[]){d, 0, 0}, h, PARAM_ZERO);
    snprintf(name, sizeof name, "blocks.%d.mod", layer);
    add(p, 6, d, PARAM_ZERO, name);
    snprintf(name, sizeof name, "blocks.%d.gamma", layer);
    add(p, params_heads(c), 0, PARAM_GAMMA, name);
}

static void add_embeddings(struct params *p, const struct config *c, const struct modality_set *m) {
    char name[64];
    for (int i = 0; i < m->n; i++) {
        const struct modality_spec *s = &m->spec[i];
        snprintf(name, sizeof name, "embed.%.32s.weight", s->modality->name);
        struct param *t =
            add(p, c->model_width, s->value_width + s->history * s->seen_width, PARAM_FAN_IN, name);
        t->first_fan = s->value_width;
        t->next_fan = s->seen_width;
    }
    add(p, m->tokens_per_frame, c->model_width, PARAM_SLOT, "slot");
    if (m->action < 0) return;
    const struct modality_spec *a = &m->spec[m->action];
    add(p, c->model_width, a->tokens * a->value_width, PARAM_ZERO, "action_map.weight");
}

static void add_condition(struct params *p, const struct config *c, const struct modality_set *m) {
    add(p, c->model_cond_width, 24 + m->n, PARAM_FAN_IN, "cond.1.weight");
    add(p, c->model_cond_width, 0, PARAM_ZERO, "cond.1.bias");
    add(p, 6 * c->model_width, c->model_cond_width, PARAM_ZERO, "cond.2.weight");
    add(p, 6 * c->model_width, 0, PARAM_ZERO, "cond.2.bias");
}

static void add_heads(struct params *p, const struct config *c, const struct modality_set *m) {
    char name[64];
    for (int i = 0; i < m->n; i++) {
        const struct modality_spec *s = &m->spec[i];
        snprintf(name, sizeof name, "head.%.32s.weight", s->modality->name);
        add(p, s->value_width, c->model_width, PARAM_ZERO, name);
        snprintf(name, sizeof name, "head.%.32s.bias", s->modality->name);
        add(p, s->value_width, 0, PARAM_ZERO, name);
    }
}

int params_init(struct params *out, const struct config *c, const struct modality_set *m, struct err *e) {
    *out = (struct params){0};
    if (c->model_width % c->model_head_dim)
        return err_set(e, ERR_CONFIG, "model.width %lld is no multiple of model.head_dim %lld",
                       (long long)c->model_width, (long long)c->model_head_dim);
    if (params_heads(c) % params_kv_heads(c))
        return err_set(e, ERR_CONFIG, "model.kv_heads %d does not divide the %d heads", params_kv_heads(c),
                       params_heads(c));
    if (c->model_head_dim % 2)
        return err_set(e, ERR_CONFIG, "model.head_dim %lld is odd", (long long)c->model_head_dim);
    size_t room = (size_t)m->n * 3 + 8 + (size_t)c->model_layers * 6;
    out->list = calloc(room, sizeof *out->list);
    if (!out->list) return err_set(e, ERR_MEMORY, "no memory for a table of %zu tensors", room);
    add_embeddings(out, c, m);
    out->stages++;
    add_condition(out, c, m);
    out->stages++;
    for (int i = 0; i < c->model_layers; i++, out->stages++) add_block(out, c, i);
    add_heads(out, c, m);
    out->stages++;
    if (out->elems > PARAMS_ELEMS_MAX) {
        params_fini(out);
        return err_set(e, ERR_CONFIG, "the model has more than 2^40 parameters: model.width, model.layers");
    }
    return 0;
}

void params_fini(struct params *p) {
    free(p->list);
    *p = (struct params){0};
}

const struct param *params_find(const struct params *p, const char *name) {
    for (int i = 0; i < p->n; i++)
        if (!strcmp(p->list[i].name, name)) return &p->list[i];
    return NULL;
}

// By element number, so that a shape's change in one tensor moves no other.
static int fill_normal(const struct param *t, int i, uint64_t seed, struct device *d, float *w,
                       struct err *e) {
    bool slot = t->init == PARAM_SLOT;
    struct op_draw_args a = {.w = tensor_2d(w, t->shape[0], t->shape[1]),
                             .key = rng_key(seed, RNG_INIT_WEIGHTS, (uint32_t)i),
                             .first_cols = t->first_fan,
                             .first_scale = slot ? 0.3 : 1 / sqrt((double)t->first_fan)};
    a.rest_scale = slot || t->next_fan == 0 ? a.first_scale : 1 / sqrt((double)t->next_fan);
    return d->ops->draw(d, &a, e);
}

static int fill_gamma(const struct param *t, struct device *d, float *w, struct err *e) {
    float value = 8;
    int rc = 0;
    for (int64_t k = 0; !rc && k < t->elems; k++) rc = d->vtable->copy_in(d, w + k, &value, sizeof value, e);
    return rc;
}

int params_fill(const struct params *p, int i, uint64_t seed, struct device *d, float *flat, struct err *e) {
    const struct param *t = &p->list[i];
    if (t->init == PARAM_FAN_IN || t->init == PARAM_SLOT)
        return fill_normal(t, i, seed, d, flat + t->offset, e);
    return t->init == PARAM_GAMMA ? fill_gamma(t, d, flat + t->offset, e) : 0;
}
