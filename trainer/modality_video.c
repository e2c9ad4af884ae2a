// SPDX-License-Identifier: Apache-2.0
// Video: pictures of 8 bits, scaled to 0 .. 2 so that a black background is exactly 0; patch^2 pixels a
// token. The stream is one strip, picture under picture (PNG, JPEG), a .npy [T, H, W, C], or a film (MP4).
// Kept as bytes until a window is cut.
#include <stdlib.h>
#include <string.h>

#include "storage/film.h"
#include "trainer/media_clip.h"
#include "trainer/media_mp4.h"
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
    int64_t frames;          // of the episode
    int64_t from, next, end; // frames from .. end are wanted, those before `next` are settled
    unsigned char *out, *valid;
    const unsigned char *before; // the latest picture, NULL: none yet
    double before_at;            // its place, in steps of the stream
    int64_t pictures;            // that came
    bool ended;                  // no more will
    unsigned char *shown;        // NULL, or: picture `number` is marked here, and no frame is filled
    int64_t number;              // of the latest picture
    int64_t *of;                 // with `shown`: the picture of each frame that is wanted; NULL: not asked
};

// Frame `next` shows the latest picture.
static void video_show(struct video_cut *v) {
    size_t elems = (size_t)v->spec->frame_elems;
    size_t at = (size_t)(v->next - v->from);
    if (v->shown) {
        v->shown[v->number] = 1;
        if (v->of) v->of[at] = v->number;
        return;
    }
    v->valid[at] = 1;
    memcpy(v->out + at * elems, v->before, elems);
}

// Gives frames up to `until`, in steps of the stream, the latest picture.
static void video_settle(struct video_cut *v, double until) {
    const struct modality_spec *spec = v->spec;
    for (; v->next < v->end; v->next++) {
        double at = ((double)v->next / spec->frame_hz - spec->stream.t0) * spec->stream.rate_hz;
        if (at + 0.5 >= until + 0.5) return;
        if (v->before) video_show(v);
    }
}

static int video_picture(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct video_cut *v = arg;
    double until = v->before ? (v->before_at + at) / 2 : at - 0.5;
    video_settle(v, pixels ? until : v->before_at + 0.5);
    v->ended = !pixels;
    if (pixels) {
        v->pictures++;
        v->before_at = at;
    }
    v->before = pixels;
    return v->next == v->end;
}

// ---- films: their table of frames tells beforehand which pictures will be shown; the rest are not scaled

struct video_film {
    struct video_cut cut;
    struct film_table table;
    unsigned char *shown;  // [table.frames]
    int64_t number, ticks; // of the picture that comes next
    bool astray;           // the decoder's pictures have other times than the table
};

static double video_film_at(struct video_film *f) {
    return (double)f->ticks * f->cut.spec->stream.rate_hz / (double)f->table.timescale;
}

static void video_film_next(struct video_film *f) {
    if (f->number + 1 < f->table.frames) f->ticks += film_step(&f->table, f->number);
    f->number++;
}

// The same cut with marks in place of pixels.
static int video_film_plan(struct video_film *f, struct err *e) {
    struct video_cut start = f->cut;
    static const unsigned char some;
    int rc = 0;
    f->shown = calloc(1, (size_t)f->table.frames);
    if (!f->shown) return err_set(e, ERR_MEMORY, "no memory to plan a film");
    f->cut.shown = f->shown;
    for (; f->number < f->table.frames && !rc; video_film_next(f)) {
        rc = video_picture(&f->cut, video_film_at(f), &some, e);
        f->cut.number = f->number;
    }
    if (!rc) (void)video_picture(&f->cut, f->cut.before_at + 1, NULL, e);
    f->cut = start;
    f->number = f->ticks = 0;
    return 0;
}

static int video_film_picture(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct video_film *f = arg;
    bool more = f->number < f->table.frames;
    f->astray = more ? !pixels || !(at == video_film_at(f)) : pixels != NULL;
    if (f->astray) return 1;
    video_film_next(f);
    return video_picture(&f->cut, at, pixels, e);
}

static int video_decode_film(struct video_film *f, const void *bytes, size_t n, struct media_clip_want *want,
                             struct err *e) {
    int rc = video_film_plan(f, e);
    want->shown = f->shown;
    want->n_shown = f->table.frames;
    if (!rc) rc = media_clip_read(bytes, n, want, video_film_picture, f, e);
    free(f->shown);
    want->shown = NULL;
    return rc;
}

// The film ends one step of the stream behind its last picture, which is so many steps behind the first one.
static int video_film_length(const struct modality_spec *spec, int64_t frames, int64_t pictures, double at,
                             struct err *e) {
    double last = (double)(frames - 1) / spec->frame_hz;
    if ((last - spec->stream.t0) * spec->stream.rate_hz < at + 1 - 1e-6) return 0;
    return err_set(e, ERR_DATA,
                   "the film is short: the sample announces %lld frames, the last one at %.3f s, but the "
                   "film's %lld pictures end at %.3f s; correct 'frames', or leave the sample out",
                   (long long)frames, last, (long long)pictures, at / spec->stream.rate_hz + spec->stream.t0);
}

// Pictures were lost on the film's way here, or the sample says more than it has.
static int video_film_complete(const struct video_cut *v, const struct film_table *t, struct err *e) {
    if (!v->ended) return 0;
    if (v->pictures < t->frames)
        return err_set(e, ERR_DATA, "the film is short: its header announces %lld pictures, %lld are in it",
                       (long long)t->frames, (long long)v->pictures);
    return video_film_length(v->spec, v->frames, v->pictures, v->before_at, e);
}

static struct media_clip_want video_want(const struct modality_spec *spec, int64_t frames) {
    return (struct media_clip_want){.height = spec->grid.height,
                                    .width = spec->grid.width,
                                    .channels = spec->grid.channels,
                                    .rate_hz = spec->stream.rate_hz,
                                    .max_pictures = modality_steps_max(spec, frames)};
}

// None of these frames is settled yet.
static struct video_cut video_cut_of(const struct modality_spec *spec, int64_t frames, int64_t first,
                                     int64_t count, void *cells, unsigned char *valid) {
    memset(valid, 0, (size_t)count);
    return (struct video_cut){.spec = spec,
                              .frames = frames,
                              .from = first,
                              .next = first,
                              .end = first + count,
                              .out = cells,
                              .valid = valid};
}

// Frames [first, first + count) out of a whole member.
static int video_decode_frames(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                               int64_t first, int64_t count, void *cells, unsigned char *valid,
                               struct err *e) {
    struct media_clip_want want = video_want(spec, frames);
    struct video_cut cut = video_cut_of(spec, frames, first, count, cells, valid);
    struct video_film film = {.cut = cut};
    int rc = film_read(bytes, n, &film.table, e);
    bool is_film = film.table.frames || *film.table.why, planned = !rc && film_has_times(&film.table);
    if (planned) rc = video_decode_film(&film, bytes, n, &want, e);
    if (!rc && planned && film.astray) {
        memset(valid, 0, (size_t)count);
        memset(cells, 0, (size_t)(count * spec->frame_elems));
    }
    if (!planned || film.astray) film.cut = cut;
    if (!rc && (!planned || film.astray)) rc = media_clip_read(bytes, n, &want, video_picture, &film.cut, e);
    if (!rc && is_film) rc = video_film_complete(&film.cut, &film.table, e);
    film_fini(&film.table);
    return rc;
}

static int video_decode(const struct modality_spec *spec, const void *bytes, size_t n, int64_t frames,
                        void *cells, unsigned char *valid, struct err *e) {
    return video_decode_frames(spec, bytes, n, frames, 0, frames, cells, valid, e);
}

// ---- a part of a film: from the key frame before the first picture that is shown to the last one

struct video_part {
    struct video_film film; // its table is borrowed
    const struct modality_film *from;
    struct film_part where;
    struct dataset_part packets;
    int64_t *of;               // the picture of each frame that is wanted; -1: none
    int64_t first, last, left; // pictures; frames that have none as yet
};

static int video_part_plan(struct video_part *p, struct err *e) {
    int64_t count = p->film.cut.end - p->film.cut.from;
    p->of = malloc((size_t)count * sizeof *p->of);
    if (!p->of) return err_set(e, ERR_MEMORY, "no memory to plan a film");
    for (int64_t i = 0; i < count; i++) p->of[i] = -1;
    p->film.cut.of = p->of;
    int rc = video_film_plan(&p->film, e);
    p->first = p->last = -1;
    for (int64_t i = 0; i < count && !rc; i++) {
        if (p->of[i] < 0) continue;
        if (p->first < 0) p->first = p->of[i];
        p->last = p->of[i];
        p->left++;
    }
    return rc;
}

static int video_part_picture(void *arg, double at, const unsigned char *pixels, struct err *e) {
    struct video_part *p = arg;
    struct video_film *f = &p->film;
    size_t elems = (size_t)f->cut.spec->frame_elems;
    int64_t number = f->number;
    if (!pixels) return 0;
    f->astray = number == f->table.frames || !(at == video_film_at(f));
    if (f->astray) return 1;
    for (int64_t i = 0; i < f->cut.end - f->cut.from; i++) {
        if (p->of[i] != number) continue;
        memcpy(f->cut.out + (size_t)i * elems, pixels, elems);
        f->cut.valid[i] = 1;
        p->left--;
    }
    video_film_next(f);
    return number == p->last;
}

static const char *video_moov(const struct modality_film *film) {
    const struct dataset_part *p = film->moov.n ? &film->moov : &film->lead;
    return p->data + (film->table.moov_at - p->at);
}

static int video_part_read(struct video_part *p, struct err *e) {
    const struct modality_film *film = p->from;
    struct video_film *f = &p->film;
    const struct media_mp4_piece pieces[] = {
        {p->packets.at, p->packets.n, p->packets.data},
        {film->lead.at, film->lead.n, film->lead.data},
        {film->moov.at, film->moov.n, film->moov.data},
    };
    struct media_mp4_part part = {.pieces = pieces,
                                  .n = 3,
                                  .key_byte = p->where.key_byte,
                                  .last_byte = p->where.last_byte,
                                  .start = p->where.start,
                                  .key_ticks = p->where.key_ticks,
                                  .timescale = film->table.timescale};
    struct media_clip_want clip = video_want(f->cut.spec, f->cut.frames);
    struct media_mp4_want want = {.height = clip.height,
                                  .width = clip.width,
                                  .channels = clip.channels,
                                  .rate_hz = clip.rate_hz,
                                  .max_pixels = MEDIA_MP4_PIXELS_MAX,
                                  .max_pictures = MEDIA_MP4_PICTURES_MAX,
                                  .shown = f->shown + p->where.key,
                                  .n_shown = f->table.frames - p->where.key,
                                  .part = &part};
    f->number = p->where.key;
    f->ticks = p->where.key_ticks;
    return media_mp4_read(NULL, (size_t)film->table.bytes, &want, video_part_picture, p, e);
}

// The film as a whole, where its parts are not what its header says: then its pictures alone count.
static int video_decode_whole(const struct video_cut *cut, const struct modality_film *film, struct err *e) {
    struct dataset_part whole;
    int64_t count = cut->end - cut->from;
    int rc = film->read(film->arg, 0, -1, &whole, e);
    if (rc) return rc;
    memset(cut->out, 0, (size_t)(count * cut->spec->frame_elems));
    rc = video_decode_frames(cut->spec, whole.data, whole.n, cut->frames, cut->from, count, cut->out,
                             cut->valid, e);
    dataset_part_fini(&whole);
    return rc;
}

static int video_decode_part(const struct modality_spec *spec, const struct modality_film *film,
                             int64_t frames, int64_t first, int64_t count, void *cells, unsigned char *valid,
                             struct err *e) {
    const struct film_table *t = &film->table;
    struct video_cut cut = video_cut_of(spec, frames, first, count, cells, valid);
    struct video_part p = {.film = {.cut = cut, .table = *t}, .from = film};
    struct err astray = {ERR_OK};
    int rc = video_film_length(spec, frames, t->frames,
                               (double)t->last * spec->stream.rate_hz / (double)t->timescale, e);
    if (!rc) rc = video_part_plan(&p, e);
    if (rc || !p.left) goto out;
    int failed = film_part_of(t, video_moov(film), p.first, p.last, &p.where, &astray);
    if (!failed) rc = film->read(film->arg, p.where.lo, p.where.hi, &p.packets, e);
    if (!failed && !rc) failed = video_part_read(&p, &astray);
    if (rc) goto out;
    if (failed == -ERR_DATA || (!failed && p.left)) {
        rc = video_decode_whole(&cut, film, e);
    } else if (failed) {
        *e = astray;
        rc = failed;
    }
out:
    dataset_part_fini(&p.packets);
    free(p.film.shown);
    free(p.of);
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
    .decode_part = video_decode_part,
    .expand = video_expand,
};
