// SPDX-License-Identifier: Apache-2.0
// The loss and the backward pass, in the reverse order of model_forward.c. Gradients of weights accumulate
// where the caller wants them, those of activations overwrite unless an op says otherwise.
#include "trainer/model_impl.h"

_Static_assert(CONFIG_loss_weighting_one == 0 && CONFIG_loss_weighting_ramp == 1 &&
                   CONFIG_loss_weighting_v == 2,
               "configs/schema.def names the weightings as kernels/ops.h numbers them");

static struct tensor grad_of(const struct model *m, const struct params_place *grads, int i) {
    return model_param_at(m, grads->at + (m->params.list[i].offset - grads->first), i);
}

// dw += dy^T x;  dx = dy w where dx is wanted;  db += column sums of dy
struct linear_grad {
    struct tensor x, dy, dx;
    int weight, bias; // bias -1: none
};

static int linear_backward(struct model *m, const struct params_place *grads, const struct linear_grad *g,
                           struct err *e) {
    const struct ops *ops = m->device->ops;
    struct op_gemm_args weight = {
        .a = g->dy, .b = g->x, .c = grad_of(m, grads, g->weight), .trans_a = true, .accumulate = true};
    int rc = ops->gemm(m->device, &weight, e);
    if (!rc && g->bias >= 0) {
        struct op_col_sum_args sum = {.x = g->dy, .out = grad_of(m, grads, g->bias), .accumulate = true};
        rc = ops->col_sum(m->device, &sum, e);
    }
    if (rc || !g->dx.data) return rc;
    struct op_gemm_args input = {.a = g->dy, .b = model_weight_for(m, &g->dy, g->weight), .c = g->dx};
    return ops->gemm(m->device, &input, e);
}

static int zero(struct model *m, struct tensor t, struct err *e) {
    return m->device->vtable->zero(m->device, t.data, (size_t)tensor_elems(&t) * sizeof(float), e);
}

static int norm_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                         struct op_norm_mod_backward_args *a, int mod, struct err *e) {
    a->dx = s->dx;
    a->map = &s->map;
    if (mod >= 0) {
        a->c = s->c;
        a->dc = s->dc;
        a->mod = model_param(m, m->weights, mod);
        a->dmod = grad_of(m, grads, mod);
    }
    return m->device->ops->norm_mod_backward(m->device, a, e);
}

// dy = (1 + g) dx, with the gate's own gradients
static int gate_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                         struct tensor y, int mod, int which, struct err *e) {
    struct op_gated_add_backward_args a = {.y = y,
                                           .dx = s->dx,
                                           .c = s->c,
                                           .mod = model_param(m, m->weights, mod),
                                           .which = which,
                                           .map = &s->map,
                                           .dy = s->dy,
                                           .dc = s->dc,
                                           .dmod = grad_of(m, grads, mod)};
    return m->device->ops->gated_add_backward(m->device, &a, e);
}

static int head_backward(struct model *m, struct model_space *s, const struct params_place *grads, int i,
                         struct err *e) {
    struct linear_grad g = {.x = s->last[i],
                            .dy = s->dout[i],
                            .dx = s->e[i],
                            .weight = m->head_weight[i],
                            .bias = m->head_bias[i]};
    int rc = linear_backward(m, grads, &g, e);
    struct op_scatter_args a = {.x = s->dy, .rows = s->e[i], .modality = i, .map = &s->map};
    return rc ? rc : m->device->ops->scatter(m->device, &a, e);
}

static int mlp_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                        const struct model_block *b, struct model_layer *l, struct err *e) {
    int rc = gate_backward(m, s, grads, l->y2, b->mod, 1, e);
    struct linear_grad down = {.x = l->act, .dy = s->dy, .dx = s->dact, .weight = b->down, .bias = -1};
    if (!rc) rc = linear_backward(m, grads, &down, e);
    struct op_swiglu_backward_args glu = {.x = l->up, .dy = s->dact, .dx = s->dup};
    if (!rc) rc = m->device->ops->swiglu_backward(m->device, &glu, e);
    struct linear_grad up = {.x = l->h2, .dy = s->dup, .dx = s->dh, .weight = b->up, .bias = -1};
    if (!rc) rc = linear_backward(m, grads, &up, e);
    struct op_norm_mod_backward_args norm = {.x = l->x2, .rstd = l->rstd2, .dy = s->dh, .which = 1};
    return rc ? rc : norm_backward(m, s, grads, &norm, b->mod, e);
}

static int attend_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                           const struct model_block *b, struct model_layer *l, struct err *e) {
    struct op_attention_backward_args att = {.q = l->q,
                                             .k = l->k,
                                             .v = model_values(m, &l->qkv),
                                             .o = l->o,
                                             .lse = l->lse,
                                             .d_o = s->dh,
                                             .dq = s->dq,
                                             .dk = s->dk,
                                             .dv = model_values(m, &s->dqkv),
                                             .sequences = s->sequences,
                                             .heads = m->heads,
                                             .kv_heads = m->kv_heads,
                                             .head_dim = m->head_dim,
                                             .mask = &s->mask,
                                             .masks = s->masks.used ? s->masks.list : NULL};
    int rc = m->device->ops->attention_backward(m->device, &att, e);
    struct op_qk_rope_backward_args rope = {.qkv = l->qkv,
                                            .rstd = l->rstd_qk,
                                            .dq = s->dq,
                                            .dk = s->dk,
                                            .cos = s->cos,
                                            .sin = s->sin,
                                            .gamma = model_param(m, m->weights, b->gamma),
                                            .dqkv = s->dqkv,
                                            .dgamma = grad_of(m, grads, b->gamma),
                                            .heads = m->heads,
                                            .kv_heads = m->kv_heads,
                                            .head_dim = m->head_dim,
                                            .per_sequence = l->x.shape[0] / s->sequences};
    return rc ? rc : m->device->ops->qk_rope_backward(m->device, &rope, e);
}

static int attention_half_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                                   const struct model_block *b, struct model_layer *l, struct err *e) {
    int rc = gate_backward(m, s, grads, l->y1, b->mod, 0, e);
    struct linear_grad out = {.x = l->o, .dy = s->dy, .dx = s->dh, .weight = b->out, .bias = -1};
    if (!rc) rc = linear_backward(m, grads, &out, e);
    if (!rc) rc = attend_backward(m, s, grads, b, l, e);
    struct linear_grad qkv = {.x = l->h1, .dy = s->dqkv, .dx = s->dh, .weight = b->qkv, .bias = -1};
    if (!rc) rc = linear_backward(m, grads, &qkv, e);
    struct op_norm_mod_backward_args norm = {.x = l->x, .rstd = l->rstd1, .dy = s->dh, .which = 0};
    return rc ? rc : norm_backward(m, s, grads, &norm, b->mod, e);
}

static int embed_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                          struct err *e) {
    struct op_assemble_backward_args a = {.dx = s->dx, .dslot = grad_of(m, grads, m->slot), .map = &s->map};
    for (int i = 0; i < m->set.n; i++) a.de[i] = s->e[i];
    if (m->action_map >= 0) a.dact = s->daction;
    int rc = m->device->ops->assemble_backward(m->device, &a, e);
    for (int i = 0; !rc && i < m->set.n; i++) {
        struct linear_grad g = {.x = s->rows[i], .dy = s->e[i], .weight = m->embed[i], .bias = -1};
        rc = linear_backward(m, grads, &g, e);
    }
    if (rc || m->action_map < 0) return rc;
    struct tensor rows = s->rows[m->set.action];
    struct linear_grad g = {.dy = s->daction, .weight = m->action_map, .bias = -1};
    g.x = tensor_2d(rows.data, s->act.shape[0], tensor_elems(&rows) / s->act.shape[0]);
    g.x.dtype = rows.dtype;
    return linear_backward(m, grads, &g, e);
}

static int condition_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                              struct err *e) {
    struct linear_grad second = {
        .x = s->cond1_act, .dy = s->dc, .dx = s->dcond1, .weight = m->cond2_weight, .bias = m->cond2_bias};
    int rc = linear_backward(m, grads, &second, e);
    struct op_silu_backward_args silu = {.x = s->cond1, .dy = s->dcond1, .dx = s->dcond1};
    if (!rc) rc = m->device->ops->silu_backward(m->device, &silu, e);
    struct linear_grad first = {
        .x = s->features, .dy = s->dcond1, .weight = m->cond1_weight, .bias = m->cond1_bias};
    return rc ? rc : linear_backward(m, grads, &first, e);
}

int model_loss(struct model *m, const struct model_target *t, double *loss, struct err *e) {
    struct model_space *s = &m->training;
    int64_t frames = s->sequences * s->frames;
    int rc = 0;
    for (int i = 0; !rc && i < m->set.n; i++) {
        const struct modality_spec *spec = &m->set.spec[i];
        struct op_loss_args a = {.pred = s->out[i],
                                 .target = tensor_2d((void *)t->x[i], frames, spec->frame_elems),
                                 .tau = tensor_1d((void *)(t->tau + i), frames),
                                 .tau_stride = m->set.n,
                                 .active = t->active[i],
                                 .dpred = s->dout[i],
                                 .scale = &t->scale[i],
                                 .weighting = m->config->loss_weighting,
                                 .grid = spec->grid,
                                 .loss_sum = &loss[i]};
        rc = m->device->ops->loss(m->device, &a, e);
    }
    return rc;
}

// ---- stage by stage

static int heads_backward(struct model *m, struct model_space *s, const struct params_place *grads,
                          struct err *e) {
    int rc = 0;
    for (int i = 0; !rc && i < m->set.n; i++) rc = head_backward(m, s, grads, i, e);
    struct op_norm_mod_backward_args norm = {.x = s->x, .rstd = s->rstd, .dy = s->dy};
    return rc ? rc : norm_backward(m, s, grads, &norm, -1, e);
}

static int block_backward(struct model *m, struct model_space *s, const struct params_place *grads, int i,
                          struct err *e) {
    device_push(m->device, "layer", i);
    int rc = mlp_backward(m, s, grads, &m->blocks[i], &s->layers[i], e);
    if (!rc) rc = attention_half_backward(m, s, grads, &m->blocks[i], &s->layers[i], e);
    device_pop(m->device);
    return rc;
}

static int stage_backward(struct model *m, const struct params_place *grads, int stage, struct err *e) {
    struct model_space *s = &m->training;
    if (stage == STAGE_EMBED) return embed_backward(m, s, grads, e);
    if (stage == STAGE_CONDITION) return condition_backward(m, s, grads, e);
    if (stage == m->params.stages - 1) return heads_backward(m, s, grads, e);
    return block_backward(m, s, grads, stage - STAGE_BLOCKS, e);
}

int model_backward(struct model *m, const struct model_grads *g, struct err *e) {
    struct params_place grads;
    int rc = zero(m, m->training.dx, e);
    if (!rc) rc = zero(m, m->training.dc, e);
    for (int stage = m->params.stages - 1; !rc && stage >= 0; stage--) {
        rc = g->place(g->arg, stage, &grads, e);
        if (!rc) rc = stage_backward(m, &grads, stage, e);
        if (!rc && g->final) rc = g->final(g->arg, stage, e);
    }
    return rc;
}
