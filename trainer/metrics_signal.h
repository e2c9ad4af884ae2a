// SPDX-License-Identifier: Apache-2.0
// Numbers from touch and audio of one frame. Touch is asinh(impulse / s) per sub-sample and channel; audio is
// the log energy per time bin and band.
#ifndef ORRERY_TRAINER_METRICS_SIGNAL_H
#define ORRERY_TRAINER_METRICS_SIGNAL_H

#include <stdint.h>

// |asinh(total)|, total of a channel being the sum over sub-samples of sinh(x), the frame's impulse in units
// of s: how strong the frame's contact is on the scale that the model sees. With one sub-sample this is |x|.
// x [subsamples, channels].
double metrics_contact_level(const float *x, int64_t subsamples, int64_t channels);

#define METRICS_CONTACT_TRUE 0.3 // a truth above it is a contact
#define METRICS_CONTACT_PRED 0.5 // a prediction above it claims one

// |force a - force b|^2 of the frame's mean force, in units of s per frame.
double metrics_impulse_error(const float *a, const float *b, int64_t subsamples, int64_t channels);

// Mean over bins and bands of max(0, now - before): how much louder a frame is than the one before it.
double metrics_rise(const float *before, const float *now, int64_t n);

// Root of the mean squared difference over bins and bands: log-spectral distance of one frame.
double metrics_spectral_distance(const float *a, const float *b, int64_t n);

// 2 both / (claimed + there); NaN when nothing is there and nothing was claimed: no evidence is no success.
double metrics_f1(double there, double claimed, double both);

#endif
