// SPDX-License-Identifier: Apache-2.0
// Video: pictures of 8 bits, scaled to 0 .. 2 so that a black background is exactly 0; patch^2 pixels a
// token. The stream is one strip, picture under picture (PNG, JPEG), a .npy [T, H, W, C], or a film (MP4).
// Kept as bytes until a window is cut.
#include <string.h>

#include "trainer/media_clip.h"
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

// Frame f shows the picture nearest to its time; of two equally near ones the later.
struct video_cut {
    const struct modality_spec *spec;
    int64_t frames, next; // frames before `next` are settled
    unsigned char *out, *valid;
    const unsigned char *before; // the latest picture, NULL: none yet
    double before_at;            // its place, in steps of the stream
};

// Gives frames up to `until`, in steps of the stream, the latest picture.
static void video_settle(struct video_cut *v, double until) {
    const struct modality_spec *spec = v->spec;
    for (; v->next < v->frames; v->next++) {
        double at = ((double)v->next / spec->frame_hz - spec->stream.t0) * spec->stream.rate_hz;
        if (at + 0.5 >= until + 0.5) return;
        v->valid[v->next] = v->before != NULL;
        if (v->before) memcpy(v->out + v->next * spec->frame_elems, v->before, (size_t)spec->frame_elems);
    }
}

static int video_picture(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct video_cut *v = arg;
    double until = v->before ? (v->before_at + at) / 2 : at - 0.5;
    video_settle(v, pixels ? until : v->before_at + 0.5);
    v->before = pixels;
    v->before_at = at;
    return v->next == v->frames;
}

static int video_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                        void *cells, unsigned char *valid, struct err *e) {
    struct media_clip_want want = {spec->grid.height, spec->grid.width, spec->grid.channels,
                                   spec->stream.rate_hz, modality_steps_max(spec, frames)};
    struct video_cut v = {.spec = spec, .frames = frames, .out = cells, .valid = valid};
    memset(valid, 0, (size_t)frames);
    return media_clip_read(bytes, n, &want, video_picture, &v, e);
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
