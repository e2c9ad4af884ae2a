// SPDX-License-Identifier: Apache-2.0
#include "trainer/baseline.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EDGE        1.5 // pixels over which a disc's edge fades
#define VIDEO_SCALE 2.0f

int baseline_sums_init(struct baseline_sums *s, const struct modality_set *set, struct err *e) {
    *s = (struct baseline_sums){0};
    for (int m = 0; m < set->n; m++) s->elems += set->spec[m].frame_elems;
    s->sum = calloc((size_t)s->elems, sizeof *s->sum);
    s->square = calloc((size_t)s->elems, sizeof *s->square);
    if (s->sum && s->square) return 0;
    baseline_sums_fini(s);
    return err_set(e, ERR_MEMORY, "no memory for the mean of the data");
}

void baseline_sums_fini(struct baseline_sums *s) {
    free(s->sum);
    free(s->square);
    s->sum = s->square = NULL;
}

void baseline_sums_add(struct baseline_sums *s, const struct modality_set *set, float *const *x,
                       unsigned char *const *valid, int64_t frames) {
    int64_t first = 0;
    for (int m = 0; m < set->n; m++) {
        int64_t elems = set->spec[m].frame_elems;
        for (int64_t f = 0; f < frames; f++) {
            if (valid[m] && !valid[m][f]) continue;
            const float *frame = x[m] + f * elems;
            for (int64_t i = 0; i < elems; i++) {
                double v = frame[i];
                s->sum[first + i] += v;
                s->square[first + i] += v * v;
            }
            s->frames[m] += 1;
        }
        first += elems;
    }
}

void baseline_sums_merge(struct baseline_sums *s, const struct baseline_sums *other) {
    for (int64_t i = 0; i < s->elems; i++) {
        s->sum[i] += other->sum[i];
        s->square[i] += other->square[i];
    }
    for (int m = 0; m < OPS_MODALITIES_MAX; m++) s->frames[m] += other->frames[m];
}

static int means_of(struct baseline_means *out, int m, int64_t elems, const double *sum, const double *square,
                    double frames, struct err *e) {
    out->mean[m] = calloc((size_t)elems, sizeof(float));
    if (!out->mean[m]) return err_set(e, ERR_MEMORY, "no memory for the mean of the data");
    if (!(frames > 0)) return 0; // mean and spread 0: it is not measured
    double variance = 0;
    for (int64_t i = 0; i < elems; i++) {
        double mean = sum[i] / frames;
        out->mean[m][i] = (float)mean;
        variance += square[i] / frames - mean * mean;
    }
    variance /= (double)elems;
    out->spread[m] = sqrt(variance < 0 ? 0 : variance);
    return 0;
}

int baseline_means_init(struct baseline_means *out, const struct modality_set *set,
                        const struct baseline_sums *s, struct err *e) {
    *out = (struct baseline_means){0};
    int64_t first = 0;
    int rc = 0;
    for (int m = 0; m < set->n && !rc; m++) {
        int64_t elems = set->spec[m].frame_elems;
        rc = means_of(out, m, elems, s->sum + first, s->square + first, s->frames[m], e);
        first += elems;
    }
    if (rc) baseline_means_fini(out);
    return rc;
}

void baseline_means_fini(struct baseline_means *m) {
    for (int i = 0; i < OPS_MODALITIES_MAX; i++) {
        free(m->mean[i]);
        m->mean[i] = NULL;
    }
}

static void repeat_frame(float *x, struct baseline_shape s, int64_t elems, int64_t b, const float *frame) {
    for (int64_t f = s.context; f < s.frames; f++)
        memcpy(x + (b * s.frames + f) * elems, frame, sizeof(float) * (size_t)elems);
}

int64_t baseline_last_there(const unsigned char *valid, int64_t frames) {
    int64_t f = frames - 1;
    while (valid && f >= 0 && !valid[f]) f--;
    return f;
}

void baseline_copy_last(float *x, struct baseline_shape s, int64_t elems, const unsigned char *valid,
                        const float *mean) {
    for (int64_t b = 0; b < s.count; b++) {
        int64_t last = baseline_last_there(valid ? valid + b * s.frames : NULL, s.context);
        repeat_frame(x, s, elems, b, last < 0 ? mean : x + (b * s.frames + last) * elems);
    }
}

void baseline_mean(float *x, struct baseline_shape s, int64_t elems, const float *mean) {
    for (int64_t b = 0; b < s.count; b++) repeat_frame(x, s, elems, b, mean);
}

// ---- constant velocity.
static double keep_inside(double at, double radius, double lo, double hi) {
    if (at > hi - radius) at = hi - radius;
    if (at < lo + radius) at = lo + radius;
    return at;
}

void baseline_draw_disc(float *image, const struct patch_grid *grid, int64_t channel, double x, double y,
                        double radius, float scale) {
    for (int64_t r = 0; r < grid->height; r++)
        for (int64_t c = 0; c < grid->width; c++) {
            double cover = 0.5 + (radius - hypot((double)c + 0.5 - x, (double)r + 0.5 - y)) / EDGE;
            float v = scale * (float)(cover > 1 ? 1 : cover);
            float *pixel = image + (r * grid->width + c) * grid->channels + channel;
            if (v > *pixel) *pixel = v;
        }
}

static void draw_ahead(float *frame, const struct patch_grid *grid, const struct baseline_objects *o, int i,
                       double steps) {
    double at[2];
    for (int k = 0; k < 2; k++)
        at[k] = keep_inside(o->now[i][k] + steps * (o->now[i][k] - o->before[i][k]), o->radius[i], o->lo[k],
                            o->hi[k]);
    baseline_draw_disc(frame, grid, o->channel[i], at[0] * grid->width, at[1] * grid->width,
                       o->radius[i] * grid->width, VIDEO_SCALE);
}

void baseline_constant_velocity(float *x, int64_t frames, int64_t context, const struct patch_grid *grid,
                                const struct baseline_objects *o) {
    int64_t elems = patch_grid_frame(grid);
    for (int64_t f = context; f < frames; f++) {
        float *frame = x + f * elems;
        memset(frame, 0, sizeof(float) * (size_t)elems);
        for (int i = 0; i < o->n; i++) draw_ahead(frame, grid, o, i, (double)(f - context + 1));
    }
}
