// SPDX-License-Identifier: Apache-2.0
#include "storage/film.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/film_impl.h"
#include "storage/hash.h"

uint32_t film_be32(const unsigned char *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

uint64_t film_be64(const unsigned char *p) {
    return (uint64_t)film_be32(p) << 32 | film_be32(p + 4);
}

// ---- the table

void film_forget(struct film_table *t) {
    free(t->steps);
    free(t->keys);
    t->steps = t->keys = NULL;
    t->n_keys = 0;
}

void film_forget_crcs(struct film_table *t) {
    free(t->crcs);
    t->crcs = NULL;
    t->n_crcs = 0;
}

void film_fini(struct film_table *t) {
    film_forget(t);
    film_forget_crcs(t);
    memset(t, 0, sizeof *t);
}

static int copy_list(uint32_t **out, const uint32_t *from, size_t n, struct err *e) {
    *out = NULL;
    if (!from) return 0;
    *out = malloc((n ? n : 1) * sizeof **out);
    if (!*out) return err_set(e, ERR_MEMORY, "no memory for a table of %zu frames", n);
    memcpy(*out, from, n * sizeof **out);
    return 0;
}

int film_copy(struct film_table *out, const struct film_table *from, struct err *e) {
    *out = *from;
    out->keys = out->crcs = NULL;
    int rc = copy_list(&out->steps, from->steps, (size_t)(from->frames > 0 ? from->frames - 1 : 0), e);
    if (!rc) rc = copy_list(&out->keys, from->keys, (size_t)from->n_keys, e);
    if (!rc) rc = copy_list(&out->crcs, from->crcs, (size_t)from->n_crcs, e);
    if (rc) film_fini(out);
    return rc;
}

static bool same_list(const uint32_t *a, const uint32_t *b, int64_t n) {
    return !a == !b && (!a || n <= 0 || !memcmp(a, b, (size_t)n * sizeof *a));
}

// An index from before there were parts has none, and is none the worse.
static bool same_parts(const struct film_table *a, const struct film_table *b) {
    if (!a->n_crcs || !b->n_crcs) return true;
    return a->lead == b->lead && a->moov_at == b->moov_at && a->moov_bytes == b->moov_bytes &&
           a->n_crcs == b->n_crcs && same_list(a->crcs, b->crcs, a->n_crcs);
}

bool film_same(const struct film_table *a, const struct film_table *b) {
    return !strcmp(a->codec, b->codec) && a->width == b->width && a->height == b->height &&
           a->frames == b->frames && a->timescale == b->timescale && a->last == b->last &&
           a->duration == b->duration && a->step == b->step && a->key_step == b->key_step &&
           a->n_keys == b->n_keys && !strcmp(a->why, b->why) &&
           same_list(a->steps, b->steps, a->frames - 1) && same_list(a->keys, b->keys, a->n_keys) &&
           same_parts(a, b);
}

bool film_has_times(const struct film_table *t) {
    return t->frames > 0 && (t->step || t->steps || t->frames == 1);
}

int64_t film_step(const struct film_table *t, int64_t i) {
    return t->steps ? t->steps[i] : t->step;
}

int64_t film_blocks(int64_t bytes) {
    return bytes / FILM_BLOCK + (bytes % FILM_BLOCK != 0);
}

int64_t film_key_before(const struct film_table *t, int64_t i) {
    if (t->key_step) return i - i % t->key_step;
    int64_t lo = 0, hi = t->n_keys; // keys before lo are not behind i
    while (lo < hi) {
        int64_t mid = lo + (hi - lo) / 2;
        if (t->keys[mid] <= i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo ? (int64_t)t->keys[lo - 1] : -1;
}

double film_rate_hz(const struct film_table *t) {
    if (t->last > 0) return (double)(t->frames - 1) * (double)t->timescale / (double)t->last;
    return t->duration > 0 ? (double)t->timescale / (double)t->duration : 0;
}

// ---- the boxes of a file, as they go by

void film_scan_init(struct film_scan *s, bool parts) {
    memset(s, 0, sizeof *s);
    s->parts = parts;
    buf_init(&s->moov, FILM_HEADER_MAX);
}

// What the box's head alone rules out. Nothing more is looked at then.
static void judge_box(struct film_scan *s, unsigned header, uint64_t size) {
    if (size && size < header)
        (void)err_set(&s->flaw, ERR_DATA, "box '%s' at byte %" PRId64 " has %" PRIu64 " bytes", s->box,
                      s->bytes - header, size);
    if (!strcmp(s->box, "moof")) (void)err_set(&s->flaw, ERR_DATA, "it is in fragments (moof)");
    if (s->keep && s->header) (void)err_set(&s->flaw, ERR_DATA, "it has two headers (moov)");
    if (s->keep && !s->open_end && s->left > FILM_HEADER_MAX)
        (void)err_set(&s->flaw, ERR_DATA, "its header (moov) has %" PRIu64 " bytes, at most %zu are read",
                      s->left, FILM_HEADER_MAX);
    s->ended = s->flaw.code != ERR_OK;
}

// Of the header, and of the box of pictures, as far as a part of the film can be read by them.
static void note_place(struct film_scan *s, unsigned header) {
    if (s->keep) {
        s->moov_at = s->bytes - header;
        s->moov_bytes = s->open_end ? 0 : header + (int64_t)s->left;
    }
    if (strcmp(s->box, "mdat") != 0) return;
    bool again = s->lead > 0 || s->open_end || s->left > INT64_MAX / 2;
    s->pictures_end = again ? -1 : s->bytes + (int64_t)s->left;
    s->lead = s->bytes;
}

static void begin_box(struct film_scan *s, uint64_t size, unsigned header) {
    s->n_head = 0;
    s->film = s->film || !strcmp(s->box, "ftyp"); // it is the first one
    s->ended = !s->film;
    s->open_end = size == 0;
    s->left = size > header ? size - header : size ? 0 : UINT64_MAX;
    s->keep = !strcmp(s->box, "moov");
    if (s->film) judge_box(s, header, size);
    s->header = s->header || s->keep;
    note_place(s, header);
}

// Box types come from the file: '?' for what is no printable character.
static void put_type(char out[5], const unsigned char *p) {
    for (int i = 0; i < 4; i++) out[i] = (char)(p[i] > 0x20 && p[i] < 0x7f && p[i] != '\'' ? p[i] : '?');
    out[4] = 0;
}

static void take_head(struct film_scan *s, unsigned char byte) {
    s->head[s->n_head++] = byte;
    s->bytes++;
    if (s->n_head < 8) return;
    uint64_t size = film_be32(s->head);
    if (size == 1 && s->n_head < 16) return;
    put_type(s->box, s->head + 4);
    bool wide = size == 1;
    begin_box(s, wide ? film_be64(s->head + 8) : size, wide ? 16 : 8);
}

static int take_body(struct film_scan *s, const unsigned char *p, size_t n, struct err *e) {
    s->left -= n;
    s->bytes += (int64_t)n;
    if (!s->keep) return 0;
    if (n > FILM_HEADER_MAX - s->moov.len) {
        (void)err_set(&s->flaw, ERR_DATA, "its header (moov) has more than %zu bytes", FILM_HEADER_MAX);
        s->ended = true;
        return 0;
    }
    return buf_append(&s->moov, p, n, e);
}

static int add_block(struct film_scan *s, struct err *e) {
    if (s->n_crcs == s->room) {
        size_t room = s->room ? 2 * s->room : 16;
        uint32_t *grown = reallocarray(s->crcs, room, sizeof *grown);
        if (!grown) return err_set(e, ERR_MEMORY, "no memory for a film of %zu blocks", s->n_crcs);
        s->crcs = grown;
        s->room = room;
    }
    s->crcs[s->n_crcs++] = 0;
    return 0;
}

static int sum_blocks(struct film_scan *s, const unsigned char *p, size_t n, struct err *e) {
    while (n) {
        size_t into = (size_t)(s->summed % FILM_BLOCK), piece = FILM_BLOCK - into < n ? FILM_BLOCK - into : n;
        int rc = into ? 0 : add_block(s, e);
        if (rc) return rc;
        s->crcs[s->n_crcs - 1] = hash_crc32c(s->crcs[s->n_crcs - 1], p, piece);
        s->summed += (int64_t)piece;
        p += piece;
        n -= piece;
    }
    return 0;
}

int film_scan_feed(struct film_scan *s, const void *bytes, size_t n, struct err *e) {
    const unsigned char *p = bytes;
    int rc = s->parts && !s->ended ? sum_blocks(s, p, n, e) : 0;
    while (n && !s->ended && !rc) {
        size_t piece = s->left < n ? (size_t)s->left : n;
        if (piece)
            rc = take_body(s, p, piece, e);
        else
            take_head(s, *p);
        p += piece ? piece : 1;
        n -= piece ? piece : 1;
    }
    return rc;
}

// A size of 1 in 8 bytes at the end, or a tail of a few bytes, is no box and harms nobody.
static int scan_result(struct film_scan *s, struct film_table *out, struct err *e) {
    if (s->flaw.code) {
        *e = s->flaw;
        return -ERR_DATA;
    }
    if (s->left && !s->open_end)
        return err_set(e, ERR_DATA, "it is cut short: box '%s' lacks %" PRIu64 " bytes", s->box, s->left);
    if (!s->header) return err_set(e, ERR_DATA, "it has no header (moov)");
    return film_parse((const unsigned char *)s->moov.data, s->moov.len, s->bytes, out, e);
}

// A reader of parts knows its way through these two orders of boxes alone.
static void take_parts(struct film_scan *s, struct film_table *out) {
    bool front = s->moov_at < s->lead, behind = s->moov_at == s->pictures_end;
    if (!s->parts || !out->frames || s->pictures_end <= 0 || !s->moov_bytes || (!front && !behind) ||
        s->summed != s->bytes)
        return;
    out->bytes = s->bytes;
    out->lead = s->lead;
    out->moov_at = s->moov_at;
    out->moov_bytes = s->moov_bytes;
    out->crcs = s->crcs;
    out->n_crcs = (int64_t)s->n_crcs;
    s->crcs = NULL;
}

int film_scan_end(struct film_scan *s, struct film_table *out, struct err *e) {
    struct err why = {ERR_OK};
    memset(out, 0, sizeof *out);
    int rc = s->film ? scan_result(s, out, &why) : 0;
    if (rc) film_fini(out);
    if (!rc) take_parts(s, out);
    free(s->crcs);
    s->crcs = NULL;
    if (rc == -ERR_DATA) {
        snprintf(out->why, sizeof out->why, "%.*s", FILM_WHY_BYTES - 1, why.text);
        rc = 0;
    } else if (rc) {
        *e = why;
    }
    buf_fini(&s->moov);
    return rc;
}

int film_read(const void *bytes, size_t n, struct film_table *out, struct err *e) {
    struct film_scan s;
    struct err ignored = {ERR_OK};
    film_scan_init(&s, false);
    int rc = film_scan_feed(&s, bytes, n, e);
    int ended = film_scan_end(&s, out, rc ? &ignored : e);
    if (rc) film_fini(out);
    return rc ? rc : ended;
}
