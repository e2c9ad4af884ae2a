// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics_image.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define REACH        2     // of the dilation, pixels each way
#define REGION_LEVEL 0.05f // what counts as something there
#define MASS_LEVEL   0.25f
#define MASS_FLOOR   1e-6 // an empty picture has its centroid in the middle
#define SSIM_TAPS    11
#define SSIM_SIGMA   1.5
#define SSIM_C1      0.0001 // (0.01 range)^2
#define SSIM_C2      0.0009 // (0.03 range)^2

double metrics_squared_error(const float *a, const float *b, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        sum += d * d;
    }
    return sum;
}

double metrics_region_error(const float *a, const float *b, struct image_shape s, const unsigned char *region,
                            int64_t channel, double *count) {
    double sum = 0;
    int64_t n = 0, lo = channel < 0 ? 0 : channel, hi = channel < 0 ? s.channels : channel + 1;
    for (int64_t p = 0; p < s.height * s.width; p++) {
        if (!region[p]) continue;
        for (int64_t c = lo; c < hi; c++) {
            double d = (double)a[p * s.channels + c] - (double)b[p * s.channels + c];
            sum += d * d;
        }
        n += hi - lo;
    }
    *count = (double)n;
    return sum;
}

static void mark_around(unsigned char *region, struct image_shape s, int64_t y, int64_t x) {
    int64_t y0 = y < REACH ? 0 : y - REACH, y1 = y + REACH >= s.height ? s.height - 1 : y + REACH;
    int64_t x0 = x < REACH ? 0 : x - REACH, x1 = x + REACH >= s.width ? s.width - 1 : x + REACH;
    for (int64_t r = y0; r <= y1; r++) memset(region + r * s.width + x0, 1, (size_t)(x1 - x0 + 1));
}

void metrics_object_region(const float *a, const float *b, struct image_shape s, int64_t channel,
                           unsigned char *region) {
    memset(region, 0, (size_t)(s.height * s.width));
    for (int64_t y = 0; y < s.height; y++)
        for (int64_t x = 0; x < s.width; x++) {
            int64_t i = (y * s.width + x) * s.channels + channel;
            if (a[i] > REGION_LEVEL || b[i] > REGION_LEVEL) mark_around(region, s, y, x);
        }
}

static bool differs(const float *a, const float *b, int64_t channels) {
    for (int64_t c = 0; c < channels; c++)
        if (!(fabsf(a[c] - b[c]) <= REGION_LEVEL)) return true;
    return false;
}

void metrics_moving_region(const float *a, const float *b, struct image_shape s, unsigned char *region) {
    memset(region, 0, (size_t)(s.height * s.width));
    for (int64_t y = 0; y < s.height; y++)
        for (int64_t x = 0; x < s.width; x++) {
            int64_t i = (y * s.width + x) * s.channels;
            if (differs(a + i, b + i, s.channels)) mark_around(region, s, y, x);
        }
}

void metrics_centroid(const float *image, struct image_shape s, int64_t channel, double out[2]) {
    double mass = 0, mx = 0, my = 0;
    for (int64_t y = 0; y < s.height; y++)
        for (int64_t x = 0; x < s.width; x++) {
            float v = image[(y * s.width + x) * s.channels + channel];
            double w = MASS_FLOOR + (v <= MASS_LEVEL ? 0.0 : (double)v);
            mass += w;
            mx += w * ((double)x + 0.5);
            my += w * ((double)y + 0.5);
        }
    out[0] = mx / mass;
    out[1] = my / mass;
}

// ---- SSIM. Moments of both pictures under the window, as two passes of a separable filter.
#define MOMENTS 5 // a, b, a a, b b, a b

static int ssim_taps(struct image_shape s, double *taps) {
    int64_t least = s.height < s.width ? s.height : s.width;
    int n = least < SSIM_TAPS ? (int)(least % 2 ? least : least - 1) : SSIM_TAPS;
    if (n < 1) n = 1;
    double sum = 0;
    for (int i = 0; i < n; i++) {
        double d = i - (n - 1) / 2;
        taps[i] = exp(-d * d / (2 * SSIM_SIGMA * SSIM_SIGMA));
        sum += taps[i];
    }
    for (int i = 0; i < n; i++) taps[i] /= sum;
    return n;
}

// rows [MOMENTS, height, width] = the moments filtered along x, in columns 0 .. width - n.
static void filter_rows(const float *a, const float *b, struct image_shape s, int64_t c, const double *taps,
                        int n, float *rows) {
    int64_t plane = s.height * s.width;
    for (int64_t y = 0; y < s.height; y++)
        for (int64_t x = 0; x + n <= s.width; x++) {
            double m[MOMENTS] = {0};
            for (int i = 0; i < n; i++) {
                int64_t at = (y * s.width + x + i) * s.channels + c;
                double u = a[at], v = b[at], t = taps[i];
                m[0] += t * u;
                m[1] += t * v;
                m[2] += t * u * u;
                m[3] += t * v * v;
                m[4] += t * u * v;
            }
            for (int k = 0; k < MOMENTS; k++) rows[k * plane + y * s.width + x] = (float)m[k];
        }
}

static double ssim_at(const double m[MOMENTS]) {
    double va = m[2] - m[0] * m[0], vb = m[3] - m[1] * m[1], cov = m[4] - m[0] * m[1];
    return (2 * m[0] * m[1] + SSIM_C1) * (2 * cov + SSIM_C2) /
           ((m[0] * m[0] + m[1] * m[1] + SSIM_C1) * (va + vb + SSIM_C2));
}

static double ssim_channel(const float *rows, struct image_shape s, const double *taps, int n) {
    int64_t plane = s.height * s.width, count = 0;
    double sum = 0;
    for (int64_t y = 0; y + n <= s.height; y++)
        for (int64_t x = 0; x + n <= s.width; x++, count++) {
            double m[MOMENTS] = {0};
            for (int i = 0; i < n; i++)
                for (int k = 0; k < MOMENTS; k++)
                    m[k] += taps[i] * (double)rows[k * plane + (y + i) * s.width + x];
            sum += ssim_at(m);
        }
    return sum / (double)count;
}

int metrics_ssim(const float *a, const float *b, struct image_shape s, double *out, struct err *e) {
    double taps[SSIM_TAPS];
    int n = ssim_taps(s, taps);
    float *rows = calloc((size_t)(MOMENTS * s.height * s.width), sizeof *rows);
    if (!rows) return err_set(e, ERR_MEMORY, "no memory for SSIM");
    double sum = 0;
    for (int64_t c = 0; c < s.channels; c++) {
        filter_rows(a, b, s, c, taps, n, rows);
        sum += ssim_channel(rows, s, taps, n);
    }
    *out = sum / (double)s.channels;
    free(rows);
    return 0;
}

double metrics_psnr(double mse) {
    if (isnan(mse)) return mse;
    return -10.0 * log10(mse > 1e-9 ? mse : 1e-9);
}
