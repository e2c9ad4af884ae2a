// SPDX-License-Identifier: Apache-2.0
// MP4 files for tests, put together box by box (ISO/IEC 14496-12): a header that tells of pictures, and bytes
// in place of them.
#ifndef ORRERY_TESTS_FILM_MAKE_H
#define ORRERY_TESTS_FILM_MAKE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

struct film_make {
    bool header_behind, wide; // wide: 64-bit sizes and places, version 1 of every box that has one
    int pictures, timescale;
    int step, odd_step;  // ticks from picture to picture; odd_step: after every third one; 0: the same
    const int *offsets;  // ctts, per picture; NULL: none
    const int *keys;     // stss, ends with 0; NULL: none
    int n_edits;         // elst
    int64_t edits[3][2]; // ticks of 1/1000 s, media time
    const char *handler; // NULL: "vide"
    int picture_bytes;   // 0: sizes 10, 11, 12, ... in stsz; else one for all
    const char *extra;   // an empty box of this name in the moov; NULL: none
    int claimed;         // pictures that stsz tells of; 0: the truth
    int per_chunk;       // 0: 4
};

static inline void film_be(struct buf *b, uint64_t v, int bytes) {
    struct err e = {ERR_OK};
    unsigned char out[8];
    for (int i = 0; i < bytes; i++) out[i] = (unsigned char)(v >> 8 * (bytes - 1 - i));
    if (buf_append(b, out, (size_t)bytes, &e)) abort();
}

static inline void film_text(struct buf *b, const char *text) {
    struct err e = {ERR_OK};
    if (buf_appends(b, text, &e)) abort();
}

static inline void film_zeros(struct buf *b, int n) {
    for (int i = 0; i < n; i++) film_be(b, 0, 1);
}

static inline size_t film_open(struct buf *b, const char *type) {
    size_t at = b->len;
    film_be(b, 0, 4);
    film_text(b, type);
    return at;
}

static inline void film_close(struct buf *b, size_t at) {
    for (int i = 0; i < 4; i++) b->data[at + (size_t)i] = (char)((b->len - at) >> 8 * (3 - i));
}

static inline void film_head(struct buf *b, const char *type, const struct film_make *m, int64_t duration) {
    int width = m->wide ? 8 : 4;
    size_t at = film_open(b, type);
    film_be(b, m->wide ? 1 << 24 : 0, 4);
    film_zeros(b, 2 * width);
    film_be(b, strcmp(type, "mvhd") ? (uint64_t)m->timescale : 1000, 4);
    film_be(b, (uint64_t)duration, width);
    film_zeros(b, 4);
    film_close(b, at);
}

static inline void film_edits(struct buf *b, const struct film_make *m) {
    size_t edts = film_open(b, "edts"), at = film_open(b, "elst");
    int width = m->wide ? 8 : 4;
    film_be(b, m->wide ? 1 << 24 : 0, 4);
    film_be(b, (uint64_t)m->n_edits, 4);
    for (int i = 0; i < m->n_edits; i++) {
        film_be(b, (uint64_t)m->edits[i][0], width);
        film_be(b, (uint64_t)m->edits[i][1], width);
        film_be(b, 0x10000, 4);
    }
    film_close(b, at);
    film_close(b, edts);
}

static inline int film_delta(const struct film_make *m, int i) {
    return m->odd_step && i % 3 == 2 ? m->odd_step : m->step;
}

static inline int film_size(const struct film_make *m, int i) {
    return m->picture_bytes ? m->picture_bytes : 10 + i;
}

static inline void film_description(struct buf *b) {
    size_t at = film_open(b, "stsd");
    film_be(b, 0, 4);
    film_be(b, 1, 4);
    size_t entry = film_open(b, "avc1");
    film_zeros(b, 24);
    film_be(b, 640, 2);
    film_be(b, 480, 2);
    film_zeros(b, 50);
    film_close(b, entry);
    film_close(b, at);
}

static inline void film_times(struct buf *b, const struct film_make *m) {
    size_t at = film_open(b, "stts");
    film_be(b, 0, 4);
    film_be(b, m->odd_step ? (uint64_t)m->pictures : 1, 4);
    for (int i = 0; i < (m->odd_step ? m->pictures : 1); i++) {
        film_be(b, m->odd_step ? 1 : (uint64_t)m->pictures, 4);
        film_be(b, (uint64_t)film_delta(m, i), 4);
    }
    film_close(b, at);
    if (!m->offsets) return;
    at = film_open(b, "ctts");
    film_be(b, 1 << 24, 4);
    film_be(b, (uint64_t)m->pictures, 4);
    for (int i = 0; i < m->pictures; i++) {
        film_be(b, 1, 4);
        film_be(b, (uint64_t)m->offsets[i], 4);
    }
    film_close(b, at);
}

static inline void film_keys(struct buf *b, const struct film_make *m) {
    int n = 0;
    if (!m->keys) return;
    while (m->keys[n]) n++;
    size_t at = film_open(b, "stss");
    film_be(b, 0, 4);
    film_be(b, (uint64_t)n, 4);
    for (int i = 0; i < n; i++) film_be(b, (uint64_t)m->keys[i], 4);
    film_close(b, at);
}

static inline void film_places(struct buf *b, const struct film_make *m, int64_t first) {
    int per = m->per_chunk ? m->per_chunk : 4, chunks = (m->pictures + per - 1) / per;
    size_t at = film_open(b, "stsz");
    film_be(b, 0, 4);
    film_be(b, (uint64_t)m->picture_bytes, 4);
    film_be(b, (uint64_t)(m->claimed ? m->claimed : m->pictures), 4);
    for (int i = 0; i < m->pictures && !m->picture_bytes; i++) film_be(b, (uint64_t)film_size(m, i), 4);
    film_close(b, at);
    at = film_open(b, "stsc");
    film_be(b, 0, 4);
    film_be(b, 1, 4);
    film_be(b, 1, 4);
    film_be(b, (uint64_t)per, 4);
    film_be(b, 1, 4);
    film_close(b, at);
    at = film_open(b, m->wide ? "co64" : "stco");
    film_be(b, 0, 4);
    film_be(b, (uint64_t)chunks, 4);
    for (int i = 0; i < m->pictures; i++) {
        if (i % per == 0) film_be(b, (uint64_t)first, m->wide ? 8 : 4);
        first += film_size(m, i);
    }
    film_close(b, at);
}

static inline void film_track(struct buf *b, const struct film_make *m, int64_t first, const char *handler) {
    size_t trak = film_open(b, "trak");
    if (m->n_edits) film_edits(b, m);
    size_t mdia = film_open(b, "mdia");
    film_head(b, "mdhd", m, 0);
    size_t hdlr = film_open(b, "hdlr");
    film_zeros(b, 8);
    film_text(b, handler);
    film_zeros(b, 13);
    film_close(b, hdlr);
    size_t minf = film_open(b, "minf"), stbl = film_open(b, "stbl");
    film_description(b);
    film_times(b, m);
    film_keys(b, m);
    film_places(b, m, first);
    film_close(b, stbl);
    film_close(b, minf);
    film_close(b, mdia);
    film_close(b, trak);
}

static inline void film_header(struct buf *b, const struct film_make *m, int64_t first) {
    size_t at = film_open(b, "moov");
    film_head(b, "mvhd", m, 0);
    if (m->extra) film_close(b, film_open(b, m->extra));
    film_track(b, m, first, "soun");
    film_track(b, m, first, m->handler ? m->handler : "vide");
    film_close(b, at);
}

static inline void film_data(struct buf *b, const struct film_make *m) {
    int bytes = 0;
    for (int i = 0; i < m->pictures; i++) bytes += film_size(m, i);
    film_be(b, m->wide ? 1 : (uint64_t)bytes + 8, 4);
    film_text(b, "mdat");
    if (m->wide) film_be(b, (uint64_t)bytes + 16, 8);
    for (int i = 0; i < bytes; i++) film_be(b, (uint64_t)i * 7 % 251, 1);
}

// The caller frees it.
static inline struct buf film_make(const struct film_make *m) {
    struct buf b;
    buf_init(&b, (size_t)16 << 20);
    size_t at = film_open(&b, "ftyp"), header = m->wide ? 16 : 8;
    film_text(&b, "isom");
    film_zeros(&b, 4);
    film_close(&b, at);
    if (m->header_behind) {
        int64_t first = (int64_t)(b.len + header);
        film_data(&b, m);
        film_header(&b, m, first);
        return b;
    }
    size_t before = b.len;
    film_header(&b, m, 0);
    int64_t first = (int64_t)(b.len + header);
    b.len = before;
    film_header(&b, m, first);
    film_data(&b, m);
    return b;
}

#endif
