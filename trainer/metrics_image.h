// SPDX-License-Identifier: Apache-2.0
// Numbers from one pair of pictures, values in 0..1, layout [height, width, channels]. Sums, never means, so
// that callers can add over frames and sequences in an order of their own. NaN in a picture makes the number
// NaN.
#ifndef ORRERY_TRAINER_METRICS_IMAGE_H
#define ORRERY_TRAINER_METRICS_IMAGE_H

#include <stdint.h>

#include "base/err.h"

struct image_shape {
    int64_t height, width, channels;
};

// Sum of squared differences over all pixels and channels.
double metrics_squared_error(const float *a, const float *b, int64_t n);

// The same over the pixels where region is not 0: channel `channel`, or all channels when it is -1. *count
// gets how many differences were summed.
double metrics_region_error(const float *a, const float *b, struct image_shape s, const unsigned char *region,
                            int64_t channel, double *count);

// region[y, x] = 1 where max(a, b) of one channel, dilated by 5 x 5, exceeds 0.05: where an object is or was.
void metrics_object_region(const float *a, const float *b, struct image_shape s, int64_t channel,
                           unsigned char *region);
// ... where |a - b| of any channel, dilated alike, exceeds 0.05: where something moved.
void metrics_moving_region(const float *a, const float *b, struct image_shape s, unsigned char *region);

// Centre of mass of one channel in pixels (pixel i covers [i, i + 1)), of values above 0.25; out is (x, y).
void metrics_centroid(const float *image, struct image_shape s, int64_t channel, double out[2]);

// Structural similarity (Wang et al. 2004): Gaussian window of 11 x 11, sigma 1.5 (smaller windows for
// pictures that are smaller), range 1, windows that lie inside the picture, mean over windows and channels.
int metrics_ssim(const float *a, const float *b, struct image_shape s, double *out, struct err *e) ERR_CHECK;

// -10 log10(mse), at most 90 dB. NaN stays NaN.
double metrics_psnr(double mse);

#endif
