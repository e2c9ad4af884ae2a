// SPDX-License-Identifier: Apache-2.0
// What a model costs, before there is one: memory and arithmetic as functions of the config.
#include "kernels/cuda/sizes.h"
#include "trainer/model_impl.h"

// What the sizes of buffers depend on.
static struct model shape_of(const struct config *c, const struct modality_set *set, struct device *d) {
    return (struct model){.config = c,
                          .device = d,
                          .set = *set,
                          .head_dim = (int)c->model_head_dim,
                          .heads = params_heads(c),
                          .kv_heads = params_kv_heads(c),
                          .hidden = params_hidden(c)};
}

int64_t model_training_bytes(const struct config *c, const struct modality_set *set, struct device *d,
                             int64_t sequences, int64_t frames) {
    struct model m = shape_of(c, set, d);
    return model_space_bytes(&m, sequences, frames, true);
}

// Both predict in the same space; decoding adds the cache.
int64_t model_forecast_bytes(const struct config *c, const struct modality_set *set, struct device *d,
                             int64_t sequences, int64_t frames) {
    struct model m = shape_of(c, set, d);
    int64_t recent = model_history(&m) < frames ? model_history(&m) + 1 : frames;
    int64_t whole = model_space_bytes(&m, model_predict_chunk(set, frames), frames, false);
    int64_t decoded = model_space_bytes(&m, sequences, recent, false);
    return (whole > decoded ? whole : decoded) + model_past_bytes(&m, sequences, frames) +
           model_space_bytes(&m, sequences, 1, false);
}

static void most(int64_t *at, size_t bytes) {
    if ((int64_t)bytes > *at) *at = (int64_t)bytes;
}

static int attention_bytes(struct model_gpu_bytes *out, const struct model *m, int compute, bool in_f32,
                           int64_t sequences, int64_t frames, struct err *e) {
    struct mask mask = {0};
    struct gpu_attention_bytes att = {0};
    int rc = mask_block_causal(&mask, frames, m->set.tokens_per_frame, m->config->model_window, frames, e);
    struct gpu_attention_shape s = {.sequences = sequences,
                                    .heads = m->heads,
                                    .kv_heads = m->kv_heads,
                                    .head_dim = m->head_dim,
                                    .mask = &mask,
                                    .in_f32 = in_f32};
    if (!rc) rc = gpu_attention_plan(&att, compute, &s, e);
    mask_fini(&mask);
    out->schedules = (int64_t)att.schedules;
    most(&out->scratch, att.scratch);
    return rc;
}

int model_gpu_bytes(struct model_gpu_bytes *out, const struct config *c, const struct modality_set *set,
                    const struct device *d, int compute, int64_t sequences, int64_t frames, struct err *e) {
    struct model m = shape_of(c, set, NULL);
    int64_t all = sequences * frames, n = all * set->tokens_per_frame, groups = all * set->n, chunks = 0;
    *out = (struct model_gpu_bytes){0};
    for (int i = 0; i < set->n; i++) {
        const struct modality_spec *s = &set->spec[i];
        chunks += all * ((s->tokens + GPU_CHUNK - 1) / GPU_CHUNK);
        most(&out->scratch, gpu_col_sum_bytes(all * s->tokens, s->value_width));
        most(&out->scratch, gpu_loss_bytes(all, (int64_t)s->tokens * s->value_width));
    }
    most(&out->scratch, gpu_mod_sums_bytes(chunks, groups, 2, c->model_width));
    most(&out->scratch, gpu_rope_backward_bytes(n, m.heads));
    most(&out->scratch, gpu_col_sum_bytes(groups, 6 * c->model_width));
    return attention_bytes(out, &m, compute, d->compute != DTYPE_BF16, sequences, frames, e);
}

// Pairs (query, key) that one sequence attends over.
static double pairs_of(const struct config *c, int64_t frames, int64_t per_frame) {
    double seen = 0;
    for (int64_t f = 0; f < frames; f++)
        seen += (double)(c->model_window > 0 && f + 1 > c->model_window ? c->model_window : f + 1);
    return seen * (double)(per_frame * per_frame);
}

// A product costs two operations a weight and row, its backward four, two where no input's gradient is
// wanted.
double model_step_flops(const struct config *c, const struct modality_set *set, int64_t sequences,
                        int64_t frames) {
    double b = (double)(sequences * frames), d = (double)c->model_width, hidden = (double)params_hidden(c);
    double layers = (double)c->model_layers, rows = b * (double)set->tokens_per_frame, total = 0;
    double keys = (double)params_kv_heads(c) * (double)c->model_head_dim;
    total += 6 * rows * layers * (2 * d * d + 2 * d * keys + 3 * d * hidden);
    total += 12 * layers * (double)sequences * pairs_of(c, frames, set->tokens_per_frame) * d;
    for (int i = 0; i < set->n; i++) {
        const struct modality_spec *s = &set->spec[i];
        double tokens = b * (double)s->tokens;
        total += 4 * tokens * (double)(s->value_width + s->history * s->seen_width) * d;
        total += 6 * tokens * (double)s->value_width * d;
    }
    return total + 6 * b * set->n * (double)c->model_cond_width * 6 * d;
}
