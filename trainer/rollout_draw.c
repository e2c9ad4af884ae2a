// SPDX-License-Identifier: Apache-2.0
#include "trainer/rollout_draw.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "trainer/eval_measure.h"
#include "trainer/gif.h"
#include "trainer/metrics_image.h"
#include "trainer/metrics_signal.h"
#include "trainer/picture.h"

static const struct picture_colour GROUND = {15, 18, 26}, GIVEN = {102, 102, 102}, AHEAD = {230, 230, 230},
                                   INK = {200, 205, 215}, DIM = {110, 116, 130}, COMMAND = {245, 245, 160},
                                   TOUCH = {235, 90, 90}, AUDIO = {90, 200, 140}, TRACK = {34, 38, 50};

// What both drawings need.
struct easel {
    const struct rollout_draw *d;
    const struct patch_grid *grid;
    int video, touch, audio, action, scale;
    float *frame; // one picture in 0..1
};

static int easel_init(struct easel *z, const struct rollout_draw *d, int64_t wanted_pixels, struct err *e) {
    *z = (struct easel){.d = d, .video = eval_find(d->set, "video"), .touch = eval_find(d->set, "touch")};
    z->audio = eval_find(d->set, "audio");
    z->action = d->set->action;
    if (z->video < 0) return err_set(e, ERR_CONFIG, "pictures of rollouts need the video modality");
    z->grid = &d->set->spec[z->video].grid;
    z->scale = wanted_pixels > z->grid->width ? (int)(wanted_pixels / z->grid->width) : 1;
    z->frame = malloc(sizeof(float) * (size_t)d->set->spec[z->video].frame_elems);
    return z->frame ? 0 : err_set(e, ERR_MEMORY, "no memory for a picture");
}

static const float *sense_at(const struct easel *z, float *const *x, int m, int64_t b, int64_t f) {
    return x[m] + (b * z->d->frames + f) * z->d->set->spec[m].frame_elems;
}

// The model's own frames are there, whatever the data lacks.
static bool is_there(const struct easel *z, float *const *source, int m, int64_t b, int64_t f) {
    const unsigned char *valid = z->d->valid[m];
    bool made = source == z->d->model && f >= z->d->context && m != z->action;
    return made || !valid || valid[b * z->d->frames + f];
}

// A framed picture whose border begins at (x, y); leaves it in z->frame.
static void draw_frame(struct easel *z, struct picture *p, float *const *source, int64_t b, int64_t f,
                       int64_t x, int64_t y, int border) {
    int64_t w = z->grid->width * z->scale, h = z->grid->height * z->scale;
    eval_picture(sense_at(z, source, z->video, b, f), z->d->set->spec[z->video].frame_elems, z->frame);
    picture_fill(p, x, y, w + 2 * border, h + 2 * border, f >= z->d->context ? AHEAD : GIVEN);
    if (!is_there(z, source, z->video, b, f))
        picture_fill(p, x + border, y + border, w, h, TRACK);
    else
        picture_video(p, x + border, y + border, z->scale, z->frame, z->grid);
}

// ---- the strip.
#define STRIP_PIXELS 128 // wanted edge of a picture
#define STRIP_LEFT   52
#define STRIP_TOP    24
#define STRIP_GAP    12
#define STRIP_BORDER 4

static void strip_row(struct easel *z, struct picture *p, float *const *source, const char *name, int64_t b,
                      int64_t frames, int64_t y) {
    int64_t step = z->grid->width * z->scale + 2 * STRIP_BORDER, high = z->grid->height * z->scale;
    picture_text(p, 6, y + high / 2, 2, name, INK);
    for (int64_t f = 0; f < frames; f++)
        draw_frame(z, p, source, b, f, STRIP_LEFT + f * step, y, STRIP_BORDER);
}

static void strip_times(struct easel *z, struct picture *p, int64_t frames) {
    int64_t step = z->grid->width * z->scale + 2 * STRIP_BORDER;
    for (int64_t f = 0; f < frames; f++) {
        char text[32];
        if (f < z->d->context)
            snprintf(text, sizeof text, "given");
        else
            snprintf(text, sizeof text, "+%lld", (long long)(f - z->d->context + 1));
        picture_text(p, STRIP_LEFT + f * step + STRIP_BORDER, 8, 2, text, f < z->d->context ? DIM : INK);
    }
}

int rollout_draw_strip(const struct rollout_draw *d, int64_t frames, struct buf *png, struct err *e) {
    struct easel z;
    struct picture p = {0};
    if (frames > d->frames) frames = d->frames;
    int rc = easel_init(&z, d, STRIP_PIXELS, e);
    if (rc) return rc;
    int64_t high = z.grid->height * z.scale + 2 * STRIP_BORDER,
            wide = z.grid->width * z.scale + 2 * STRIP_BORDER;
    rc = picture_init(&p, STRIP_LEFT + frames * wide + 6, STRIP_TOP + d->count * (2 * high + STRIP_GAP),
                      GROUND, e);
    if (rc) goto out;
    strip_times(&z, &p, frames);
    for (int64_t b = 0; b < d->count; b++) {
        int64_t y = STRIP_TOP + b * (2 * high + STRIP_GAP);
        strip_row(&z, &p, d->truth, "truth", b, frames, y);
        strip_row(&z, &p, d->model, "model", b, frames, y + high);
    }
    rc = picture_png(&p, png, e);
out:
    picture_fini(&p);
    free(z.frame);
    return rc;
}

// ---- the animation. Sequences stand in two columns; each is a pair of pictures with gauges below.
#define GIF_PIXELS  160
#define GIF_BORDER  3
#define GIF_GAP     10
#define GIF_TOP     20
#define GIF_GAUGES  26
#define TOUCH_FULL  4.0  // contact level that fills the bar
#define ARROW_REACH 0.14 // of the picture's width, for a command of 1
#define GIF_FPS_MAX 8.0

struct range {
    float lo, hi;
};

static struct range range_of(const struct easel *z, int m, int64_t b) {
    const float *x = sense_at(z, z->d->truth, m, b, 0);
    int64_t n = z->d->frames * z->d->set->spec[m].frame_elems;
    struct range r = {x[0], x[0]};
    for (int64_t i = 1; i < n; i++) {
        r.lo = x[i] < r.lo ? x[i] : r.lo;
        r.hi = x[i] > r.hi ? x[i] : r.hi;
    }
    return r;
}

static double share(double v, double lo, double hi) {
    double s = hi > lo ? (v - lo) / (hi - lo) : 0;
    return !(s > 0) ? 0 : s > 1 ? 1 : s;
}

static void draw_touch(const struct easel *z, struct picture *p, const float *x, int64_t left, int64_t y,
                       int64_t width) {
    const struct modality_spec *spec = &z->d->set->spec[z->touch];
    int64_t channels =
        spec->stream.rank > 0 && spec->stream.shape[0] > 0 ? spec->stream.shape[0] : spec->frame_elems;
    double level = metrics_contact_level(x, spec->frame_elems / channels, channels);
    picture_text(p, left, y, 1, "touch", DIM);
    picture_fill(p, left, y + 8, width, 6, TRACK);
    picture_fill(p, left, y + 8, (int64_t)(share(level, 0, TOUCH_FULL) * (double)width), 6, TOUCH);
}

static void draw_audio(const struct easel *z, struct picture *p, const float *x, struct range r, int64_t left,
                       int64_t y, int64_t width) {
    int64_t n = z->d->set->spec[z->audio].frame_elems, high = GIF_GAUGES - 12;
    int64_t step = width / n > 0 ? width / n : 1;
    picture_text(p, left, y, 1, "audio", DIM);
    y += 8;
    for (int64_t i = 0; i < n && i * step < width; i++) {
        int64_t h = (int64_t)(share(x[i], r.lo, r.hi) * (double)high);
        int64_t bar = step > 2 ? step - 1 : step;
        picture_fill(p, left + i * step, y, bar, high, TRACK);
        picture_fill(p, left + i * step, y + high - h, bar, h, AUDIO);
    }
}

// The command that leads to this frame, from where the pusher is (channel 0 of the picture in z->frame).
static void draw_command(const struct easel *z, struct picture *p, float *const *source, int64_t b, int64_t f,
                         int64_t x, int64_t y) {
    struct image_shape s = {z->grid->height, z->grid->width, z->grid->channels};
    if (z->action < 0 || z->d->set->spec[z->action].frame_elems != 2 || z->grid->channels != 2) return;
    if (!is_there(z, source, z->video, b, f) || !is_there(z, source, z->action, b, f)) return;
    const float *a = sense_at(z, z->d->truth, z->action, b, f);
    double at[2], reach = ARROW_REACH * (double)(z->grid->width * z->scale);
    metrics_centroid(z->frame, s, 0, at);
    double px = (double)x + at[0] * z->scale, py = (double)y + at[1] * z->scale;
    picture_arrow(p, px, py, px + reach * (double)a[0], py + reach * (double)a[1], COMMAND);
}

static void gif_side(struct easel *z, struct picture *p, float *const *source, int64_t b, int64_t f,
                     int64_t x, int64_t y) {
    int64_t w = z->grid->width * z->scale + 2 * GIF_BORDER, h = z->grid->height * z->scale + 2 * GIF_BORDER;
    draw_frame(z, p, source, b, f, x, y, GIF_BORDER);
    draw_command(z, p, source, b, f, x + GIF_BORDER, y + GIF_BORDER);
    if (z->touch >= 0) draw_touch(z, p, sense_at(z, source, z->touch, b, f), x, y + h + 4, w / 2 - 6);
    if (z->audio >= 0)
        draw_audio(z, p, sense_at(z, source, z->audio, b, f), range_of(z, z->audio, b), x + w / 2, y + h + 4,
                   w / 2);
}

static void gif_frame(struct easel *z, struct picture *p, int64_t columns, int64_t f) {
    int64_t w = z->grid->width * z->scale + 2 * GIF_BORDER, h = z->grid->height * z->scale + 2 * GIF_BORDER;
    int64_t pair = 2 * w + GIF_GAP / 2 + GIF_GAP;
    char text[64];
    picture_fill(p, 0, 0, p->width, p->height, GROUND);
    if (f < z->d->context)
        snprintf(text, sizeof text, "given");
    else
        snprintf(text, sizeof text, "predicted: frame +%lld", (long long)(f - z->d->context + 1));
    for (int64_t c = 0; c < columns; c++) {
        picture_text(p, GIF_GAP + c * pair, 5, 2, "truth", INK);
        picture_text(p, GIF_GAP + c * pair + w + GIF_GAP / 2, 5, 2, "model", INK);
    }
    picture_text(p, GIF_GAP + 24 * 2, 7, 1, text, f < z->d->context ? DIM : COMMAND);
    for (int64_t b = 0; b < z->d->count; b++) {
        int64_t x = GIF_GAP + b % columns * pair, y = GIF_TOP + b / columns * (h + GIF_GAUGES + GIF_GAP);
        gif_side(z, p, z->d->truth, b, f, x, y);
        gif_side(z, p, z->d->model, b, f, x + w + GIF_GAP / 2, y);
    }
}

static int gif_frames(struct easel *z, struct buf *gif, struct err *e) {
    int64_t columns = z->d->count > 1 ? 2 : 1, rows = (z->d->count + columns - 1) / columns;
    int64_t w = z->grid->width * z->scale + 2 * GIF_BORDER, h = z->grid->height * z->scale + 2 * GIF_BORDER;
    int64_t width = GIF_GAP + columns * (2 * w + GIF_GAP / 2 + GIF_GAP);
    int64_t height = GIF_TOP + rows * (h + GIF_GAUGES + GIF_GAP);
    struct picture p = {0};
    size_t bytes, all;
    int rc = picture_init(&p, width, height, GROUND, e);
    if (rc) return rc;
    unsigned char *rgb = NULL;
    if (bytes_mul((size_t)width * (size_t)height, 3, &bytes) && bytes_mul(bytes, (size_t)z->d->frames, &all))
        rgb = malloc(all);
    if (!rgb) rc = err_set(e, ERR_MEMORY, "no memory for %lld frames of animation", (long long)z->d->frames);
    for (int64_t f = 0; f < z->d->frames && !rc; f++) {
        gif_frame(z, &p, columns, f);
        memcpy(rgb + (size_t)f * bytes, p.rgb, bytes);
    }
    double fps = fmin(z->d->set->spec[z->video].frame_hz, GIF_FPS_MAX);
    if (!rc) rc = gif_write(rgb, z->d->frames, width, height, (int)lround(100 / fmax(fps, 0.1)), gif, e);
    free(rgb);
    picture_fini(&p);
    return rc;
}

int rollout_draw_gif(const struct rollout_draw *d, struct buf *gif, struct err *e) {
    struct easel z;
    int rc = easel_init(&z, d, GIF_PIXELS, e);
    if (!rc) rc = gif_frames(&z, gif, e);
    free(z.frame);
    return rc;
}
