// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics_signal.h"

#include <math.h>

static double channel_impulse(const float *x, int64_t subsamples, int64_t channels, int64_t c) {
    double sum = 0;
    for (int64_t i = 0; i < subsamples; i++) sum += sinh((double)x[i * channels + c]);
    return sum;
}

double metrics_contact_level(const float *x, int64_t subsamples, int64_t channels) {
    double sum = 0;
    for (int64_t c = 0; c < channels; c++) {
        double level = asinh(channel_impulse(x, subsamples, channels, c));
        sum += level * level;
    }
    return sqrt(sum);
}

double metrics_impulse_error(const float *a, const float *b, int64_t subsamples, int64_t channels) {
    double sum = 0;
    for (int64_t c = 0; c < channels; c++) {
        double d = channel_impulse(a, subsamples, channels, c) - channel_impulse(b, subsamples, channels, c);
        sum += d * d;
    }
    return sum;
}

double metrics_rise(const float *before, const float *now, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)now[i] - (double)before[i];
        sum += d <= 0 ? 0 : d;
    }
    return sum / (double)n;
}

double metrics_spectral_distance(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        sum += d * d;
    }
    return sqrt(sum / (double)n);
}

double metrics_f1(double there, double claimed, double both) {
    if (there + claimed <= 0) return NAN;
    return 2.0 * both / (there + claimed);
}
