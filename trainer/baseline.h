// SPDX-License-Identifier: Apache-2.0
// What a model must beat: the last frame again, the mean of the training data, objects that go on with
// constant velocity. Each fills the frames from `context` on of sequences [count, frames, frame_elems].
#ifndef ORRERY_TRAINER_BASELINE_H
#define ORRERY_TRAINER_BASELINE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "trainer/modality.h"

// Sums per element of every modality over frames, from which means and spreads come. Fixed layout, so that
// pieces of several ranks can be added in any fixed order.
struct baseline_sums {
    int64_t elems;  // of all modalities together
    double *sum;    // [elems]
    double *square; // [elems]
    double frames[OPS_MODALITIES_MAX];
};
int baseline_sums_init(struct baseline_sums *s, const struct modality_set *set, struct err *e) ERR_CHECK;
void baseline_sums_fini(struct baseline_sums *s);
// Adds the frames where valid[m][i] is 1 (valid[m] NULL: all): x[m] [frames, frame_elems].
void baseline_sums_add(struct baseline_sums *s, const struct modality_set *set, float *const *x,
                       unsigned char *const *valid, int64_t frames);
// s += other, element by element.
void baseline_sums_merge(struct baseline_sums *s, const struct baseline_sums *other);

struct baseline_means {
    float *mean[OPS_MODALITIES_MAX];   // [frame_elems]
    double spread[OPS_MODALITIES_MAX]; // root of the mean variance of an element
};
// DATA when a modality had no valid frame at all.
int baseline_means_init(struct baseline_means *m, const struct modality_set *set,
                        const struct baseline_sums *s, struct err *e) ERR_CHECK;
void baseline_means_fini(struct baseline_means *m);

struct baseline_shape {
    int64_t count, frames, context;
};
void baseline_copy_last(float *x, struct baseline_shape s, int64_t elems);
void baseline_mean(float *x, struct baseline_shape s, int64_t elems, const float *mean);

// One object per channel: centre and radius are measured in the last context frame (radius from the covered
// area), velocity from the last two; the centre stops where the disc touches the picture's edge; drawn as
// worlds draw discs. x holds video as the model sees it, [count, frames, height, width, channels], background
// 0, object 2. Needs context >= 2.
void baseline_constant_velocity(float *x, struct baseline_shape s, const struct patch_grid *grid);

// One channel of a picture in 0..scale: coverage = clamp(1/2 + (radius - distance) / 1.5), in pixels.
void baseline_draw_disc(float *image, const struct patch_grid *grid, int64_t channel, double x, double y,
                        double radius, float scale);

#endif
