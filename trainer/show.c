// SPDX-License-Identifier: Apache-2.0
// Task show: one sample of data.train for people to look at. Video as PNG files, one per frame; everything
// with a time axis (sound, forces, commands, states) as SVG curves. Which stream is what, the data set says.
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "trainer/media_audio.h"
#include "trainer/media_clip.h"
#include "trainer/media_npy.h"
#include "trainer/media_png.h"
#include "trainer/picture.h"
#include "trainer/task.h"

#define PICTURE_BYTES_MAX ((size_t)1 << 30)
#define NUMBERS_MAX       ((int64_t)1 << 28)
#define FRAMES_MAX        256
#define CURVES_MAX        16
#define COLUMNS           900
#define SVG_BYTES_MAX     ((size_t)16 << 20)
#define PATH_BYTES        1400

struct show {
    const char *folder;
    const struct stream_schema *stream;
    const struct sample_member *member;
};

// ---- curves

struct curves {
    const float *data; // [steps, channels]
    int64_t steps, channels;
    double rate_hz, t0, lo, hi;
};

static void find_range(struct curves *c) {
    c->lo = INFINITY;
    c->hi = -INFINITY;
    for (int64_t i = 0; i < c->steps * c->channels; i++) {
        if (!isfinite(c->data[i])) continue;
        c->lo = fmin(c->lo, (double)c->data[i]);
        c->hi = fmax(c->hi, (double)c->data[i]);
    }
    if (!(c->lo <= c->hi)) c->lo = c->hi = 0;
    if (c->hi - c->lo < 1e-12) {
        c->lo -= 1;
        c->hi += 1;
    }
}

// Least and greatest value of each column of pixels: no peak is lost, however long the sample.
static int put_curve(const struct curves *c, int64_t channel, struct buf *out, struct err *e) {
    static const char *const colours[] = {"#2a6fbb", "#d9822b", "#3a9d5d", "#b8405e", "#7a5fb5", "#6b7280"};
    int64_t columns = c->steps < COLUMNS ? c->steps : COLUMNS;
    int rc = buf_appendf(out, e, "<path fill=\"none\" stroke=\"%s\" d=\"", colours[channel % 6]);
    for (int64_t x = 0; x < columns && !rc; x++) {
        double lo = INFINITY, hi = -INFINITY;
        for (int64_t i = x * c->steps / columns; i < (x + 1) * c->steps / columns; i++) {
            double v = (double)c->data[i * c->channels + channel];
            lo = fmin(lo, v);
            hi = fmax(hi, v);
        }
        if (!isfinite(lo) || !isfinite(hi)) continue;
        double at = 60 + (double)x * COLUMNS / (double)columns, scale = 240 / (c->hi - c->lo);
        rc = buf_appendf(out, e, "%c%.1f %.1f", x ? 'L' : 'M', at, 270 - (lo - c->lo) * scale);
        if (!rc && hi > lo) rc = buf_appendf(out, e, "L%.1f %.1f", at, 270 - (hi - c->lo) * scale);
    }
    return rc ? rc : buf_appends(out, "\"/>\n", e);
}

// Names come from the data: only what cannot end a text or a tag is let through.
static void plain(const char *text, char out[64]) {
    size_t n = 0;
    for (; *text && n < 63; text++)
        out[n++] = strchr("<>&\"'", *text) || (unsigned char)*text < 32 ? '_' : *text;
    out[n] = 0;
}

static int put_svg(const struct show *s, struct curves *c, struct buf *out, struct err *e) {
    char name[64], unit[64];
    plain(s->stream->name, name);
    plain(s->stream->unit, unit);
    find_range(c);
    int rc = buf_appendf(
        out, e,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"980\" height=\"310\" font-family=\"sans-serif\" "
        "font-size=\"12\">\n<rect width=\"980\" height=\"310\" fill=\"white\"/>\n"
        "<rect x=\"60\" y=\"30\" width=\"900\" height=\"240\" fill=\"none\" stroke=\"#ccc\"/>\n"
        "<text x=\"60\" y=\"20\">%s, %s, %" PRId64 " x %" PRId64 " at %g Hz</text>\n"
        "<text x=\"55\" y=\"40\" text-anchor=\"end\">%.3g</text>\n"
        "<text x=\"55\" y=\"270\" text-anchor=\"end\">%.3g</text>\n"
        "<text x=\"60\" y=\"290\">%.3g s</text>\n"
        "<text x=\"960\" y=\"290\" text-anchor=\"end\">%.3g s</text>\n",
        name, *unit ? unit : "no unit", c->steps, c->channels, c->rate_hz, c->hi, c->lo, c->t0,
        c->t0 + (double)c->steps / c->rate_hz);
    for (int64_t k = 0; k < c->channels && k < CURVES_MAX && !rc; k++) rc = put_curve(c, k, out, e);
    return rc ? rc : buf_appends(out, "</svg>\n", e);
}

// A stream's name as part of a file's: nothing that leads out of the folder.
static void file_name(const struct show *s, const char *more, char out[PATH_BYTES]) {
    char name[64];
    size_t n = 0;
    for (const char *p = s->stream->name; *p && n < sizeof name - 1; p++)
        name[n++] =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ? *p : '_';
    name[n] = 0;
    snprintf(out, PATH_BYTES, "%s/%s%s", s->folder, name, more);
}

static int show_curves(const struct show *s, struct curves *c, struct err *e) {
    char path[PATH_BYTES];
    struct buf svg;
    if (c->steps < 1 || c->channels < 1) return err_set(e, ERR_DATA, "stream '%s' is empty", s->stream->name);
    c->t0 = s->stream->t0;
    buf_init(&svg, SVG_BYTES_MAX);
    file_name(s, ".svg", path);
    int rc = put_svg(s, c, &svg, e);
    if (!rc) rc = bytes_write_file(path, svg.data, svg.len, e);
    if (!rc) puts(path);
    buf_fini(&svg);
    return rc;
}

static int show_sound(const struct show *s, struct err *e) {
    struct media_sound sound;
    int rc = media_audio_read(s->member->data, s->member->bytes, NUMBERS_MAX, &sound, e);
    if (rc) return rc;
    struct curves c = {.data = sound.data, .steps = sound.samples, .channels = 1, .rate_hz = sound.rate_hz};
    rc = show_curves(s, &c, e);
    media_sound_fini(&sound);
    return rc;
}

static int show_numbers(const struct show *s, struct err *e) {
    struct media_npy a;
    int rc = media_npy_read(s->member->data, s->member->bytes, NUMBERS_MAX, &a, e);
    if (rc) return rc;
    int64_t steps = a.rank ? a.shape[0] : 1;
    struct curves c = {.data = a.data,
                       .steps = steps,
                       .channels = steps ? a.elems / steps : 0,
                       .rate_hz = s->stream->rate_hz};
    rc = show_curves(s, &c, e);
    media_npy_fini(&a);
    return rc;
}

// ---- pictures

static int put_frame(const unsigned char *from, const struct patch_grid *grid, struct buf *out,
                     struct err *e) {
    int64_t elems = patch_grid_frame(grid);
    if (grid->channels == 1 || grid->channels == 3)
        return media_png_write(out, from, grid->height, grid->width, grid->channels, 6, e);
    struct picture p;
    float *frame = malloc((size_t)elems * sizeof *frame);
    if (!frame) return err_set(e, ERR_MEMORY, "no memory for a frame");
    for (int64_t i = 0; i < elems; i++) frame[i] = (float)from[i] / 255;
    int rc = picture_init(&p, grid->width, grid->height, (struct picture_colour){0, 0, 0}, e);
    if (!rc) {
        picture_video(&p, 0, 0, 1, frame, grid);
        rc = picture_png(&p, out, e);
        picture_fini(&p);
    }
    free(frame);
    return rc;
}

struct showing {
    const struct show *show;
    struct patch_grid grid;
    int64_t pictures;
    char path[PATH_BYTES]; // of the latest picture
};

static int show_picture(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct showing *g = arg;
    struct buf png;
    char more[32];
    if (!pixels) return 0;
    buf_init(&png, PICTURE_BYTES_MAX);
    snprintf(more, sizeof more, "-%04" PRId64 ".png", g->pictures);
    file_name(g->show, more, g->path);
    int rc = put_frame(pixels, &g->grid, &png, e);
    if (!rc) rc = bytes_write_file(g->path, png.data, png.len, e);
    if (!rc && !g->pictures) puts(g->path);
    buf_fini(&png);
    return rc ? rc : ++g->pictures == FRAMES_MAX;
}

static int show_video(const struct show *s, struct err *e) {
    const struct stream_schema *t = s->stream;
    const int64_t *shape = t->shape;
    size_t picture;
    if (t->rank != 3 || shape[0] < 1 || shape[1] < 1 || shape[2] < 1 || shape[0] > INT32_MAX ||
        shape[1] > INT32_MAX || shape[2] > 4 ||
        !bytes_mul((size_t)(shape[0] * shape[2]), (size_t)shape[1], &picture) || picture > PICTURE_BYTES_MAX)
        return err_set(e, ERR_DATA, "stream '%s' is not made of pictures of the shape that the data set says",
                       t->name);
    struct media_clip_want want = {.height = shape[0],
                                   .width = shape[1],
                                   .channels = shape[2],
                                   .rate_hz = t->rate_hz,
                                   .max_pictures = (int64_t)(PICTURE_BYTES_MAX / picture)};
    struct showing g = {.show = s, .grid = {(int32_t)shape[0], (int32_t)shape[1], (int32_t)shape[2], 1, 0}};
    int rc = media_clip_read(s->member->data, s->member->bytes, &want, show_picture, &g, e);
    if (!rc && g.pictures > 1) puts(g.path);
    return rc;
}

static int show_stream(const struct show *s, struct err *e) {
    size_t n = strlen(s->stream->member);
    const char *end = n > 4 ? s->stream->member + n - 4 : "";
    int rc = 0;
    if (!strcmp(s->stream->modality, "video"))
        rc = show_video(s, e);
    else if (!strcmp(s->stream->modality, "audio"))
        rc = show_sound(s, e);
    else if (!strcmp(end, ".npy"))
        rc = show_numbers(s, e);
    return rc ? err_prefix(e, "member '%s' at offset %" PRId64, s->member->name, s->member->offset) : 0;
}

int task_show(struct rank *r, struct err *e) {
    const struct config *c = r->config;
    const struct stream_schema *streams;
    struct dataset *d;
    struct sample sample = {.n = 0};
    int rc = bytes_make_dirs(c->show_out, e);
    if (!rc) rc = dataset_open(&d, c->data_train, &r->store, e);
    if (rc) return rc;
    int n = dataset_streams(d, &streams);
    if (c->show_sample >= dataset_samples(d))
        rc = err_set(e, ERR_USAGE, "%s has %" PRId64 " samples, so none is number %" PRId64, c->data_train,
                     dataset_samples(d), c->show_sample);
    if (!rc) rc = dataset_read(d, c->show_sample, &sample, e);
    for (int i = 0; i < n && !rc; i++) {
        struct show s = {c->show_out, &streams[i], sample_find(&sample, streams[i].member)};
        if (s.member) rc = show_stream(&s, e);
    }
    sample_fini(&sample);
    dataset_close(d);
    return rc;
}
