// SPDX-License-Identifier: Apache-2.0
// What the table's episode looks, feels and sounds like: pictures, touch, sound, each as the bytes of its
// member.
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "trainer/media_audio.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"
#include "trainer/worlds/table.h"

#define SIDE     TABLE_SIDE
#define CHANNELS 2 // pusher, pucks
#define PICTURE  ((size_t)SIDE * SIDE * CHANNELS)

enum { NOISE_VIDEO, NOISE_TOUCH, NOISE_AUDIO, NOISE_TEXTURE };

static struct rng_stream table_noise(uint64_t seed, int64_t episode, uint32_t sense) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(seed, RNG_SENSOR_NOISE, sense), 0, (uint64_t)episode);
    return r;
}

// ---- pictures

// A disc whose rim fades over a pixel and a half; discs of one channel cover each other.
static void table_draw_disc(float *picture, int channel, double x, double y, double radius) {
    int lo_x = (int)floor((x - radius) * SIDE) - 2, hi_x = (int)ceil((x + radius) * SIDE) + 2;
    int lo_y = (int)floor((y - radius) * SIDE) - 2, hi_y = (int)ceil((y + radius) * SIDE) + 2;
    for (int i = lo_y < 0 ? 0 : lo_y; i < SIDE && i < hi_y; i++) {
        for (int k = lo_x < 0 ? 0 : lo_x; k < SIDE && k < hi_x; k++) {
            double dx = (k + 0.5) / SIDE - x, dy = (i + 0.5) / SIDE - y;
            double v = 0.5 + (radius - sqrt(dx * dx + dy * dy)) * SIDE / 1.5;
            float *pixel = picture + ((size_t)i * SIDE + (size_t)k) * CHANNELS + channel;
            *pixel = fmaxf(*pixel, (float)fmin(fmax(v, 0), 1));
        }
    }
}

// A pattern of two waves per channel, the same in all frames of an episode, of heights 0 .. amplitude.
static void table_texture(float *pattern, double amplitude, uint64_t seed, int64_t episode) {
    struct rng_stream r = table_noise(seed, episode, NOISE_TEXTURE);
    for (int c = 0; c < CHANNELS; c++) {
        double fx[2], fy[2], phase[2];
        for (int w = 0; w < 2; w++) {
            fx[w] = rng_next_range(&r, -25, 25);
            fy[w] = rng_next_range(&r, -25, 25);
            phase[w] = rng_next_range(&r, 0, 6.283185307179586);
        }
        for (int i = 0; i < SIDE * SIDE; i++) {
            double x = (i % SIDE + 0.5) / SIDE, y = (i / SIDE + 0.5) / SIDE, v = 0;
            for (int w = 0; w < 2; w++) v += sin(fx[w] * x + fy[w] * y + phase[w]);
            pattern[i * CHANNELS + c] = (float)(amplitude * (0.5 + 0.25 * v));
        }
    }
}

// `picture` in 0..1 over the texture, lit, with the camera's noise, as bytes.
static void table_expose(const float *picture, const float *pattern, const struct table_knobs *knobs,
                         struct rng_stream *noise, unsigned char *out) {
    for (size_t i = 0; i < PICTURE; i++) {
        double v = picture[i] + (1 - picture[i]) * pattern[i];
        v *= knobs->lighting;
        if (knobs->sensor_noise > 0) v += knobs->sensor_noise * rng_next_normal(noise);
        out[i] = (unsigned char)(fmin(fmax(v, 0), 1) * 255);
    }
}

int table_video(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) {
    float picture[PICTURE], pattern[PICTURE];
    struct rng_stream noise = table_noise(seed, episode, NOISE_VIDEO);
    unsigned char *strip = malloc((size_t)t->frames * PICTURE);
    if (!strip) return err_set(e, ERR_MEMORY, "no memory for %lld pictures", (long long)t->frames);
    table_texture(pattern, knobs->texture, seed, episode);
    for (int64_t f = 0; f < t->frames; f++) {
        const float *place = t->place + f * 2 * (1 + t->pucks);
        memset(picture, 0, sizeof picture);
        for (int i = 0; i <= t->pucks; i++)
            table_draw_disc(picture, i > 0, place[2 * i] - knobs->camera_x,
                            place[2 * i + 1] - knobs->camera_y, i ? TABLE_PUCK_RADIUS : TABLE_PUSHER_RADIUS);
        table_expose(picture, pattern, knobs, &noise, strip + (size_t)f * PICTURE);
    }
    int rc = media_png_write(out, strip, t->frames * SIDE, SIDE, CHANNELS, 1, e);
    free(strip);
    return rc;
}

// ---- touch

int table_touch(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) {
    int64_t shape[2] = {t->frames * (TABLE_TOUCH_HZ / TABLE_FRAME_HZ), 2}, n = shape[0] * 2;
    float *felt = malloc((size_t)n * sizeof *felt);
    if (!felt) return err_set(e, ERR_MEMORY, "no memory for %lld samples of touch", (long long)shape[0]);
    struct rng_stream noise = table_noise(seed, episode, NOISE_TOUCH);
    for (int64_t i = 0; i < n; i++) {
        felt[i] = t->touch[i];
        if (knobs->sensor_noise > 0)
            felt[i] += (float)(knobs->sensor_noise * TABLE_TOUCH_SCALE * rng_next_normal(&noise));
    }
    int rc = media_npy_write(out, 2, shape, felt, e);
    free(felt);
    return rc;
}

// ---- sound

#define STEP_SAMPLES (TABLE_AUDIO_HZ / TABLE_FRAME_HZ / TABLE_STEPS)
#define BLOW_GAIN    0.15 // of full scale for a blow of 1 N s
#define INAUDIBLE    1e-5 // below a third of the least step of 16 bits

// A mode is a resonator with two poles: y[n] = a y[n-1] + b y[n-2]; a blow J starts it as J sin(w n) e^(-n /
// tau).
struct table_mode {
    double a, b, kick, y1, y2;
};

static struct table_mode table_mode_of(double hz, double decay_s) {
    double w = 6.283185307179586 * hz / TABLE_AUDIO_HZ, r = exp(-1 / (decay_s * TABLE_AUDIO_HZ));
    struct table_mode m = {.a = 2 * r * cos(w), .b = -r * r, .kick = BLOW_GAIN * r * sin(w)};
    return m;
}

static void table_mode_ring(struct table_mode *m, double blow, float *out) {
    if (blow <= 0 && fabs(m->y1) < INAUDIBLE && fabs(m->y2) < INAUDIBLE) {
        m->y1 = m->y2 = 0;
        return;
    }
    double y1 = m->y1 + m->kick * blow, y2 = m->y2;
    for (int i = 0; i < STEP_SAMPLES; i++) {
        double y = m->a * y1 + m->b * y2;
        out[i] += (float)y1;
        y2 = y1;
        y1 = y;
    }
    m->y1 = y1;
    m->y2 = y2;
}

static void table_synthesise(const struct table_trace *t, float *sound) {
    for (int p = 0; p < t->pucks; p++) {
        for (int k = 0; k < TABLE_MODES; k++) {
            // The second mode of a free disc lies about 2.3 times above the first and dies sooner.
            struct table_mode m =
                table_mode_of(t->puck[p].pitch_hz * (k ? 2.3 : 1), t->puck[p].decay_s * (k ? 0.6 : 1));
            for (int64_t s = 0; s < t->frames * TABLE_STEPS; s++)
                table_mode_ring(&m, t->strike[p][k][s], sound + s * STEP_SAMPLES);
        }
    }
}

int table_audio(const struct table_trace *t, const struct table_knobs *knobs, uint64_t seed, int64_t episode,
                struct buf *out, struct err *e) {
    int64_t n = t->frames * TABLE_STEPS * STEP_SAMPLES;
    struct rng_stream noise = table_noise(seed, episode, NOISE_AUDIO);
    float *sound = calloc((size_t)n, sizeof *sound);
    int16_t *pcm = malloc((size_t)n * sizeof *pcm);
    int rc = sound && pcm ? 0 : err_set(e, ERR_MEMORY, "no memory for %lld samples of sound", (long long)n);
    if (rc) goto out;
    table_synthesise(t, sound);
    for (int64_t i = 0; i < n; i++) {
        double v = sound[i];
        if (knobs->sensor_noise > 0) v += 0.05 * knobs->sensor_noise * rng_next_normal(&noise);
        pcm[i] = (int16_t)lrint(fmin(fmax(v, -1), 1) * 32767);
    }
    rc = media_audio_write_flac(out, pcm, n, TABLE_AUDIO_HZ, e);
out:
    free(sound);
    free(pcm);
    return rc;
}
