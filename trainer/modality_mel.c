// SPDX-License-Identifier: Apache-2.0
#include "trainer/modality_mel.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define LANES (MEL_BATCH / 2) // a complex FFT carries two real windows
#define PI    3.14159265358979323846

typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

struct mel {
    int window, points, bands; // samples of a window, of the FFT; bands
    float *hann;               // [window]
    float *cosine, *sine;      // [points / 2]
    int *reversed;             // [points]
    int *band; // [points / 2 + 1]: a bin adds `low` of its power to this band, the rest to the next
    float *low;
    float norm;
    lanes *re, *im; // [points]
};

static double mel_of_hz(double hz) {
    return 1127.0 * log1p(hz / 700.0);
}

static void mel_fill_fft(struct mel *m) {
    double sum = 0;
    for (int i = 0; i < m->window; i++) {
        m->hann[i] = (float)(0.5 - 0.5 * cos(2 * PI * (i + 0.5) / m->window));
        sum += (double)m->hann[i] * m->hann[i];
    }
    m->norm = (float)(2 / (m->points * sum));
    for (int i = 0; i < m->points / 2; i++) {
        m->cosine[i] = (float)cos(2 * PI * i / m->points);
        m->sine[i] = (float)-sin(2 * PI * i / m->points);
    }
    for (int i = 0, r = 0; i < m->points; i++) {
        m->reversed[i] = r;
        int bit = m->points >> 1;
        for (; bit && (r & bit); bit >>= 1) r &= ~bit;
        r |= bit;
    }
}

// Triangles at equal distances on the mel scale from 50 Hz to half the rate: a bin between two centres is
// shared by their bands. Bins below the first centre or above the last belong to that band alone.
static void mel_fill_bands(struct mel *m, int rate_hz) {
    double lo = mel_of_hz(50), step = (mel_of_hz(rate_hz / 2.0) - lo) / (m->bands + 1);
    for (int k = 0; k <= m->points / 2; k++) {
        double at = (mel_of_hz((double)k * rate_hz / m->points) - lo) / step - 1; // in centres, from 0
        int band = at < 0 ? 0 : (int)at;
        if (band > m->bands - 1) band = m->bands - 1;
        double rest = at < 0 || band == m->bands - 1 ? 0 : at - band;
        m->band[k] = band;
        m->low[k] = (float)(1 - rest) * m->norm;
    }
}

int mel_create(struct mel **out, int rate_hz, int bands, struct err *e) {
    struct mel *m = calloc(1, sizeof *m);
    *out = m;
    if (!m) return err_set(e, ERR_MEMORY, "no memory for mel bands");
    m->bands = bands;
    m->window = rate_hz / 40;
    m->points = 2;
    while (m->points < m->window) m->points *= 2;
    size_t n = (size_t)m->points;
    m->hann = calloc(n, sizeof *m->hann);
    m->cosine = calloc(n, sizeof *m->cosine);
    m->sine = calloc(n, sizeof *m->sine);
    m->reversed = calloc(n, sizeof *m->reversed);
    m->band = calloc(n, sizeof *m->band);
    m->low = calloc(n, sizeof *m->low);
    m->re = aligned_alloc(sizeof(lanes), n * sizeof(lanes));
    m->im = aligned_alloc(sizeof(lanes), n * sizeof(lanes));
    if (!m->hann || !m->cosine || !m->sine || !m->reversed || !m->band || !m->low || !m->re || !m->im) {
        mel_destroy(m);
        *out = NULL;
        return err_set(e, ERR_MEMORY, "no memory for mel bands");
    }
    mel_fill_fft(m);
    mel_fill_bands(m, rate_hz);
    return 0;
}

void mel_destroy(struct mel *m) {
    if (!m) return;
    free(m->hann);
    free(m->cosine);
    free(m->sine);
    free(m->reversed);
    free(m->band);
    free(m->low);
    free(m->re);
    free(m->im);
    free(m);
}

int mel_window(const struct mel *m) {
    return m->window;
}

// One window into the real or the imaginary half of a lane, in bit-reversed order.
static void mel_load(struct mel *m, const float *sound, int64_t samples, int64_t end, int which) {
    float *half = (float *)(which % 2 ? m->im : m->re) + which / 2;
    int64_t start = end - m->window;
    for (int i = 0; i < m->window; i++) {
        int64_t at = start + i;
        float x = at >= 0 && at < samples ? sound[at] : 0;
        half[(size_t)m->reversed[i] * LANES] = x * m->hann[i];
    }
}

// Radix 2, in place, decimation in time, all lanes at once.
static void mel_fft(struct mel *m) {
    for (int half = 1; half < m->points; half *= 2) {
        int stride = m->points / (2 * half);
        for (int k = 0; k < half; k++) {
            float c = m->cosine[k * stride], s = m->sine[k * stride];
            for (int i = k; i < m->points; i += 2 * half) {
                lanes xr = m->re[i + half] * c - m->im[i + half] * s,
                      xi = m->re[i + half] * s + m->im[i + half] * c;
                m->re[i + half] = m->re[i] - xr;
                m->im[i + half] = m->im[i] - xi;
                m->re[i] += xr;
                m->im[i] += xi;
            }
        }
    }
}

// The spectra of the two windows of a lane are the even and the odd part of the lane's.
static void mel_collect(const struct mel *m, int n, float *power) {
    memset(power, 0, sizeof(float) * (size_t)(n * m->bands));
    for (int k = 0; k <= m->points / 2; k++) {
        int mirror = (m->points - k) % m->points;
        lanes a = m->re[k] + m->re[mirror], b = m->im[k] - m->im[mirror];
        lanes c = m->im[k] + m->im[mirror], d = m->re[mirror] - m->re[k];
        lanes first = (a * a + b * b) * 0.25f, second = (c * c + d * d) * 0.25f;
        int band = m->band[k];
        for (int w = 0; w < n; w++) {
            float p = w % 2 ? second[w / 2] : first[w / 2], low = p * m->low[k];
            power[w * m->bands + band] += low;
            if (band + 1 < m->bands) power[w * m->bands + band + 1] += p * m->norm - low;
        }
    }
}

void mel_power(struct mel *m, const float *sound, int64_t samples, const int64_t *end, int n, float *power) {
    memset(m->re, 0, sizeof(lanes) * (size_t)m->points);
    memset(m->im, 0, sizeof(lanes) * (size_t)m->points);
    for (int w = 0; w < n; w++) mel_load(m, sound, samples, end[w], w);
    mel_fft(m);
    mel_collect(m, n, power);
}
