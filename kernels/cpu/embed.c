// SPDX-License-Identifier: Apache-2.0
// From frames to tokens and back: patches with history, the gathering of modalities, the features of noise
// levels. Copies and one scale; every task owns whole frames, except the slots' gradient, where it owns
// slots.
#include <string.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

static void copy_row(float *out, const float *in, int64_t n) {
    for (int64_t i = 0; i < n; i += VW) vf_store_n(out + i, vf_load_n(in + i, n - i), n - i);
}

static void clear_row(float *out, int64_t n) {
    for (int64_t i = 0; i < n; i += VW) vf_store_n(out + i, (vf){0}, n - i);
}

static void add_row(float *out, const float *in, int64_t n) {
    for (int64_t i = 0; i < n; i += VW)
        vf_store_n(out + i, vf_load_n(out + i, n - i) + vf_load_n(in + i, n - i), n - i);
}

// The square of `side` pixels from (top, left), zero outside the picture.
static void take_square(float *out, const float *frame, const struct patch_grid *g, int32_t top, int32_t left,
                        int32_t side) {
    int64_t line = (int64_t)side * g->channels;
    int32_t before = left < 0 ? -left : 0, after = left + side > g->width ? left + side - g->width : 0;
    for (int32_t y = top; y < top + side; y++, out += line) {
        if (y < 0 || y >= g->height) {
            clear_row(out, line);
            continue;
        }
        const float *in = frame + ((int64_t)y * g->width + left + before) * g->channels;
        clear_row(out, (int64_t)before * g->channels);
        copy_row(out + (int64_t)before * g->channels, in, (int64_t)(side - before - after) * g->channels);
        clear_row(out + (int64_t)(side - after) * g->channels, (int64_t)after * g->channels);
    }
}

static void scale_square(float *out, const float *frame, const struct patch_grid *g, int32_t top,
                         int32_t left, float scale) {
    int64_t line = (int64_t)g->patch * g->channels;
    for (int32_t y = top; y < top + g->patch; y++, out += line) {
        const float *in = frame + ((int64_t)y * g->width + left) * g->channels;
        for (int64_t i = 0; i < line; i += VW)
            vf_store_n(out + i, vf_load_n(in + i, line - i) * scale, line - i);
    }
}

static void patchify_task(void *arg, int64_t frame) {
    const struct op_patchify_args *a = arg;
    const struct patch_grid *g = &a->grid;
    float tau = tensor_f32(&a->tau)[frame * a->tau_stride], scale = tau / (tau * tau + (1 - tau) * (1 - tau));
    int32_t across = g->width / g->patch, n = (int32_t)patch_grid_tokens(g), side = g->patch + 2 * g->margin;
    for (int32_t t = 0; t < n; t++) {
        int32_t top = t / across * g->patch, left = t % across * g->patch;
        float *out = cpu_row(&a->rows, frame * n + t);
        scale_square(out, cpu_row(&a->z, frame), g, top, left, scale);
        out += patch_grid_value(g);
        for (int i = 1; i <= a->slots; i++, out += patch_grid_seen(g)) {
            if (frame % a->frames >= i) {
                take_square(out, cpu_row(&a->history, frame - i), g, top - g->margin, left - g->margin, side);
            } else {
                clear_row(out, patch_grid_seen(g));
            }
        }
    }
}

int CPU_FN(patchify)(struct device *d, const struct op_patchify_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    int64_t frames = a->z.shape[0];
    CPU_REQUIRE(patch_grid_fits(g) && a->slots >= 0 && a->frames > 0 && frames % a->frames == 0);
    CPU_REQUIRE(cpu_is_rows(&a->z, frames, patch_grid_frame(g)) && a->tau.data != NULL);
    CPU_REQUIRE(a->slots == 0 || cpu_is_rows(&a->history, frames, patch_grid_frame(g)));
    CPU_REQUIRE(cpu_is_rows(&a->rows, frames * patch_grid_tokens(g),
                            patch_grid_value(g) + a->slots * patch_grid_seen(g)));
    struct op_patchify_args job = *a;
    cpu_run(d, frames, patchify_task, &job);
    return 0;
}

static void unpatchify_task(void *arg, int64_t frame) {
    const struct op_unpatchify_args *a = arg;
    const struct patch_grid *g = &a->grid;
    int64_t n = patch_grid_tokens(g), line = (int64_t)g->patch * g->channels;
    int32_t across = g->width / g->patch;
    for (int32_t t = 0; t < n; t++) {
        const float *in = cpu_row(&a->rows, frame * n + t);
        float *out = cpu_row(&a->frame, frame) +
                     ((int64_t)(t / across) * g->width + t % across) * g->patch * g->channels;
        for (int32_t y = 0; y < g->patch; y++)
            copy_row(out + (int64_t)y * g->width * g->channels, in + y * line, line);
    }
}

int CPU_FN(unpatchify)(struct device *d, const struct op_unpatchify_args *a, struct err *e) {
    const struct patch_grid *g = &a->grid;
    int64_t frames = a->frame.shape[0];
    CPU_REQUIRE(patch_grid_fits(g) && cpu_is_rows(&a->frame, frames, patch_grid_frame(g)));
    CPU_REQUIRE(cpu_is_rows(&a->rows, frames * patch_grid_tokens(g), patch_grid_value(g)));
    struct op_unpatchify_args job = *a;
    cpu_run(d, frames, unpatchify_task, &job);
    return 0;
}

// The slots of modality m: first .. first + count - 1.
static int32_t slots_of(const struct token_map *map, int m, int32_t *first) {
    int32_t lo = 0, n = 0;
    while (lo < map->per_frame && map->slot_modality[lo] != m) lo++;
    while (lo + n < map->per_frame && map->slot_modality[lo + n] == m) n++;
    *first = lo;
    return n;
}

static void assemble_task(void *arg, int64_t frame) {
    const struct op_assemble_args *a = arg;
    const struct token_map *map = a->map;
    int64_t width = a->x.shape[1];
    const float *act = a->act.data != NULL ? cpu_row(&a->act, frame) : NULL;
    for (int m = 0; m < map->modalities; m++) {
        int32_t first, n = slots_of(map, m, &first);
        for (int32_t t = 0; t < n; t++) {
            const float *in = cpu_row(&a->e[m], frame * n + t), *slot = cpu_row(&a->slot, first + t);
            float *out = cpu_row(&a->x, frame * map->per_frame + first + t);
            for (int64_t i = 0; i < width; i += VW) {
                vf v = vf_load_n(in + i, width - i) + vf_load_n(slot + i, width - i);
                if (act != NULL) v += vf_load_n(act + i, width - i);
                vf_store_n(out + i, v, width - i);
            }
        }
    }
}

static bool map_fits(const struct token_map *map, const struct tensor *x) {
    return map->frames >= 0 && map->per_frame > 0 && map->modalities > 0 &&
           map->modalities <= OPS_MODALITIES_MAX && cpu_is_rows(x, map->frames * map->per_frame, x->shape[1]);
}

int CPU_FN(assemble)(struct device *d, const struct op_assemble_args *a, struct err *e) {
    const struct token_map *map = a->map;
    int64_t width = a->x.shape[1];
    CPU_REQUIRE(map_fits(map, &a->x) && cpu_is_rows(&a->slot, map->per_frame, width));
    CPU_REQUIRE(a->act.data == NULL || cpu_is_rows(&a->act, map->frames, width));
    for (int m = 0; m < map->modalities; m++) {
        int32_t first, n = slots_of(map, m, &first);
        CPU_REQUIRE(n == 0 || cpu_is_rows(&a->e[m], map->frames * n, width));
    }
    struct op_assemble_args job = *a;
    cpu_run(d, map->frames, assemble_task, &job);
    return 0;
}

static void assemble_backward_frame(void *arg, int64_t frame) {
    const struct op_assemble_backward_args *a = arg;
    const struct token_map *map = a->map;
    int64_t width = a->dx.shape[1];
    for (int m = 0; m < map->modalities; m++) {
        if (a->de[m].data == NULL) continue;
        int32_t first, n = slots_of(map, m, &first);
        for (int32_t t = 0; t < n; t++) {
            copy_row(cpu_row(&a->de[m], frame * n + t), cpu_row(&a->dx, frame * map->per_frame + first + t),
                     width);
        }
    }
    if (a->dact.data == NULL) return;
    float *dact = cpu_row(&a->dact, frame);
    clear_row(dact, width);
    for (int32_t t = 0; t < map->per_frame; t++)
        add_row(dact, cpu_row(&a->dx, frame * map->per_frame + t), width);
}

// Summed apart first, so that what is there already does not change the order.
static void assemble_backward_slot(void *arg, int64_t slot) {
    const struct op_assemble_backward_args *a = arg;
    int64_t width = a->dx.shape[1];
    float *out = cpu_row(&a->dslot, slot);
    for (int64_t i = 0; i < width; i += VW) {
        vf sum = {0};
        for (int64_t f = 0; f < a->map->frames; f++) {
            sum += vf_load_n(cpu_row(&a->dx, f * a->map->per_frame + slot) + i, width - i);
        }
        vf_store_n(out + i, vf_load_n(out + i, width - i) + sum, width - i);
    }
}

int CPU_FN(assemble_backward)(struct device *d, const struct op_assemble_backward_args *a, struct err *e) {
    const struct token_map *map = a->map;
    int64_t width = a->dx.shape[1];
    CPU_REQUIRE(map_fits(map, &a->dx));
    CPU_REQUIRE(a->dslot.data == NULL || cpu_is_rows(&a->dslot, map->per_frame, width));
    CPU_REQUIRE(a->dact.data == NULL || cpu_is_rows(&a->dact, map->frames, width));
    for (int m = 0; m < map->modalities; m++) {
        int32_t first, n = slots_of(map, m, &first);
        CPU_REQUIRE(a->de[m].data == NULL || cpu_is_rows(&a->de[m], map->frames * n, width));
    }
    struct op_assemble_backward_args job = *a;
    cpu_run(d, map->frames, assemble_backward_frame, &job);
    if (a->dslot.data != NULL) cpu_run(d, map->per_frame, assemble_backward_slot, &job);
    return 0;
}

struct move_job {
    struct tensor from, to;
    int64_t from_frame, to_frame; // rows per frame
    int64_t from_first, to_first;
    int64_t count, width;
};

static void move_task(void *arg, int64_t frame) {
    const struct move_job *j = arg;
    for (int64_t t = 0; t < j->count; t++) {
        copy_row(cpu_row(&j->to, frame * j->to_frame + j->to_first + t),
                 cpu_row(&j->from, frame * j->from_frame + j->from_first + t), j->width);
    }
}

int CPU_FN(gather)(struct device *d, const struct op_gather_args *a, struct err *e) {
    int32_t first, n = slots_of(a->map, a->modality, &first);
    int64_t width = a->x.shape[1];
    CPU_REQUIRE(map_fits(a->map, &a->x) && cpu_is_rows(&a->rows, a->map->frames * n, width));
    struct move_job job = {a->x, a->rows, a->map->per_frame, n, first, 0, n, width};
    cpu_run(d, a->map->frames, move_task, &job);
    return 0;
}

int CPU_FN(scatter)(struct device *d, const struct op_scatter_args *a, struct err *e) {
    int32_t first, n = slots_of(a->map, a->modality, &first);
    int64_t width = a->x.shape[1];
    CPU_REQUIRE(map_fits(a->map, &a->x) && cpu_is_rows(&a->rows, a->map->frames * n, width));
    struct move_job job = {a->rows, a->x, n, a->map->per_frame, 0, first, n, width};
    cpu_run(d, a->map->frames, move_task, &job);
    return 0;
}

// cos, then sin, of pi tau {0.5, 1, 2, 4}.
static void tau_features(float tau, float *out) {
    float turns[VW] = {0}, sine[VW], cosine[VW];
    for (int i = 0; i < 4; i++) turns[i] = tau * 0.25f * (float)(1 << i);
    vf s, c;
    vf_sincos_turns(vf_load(turns), &s, &c);
    vf_store(sine, s);
    vf_store(cosine, c);
    memcpy(out, cosine, 4 * sizeof *out);
    memcpy(out + 4, sine, 4 * sizeof *out);
}

static void cond_task(void *arg, int64_t frame) {
    const struct op_cond_features_args *a = arg;
    int64_t modalities = a->tau.shape[1];
    float act[8], history[8];
    tau_features(a->action >= 0 ? cpu_row(&a->tau, frame)[a->action] : 0.0f, act);
    tau_features(tensor_f32(&a->tau_history)[frame], history);
    for (int64_t m = 0; m < modalities; m++) {
        float *out = cpu_row(&a->out, frame * modalities + m);
        tau_features(cpu_row(&a->tau, frame)[m], out);
        memcpy(out + 8, act, sizeof act);
        memcpy(out + 16, history, sizeof history);
        for (int64_t i = 0; i < modalities; i++) out[24 + i] = i == m ? 1.0f : 0.0f;
    }
}

int CPU_FN(cond_features)(struct device *d, const struct op_cond_features_args *a, struct err *e) {
    int64_t frames = a->tau.shape[0], modalities = a->tau.shape[1];
    CPU_REQUIRE(cpu_is_rows(&a->tau, frames, modalities) && cpu_is_vector(&a->tau_history, frames));
    CPU_REQUIRE(cpu_is_rows(&a->out, frames * modalities, 24 + modalities) && a->action < modalities);
    struct op_cond_features_args job = *a;
    cpu_run(d, frames, cond_task, &job);
    return 0;
}
