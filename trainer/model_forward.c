// SPDX-License-Identifier: Apache-2.0
// The forward pass. Shape words are those of model_impl.h.
#include "trainer/model_impl.h"

// The weights of stages 0 .. stage are read next.
static int need(struct model *m, int stage, struct err *e) {
    return m->watch.need ? m->watch.need(m->watch.arg, stage, e) : 0;
}

// y = x w^T (+ bias)
static int linear(struct model *m, struct tensor x, int weight, int bias, struct tensor y, struct err *e) {
    struct op_gemm_args a = {.a = x, .b = model_weight_for(m, &x, weight), .c = y, .trans_b = true};
    if (bias >= 0) a.bias = model_param(m, m->weights, bias);
    return m->device->ops->gemm(m->device, &a, e);
}

static struct tensor borrow(const float *data, int64_t rows, int64_t cols) {
    return tensor_2d((void *)data, rows, cols);
}

static int embed(struct model *m, struct model_space *s, const struct model_input *in, int i, struct err *e) {
    const struct modality_spec *spec = &m->set.spec[i];
    int64_t frames = in->sequences * in->frames;
    struct op_patchify_args a = {.z = borrow(in->z[i], frames, spec->frame_elems),
                                 .history = borrow(in->history[i], frames, spec->frame_elems),
                                 .tau = tensor_1d((void *)(in->tau + i), frames),
                                 .rows = s->rows[i],
                                 .tau_stride = m->set.n,
                                 .frames = in->frames,
                                 .slots = spec->seen_width ? spec->history : 0,
                                 .grid = spec->grid};
    int rc = m->device->ops->patchify(m->device, &a, e);
    return rc ? rc : linear(m, s->rows[i], m->embed[i], -1, s->e[i], e);
}

// The frame's action on each of its tokens: all action tokens of a frame as one row.
static int map_action(struct model *m, struct model_space *s, struct err *e) {
    if (m->action_map < 0) return 0;
    struct tensor rows = s->rows[m->set.action];
    struct tensor flat = tensor_2d(rows.data, s->act.shape[0], tensor_elems(&rows) / s->act.shape[0]);
    flat.dtype = rows.dtype;
    return linear(m, flat, m->action_map, -1, s->act, e);
}

static int assemble(struct model *m, struct model_space *s, struct tensor x, struct err *e) {
    struct op_assemble_args a = {.x = x, .slot = model_param(m, m->weights, m->slot), .map = &s->map};
    for (int i = 0; i < m->set.n; i++) a.e[i] = s->e[i];
    if (m->action_map >= 0) a.act = s->act;
    return m->device->ops->assemble(m->device, &a, e);
}

static int condition(struct model *m, struct model_space *s, const struct model_input *in, struct err *e) {
    int64_t frames = in->sequences * in->frames;
    struct op_cond_features_args f = {.tau = borrow(in->tau, frames, m->set.n),
                                      .tau_history = tensor_1d((void *)in->tau_history, frames),
                                      .out = s->features,
                                      .action = m->set.action};
    int rc = m->device->ops->cond_features(m->device, &f, e);
    if (!rc) rc = linear(m, s->features, m->cond1_weight, m->cond1_bias, s->cond1, e);
    struct op_silu_args silu = {.x = s->cond1, .y = s->cond1_act};
    if (!rc) rc = m->device->ops->silu(m->device, &silu, e);
    return rc ? rc : linear(m, s->cond1_act, m->cond2_weight, m->cond2_bias, s->c, e);
}

// The new frame's keys and values go to their place among the past ones.
static int remember(struct model *m, const struct model_past *past, int64_t layer, struct tensor k,
                    struct tensor v, struct err *e) {
    struct op_scatter_args keys = {.x = past->k[layer], .rows = k, .modality = 1, .map = &past->map};
    struct op_scatter_args values = {.x = past->v[layer], .rows = v, .modality = 1, .map = &past->map};
    int rc = m->device->ops->scatter(m->device, &keys, e);
    return rc ? rc : m->device->ops->scatter(m->device, &values, e);
}

static int attend(struct model *m, struct model_space *s, const struct model_block *b, struct model_layer *l,
                  struct err *e) {
    struct op_qk_rope_args rope = {.qkv = l->qkv,
                                   .q = l->q,
                                   .k = l->k,
                                   .rstd = l->rstd_qk,
                                   .cos = s->cos,
                                   .sin = s->sin,
                                   .gamma = model_param(m, m->weights, b->gamma),
                                   .heads = m->heads,
                                   .kv_heads = m->kv_heads,
                                   .head_dim = m->head_dim,
                                   .per_sequence = l->x.shape[0] / s->sequences};
    const struct model_past *past = s->past;
    if (past) {
        rope.cos = past->cos;
        rope.sin = past->sin;
        rope.first_position = past->at * rope.per_sequence;
    }
    int rc = m->device->ops->qk_rope(m->device, &rope, e);
    struct op_attention_args att = {.q = l->q,
                                    .k = l->k,
                                    .v = model_values(m, &l->qkv),
                                    .o = l->o,
                                    .lse = l->lse,
                                    .sequences = s->sequences,
                                    .heads = m->heads,
                                    .kv_heads = m->kv_heads,
                                    .head_dim = m->head_dim,
                                    .mask = &s->mask,
                                    .masks = s->masks.used ? s->masks.list : NULL};
    if (!rc && past) {
        int64_t layer = b - m->blocks;
        rc = remember(m, past, layer, l->k, att.v, e);
        att.k = past->k[layer];
        att.v = past->v[layer];
        att.mask = &past->mask;
        att.masks = past->masks.used ? past->masks.list : NULL;
    }
    return rc ? rc : m->device->ops->attention(m->device, &att, e);
}

static int attention_half(struct model *m, struct model_space *s, const struct model_block *b,
                          struct model_layer *l, struct err *e) {
    struct tensor mod = model_param(m, m->weights, b->mod);
    struct op_norm_mod_args norm = {
        .x = l->x, .y = l->h1, .rstd = l->rstd1, .c = s->c, .mod = mod, .which = 0, .map = &s->map};
    int rc = m->device->ops->norm_mod(m->device, &norm, e);
    if (!rc) rc = linear(m, l->h1, b->qkv, -1, l->qkv, e);
    if (!rc) rc = attend(m, s, b, l, e);
    if (!rc) rc = linear(m, l->o, b->out, -1, l->y1, e);
    struct op_gated_add_args add = {
        .x = l->x, .y = l->y1, .out = l->x2, .c = s->c, .mod = mod, .which = 0, .map = &s->map};
    return rc ? rc : m->device->ops->gated_add(m->device, &add, e);
}

static int mlp_half(struct model *m, struct model_space *s, const struct model_block *b,
                    struct model_layer *l, struct tensor out, struct err *e) {
    struct tensor mod = model_param(m, m->weights, b->mod);
    struct op_norm_mod_args norm = {
        .x = l->x2, .y = l->h2, .rstd = l->rstd2, .c = s->c, .mod = mod, .which = 1, .map = &s->map};
    int rc = m->device->ops->norm_mod(m->device, &norm, e);
    if (!rc) rc = linear(m, l->h2, b->up, -1, l->up, e);
    struct op_swiglu_args glu = {.x = l->up, .y = l->act};
    if (!rc) rc = m->device->ops->swiglu(m->device, &glu, e);
    if (!rc) rc = linear(m, l->act, b->down, -1, l->y2, e);
    struct op_gated_add_args add = {
        .x = l->x2, .y = l->y2, .out = out, .c = s->c, .mod = mod, .which = 1, .map = &s->map};
    return rc ? rc : m->device->ops->gated_add(m->device, &add, e);
}

static int head(struct model *m, struct model_space *s, int i, struct err *e) {
    struct op_gather_args a = {.x = s->normed, .rows = s->last[i], .modality = i, .map = &s->map};
    int rc = m->device->ops->gather(m->device, &a, e);
    return rc ? rc : linear(m, s->last[i], m->head_weight[i], m->head_bias[i], s->out[i], e);
}

int model_embed(struct model *m, struct model_space *s, const struct model_input *in, struct tensor x,
                struct err *e) {
    int rc = need(m, STAGE_EMBED, e);
    for (int i = 0; !rc && i < m->set.n; i++) rc = embed(m, s, in, i, e);
    if (!rc) rc = map_action(m, s, e);
    return rc ? rc : assemble(m, s, x, e);
}

int model_transform(struct model *m, struct model_space *s, const struct model_input *in, struct err *e) {
    if (in->sequences != s->sequences || in->frames != s->frames)
        return err_set(e, ERR_BUG, "the model is laid out for %lld x %lld frames, not %lld x %lld",
                       (long long)s->sequences, (long long)s->frames, (long long)in->sequences,
                       (long long)in->frames);
    int rc = need(m, STAGE_CONDITION, e);
    if (!rc) rc = condition(m, s, in, e);
    for (int64_t i = 0; !rc && i < m->config->model_layers; i++) {
        struct model_layer *l = &s->layers[i];
        struct tensor out = i + 1 < m->config->model_layers ? s->layers[i + 1].x : s->x;
        device_push(m->device, "layer", i);
        rc = need(m, STAGE_BLOCKS + (int)i, e);
        if (!rc) rc = attention_half(m, s, &m->blocks[i], l, e);
        if (!rc) rc = mlp_half(m, s, &m->blocks[i], l, out, e);
        device_pop(m->device);
    }
    if (!rc) rc = need(m, m->params.stages - 1, e);
    struct op_norm_mod_args norm = {.x = s->x, .y = s->normed, .rstd = s->rstd, .map = &s->map};
    if (!rc) rc = m->device->ops->norm_mod(m->device, &norm, e);
    for (int i = 0; !rc && i < m->set.n; i++) rc = head(m, s, i, e);
    return rc;
}

int model_run(struct model *m, struct model_space *s, const struct model_input *in, struct err *e) {
    int rc = model_masks_look(&s->masks, &m->set, in->valid, in->sequences, in->frames,
                              m->config->model_window, &s->mask, e);
    if (!rc) rc = model_embed(m, s, in, s->layers[0].x, e);
    return rc ? rc : model_transform(m, s, in, e);
}

static int predicted(struct model *m, const struct model_space *s, int64_t frames, int i, float *to,
                     struct err *e) {
    const struct modality_spec *spec = &m->set.spec[i];
    struct device *d = m->device;
    float *at = d->host_memory ? to : s->pred[i];
    struct op_unpatchify_args a = {
        .rows = s->out[i], .frame = tensor_2d(at, frames, spec->frame_elems), .grid = spec->grid};
    int rc = d->ops->unpatchify(d, &a, e);
    if (rc || d->host_memory) return rc;
    return d->vtable->copy_out(d, to, at, (size_t)(frames * spec->frame_elems) * sizeof(float), e);
}

int model_predicted(struct model *m, const struct model_space *s, int64_t frames, float *const *pred,
                    struct err *e) {
    int rc = 0;
    for (int i = 0; !rc && i < m->set.n; i++)
        if (pred[i]) rc = predicted(m, s, frames, i, pred[i], e);
    return rc;
}
