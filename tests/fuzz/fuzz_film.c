// SPDX-License-Identifier: Apache-2.0
// The reader of tables of frames on any bytes: at once and in pieces the same; what it tells holds together,
// and goes through JSON and back.
#include <stdlib.h>
#include <string.h>

#include "storage/film_json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check(const struct film_table *t) {
    int64_t sum = 0;
    if (!t->frames) return;
    if (t->frames > FILM_FRAMES_MAX || t->duration < t->last || !film_has_times(t)) abort();
    for (int64_t i = 0; i + 1 < t->frames; i++) sum += film_step(t, i);
    if (sum != t->last || !(film_rate_hz(t) >= 0)) abort();
}

static void round_trip(const struct film_table *t) {
    struct err e = {0};
    struct film_table back;
    struct json_writer w;
    struct json *doc;
    struct buf text;
    buf_init(&text, (size_t)64 << 20);
    json_begin(&w, &text);
    film_put(&w, NULL, t);
    if (json_end(&w, &e) || json_parse(&doc, text.data, text.len, "film", &e)) abort();
    if (film_get(doc, json_root(doc), "film", &back, &e) || !film_same(t, &back)) abort();
    json_destroy(doc);
    film_fini(&back);
    buf_fini(&text);
}

// Pictures in the middle and at the end: their bytes lie in the film, and a key frame comes first.
static void parts(const uint8_t *data, size_t n, const struct film_table *t) {
    for (int64_t first = 0; t->n_crcs && first < t->frames; first += t->frames / 2 + 1) {
        struct err e = {0};
        struct film_part p;
        if (t->n_crcs != film_blocks((int64_t)n) || t->moov_at + t->moov_bytes > (int64_t)n) abort();
        if (film_part_of(t, data + t->moov_at, first, t->frames - 1, &p, &e)) continue;
        if (p.key > first || p.lo < 0 || p.lo > p.hi || p.hi > (int64_t)n || p.key_byte < p.lo ||
            p.last_byte > p.hi)
            abort();
    }
}

static void in_pieces(const uint8_t *data, size_t n, const struct film_table *want) {
    struct err e = {0};
    struct film_table t;
    struct film_scan s;
    film_scan_init(&s, true);
    for (size_t at = 0, piece = 1; at < n; at += piece, piece = piece % 97 + 1)
        if (film_scan_feed(&s, data + at, piece < n - at ? piece : n - at, &e)) abort();
    if (film_scan_end(&s, &t, &e) || !film_same(&t, want)) abort();
    parts(data, n, &t);
    if (t.n_crcs) round_trip(&t);
    film_fini(&t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct err e = {0};
    struct film_table t;
    if (film_read(data, n, &t, &e)) abort();
    check(&t);
    in_pieces(data, n, &t);
    if (t.frames || *t.why) round_trip(&t);
    film_fini(&t);
    return 0;
}
