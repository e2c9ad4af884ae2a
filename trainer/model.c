// SPDX-License-Identifier: Apache-2.0
#include "trainer/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/model_impl.h"

// A prediction works on about this many tokens at a time: enough for the matrix products, few enough for
// caches.
#define PREDICT_TOKENS 2048

struct tensor model_param_at(const struct model *m, float *at, int i) {
    const struct param *p = &m->params.list[i];
    return p->rank == 1 ? tensor_1d(at, p->shape[0]) : tensor_2d(at, p->shape[0], p->shape[1]);
}

struct tensor model_param(const struct model *m, float *flat, int i) {
    return model_param_at(m, flat + m->params.list[i].offset, i);
}

int64_t model_kv_width(const struct model *m) {
    return (int64_t)m->kv_heads * m->head_dim;
}

struct tensor model_values(const struct model *m, const struct tensor *qkv) {
    int64_t width = model_kv_width(m), first = m->config->model_width + width;
    struct tensor v = tensor_rows((char *)qkv->data + first * (int64_t)dtype_bytes(qkv->dtype), qkv->shape[0],
                                  width, qkv->stride[0]);
    v.dtype = qkv->dtype;
    return v;
}

struct tensor model_weight_for(const struct model *m, const struct tensor *other, int i) {
    struct tensor w = model_param(m, m->weights, i);
    if (other->dtype == DTYPE_F32) return w;
    w.data = (char *)m->low + m->params.list[i].offset * (int64_t)dtype_bytes(other->dtype);
    w.dtype = other->dtype;
    return w;
}

int model_refresh(struct model *m, struct err *e) {
    struct op_rounding nearest = {0};
    return model_round(m, &nearest, 0, NULL, 0, m->params.elems, e);
}

int model_round(struct model *m, const struct op_rounding *how, int64_t step, const struct op_update *now,
                int64_t first, int64_t end, struct err *e) {
    if (!m->low || first == end) return 0;
    struct op_cast_args a = {.x = tensor_2d(m->weights + first, 1, end - first),
                             .y = tensor_2d((uint16_t *)m->low + first, 1, end - first),
                             .rounding = *how,
                             .step = (uint32_t)step,
                             .now = now,
                             .first = first};
    a.y.dtype = m->device->compute;
    return m->device->ops->cast(m->device, &a, e);
}

void *model_low(struct model *m) {
    return m->low;
}

void model_set_watch(struct model *m, const struct model_watch *w) {
    m->watch = w ? *w : (struct model_watch){0};
}

static int number_of(const struct model *m, const char *format, const char *what) {
    char name[64];
    snprintf(name, sizeof name, format, what);
    const struct param *p = params_find(&m->params, name);
    return p ? (int)(p - m->params.list) : -1;
}

static int number_in_block(const struct model *m, int64_t layer, const char *what) {
    char name[64];
    snprintf(name, sizeof name, "blocks.%lld.%s", (long long)layer, what);
    return number_of(m, "%s", name);
}

static void find_params(struct model *m) {
    for (int i = 0; i < m->set.n; i++) {
        const char *name = m->set.spec[i].modality->name;
        m->embed[i] = number_of(m, "embed.%.32s.weight", name);
        m->head_weight[i] = number_of(m, "head.%.32s.weight", name);
        m->head_bias[i] = number_of(m, "head.%.32s.bias", name);
    }
    m->slot = number_of(m, "%s", "slot");
    m->action_map = number_of(m, "%s", "action_map.weight");
    m->cond1_weight = number_of(m, "%s", "cond.1.weight");
    m->cond1_bias = number_of(m, "%s", "cond.1.bias");
    m->cond2_weight = number_of(m, "%s", "cond.2.weight");
    m->cond2_bias = number_of(m, "%s", "cond.2.bias");
    for (int64_t i = 0; i < m->config->model_layers; i++)
        m->blocks[i] = (struct model_block){.qkv = number_in_block(m, i, "qkv.weight"),
                                            .out = number_in_block(m, i, "out.weight"),
                                            .up = number_in_block(m, i, "up.weight"),
                                            .down = number_in_block(m, i, "down.weight"),
                                            .mod = number_in_block(m, i, "mod"),
                                            .gamma = number_in_block(m, i, "gamma")};
}

static int fill_weights(struct model *m, struct err *e) {
    size_t bytes = (size_t)m->params.elems * sizeof(float);
    int rc = m->device->vtable->zero(m->device, m->weights, bytes, e);
    for (int i = 0; !rc && i < m->params.n; i++)
        rc = params_fill(&m->params, i, (uint64_t)m->config->run_seed, m->device, m->weights, e);
    return rc ? rc : model_refresh(m, e);
}

static int describe(struct model *m, const struct config *c, const struct modality_set *set, struct err *e) {
    m->config = c;
    m->set = *set;
    m->head_dim = (int)c->model_head_dim;
    m->heads = params_heads(c);
    m->kv_heads = params_kv_heads(c);
    m->hidden = params_hidden(c);
    m->training.training = true;
    return params_init(&m->params, c, set, e);
}

int model_create(struct model **out, const struct config *c, const struct modality_set *set, struct device *d,
                 struct err *e) {
    struct model *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory for a model");
    void *weights = NULL;
    int rc = describe(m, c, set, e);
    if (rc) goto out;
    m->device = d;
    m->blocks = calloc((size_t)c->model_layers, sizeof *m->blocks);
    if (!m->blocks) {
        rc = err_set(e, ERR_MEMORY, "no memory for a table of blocks");
        goto out;
    }
    find_params(m);
    rc = device_alloc_shared(d, &weights, (size_t)m->params.elems * sizeof(float), true, e);
    m->weights = weights;
    if (!rc && d->compute != DTYPE_F32)
        rc = d->vtable->alloc(d, &m->low, (size_t)m->params.elems * dtype_bytes(d->compute), e);
    if (!rc) rc = fill_weights(m, e);
out:
    if (rc)
        model_destroy(m);
    else
        *out = m;
    return rc;
}

void model_destroy(struct model *m) {
    if (!m) return;
    model_space_fini(&m->training);
    model_space_fini(&m->predicting);
    if (m->weights) device_release_shared(m->device, m->weights);
    if (m->low) m->device->vtable->release(m->device, m->low);
    params_fini(&m->params);
    free(m->blocks);
    free(m);
}

const struct params *model_params(const struct model *m) {
    return &m->params;
}

const struct modality_set *model_modalities(const struct model *m) {
    return &m->set;
}

float *model_weights(struct model *m) {
    return m->weights;
}

int model_reserve(struct model *m, int64_t sequences, int64_t frames, struct err *e) {
    return model_space_shape(&m->training, m, sequences, frames, e);
}

int model_forward(struct model *m, const struct model_input *in, struct err *e) {
    return model_run(m, &m->training, in, e);
}

// The chunk of sequences [first, first + count) of the whole input.
static struct model_input part_of(const struct model *m, const struct model_input *in, int64_t first,
                                  int64_t count) {
    struct model_input part = {.sequences = count, .frames = in->frames};
    int64_t frame = first * in->frames;
    for (int i = 0; i < m->set.n; i++) {
        part.z[i] = in->z[i] + frame * m->set.spec[i].frame_elems;
        part.history[i] = in->history[i] + frame * m->set.spec[i].frame_elems;
        if (in->valid[i]) part.valid[i] = in->valid[i] + frame;
    }
    part.tau = in->tau + frame * m->set.n;
    part.tau_history = in->tau_history + frame;
    return part;
}

int model_bring_in(struct model *m, const struct model_space *s, struct model_input *in, struct err *e) {
    struct device *d = m->device;
    size_t frames = (size_t)(in->sequences * in->frames);
    if (d->host_memory) return 0;
    int rc = d->vtable->copy_in(d, s->tau, in->tau, frames * (size_t)m->set.n * sizeof(float), e);
    if (!rc) rc = d->vtable->copy_in(d, s->tau_history, in->tau_history, frames * sizeof(float), e);
    for (int i = 0; !rc && i < m->set.n; i++) {
        size_t bytes = frames * (size_t)m->set.spec[i].frame_elems * sizeof(float);
        rc = d->vtable->copy_in(d, s->z[i], in->z[i], bytes, e);
        if (!rc) rc = d->vtable->copy_in(d, s->history[i], in->history[i], bytes, e);
        in->z[i] = s->z[i];
        in->history[i] = s->history[i];
    }
    in->tau = s->tau;
    in->tau_history = s->tau_history;
    return rc;
}

static int predict_part(struct model *m, struct model_input *in, float *const *pred, int64_t first,
                        struct err *e) {
    float *to[OPS_MODALITIES_MAX] = {NULL};
    for (int i = 0; i < m->set.n; i++)
        if (pred[i]) to[i] = pred[i] + first * in->frames * m->set.spec[i].frame_elems;
    int rc = model_bring_in(m, &m->predicting, in, e);
    if (!rc) rc = model_run(m, &m->predicting, in, e);
    return rc ? rc : model_predicted(m, &m->predicting, in->sequences * in->frames, to, e);
}

int64_t model_predict_chunk(const struct modality_set *set, int64_t frames) {
    int64_t per_sequence = frames * set->tokens_per_frame;
    return per_sequence > PREDICT_TOKENS ? 1 : PREDICT_TOKENS / per_sequence;
}

int model_predict(struct model *m, const struct model_input *in, float *const *pred, struct err *e) {
    int64_t chunk = model_predict_chunk(&m->set, in->frames);
    int rc = 0;
    for (int64_t first = 0; !rc && first < in->sequences; first += chunk) {
        int64_t count = in->sequences - first < chunk ? in->sequences - first : chunk;
        struct model_input part = part_of(m, in, first, count);
        rc = model_space_shape(&m->predicting, m, count, in->frames, e);
        if (!rc) rc = predict_part(m, &part, pred, first, e);
    }
    return rc;
}

static int64_t largest_tensor(const struct params *p) {
    int64_t largest = 0;
    for (int i = 0; i < p->n; i++)
        if (p->list[i].elems > largest) largest = p->list[i].elems;
    return largest;
}

static int load_tensor(struct model *m, struct ckpt *c, const struct param *p, bool average, float *host,
                       struct err *e) {
    char name[CKPT_NAME_MAX + 1];
    snprintf(name, sizeof name, "%s%s", average ? "ema." : "", p->name);
    struct ckpt_tensor want = {.name = name, .rank = p->rank};
    for (int k = 0; k < p->rank; k++) want.shape[k] = want.extent[k] = p->shape[k];
    int rc = ckpt_read(c, &want, host, e);
    if (rc) return rc;
    return m->device->vtable->copy_in(m->device, m->weights + p->offset, host,
                                      (size_t)p->elems * sizeof(float), e);
}

bool model_has_average(const struct ckpt *c) {
    for (size_t i = 0; i < ckpt_tensors(c); i++) {
        struct ckpt_tensor t;
        ckpt_tensor_at(c, i, &t);
        if (!strncmp(t.name, "ema.", 4)) return true;
    }
    return false;
}

int model_load(struct model *m, struct ckpt *c, bool average, struct err *e) {
    int64_t largest = largest_tensor(&m->params);
    float *host = malloc((size_t)largest * sizeof *host);
    if (!host)
        return err_set(e, ERR_MEMORY, "no memory to read a tensor of %lld weights", (long long)largest);
    int rc = 0;
    average = average && model_has_average(c);
    for (int i = 0; !rc && i < m->params.n; i++) rc = load_tensor(m, c, &m->params.list[i], average, host, e);
    free(host);
    return rc ? rc : model_refresh(m, e);
}
