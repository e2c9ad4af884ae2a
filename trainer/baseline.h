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
// 0 for a modality without a valid frame.
int baseline_means_init(struct baseline_means *m, const struct modality_set *set,
                        const struct baseline_sums *s, struct err *e) ERR_CHECK;
void baseline_means_fini(struct baseline_means *m);

struct baseline_shape {
    int64_t count, frames, context;
};
// Of the first `frames` frames the last one that is there, by valid [frames] (NULL: all are); -1: none is.
int64_t baseline_last_there(const unsigned char *valid, int64_t frames);
// The last given frame that is there, by valid [count, frames] (NULL: all are); `mean` where none is.
void baseline_copy_last(float *x, struct baseline_shape s, int64_t elems, const unsigned char *valid,
                        const float *mean);
void baseline_mean(float *x, struct baseline_shape s, int64_t elems, const float *mean);

// Round objects of one sequence, as the simulator's own state tells: centres in the last two given frames and
// radii, all in picture widths.
#define BASELINE_OBJECTS_MAX 8
struct baseline_objects {
    int n;
    int channel[BASELINE_OBJECTS_MAX];
    double radius[BASELINE_OBJECTS_MAX];
    double before[BASELINE_OBJECTS_MAX][2], now[BASELINE_OBJECTS_MAX][2]; // x, y
    double lo[2], hi[2];                                                  // the table's edges in the picture
};
// Every object goes on with its last velocity until its rim touches the table's edge; drawn as worlds draw
// discs. x [frames, height, width, channels]: one sequence of video as the model sees it, background 0,
// object 2.
void baseline_constant_velocity(float *x, int64_t frames, int64_t context, const struct patch_grid *grid,
                                const struct baseline_objects *o);

// Raises one channel of a picture to scale * coverage, coverage = clamp(1/2 + (radius - distance) / 1.5); in
// pixels.
void baseline_draw_disc(float *image, const struct patch_grid *grid, int64_t channel, double x, double y,
                        double radius, float scale);

#endif
