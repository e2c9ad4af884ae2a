// SPDX-License-Identifier: Apache-2.0
// Video: pictures of 8 bits, scaled to 0 .. 2 so that a black background is exactly 0; patch^2 pixels a
// token. The stream is one strip, picture under picture (PNG, JPEG), or a .npy [T, H, W, C]. Kept as bytes
// until a window is cut.
#include <math.h>
#include <string.h>

#include "trainer/media_image.h"
#include "trainer/modality_impl.h"

static int video_specify(const struct config *c, const struct stream_schema *s, struct modality_spec *out,
                         struct err *e) {
    if (s && (s->rank != 3 || s->shape[0] != c->video_height || s->shape[1] != c->video_width ||
              s->shape[2] != c->video_channels))
        return err_set(
            e, ERR_CONFIG,
            "video is %lld x %lld x %lld in the config (height, width, channels), but %lld x %lld x %lld "
            "in the data",
            (long long)c->video_height, (long long)c->video_width, (long long)c->video_channels,
            (long long)s->shape[0], (long long)s->shape[1], (long long)s->shape[2]);
    out->loss_weight = c->video_weight;
    out->grid =
        (struct patch_grid){(int32_t)c->video_height, (int32_t)c->video_width, (int32_t)c->video_channels,
                            (int32_t)c->video_patch, (int32_t)c->video_margin};
    return 0;
}

static void video_cut(const struct modality_spec *spec, const struct media_image *strip, int64_t frames,
                      unsigned char *out, unsigned char *valid) {
    const struct stream_schema *s = &spec->stream;
    int64_t pictures = strip->height / spec->grid.height;
    for (int64_t f = 0; f < frames; f++) {
        double nearest = floor(((double)f / spec->frame_hz - s->t0) * s->rate_hz + 0.5);
        valid[f] = nearest >= 0 && nearest < (double)pictures;
        if (!valid[f]) continue;
        memcpy(out + f * spec->frame_elems, strip->pixels + (int64_t)nearest * spec->frame_elems,
               (size_t)spec->frame_elems);
    }
}

static int video_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                        void *cells, unsigned char *valid, struct err *e) {
    struct media_image strip;
    size_t most;
    if (!bytes_mul((size_t)modality_steps_max(spec, frames), (size_t)spec->frame_elems, &most))
        return err_set(e, ERR_DATA, "video is too large");
    int rc = media_image_read(bytes, n, most, &strip, e);
    if (rc) return rc;
    if (strip.width != spec->grid.width || strip.channels != spec->grid.channels ||
        strip.height % spec->grid.height != 0)
        rc = err_set(e, ERR_DATA, "video is a strip of %lld x %lld x %lld, not of pictures of %d x %d x %d",
                     (long long)strip.height, (long long)strip.width, (long long)strip.channels,
                     spec->grid.height, spec->grid.width, spec->grid.channels);
    else
        video_cut(spec, &strip, frames, cells, valid);
    media_image_fini(&strip);
    return rc;
}

static void video_expand(const struct modality_spec *spec, const void *cells, int64_t n, float *out) {
    const unsigned char *p = cells;
    (void)spec;
    for (int64_t i = 0; i < n; i++) out[i] = (float)p[i] * (1.0f / 127.5f);
}

const struct modality modality_video = {
    .name = "video",
    .cell = 1,
    .specify = video_specify,
    .decode = video_decode,
    .expand = video_expand,
};
