// SPDX-License-Identifier: Apache-2.0
// Audio: power in audio.mels bands of windows of 25 ms every 10 ms, averaged over the hops of each of
// audio.bins parts of a frame's interval, then log1p(power / floor) / 2: O(1), and 0 in silence. One token
// per part. A window ends with its hop, so a frame hears nothing of the next one.
#include <math.h>
#include <stdlib.h>

#include "trainer/media_audio.h"
#include "trainer/modality_impl.h"
#include "trainer/modality_mel.h"

#define HOP_S    0.010
#define QUIET    5e-5 // power, of full scale 1: -43 dB
#define HOPS_MAX 4096

static int audio_specify(const struct config *c, const struct stream_schema *s, struct modality_spec *out,
                         struct err *e) {
    int64_t hops = llround(1 / (HOP_S * c->data_rate_hz));
    if (s && (s->rate_hz < 1000 || s->rate_hz > 192000))
        return err_set(e, ERR_CONFIG, "audio comes at %g Hz; 1000 to 192000 are supported", s->rate_hz);
    if (hops < c->audio_bins || hops > HOPS_MAX)
        return err_set(e, ERR_CONFIG, "audio.bins is %lld, but a frame has %lld hops of 10 ms",
                       (long long)c->audio_bins, (long long)hops);
    out->loss_weight = c->audio_weight;
    out->grid = (struct patch_grid){1, (int32_t)c->audio_bins, (int32_t)c->audio_mels, 1, 0};
    return 0;
}

// What a decode works on: hops wait until a batch of windows is full.
struct audio_work {
    const struct modality_spec *spec;
    struct mel *mel;
    struct media_sound sound;
    int64_t hops; // per frame
    float *sum;   // [frames, bins, mels]: of power
    int waiting;
    int64_t end[MEL_BATCH], row[MEL_BATCH];
};

static void audio_flush(struct audio_work *w) {
    int64_t bands = w->spec->grid.channels;
    float power[MEL_BATCH * 128];
    if (!w->waiting) return;
    mel_power(w->mel, w->sound.data, w->sound.samples, w->end, w->waiting, power);
    for (int i = 0; i < w->waiting; i++)
        for (int64_t b = 0; b < bands; b++) w->sum[w->row[i] * bands + b] += power[i * bands + b];
    w->waiting = 0;
}

static bool audio_silent(const struct audio_work *w, int64_t end) {
    int64_t from = end - mel_window(w->mel);
    if (from < 0) from = 0;
    if (end > w->sound.samples) end = w->sound.samples;
    while (from < end && w->sound.data[from] == 0) from++;
    return from >= end;
}

// A silent window adds nothing: most are.
static void audio_frame(struct audio_work *w, int64_t frame, unsigned char *valid) {
    int64_t bins = w->spec->grid.width;
    *valid = 1;
    for (int64_t h = 0; h < w->hops; h++) {
        struct modality_span span = modality_span(w->spec, frame, h, w->hops);
        if (span.from < 0 || span.to > w->sound.samples) *valid = 0;
        if (!*valid || audio_silent(w, span.to)) continue;
        w->end[w->waiting] = span.to;
        w->row[w->waiting++] = frame * bins + h * bins / w->hops;
        if (w->waiting == MEL_BATCH) audio_flush(w);
    }
}

// Sums of power become the features. Part b of a frame has hops h with floor(h bins / hops) = b.
static void audio_compress(const struct audio_work *w, int64_t frames, const unsigned char *valid) {
    int64_t bins = w->spec->grid.width, bands = w->spec->grid.channels;
    for (int64_t i = 0; i < frames * bins * bands; i++) {
        int64_t b = i / bands % bins;
        int64_t hops = (w->hops * (b + 1) + bins - 1) / bins - (w->hops * b + bins - 1) / bins;
        w->sum[i] = valid[i / bands / bins] ? (float)(0.5 * log1p(w->sum[i] / (QUIET * (double)hops))) : 0;
    }
}

// Sound of floats may hold anything.
static int audio_check_finite(const struct media_sound *s, struct err *e) {
    for (int64_t i = 0; i < s->samples; i++)
        if (!isfinite(s->data[i]))
            return err_set(e, ERR_DATA, "sample %lld of the sound is %g, which no model can learn",
                           (long long)i, (double)s->data[i]);
    return 0;
}

static int audio_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                        void *cells, unsigned char *valid, struct err *e) {
    struct audio_work w = {.spec = spec, .sum = cells, .hops = llround(1 / (HOP_S * spec->frame_hz))};
    int rc = media_audio_read(bytes, n, modality_steps_max(spec, frames), &w.sound, e);
    if (rc) return rc;
    if (!(fabs(w.sound.rate_hz - spec->stream.rate_hz) < 0.5))
        rc = err_set(e, ERR_DATA, "sound has %d Hz, its metadata says %g", w.sound.rate_hz,
                     spec->stream.rate_hz);
    if (!rc) rc = audio_check_finite(&w.sound, e);
    if (!rc) rc = mel_create(&w.mel, w.sound.rate_hz, spec->grid.channels, e);
    if (!rc) {
        for (int64_t f = 0; f < frames; f++) audio_frame(&w, f, valid + f);
        audio_flush(&w);
        audio_compress(&w, frames, valid);
    }
    mel_destroy(w.mel);
    media_sound_fini(&w.sound);
    return rc;
}

const struct modality modality_audio = {
    .name = "audio",
    .cell = sizeof(float),
    .specify = audio_specify,
    .decode = audio_decode,
};
