// SPDX-License-Identifier: Apache-2.0
// Touch: contact impulses, summed into touch.subsamples parts of a frame's interval, then asinh(x / scale):
// raw impulses are heavy-tailed. One token of subsamples * channels values.
#include <math.h>

#include "trainer/media_npy.h"
#include "trainer/modality_impl.h"

static int touch_specify(const struct config *c, const struct stream_schema *s, struct modality_spec *out,
                         struct err *e) {
    if (s && (s->rank != 1 || s->shape[0] != c->touch_channels))
        return err_set(e, ERR_CONFIG, "touch.channels is %lld, but the data has %lld",
                       (long long)c->touch_channels, (long long)(s->rank == 1 ? s->shape[0] : 0));
    if (s && !(s->rate_hz >= c->data_rate_hz * (double)c->touch_subsamples))
        return err_set(e, ERR_CONFIG, "touch.subsamples is %lld, but the data has only %g samples in a frame",
                       (long long)c->touch_subsamples, s->rate_hz / c->data_rate_hz);
    out->loss_weight = c->touch_weight;
    out->grid = (struct patch_grid){1, 1, (int32_t)(c->touch_subsamples * c->touch_channels), 1, 0};
    return 0;
}

// Samples missing on one side of the episode make the frame invalid; it must be felt in full.
static void touch_frame(const struct modality_spec *spec, const struct media_npy *a, int64_t frame,
                        float *out, unsigned char *valid) {
    int64_t channels = a->shape[1], parts = spec->frame_elems / channels;
    double scale = spec->stream.scale > 0 ? spec->stream.scale : 1;
    *valid = 1;
    for (int64_t p = 0; p < parts; p++) {
        struct modality_span span = modality_span(spec, frame, p, parts);
        if (span.from < 0 || span.to > a->shape[0]) *valid = 0;
        for (int64_t k = 0; k < channels && *valid; k++) {
            double sum = 0;
            for (int64_t i = span.from; i < span.to; i++) sum += a->data[i * channels + k];
            out[p * channels + k] = (float)asinh(sum / scale);
        }
    }
    for (int64_t k = 0; k < spec->frame_elems && !*valid; k++) out[k] = 0;
}

static int touch_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                        void *cells, unsigned char *valid, struct err *e) {
    struct media_npy a;
    float *out = cells;
    int64_t channels = spec->stream.shape[0];
    int rc = media_npy_read(bytes, n, modality_steps_max(spec, frames) * channels, &a, e);
    if (rc) return rc;
    if (a.rank != 2 || a.shape[1] != channels)
        rc = err_set(e, ERR_DATA, "touch is not [steps, %lld]", (long long)channels);
    if (!rc) rc = media_npy_check_finite(&a, e);
    for (int64_t f = 0; f < frames && !rc; f++)
        touch_frame(spec, &a, f, out + f * spec->frame_elems, valid + f);
    media_npy_fini(&a);
    return rc;
}

const struct modality modality_touch = {
    .name = "touch",
    .cell = sizeof(float),
    .specify = touch_specify,
    .decode = touch_decode,
};
