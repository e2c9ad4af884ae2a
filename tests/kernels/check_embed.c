// SPDX-License-Identifier: Apache-2.0
#include <math.h>
#include <string.h>

#include "trial.h"

void check_draw(struct trial *t) {
    struct op_draw_args a = {.first_cols = trial_size(t, 300),
                             .first_scale = 0.1 + trial_unit(t),
                             .rest_scale = 0.1 + trial_unit(t)};
    a.key = rng_key((uint64_t)trial_below(t, 1 << 30), RNG_INIT_WEIGHTS, 7);
    a.w = trial_rows(t, TRIAL_OUT, trial_size(t, 40), a.first_cols + trial_below(t, 300));
    TRIAL_RUN(t, draw, a);
    double *w = trial_double(t, a.w);
    struct rng_stream r;
    rng_stream_init(&r, a.key, 0, 0);
    for (int64_t i = 0; i < tensor_elems(&a.w); i++)
        w[i] = rng_next_normal(&r) * (i % a.w.shape[1] < a.first_cols ? a.first_scale : a.rest_scale);
    trial_compare(t, "w", a.w, w, 1e-7);
}

static void fill_tau(struct trial *t, struct tensor tau) {
    for (int64_t i = 0; i < tensor_elems(&tau); i++) {
        int64_t kind = trial_below(t, 4);
        tensor_f32(&tau)[i] = kind == 0 ? 1.0f : kind == 1 ? 0.0f : (float)trial_unit(t);
    }
    trial_refilled(t);
}

void check_noise(struct trial *t) {
    int64_t sequences = 1 + trial_below(t, 5), frames = trial_size(t, 12), per_frame = trial_size(t, 3000);
    int64_t n = frames * per_frame;
    struct op_noise_args a = {
        .frames = frames, .tau_stride = 1 + trial_below(t, 3), .step = (uint32_t)trial_below(t, 1 << 30)};
    a.key = rng_key((uint64_t)trial_below(t, 1 << 30), RNG_NOISE, 3);
    a.x = trial_rows(t, TRIAL_IN, sequences, n);
    a.z = trial_rows(t, TRIAL_OUT, sequences, n);
    a.tau = trial_vector(t, TRIAL_IN, sequences * frames * a.tau_stride);
    fill_tau(t, a.tau);
    uint64_t *sample = trial_alloc(t, (size_t)sequences * sizeof *sample);
    float *hide = trial_alloc(t, (size_t)sequences * sizeof *hide);
    unsigned char *valid = trial_alloc(t, (size_t)(sequences * frames));
    for (int64_t b = 0; b < sequences; b++) {
        sample[b] = rng_mix64((uint64_t)b + t->seed);
        hide[b] = (float)trial_below(t, 2);
    }
    for (int64_t f = 0; f < sequences * frames; f++) valid[f] = trial_below(t, 4) > 0;
    a.sample = trial_device_in(t, sample, (size_t)sequences * sizeof *sample);
    if (trial_below(t, 2)) a.hide = trial_device_in(t, hide, (size_t)sequences * sizeof *hide);
    if (trial_below(t, 2)) a.valid = trial_device_in(t, valid, (size_t)(sequences * frames));
    TRIAL_RUN(t, noise, a);
    double *x = trial_double(t, a.x), *z = trial_double(t, a.z);
    for (int64_t i = 0; i < sequences * n; i++) {
        int64_t b = i / n, element = i % n;
        double tau = (double)tensor_f32(&a.tau)[(b * frames + element / per_frame) * a.tau_stride];
        uint32_t w[4];
        rng_block(a.key, a.step, sample[b], (uint32_t)(element / 4), w);
        int pair = (int)(element % 4) / 2 * 2;
        double r = sqrt(-2 * log((double)rng_unit(w[pair]))),
               angle = 2 * M_PI * (double)rng_unit(w[pair + 1]);
        z[i] = tau * x[i] + (1 - tau) * r * (element % 2 == 0 ? cos(angle) : sin(angle));
        bool gone = (a.hide && hide[b] == 0) || (a.valid && !valid[b * frames + element / per_frame]);
        if (tau == 1 && !gone && tensor_f32(&a.z)[b * a.z.stride[0] + element] != (float)x[i]) {
            trial_fail(t, "tau = 1 did not copy");
        }
        if (gone) z[i] = 0;
    }
    trial_compare(t, "z", a.z, z, 4e-6);
}

static struct patch_grid make_grid(struct trial *t) {
    int32_t patch = (int32_t)trial_size(t, 8);
    if (patch > 8) patch = 8;
    struct patch_grid g = {.channels = 1 + (int32_t)trial_below(t, 3), .patch = patch};
    g.height = patch * (1 + (int32_t)trial_below(t, 4));
    g.width = patch * (1 + (int32_t)trial_below(t, 4));
    g.margin = (int32_t)trial_below(t, 5);
    if (t->round == 1) g = (struct patch_grid){32, 32, 2, 8, 4};
    if (t->round == 2) g = (struct patch_grid){1, 4, 3, 1, 0};   // a sense that is no picture
    if (t->round == 4) g = (struct patch_grid){16, 24, 3, 8, 8}; // eight elements at a time are of one line,
    if (t->round == 6) g = (struct patch_grid){32, 32, 1, 8, 4}; // and may lie partly in the picture
    return g;
}

static int64_t tokens_of(const struct patch_grid *g) {
    return (int64_t)(g->height / g->patch) * (g->width / g->patch);
}
static int64_t frame_elems(const struct patch_grid *g) {
    return (int64_t)g->height * g->width * g->channels;
}

// Element i of the square of `side` pixels whose corner is `margin` before the patch of token n.
static double square_at(const struct patch_grid *g, const double *frame, int64_t n, int32_t margin,
                        int64_t i) {
    int64_t side = g->patch + 2 * margin, across = g->width / g->patch;
    int64_t y = n / across * g->patch - margin + i / (side * g->channels);
    int64_t x = n % across * g->patch - margin + i / g->channels % side;
    if (y < 0 || y >= g->height || x < 0 || x >= g->width) return 0;
    return frame[(y * g->width + x) * g->channels + i % g->channels];
}

void check_patchify(struct trial *t) {
    struct patch_grid g = make_grid(t);
    int64_t frames = 1 + trial_below(t, 5), all = frames * (1 + trial_below(t, 3)), n = tokens_of(&g);
    struct op_patchify_args a = {
        .grid = g, .frames = frames, .slots = (int)trial_below(t, 4), .tau_stride = 1 + trial_below(t, 3)};
    int64_t value = (int64_t)g.patch * g.patch * g.channels;
    int64_t seen = (int64_t)(g.patch + 2 * g.margin) * (g.patch + 2 * g.margin) * g.channels,
            cols = value + a.slots * seen;
    a.z = trial_rows(t, TRIAL_IN, all, frame_elems(&g));
    a.history = a.slots > 0 ? trial_rows(t, TRIAL_IN, all, frame_elems(&g)) : tensor_none();
    a.tau = trial_vector(t, TRIAL_IN, all * a.tau_stride);
    a.rows = trial_low(t, TRIAL_OUT, all * n, cols);
    fill_tau(t, a.tau);
    TRIAL_RUN(t, patchify, a);
    double *z = trial_double(t, a.z), *history = a.slots > 0 ? trial_double(t, a.history) : NULL;
    double *rows = trial_double(t, a.rows);
    for (int64_t r = 0; r < all * n; r++) {
        int64_t f = r / n;
        double tau = (double)tensor_f32(&a.tau)[f * a.tau_stride],
               c_in = tau / (tau * tau + (1 - tau) * (1 - tau));
        for (int64_t i = 0; i < cols; i++) {
            double *out = rows + r * cols + i;
            if (i < value) {
                *out = c_in * square_at(&g, z + f * frame_elems(&g), r % n, 0, i);
                continue;
            }
            int64_t back = 1 + (i - value) / seen;
            *out = f % frames < back ? 0
                                     : square_at(&g, history + (f - back) * frame_elems(&g), r % n, g.margin,
                                                 (i - value) % seen);
        }
    }
    trial_compare(t, "rows", a.rows, rows, 2e-6);
}

void check_unpatchify(struct trial *t) {
    struct patch_grid g = make_grid(t);
    int64_t frames = trial_size(t, 12), n = tokens_of(&g), value = (int64_t)g.patch * g.patch * g.channels;
    struct op_unpatchify_args a = {.grid = g};
    a.rows = trial_low(t, TRIAL_IN, frames * n, value);
    a.frame = trial_rows(t, TRIAL_OUT, frames, frame_elems(&g));
    TRIAL_RUN(t, unpatchify, a);
    double *frame = trial_alloc(t, (size_t)(frames * frame_elems(&g)) * sizeof *frame),
           *rows = trial_double(t, a.rows);
    for (int64_t i = 0; i < frames * frame_elems(&g); i++)
        frame[i] =
            (double)tensor_f32(&a.frame)[i / frame_elems(&g) * a.frame.stride[0] + i % frame_elems(&g)];
    for (int64_t i = 0; i < frames * n * value; i++) { // patchify takes back what unpatchify wrote
        int64_t f = i / (n * value);
        double v = square_at(&g, frame + f * frame_elems(&g), i / value % n, 0, i % value);
        if (!(v == rows[i])) trial_fail(t, "element %lld is %g, not %g", (long long)i, v, rows[i]);
    }
}

struct sequence {
    struct token_map map;
    int64_t width;
    int32_t count[OPS_MODALITIES_MAX], first[OPS_MODALITIES_MAX];
};

static void make_sequence(struct trial *t, struct sequence *s) {
    int64_t per_frame = trial_size(t, 30);
    int32_t *slots = trial_alloc(t, (size_t)per_frame * sizeof *slots), m = 0;
    memset(s->count, 0, sizeof s->count);
    for (int64_t i = 0; i < per_frame; i++) {
        if (i > 0 && m + 2 < OPS_MODALITIES_MAX && trial_below(t, 3) == 0) m++;
        slots[i] = m;
        if (s->count[m]++ == 0) s->first[m] = (int32_t)i;
    }
    s->map = (struct token_map){trial_size(t, 20), (int32_t)per_frame, m + 1, slots};
    s->width = trial_width(t, trial_size(t, 130));
}

void check_assemble(struct trial *t) {
    struct sequence s = {0};
    make_sequence(t, &s);
    const struct token_map *map = &s.map;
    struct op_assemble_args a = {.map = map};
    a.x = trial_rows(t, TRIAL_OUT, map->frames * map->per_frame, s.width);
    a.slot = trial_dense(t, TRIAL_IN, map->per_frame, s.width);
    if (trial_below(t, 2)) a.act = trial_low(t, TRIAL_IN, map->frames, s.width);
    double *e[OPS_MODALITIES_MAX];
    for (int m = 0; m < map->modalities; m++) {
        a.e[m] = trial_low(t, TRIAL_IN, map->frames * s.count[m], s.width);
        e[m] = trial_double(t, a.e[m]);
    }
    TRIAL_RUN(t, assemble, a);
    double *slot = trial_double(t, a.slot), *act = a.act.data != NULL ? trial_double(t, a.act) : NULL,
           *x = trial_double(t, a.x);
    for (int64_t i = 0; i < map->frames * map->per_frame * s.width; i++) {
        int64_t row = i / s.width, f = row / map->per_frame, at = row % map->per_frame, c = i % s.width;
        int m = map->slot_modality[at];
        x[i] = e[m][(f * s.count[m] + at - s.first[m]) * s.width + c] + slot[at * s.width + c];
        if (act != NULL) x[i] += act[f * s.width + c];
    }
    trial_compare(t, "x", a.x, x, 2e-6);
}

void check_assemble_backward(struct trial *t) {
    struct sequence s = {0};
    make_sequence(t, &s);
    const struct token_map *map = &s.map;
    struct op_assemble_backward_args a = {.map = map};
    a.dx = trial_rows(t, TRIAL_IN, map->frames * map->per_frame, s.width);
    a.dslot = trial_dense(t, TRIAL_INOUT, map->per_frame, s.width);
    if (trial_below(t, 2)) a.dact = trial_low(t, TRIAL_OUT, map->frames, s.width);
    for (int m = 0; m < map->modalities; m++) {
        if (m == 0 || trial_below(t, 4) > 0)
            a.de[m] = trial_low(t, TRIAL_OUT, map->frames * s.count[m], s.width);
    }
    TRIAL_RUN(t, assemble_backward, a);
    double *dx = trial_double(t, a.dx), *dslot = trial_double(t, a.dslot);
    double *dact = trial_alloc(t, (size_t)(map->frames * s.width) * sizeof *dact);
    for (int64_t i = 0; i < map->frames * map->per_frame * s.width; i++) {
        int64_t row = i / s.width, at = row % map->per_frame, c = i % s.width;
        dslot[at * s.width + c] += dx[i];
        dact[row / map->per_frame * s.width + c] += dx[i];
    }
    trial_compare(t, "dslot", a.dslot, dslot, 1e-5);
    if (a.dact.data != NULL) trial_compare(t, "dact", a.dact, dact, 1e-5);
    for (int m = 0; m < map->modalities; m++) {
        if (a.de[m].data == NULL) continue;
        double *de = trial_double(t, a.de[m]);
        for (int64_t i = 0; i < map->frames * s.count[m] * s.width; i++) {
            int64_t row = i / s.width, f = row / s.count[m];
            de[i] = dx[(f * map->per_frame + s.first[m] + row % s.count[m]) * s.width + i % s.width];
        }
        trial_compare(t, "de", a.de[m], de, 0);
    }
}

static void move(struct trial *t, bool gather) {
    struct sequence s = {0};
    make_sequence(t, &s);
    const struct token_map *map = &s.map;
    int m = (int)trial_below(t, map->modalities);
    int64_t n = s.count[m], tokens = map->frames * map->per_frame;
    struct op_gather_args a = {.map = map, .modality = m};
    a.x = trial_low(t, gather ? TRIAL_IN : TRIAL_INOUT, tokens, s.width);
    a.rows = trial_low(t, gather ? TRIAL_OUT : TRIAL_IN, map->frames * n, s.width);
    struct op_scatter_args b = {.map = map, .modality = m, .x = a.x, .rows = a.rows};
    if (gather) {
        TRIAL_RUN(t, gather, a);
    } else {
        TRIAL_RUN(t, scatter, b);
    }
    double *x = trial_double(t, a.x), *rows = trial_double(t, a.rows);
    for (int64_t i = 0; i < map->frames * n * s.width; i++) {
        int64_t row = i / s.width,
                at = ((row / n) * map->per_frame + s.first[m] + row % n) * s.width + i % s.width;
        if (gather) {
            rows[i] = x[at];
        } else {
            x[at] = rows[i];
        }
    }
    trial_compare(t, gather ? "rows" : "x", gather ? a.rows : a.x, gather ? rows : x, 0);
}

void check_gather(struct trial *t) {
    move(t, true);
}
void check_scatter(struct trial *t) {
    move(t, false);
}

static void features(double tau, double *out) {
    for (int i = 0; i < 4; i++) {
        double angle = M_PI * tau * 0.5 * (1 << i);
        out[i] = cos(angle);
        out[4 + i] = sin(angle);
    }
}

void check_cond_features(struct trial *t) {
    int64_t frames = trial_size(t, 100), modalities = 1 + trial_below(t, 6);
    struct op_cond_features_args a = {.action = (int)trial_below(t, modalities + 1) - 1};
    a.tau = trial_dense(t, TRIAL_IN, frames, modalities);
    a.tau_history = trial_vector(t, TRIAL_IN, frames);
    a.out = trial_dense(t, TRIAL_OUT, frames * modalities, 24 + modalities);
    fill_tau(t, a.tau);
    fill_tau(t, a.tau_history);
    TRIAL_RUN(t, cond_features, a);
    double *out = trial_double(t, a.out), *tau = trial_double(t, a.tau),
           *history = trial_double(t, a.tau_history);
    for (int64_t g = 0; g < frames * modalities; g++) {
        double *row = out + g * (24 + modalities);
        int64_t f = g / modalities;
        features(tau[g], row);
        features(a.action >= 0 ? tau[f * modalities + a.action] : 0, row + 8);
        features(history[f], row + 16);
        for (int64_t m = 0; m < modalities; m++) row[24 + m] = m == g % modalities;
    }
    trial_compare(t, "out", a.out, out, 2e-6);
}
