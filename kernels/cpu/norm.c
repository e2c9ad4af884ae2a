// SPDX-License-Identifier: Apache-2.0
// RMSNorm with adaLN and the gated residual. With h = x r, r = 1 / sqrt(mean x^2 + 1e-6):
//   y = h (1 + k) + s;   dx += r (u - h mean(u h)), u = dy (1 + k);   ds = sum dy, dk = sum dy h over the
//   group x += (1 + g) y;      dy = (1 + g) dx;                             dg = sum dx y over the group
// A task owns a frame, thus its groups; the layer's offset gets the groups' sums, added in order.
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/simd.h"

#define NORM_EPS 1e-6f

// The vectors of one group: columns [part*D, (part+1)*D) of c[group] + mod.
struct mod_view {
    const float *c, *mod;
};

static int64_t tokens_of(const struct token_map *map) {
    return map->frames * map->per_frame;
}
static int64_t groups_of(const struct token_map *map) {
    return map->frames * map->modalities;
}

static struct mod_view mod_part(const struct tensor *c, const struct tensor *mod, int64_t group, int part,
                                int64_t width) {
    struct mod_view v = {NULL, NULL};
    if (c->data != NULL) {
        v.c = cpu_row(c, group) + part * width;
        v.mod = cpu_row(mod, part);
    }
    return v;
}

SIMD_INLINE vf mod_load(struct mod_view v, int64_t i, int64_t left) {
    return vf_load_n(v.c + i, left) + vf_load_n(v.mod + i, left);
}

static bool map_is_valid(const struct token_map *map) {
    if (map->frames < 0 || map->per_frame < 1 || map->modalities < 1 || map->slot_modality == NULL)
        return false;
    for (int32_t t = 0; t < map->per_frame; t++) {
        int32_t m = map->slot_modality[t];
        if (m < 0 || m >= map->modalities || (t > 0 && m < map->slot_modality[t - 1])) return false;
    }
    return true;
}

static bool mod_is_valid(const struct tensor *c, const struct tensor *mod, const struct token_map *map,
                         int64_t width) {
    if (c->data == NULL) return mod->data == NULL;
    return cpu_is_rows(c, groups_of(map), 6 * width) && cpu_is_rows(mod, 6, width);
}

static void norm_row(const float *x, float *y, float *rstd, int64_t n, struct mod_view shift,
                     struct mod_view scale) {
    vf sum = {0};
    for (int64_t i = 0; i < n; i += VW) {
        vf v = vf_load_n(x + i, n - i);
        sum = vf_fma(v, v, sum);
    }
    float r = 1.0f / sqrtf(vf_sum(sum) / (float)n + NORM_EPS);
    *rstd = r;
    for (int64_t i = 0; i < n; i += VW) {
        vf h = vf_load_n(x + i, n - i) * r;
        if (scale.c != NULL) h = vf_fma(h, mod_load(scale, i, n - i) + 1.0f, mod_load(shift, i, n - i));
        vf_store_n(y + i, h, n - i);
    }
}

static void norm_task(void *arg, int64_t frame) {
    const struct op_norm_mod_args *a = arg;
    const struct token_map *map = a->map;
    int64_t width = a->x.shape[1];
    for (int32_t t = 0; t < map->per_frame; t++) {
        int64_t row = frame * map->per_frame + t, group = frame * map->modalities + map->slot_modality[t];
        norm_row(cpu_row(&a->x, row), cpu_row(&a->y, row), tensor_f32(&a->rstd) + row, width,
                 mod_part(&a->c, &a->mod, group, a->which * 3, width),
                 mod_part(&a->c, &a->mod, group, a->which * 3 + 1, width));
    }
}

int CPU_FN(norm_mod)(struct device *d, const struct op_norm_mod_args *a, struct err *e) {
    int64_t width = a->x.shape[1];
    CPU_REQUIRE(map_is_valid(a->map) && (a->which == 0 || a->which == 1));
    CPU_REQUIRE(cpu_is_rows(&a->x, tokens_of(a->map), width) && cpu_is_rows(&a->y, tokens_of(a->map), width));
    CPU_REQUIRE(cpu_is_vector(&a->rstd, tokens_of(a->map)) && mod_is_valid(&a->c, &a->mod, a->map, width));
    struct op_norm_mod_args job = *a;
    cpu_run(d, a->map->frames, norm_task, &job);
    return 0;
}

// Sums of a group's tokens are collected in `part` [G, parts*D] and added to dc and dmod afterwards.
struct norm_backward_job {
    const struct op_norm_mod_backward_args *a;
    float *part;
};

static void norm_backward_row(const struct op_norm_mod_backward_args *a, int64_t row, struct mod_view scale,
                              float *ds, float *dk) {
    int64_t n = a->x.shape[1];
    const float *x = cpu_row(&a->x, row), *dy = cpu_row(&a->dy, row);
    float *dx = cpu_row(&a->dx, row), r = tensor_f32(&a->rstd)[row];
    vf dot = {0};
    for (int64_t i = 0; i < n; i += VW) {
        vf h = vf_load_n(x + i, n - i) * r, g = vf_load_n(dy + i, n - i), u = g;
        if (ds != NULL) {
            vf_store_n(ds + i, vf_load_n(ds + i, n - i) + g, n - i);
            vf_store_n(dk + i, vf_fma(g, h, vf_load_n(dk + i, n - i)), n - i);
            u = g * (mod_load(scale, i, n - i) + 1.0f);
        }
        dot = vf_fma(u, h, dot);
    }
    float mean = vf_sum(dot) / (float)n;
    for (int64_t i = 0; i < n; i += VW) {
        vf h = vf_load_n(x + i, n - i) * r, u = vf_load_n(dy + i, n - i);
        if (ds != NULL) u = u * (mod_load(scale, i, n - i) + 1.0f);
        vf_store_n(dx + i, vf_fma(u - h * mean, vf_set1(r), vf_load_n(dx + i, n - i)), n - i);
    }
}

static void clear(float *p, int64_t n) {
    for (int64_t i = 0; i < n; i++) p[i] = 0;
}

static void norm_backward_task(void *arg, int64_t frame) {
    const struct norm_backward_job *j = arg;
    const struct op_norm_mod_backward_args *a = j->a;
    const struct token_map *map = a->map;
    int64_t width = a->x.shape[1];
    if (j->part != NULL) clear(j->part + frame * map->modalities * 2 * width, map->modalities * 2 * width);
    for (int32_t t = 0; t < map->per_frame; t++) {
        int64_t group = frame * map->modalities + map->slot_modality[t];
        float *ds = j->part != NULL ? j->part + group * 2 * width : NULL;
        norm_backward_row(a, frame * map->per_frame + t,
                          mod_part(&a->c, &a->mod, group, a->which * 3 + 1, width), ds,
                          ds != NULL ? ds + width : NULL);
    }
}

// dc[g, first..] += part[g], dmod[first..] += sum over g of part[g]; `parts` vectors of `width`. A task owns
// a strip of columns.
struct mod_sum_job {
    const float *part;
    struct tensor dc, dmod;
    int64_t groups, width;
    int first, parts;
};

enum { MOD_STRIP = 4 * VW };

static void mod_sum_strip(const struct mod_sum_job *j, int which, int64_t lo, int64_t n) {
    int64_t stride = j->parts * j->width;
    float *dmod = cpu_row(&j->dmod, j->first + which) + lo;
    vf sum[MOD_STRIP / VW] = {0};
    for (int64_t g = 0; g < j->groups; g++) {
        const float *p = j->part + g * stride + which * j->width + lo;
        float *dc = cpu_row(&j->dc, g) + (j->first + which) * j->width + lo;
        for (int64_t i = 0; i < n; i += VW) {
            vf v = vf_load_n(p + i, n - i);
            sum[i / VW] += v;
            vf_store_n(dc + i, vf_load_n(dc + i, n - i) + v, n - i);
        }
    }
    for (int64_t i = 0; i < n; i += VW) vf_store_n(dmod + i, vf_load_n(dmod + i, n - i) + sum[i / VW], n - i);
}

static void mod_sum_task(void *arg, int64_t task) {
    const struct mod_sum_job *j = arg;
    int64_t strips = cpu_blocks(j->width, MOD_STRIP), lo = task % strips * MOD_STRIP;
    mod_sum_strip(j, (int)(task / strips), lo, cpu_min(MOD_STRIP, j->width - lo));
}

static void mod_sum(struct device *d, struct mod_sum_job *j) {
    cpu_run(d, j->parts * cpu_blocks(j->width, MOD_STRIP), mod_sum_task, j);
}

int CPU_FN(norm_mod_backward)(struct device *d, const struct op_norm_mod_backward_args *a, struct err *e) {
    int64_t width = a->x.shape[1], tokens = tokens_of(a->map), groups = groups_of(a->map);
    CPU_REQUIRE(map_is_valid(a->map) && (a->which == 0 || a->which == 1));
    CPU_REQUIRE(cpu_is_rows(&a->x, tokens, width) && cpu_is_rows(&a->dy, tokens, width));
    CPU_REQUIRE(cpu_is_rows(&a->dx, tokens, width) && cpu_is_vector(&a->rstd, tokens));
    CPU_REQUIRE(mod_is_valid(&a->c, &a->mod, a->map, width));
    CPU_REQUIRE(a->c.data == NULL || mod_is_valid(&a->dc, &a->dmod, a->map, width));
    struct norm_backward_job job = {.a = a};
    if (a->c.data != NULL) {
        int rc = cpu_scratch(d, (void **)&job.part, (size_t)(groups * 2 * width) * sizeof(float), e);
        if (rc != 0) return rc;
    }
    cpu_run(d, a->map->frames, norm_backward_task, &job);
    if (a->c.data == NULL) return 0;
    struct mod_sum_job sum = {job.part, a->dc, a->dmod, groups, width, a->which * 3, 2};
    mod_sum(d, &sum);
    return 0;
}

static void gated_task(void *arg, int64_t frame) {
    const struct op_gated_add_args *a = arg;
    const struct token_map *map = a->map;
    int64_t n = a->x.shape[1];
    for (int32_t t = 0; t < map->per_frame; t++) {
        int64_t row = frame * map->per_frame + t, group = frame * map->modalities + map->slot_modality[t];
        struct mod_view gate = mod_part(&a->c, &a->mod, group, a->which * 3 + 2, n);
        const float *y = cpu_row(&a->y, row), *x = cpu_row(&a->x, row);
        float *out = cpu_row(&a->out, row);
        for (int64_t i = 0; i < n; i += VW) {
            vf g = mod_load(gate, i, n - i) + 1.0f;
            vf_store_n(out + i, vf_fma(g, vf_load_n(y + i, n - i), vf_load_n(x + i, n - i)), n - i);
        }
    }
}

int CPU_FN(gated_add)(struct device *d, const struct op_gated_add_args *a, struct err *e) {
    int64_t width = a->x.shape[1], tokens = tokens_of(a->map);
    CPU_REQUIRE(map_is_valid(a->map) && (a->which == 0 || a->which == 1));
    CPU_REQUIRE(cpu_is_rows(&a->x, tokens, width) && cpu_is_rows(&a->y, tokens, width));
    CPU_REQUIRE(cpu_is_rows(&a->out, tokens, width));
    CPU_REQUIRE(a->c.data != NULL && mod_is_valid(&a->c, &a->mod, a->map, width));
    struct op_gated_add_args job = *a;
    cpu_run(d, a->map->frames, gated_task, &job);
    return 0;
}

struct gated_backward_job {
    const struct op_gated_add_backward_args *a;
    float *part; // [G, D]
};

static void gated_backward_task(void *arg, int64_t frame) {
    const struct gated_backward_job *j = arg;
    const struct op_gated_add_backward_args *a = j->a;
    const struct token_map *map = a->map;
    int64_t n = a->y.shape[1];
    clear(j->part + frame * map->modalities * n, map->modalities * n);
    for (int32_t t = 0; t < map->per_frame; t++) {
        int64_t row = frame * map->per_frame + t, group = frame * map->modalities + map->slot_modality[t];
        struct mod_view gate = mod_part(&a->c, &a->mod, group, a->which * 3 + 2, n);
        const float *y = cpu_row(&a->y, row), *dx = cpu_row(&a->dx, row);
        float *dy = cpu_row(&a->dy, row), *dg = j->part + group * n;
        for (int64_t i = 0; i < n; i += VW) {
            vf u = vf_load_n(dx + i, n - i);
            vf_store_n(dg + i, vf_fma(u, vf_load_n(y + i, n - i), vf_load_n(dg + i, n - i)), n - i);
            vf_store_n(dy + i, u * (mod_load(gate, i, n - i) + 1.0f), n - i);
        }
    }
}

int CPU_FN(gated_add_backward)(struct device *d, const struct op_gated_add_backward_args *a, struct err *e) {
    int64_t width = a->y.shape[1], tokens = tokens_of(a->map), groups = groups_of(a->map);
    CPU_REQUIRE(map_is_valid(a->map) && (a->which == 0 || a->which == 1));
    CPU_REQUIRE(cpu_is_rows(&a->y, tokens, width) && cpu_is_rows(&a->dx, tokens, width));
    CPU_REQUIRE(cpu_is_rows(&a->dy, tokens, width) && a->c.data != NULL && a->dc.data != NULL);
    CPU_REQUIRE(mod_is_valid(&a->c, &a->mod, a->map, width) && mod_is_valid(&a->dc, &a->dmod, a->map, width));
    struct gated_backward_job job = {.a = a};
    int rc = cpu_scratch(d, (void **)&job.part, (size_t)(groups * width) * sizeof(float), e);
    if (rc != 0) return rc;
    cpu_run(d, a->map->frames, gated_backward_task, &job);
    struct mod_sum_job sum = {job.part, a->dc, a->dmod, groups, width, a->which * 3 + 2, 1};
    mod_sum(d, &sum);
    return 0;
}
