// SPDX-License-Identifier: Apache-2.0
// What an MP4's header says of its first video track. All numbers are big-endian; a full box begins with one
// byte of version and three of flags.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "storage/film_impl.h"

#define TICKS_MAX INT32_MAX // of one stts or ctts entry, and of a timescale

struct span {
    const unsigned char *data;
    size_t n;
};

enum box { ELST, MDHD, HDLR, STSD, STTS, CTTS, STSS, STSZ, STSC, STCO, CO64, BOXES };
static const char names[BOXES][5] = {
    [ELST] = "elst", [MDHD] = "mdhd", [HDLR] = "hdlr", [STSD] = "stsd", [STTS] = "stts", [CTTS] = "ctts",
    [STSS] = "stss", [STSZ] = "stsz", [STSC] = "stsc", [STCO] = "stco", [CO64] = "co64",
};

struct track {
    struct span box[BOXES]; // data NULL: it has none
    int64_t movie_timescale, timescale, file_bytes;
    int64_t samples; // by stsz: in the order of decoding, shown or not
    int64_t lo, hi;  // times that are shown, in ticks: [lo, hi)
    int64_t shift;   // ticks of nothing in front of them
    // Samples whose places are asked for.
    int64_t from, to;
    struct film_part *part; // NULL: none
};

// ---- boxes in boxes

// 1: a box, with its content; 0: no more.
static int next_box(struct span *in, char type[5], struct span *out, struct err *e) {
    if (in->n < 8) return 0;
    size_t header = 8;
    uint64_t size = film_be32(in->data);
    memcpy(type, in->data + 4, 4);
    type[4] = 0;
    if (size == 1 && in->n >= 16) {
        header = 16;
        size = film_be64(in->data + 8);
    }
    if (size == 0) size = in->n;
    if (size < header || size > in->n)
        return err_set(e, ERR_DATA, "a box of its header has %" PRIu64 " bytes where %zu are", size, in->n);
    *out = (struct span){in->data + header, (size_t)size - header};
    in->data += size;
    in->n -= (size_t)size;
    return 1;
}

static bool is_container(const char *type) {
    static const char containers[][5] = {"edts", "mdia", "minf", "stbl"};
    for (size_t i = 0; i < sizeof containers / sizeof *containers; i++)
        if (!strcmp(type, containers[i])) return true;
    return false;
}

static void note_box(struct track *t, const char *type, struct span content) {
    for (int i = 0; i < BOXES; i++)
        if (!strcmp(type, names[i]) && !t->box[i].data) t->box[i] = content;
}

// edts and mdia lie in a trak, minf in mdia, stbl in minf.
static int collect(struct track *t, struct span in, int depth, struct err *e) {
    struct span content;
    char type[5];
    int rc;
    while ((rc = next_box(&in, type, &content, e)) > 0) {
        note_box(t, type, content);
        if (depth < 3 && is_container(type) && (rc = collect(t, content, depth + 1, e))) return rc;
    }
    return rc;
}

static int need(const struct track *t, enum box b, size_t bytes, struct err *e) {
    if (!t->box[b].data) return err_set(e, ERR_DATA, "its video has no box '%s'", names[b]);
    if (t->box[b].n < bytes) return err_set(e, ERR_DATA, "box '%s' is cut short", names[b]);
    return 0;
}

// A table of `width` bytes an entry behind `head` bytes, the last four of which count the entries.
static int need_table(const struct track *t, enum box b, size_t head, size_t width, int64_t *count,
                      struct err *e) {
    int rc = need(t, b, head, e);
    if (rc) return rc;
    *count = film_be32(t->box[b].data + head - 4);
    if ((uint64_t)*count > (t->box[b].n - head) / width)
        return err_set(e, ERR_DATA, "box '%s' counts %" PRId64 " entries and has room for %zu", names[b],
                       *count, (t->box[b].n - head) / width);
    return 0;
}

static int64_t entry(const struct track *t, enum box b, size_t at) {
    return film_be32(t->box[b].data + at);
}

// ---- head and description

static int take_timescale(struct span box, const char *name, int64_t *out, struct err *e) {
    size_t at = box.n && box.data[0] == 1 ? 20 : 12;
    *out = box.n >= at + 4 ? film_be32(box.data + at) : 0;
    if (*out < 1 || *out > TICKS_MAX) return err_set(e, ERR_DATA, "box '%s' has no timescale", name);
    return 0;
}

static int take_description(const struct track *t, struct film_table *out, struct err *e) {
    enum { ENTRY = 8, SIZES = ENTRY + 32 };
    int rc = need(t, STSD, SIZES + 4, e);
    if (rc) return rc;
    const unsigned char *p = t->box[STSD].data;
    for (int i = 0; i < 4; i++) {
        unsigned char c = p[ENTRY + 4 + i];
        out->codec[i] = (char)(c > 0x20 && c < 0x7f ? c : '?');
    }
    out->width = p[SIZES] << 8 | p[SIZES + 1];
    out->height = p[SIZES + 2] << 8 | p[SIZES + 3];
    if (!out->width || !out->height) return err_set(e, ERR_DATA, "its pictures have no size");
    return 0;
}

// ---- the edit list: which times are shown

struct edit {
    int64_t ticks, from; // of the movie; of the media, -1: nothing is shown
    bool plain;          // at rate 1
};

static struct edit edit_at(const struct track *t, int64_t i) {
    const unsigned char *p = t->box[ELST].data;
    if (p[0] == 1) {
        p += 8 + i * 20;
        return (struct edit){(int64_t)film_be64(p), (int64_t)film_be64(p + 8), film_be32(p + 16) == 0x10000};
    }
    p += 8 + i * 12;
    return (struct edit){film_be32(p), (int32_t)film_be32(p + 4), film_be32(p + 8) == 0x10000};
}

static int take_edits(struct track *t, struct err *e) {
    int64_t n = 0;
    t->lo = INT64_MIN;
    t->hi = INT64_MAX;
    if (!t->box[ELST].data) return 0;
    size_t width = t->box[ELST].n && t->box[ELST].data[0] == 1 ? 20 : 12;
    int rc = need_table(t, ELST, 8, width, &n, e);
    if (rc || !n) return rc;
    struct edit x = edit_at(t, n - 1);
    bool simple = n == 1 || (n == 2 && edit_at(t, 0).from == -1 && edit_at(t, 0).ticks >= 0);
    int64_t seconds = x.ticks / t->movie_timescale, rest = x.ticks % t->movie_timescale;
    if (!simple || !x.plain || x.from < 0 || x.from > (int64_t)1 << 53 || x.ticks < 1 || seconds > TICKS_MAX)
        return err_set(e, ERR_DATA, "its edit list does more than to cut one piece out");
    if (n == 2 && edit_at(t, 0).ticks <= TICKS_MAX)
        t->shift = edit_at(t, 0).ticks * t->timescale / t->movie_timescale;
    t->lo = x.from;
    t->hi =
        x.from + seconds * t->timescale + (rest * t->timescale + t->movie_timescale / 2) / t->movie_timescale;
    return 0;
}

// ---- where the samples lie

static int take_sizes(struct track *t, struct err *e) {
    int rc = need(t, STSZ, 12, e);
    if (rc) return rc;
    int64_t size = entry(t, STSZ, 4);
    t->samples = entry(t, STSZ, 8);
    if (!size && (rc = need_table(t, STSZ, 12, 4, &t->samples, e))) return rc;
    if (!t->samples || t->samples > FILM_FRAMES_MAX)
        return err_set(e, ERR_DATA, "it has %" PRId64 " frames, not 1 .. %" PRId64, t->samples,
                       FILM_FRAMES_MAX);
    if (size && t->samples > t->file_bytes / size)
        return err_set(e, ERR_DATA, "its frames need more bytes than it has");
    return 0;
}

static int64_t chunk_at(const struct track *t, int64_t i) {
    if (t->box[STCO].data) return entry(t, STCO, 8 + (size_t)i * 4);
    uint64_t at = film_be64(t->box[CO64].data + 8 + (size_t)i * 8);
    return at > INT64_MAX ? INT64_MAX : (int64_t)at;
}

static void note_sample(const struct track *t, int64_t sample, int64_t at, int64_t bytes) {
    struct film_part *p = t->part;
    if (!p || sample < t->from || sample > t->to) return;
    bool first = sample == t->from;
    if (first) p->key_byte = at;
    if (first || at < p->lo) p->lo = at;
    if (first || at + bytes > p->hi) p->hi = at + bytes;
    p->last_byte = at;
}

static int check_chunk(const struct track *t, int64_t chunk, int64_t *sample, int64_t per_chunk,
                       struct err *e) {
    int64_t at = chunk_at(t, chunk), size = entry(t, STSZ, 4);
    for (int64_t i = 0; i < per_chunk && *sample < t->samples; i++, ++*sample) {
        int64_t bytes = size ? size : entry(t, STSZ, 12 + (size_t)*sample * 4);
        if (at > t->file_bytes || bytes > t->file_bytes - at)
            return err_set(e, ERR_DATA, "frame %" PRId64 " lies outside of the file", *sample);
        note_sample(t, *sample, at, bytes);
        at += bytes;
    }
    return 0;
}

// Every sample lies in the file: what is cut short has no table.
static int check_places(const struct track *t, struct err *e) {
    bool wide = !t->box[STCO].data;
    int64_t chunks = 0, runs = 0, sample = 0, chunk = 0;
    int rc = need_table(t, wide ? CO64 : STCO, 8, wide ? 8 : 4, &chunks, e);
    if (!rc) rc = need_table(t, STSC, 8, 12, &runs, e);
    for (int64_t r = 0; r < runs && !rc; r++) {
        size_t at = 8 + (size_t)r * 12;
        int64_t next = r + 1 < runs ? entry(t, STSC, at + 12) - 1 : chunks;
        if (entry(t, STSC, at) - 1 != chunk || next <= chunk || next > chunks)
            return err_set(e, ERR_DATA, "box 'stsc' names chunks out of order");
        for (; chunk < next && sample < t->samples && !rc; chunk++)
            rc = check_chunk(t, chunk, &sample, entry(t, STSC, at + 4), e);
        chunk = next;
    }
    if (!rc && sample != t->samples)
        rc = err_set(e, ERR_DATA, "%" PRId64 " of its %" PRId64 " frames have a place", sample, t->samples);
    return rc;
}

// ---- times

// A table of runs (count, value), read sample by sample.
struct runs {
    enum box box;
    int64_t n, next, left, value;
};

static int open_runs(const struct track *t, enum box b, struct runs *r, struct err *e) {
    *r = (struct runs){.box = b};
    return need_table(t, b, 8, 8, &r->n, e);
}

static int next_value(const struct track *t, struct runs *r, struct err *e) {
    while (!r->left) {
        if (r->next == r->n) return err_set(e, ERR_DATA, "box '%s' has too few frames", names[r->box]);
        size_t at = 8 + (size_t)r->next++ * 8;
        r->left = entry(t, r->box, at);
        r->value = entry(t, r->box, at + 4);
    }
    r->left--;
    return 0;
}

static int next_time(const struct track *t, struct runs *deltas, struct runs *offsets, int64_t *dts,
                     int64_t *time, struct err *e) {
    int rc = next_value(t, deltas, e);
    if (!rc && offsets->n) rc = next_value(t, offsets, e);
    if (rc) return rc;
    int64_t offset = offsets->value;
    if (offsets->n && t->box[CTTS].data[0] == 1) offset = (int32_t)offset;
    if (deltas->value > TICKS_MAX || offset > TICKS_MAX)
        return err_set(e, ERR_DATA, "a frame's time is beyond %d ticks of its predecessor's", TICKS_MAX);
    *time = *dts + offset;
    *dts += deltas->value;
    return 0;
}

// Samples that come before all others can be shown, or all where there is no such table.
static bool is_key(const struct track *t, int64_t n, int64_t *next, int64_t sample) {
    if (!t->box[STSS].data) return true;
    while (*next < n && entry(t, STSS, 8 + (size_t)*next * 4) - 1 < sample) ++*next;
    return *next < n && entry(t, STSS, 8 + (size_t)*next * 4) - 1 == sample;
}

// Times of the samples that are shown, in the order of decoding: twice the ticks, plus 1 for a key frame.
static int take_times(const struct track *t, int64_t *times, struct film_table *out, struct err *e) {
    struct runs deltas, offsets = {.n = 0};
    int64_t keys = 0, next_key = 0, dts = 0, time = 0, latest = INT64_MIN, end = 0;
    int rc = open_runs(t, STTS, &deltas, e);
    if (!rc && t->box[CTTS].data) rc = open_runs(t, CTTS, &offsets, e);
    if (!rc && t->box[STSS].data) rc = need_table(t, STSS, 8, 4, &keys, e);
    for (int64_t i = 0; i < t->samples && !rc; i++) {
        if ((rc = next_time(t, &deltas, &offsets, &dts, &time, e))) break;
        bool key = is_key(t, keys, &next_key, i);
        if (time < t->lo || time >= t->hi) continue;
        times[out->frames++] = time * 2 + key;
        if (time > latest) end = time + deltas.value;
        if (time > latest) latest = time;
    }
    if (!rc && !out->frames) rc = err_set(e, ERR_DATA, "its edit list shows no frame");
    out->duration = end < t->hi ? end : t->hi; // counted from 0 as yet
    return rc;
}

static int by_number(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

static int64_t ticks_of(int64_t time) {
    return (time - (time & 1)) / 2;
}

static int put_steps(const int64_t *times, struct film_table *out, struct err *e) {
    size_t n = (size_t)out->frames - 1;
    bool even = true;
    out->last = ticks_of(times[n]) - ticks_of(times[0]);
    out->duration -= ticks_of(times[0]);
    if (!n) return 0;
    out->steps = calloc(n, sizeof *out->steps);
    if (!out->steps) return err_set(e, ERR_MEMORY, "no memory for a table of %zu frames", n);
    for (size_t i = 0; i < n; i++) {
        int64_t step = ticks_of(times[i + 1]) - ticks_of(times[i]);
        if (step < 1 || step > UINT32_MAX)
            return err_set(e, ERR_DATA, "frames %zu and %zu are %" PRId64 " ticks apart", i, i + 1, step);
        out->steps[i] = (uint32_t)step;
        even = even && out->steps[i] == out->steps[0];
    }
    if (!even) return 0;
    out->step = out->steps[0];
    free(out->steps);
    out->steps = NULL;
    return 0;
}

// Key frames at equal distances, from the first picture to the end, are one number.
static void fold_keys(struct film_table *out) {
    int64_t n = out->n_keys, step = n > 1 ? (int64_t)out->keys[1] : out->frames;
    bool even = n && !out->keys[0] && (n - 1) * step < out->frames && n * step >= out->frames;
    for (int64_t i = 0; i < n && even; i++) even = out->keys[i] == i * step;
    if (!even) return;
    out->key_step = step;
    out->n_keys = 0;
    free(out->keys);
    out->keys = NULL;
}

static int put_keys(const int64_t *times, struct film_table *out, struct err *e) {
    out->keys = calloc((size_t)out->frames, sizeof *out->keys);
    if (!out->keys) return err_set(e, ERR_MEMORY, "no memory for a table of %" PRId64 " frames", out->frames);
    for (int64_t i = 0; i < out->frames; i++)
        if (times[i] & 1) out->keys[out->n_keys++] = (uint32_t)i;
    fold_keys(out);
    return 0;
}

static int make_table(const struct track *t, struct film_table *out, struct err *e) {
    int64_t *times = malloc((size_t)t->samples * sizeof *times);
    if (!times) return err_set(e, ERR_MEMORY, "no memory for a table of %" PRId64 " frames", t->samples);
    int rc = take_times(t, times, out, e);
    if (!rc) {
        qsort(times, (size_t)out->frames, sizeof *times, by_number);
        rc = put_steps(times, out, e);
    }
    if (!rc) rc = put_keys(times, out, e);
    free(times);
    return rc;
}

// ---- the header as a whole

static int read_head(struct track *t, struct err *e) {
    int rc = need(t, MDHD, 4, e);
    if (!rc) rc = take_timescale(t->box[MDHD], "mdhd", &t->timescale, e);
    if (!rc) rc = take_edits(t, e);
    return rc ? rc : take_sizes(t, e);
}

static int read_track(struct track *t, struct film_table *out, struct err *e) {
    int rc = read_head(t, e);
    if (!rc) rc = take_description(t, out, e);
    if (!rc) rc = check_places(t, e);
    out->timescale = t->timescale;
    return rc ? rc : make_table(t, out, e);
}

static bool is_video(const struct track *t) {
    return t->box[HDLR].data && t->box[HDLR].n >= 12 && !memcmp(t->box[HDLR].data + 8, "vide", 4);
}

static int find_video(const unsigned char *moov, size_t n, int64_t file_bytes, struct track *video,
                      struct err *e) {
    struct span in = {moov, n}, content;
    int64_t movie_timescale = 0;
    char type[5];
    bool found = false;
    int rc;
    while ((rc = next_box(&in, type, &content, e)) > 0) {
        struct track t = {.file_bytes = file_bytes};
        if (!strcmp(type, "mvex")) return err_set(e, ERR_DATA, "it is in fragments (mvex)");
        if (!strcmp(type, "mvhd") && (rc = take_timescale(content, "mvhd", &movie_timescale, e))) return rc;
        if (strcmp(type, "trak") != 0 || found) continue;
        if ((rc = collect(&t, content, 0, e))) return rc;
        found = is_video(&t);
        if (found) *video = t;
    }
    if (rc) return rc;
    if (!found) return err_set(e, ERR_DATA, "it has no video track");
    if (!movie_timescale) return err_set(e, ERR_DATA, "its header has no box 'mvhd'");
    video->movie_timescale = movie_timescale;
    return 0;
}

int film_parse(const unsigned char *moov, size_t n, int64_t file_bytes, struct film_table *out,
               struct err *e) {
    struct track video = {.file_bytes = 0};
    int rc = find_video(moov, n, file_bytes, &video, e);
    return rc ? rc : read_track(&video, out, e);
}

// ---- parts

// The samples, in the order of decoding, from the one that is shown `key` ticks behind the first picture to
// the last of those that are shown `last` ticks behind it, or before. `origin`: INT64_MAX, to be found.
static int find_samples(struct track *t, int64_t *origin, int64_t key, int64_t last, struct err *e) {
    struct runs deltas, offsets = {.n = 0};
    int64_t dts = 0, time = 0, earliest = INT64_MAX;
    int rc = open_runs(t, STTS, &deltas, e);
    if (!rc && t->box[CTTS].data) rc = open_runs(t, CTTS, &offsets, e);
    t->from = t->to = -1;
    for (int64_t i = 0; i < t->samples && !rc; i++) {
        rc = next_time(t, &deltas, &offsets, &dts, &time, e);
        if (rc || time < t->lo || time >= t->hi) continue;
        if (time < earliest) earliest = time;
        if (*origin == INT64_MAX) continue;
        if (time - *origin == key) t->from = i;
        if (time - *origin <= last) t->to = i;
    }
    if (*origin == INT64_MAX) *origin = earliest;
    return rc;
}

static int64_t ticks_to(const struct film_table *t, int64_t picture) {
    int64_t ticks = 0;
    for (int64_t i = 0; i < picture; i++) ticks += film_step(t, i);
    return ticks;
}

int film_part_of(const struct film_table *t, const void *moov, int64_t first, int64_t last,
                 struct film_part *out, struct err *e) {
    struct span in = {moov, (size_t)t->moov_bytes}, content;
    struct track video = {.file_bytes = 0};
    int64_t origin = INT64_MAX;
    char type[5];
    *out = (struct film_part){.key = film_key_before(t, first)};
    if (out->key < 0) return err_set(e, ERR_DATA, "no key frame comes before picture %" PRId64, first);
    int rc = next_box(&in, type, &content, e);
    if (rc < 0) return rc;
    if (!rc || strcmp(type, "moov") != 0) return err_set(e, ERR_DATA, "its header is not where it was");
    rc = find_video(content.data, content.n, t->bytes, &video, e);
    if (!rc) rc = read_head(&video, e);
    if (!rc) rc = find_samples(&video, &origin, -1, -1, e);
    out->key_ticks = ticks_to(t, out->key);
    if (!rc) rc = find_samples(&video, &origin, out->key_ticks, ticks_to(t, last), e);
    if (!rc && (video.from < 0 || video.to < video.from))
        rc = err_set(e, ERR_DATA, "its header does not tell of picture %" PRId64, out->key);
    if (!rc) out->start = video.shift + origin - (video.lo == INT64_MIN ? 0 : video.lo);
    video.part = out;
    return rc ? rc : check_places(&video, e);
}
