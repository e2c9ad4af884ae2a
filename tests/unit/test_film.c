// SPDX-License-Identifier: Apache-2.0
// Tables of frames out of MP4 files that were put together by hand, and their way through an index, a
// manifest and a schema.
#include "storage/film.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "lib/film_make.h"
#include "storage/dataset.h"
#include "storage/dataset_index.h"
#include "storage/dataset_schema.h"
#include "storage/hash.h"
#include "storage/shard.h"

static const struct film_make even = {.pictures = 10, .timescale = 12800, .step = 512};
static const int first_and_sixth[] = {1, 6, 0};

static struct film_table read_film(const struct film_make *m) {
    struct err e = {ERR_OK};
    struct film_table t, pieces;
    struct film_scan s;
    struct buf b = film_make(m);
    assert_int_equal(film_read(b.data, b.len, &t, &e), 0);
    film_scan_init(&s, false);
    for (size_t i = 0; i < b.len; i++) assert_int_equal(film_scan_feed(&s, b.data + i, 1, &e), 0);
    assert_int_equal(film_scan_end(&s, &pieces, &e), 0);
    assert_true(film_same(&t, &pieces));
    film_fini(&pieces);
    buf_fini(&b);
    return t;
}

static void left_out(const struct film_make *m, const char *words) {
    struct film_table t = read_film(m);
    if (t.frames || !strstr(t.why, words))
        fail_msg("%lld frames; '%s' lacks '%s'", (long long)t.frames, t.why, words);
    film_fini(&t);
}

static void even_times_are_one_number(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        struct film_make m = even;
        m.header_behind = i & 1;
        m.wide = i & 2;
        m.picture_bytes = i & 4 ? 20 : 0;
        m.keys = i & 1 ? NULL : first_and_sixth;
        struct film_table t = read_film(&m);
        if (t.frames != 10) fail_msg("%s", t.why);
        assert_string_equal(t.codec, "avc1");
        assert_int_equal(t.width, 640);
        assert_int_equal(t.height, 480);
        assert_int_equal(t.timescale, 12800);
        assert_int_equal(t.step, 512);
        assert_null(t.steps);
        assert_int_equal(t.last, 9 * 512);
        assert_int_equal(t.duration, 10 * 512);
        assert_int_equal(t.key_step, i & 1 ? 1 : 5);
        assert_true(film_rate_hz(&t) == 25 && film_has_times(&t));
        film_fini(&t);
    }
}

// Decoded 0 3 1 2 | 4 7 5 6, shown in order; signed offsets.
static void uneven_times_and_another_order_of_decoding(void **state) {
    (void)state;
    static const int offsets[] = {0, 200, -100, -100, 0, 200, -100, -100}, keys[] = {1, 2, 5, 0};
    const struct film_make m = {
        .pictures = 8, .timescale = 1000, .step = 100, .offsets = offsets, .keys = keys, .per_chunk = 3};
    struct film_table t = read_film(&m);
    if (t.frames != 8) fail_msg("%s", t.why);
    assert_int_equal(t.step, 100);
    assert_int_equal(t.n_keys, 3);
    assert_int_equal(t.keys[0], 0);
    assert_int_equal(t.keys[1], 3);
    assert_int_equal(t.keys[2], 4);
    film_fini(&t);
    const struct film_make odd = {.pictures = 7, .timescale = 1000, .step = 33, .odd_step = 34};
    t = read_film(&odd);
    static const int want[] = {33, 33, 34, 33, 33, 34};
    for (int i = 0; i < 6; i++) assert_int_equal(film_step(&t, i), want[i]);
    assert_int_equal(t.step, 0);
    assert_int_equal(t.last, 200);
    assert_int_equal(t.duration, 233);
    film_fini(&t);
}

static void edits_cut_pieces_out(void **state) {
    (void)state;
    struct film_make m = {.pictures = 10, .timescale = 100, .step = 10, .keys = first_and_sixth};
    m.n_edits = 1;
    m.edits[0][0] = 500;
    m.edits[0][1] = 20;
    struct film_table t = read_film(&m);
    if (t.frames != 5) fail_msg("%s", t.why);
    assert_int_equal(t.duration, 50);
    assert_int_equal(t.n_keys, 1);
    assert_int_equal(t.keys[0], 3);
    film_fini(&t);
    m.n_edits = 2;
    memcpy(m.edits[1], m.edits[0], sizeof m.edits[0]);
    m.edits[0][1] = -1;
    m.wide = true;
    t = read_film(&m);
    assert_int_equal(t.frames, 5);
    film_fini(&t);
    m.edits[0][1] = 0;
    left_out(&m, "edit list does more");
    m.n_edits = 1;
    m.edits[0][1] = 1000;
    left_out(&m, "edit list shows no frame");
    m.edits[0][0] = INT64_MAX;
    left_out(&m, "edit list does more");
    m.edits[0][0] = 0;
    left_out(&m, "edit list does more");
}

static void what_has_no_table_says_why(void **state) {
    (void)state;
    struct film_make m = even;
    m.extra = "mvex";
    left_out(&m, "fragments (mvex)");
    m = even;
    m.handler = "text";
    left_out(&m, "no video track");
    m = even;
    m.claimed = 11;
    m.header_behind = true;
    left_out(&m, "'stsz' counts 11 entries and has room for 10");
    m.picture_bytes = 20;
    left_out(&m, "'stts' has too few frames");
    m.claimed = -1;
    left_out(&m, "4294967295 frames, not 1");
    m.claimed = 1 << 20;
    left_out(&m, "more bytes than it has");
    m = even;
    m.step = 0;
    left_out(&m, "0 ticks apart");
    m = even;
    m.timescale = 0;
    left_out(&m, "'mdhd' has no timescale");
}

static void check_bytes(const void *bytes, size_t n, const char *words) {
    struct err e = {ERR_OK};
    struct film_table t;
    assert_int_equal(film_read(bytes, n, &t, &e), 0);
    assert_int_equal(t.frames, 0);
    if (*words ? !strstr(t.why, words) : *t.why) fail_msg("'%s', not '%s'", t.why, words);
}

static void odd_files(void **state) {
    (void)state;
    check_bytes("", 0, "");
    check_bytes("no film at all", 14, "");
    check_bytes("\0\0\0\1ftyp", 8, "");
    check_bytes("\0\0\0\x08"
                "ftyp",
                8, "no header (moov)");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\x08moof",
                16, "fragments (moof)");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\x08moov",
                16, "no video track");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\x08moov\0\0\0\x08moov",
                24, "two headers");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\0moov",
                16, "no video track");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\5moov",
                16, "box 'moov' at byte 8 has 5 bytes");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\1moov\0\0\0\0\0\0\0\x0f",
                24, "has 15 bytes");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\1moov\xff\xff\xff\xff\xff\xff\xff\xff",
                24, "at most 16777216");
    check_bytes("\0\0\0\x08"
                "ftyp\0\0\0\x40mdat",
                16, "box 'mdat' lacks 56 bytes");
}

static void check_table(const struct film_table *t) {
    int64_t sum = 0;
    if (!t->frames) return;
    assert_true(t->frames <= FILM_FRAMES_MAX && t->duration >= t->last && film_has_times(t));
    for (int64_t i = 0; i + 1 < t->frames; i++) sum += film_step(t, i);
    assert_int_equal(sum, t->last);
    for (int64_t i = 0; i < t->n_keys; i++) assert_true(t->keys[i] < t->frames);
}

static void hostile_bytes(void **state) {
    (void)state;
    static const int offsets[] = {0, 200, -100, -100, 0, 200, -100, -100, 0, 0};
    struct film_make m = {.pictures = 10,
                          .timescale = 1000,
                          .step = 100,
                          .offsets = offsets,
                          .keys = first_and_sixth,
                          .n_edits = 1,
                          .edits = {{1000, 0}}};
    struct err e = {ERR_OK};
    struct film_table t;
    struct rng_stream r;
    rng_stream_init(&r, rng_key(1, RNG_TEST, 0), 0, 0);
    for (int behind = 0; behind < 2; behind++) {
        m.header_behind = behind;
        struct buf b = film_make(&m);
        for (size_t n = 0; n < b.len; n++) {
            char *part = malloc(n + 1); // the sanitizer sees what is read beyond it
            memcpy(part, b.data, n);
            assert_int_equal(film_read(part, n, &t, &e), 0);
            assert_int_equal(t.frames, 0);
            free(part);
        }
        for (int i = 0; i < 20000; i++) {
            size_t at = rng_next_below(&r, (uint32_t)b.len);
            char before = b.data[at];
            b.data[at] = (char)rng_next_u32(&r);
            assert_int_equal(film_read(b.data, b.len, &t, &e), 0);
            check_table(&t);
            film_fini(&t);
            if (i % 8) b.data[at] = before;
        }
        buf_fini(&b);
    }
}

// ---- in a data set

static void add(struct buf *tar, const char *stem, const char *name, const void *data, size_t n) {
    struct err e = {ERR_OK};
    assert_int_equal(shard_append(tar, stem, name, data, n, &e), 0);
}

static void add_film(struct buf *tar, const char *stem, const struct film_make *m) {
    struct buf b = film_make(m);
    add(tar, stem, "cls", "7", 1);
    add(tar, stem, "cam.mp4", b.data, b.len);
    buf_fini(&b);
}

static const struct film_make uneven = {.pictures = 7, .timescale = 1000, .step = 33, .odd_step = 34};

// Three films: even times, uneven times, no table.
static void put_films(struct store *s, const char *key, bool all_told) {
    struct err e = {ERR_OK};
    struct buf tar;
    struct film_make broken = even;
    broken.handler = "text";
    buf_init(&tar, 1 << 20);
    add_film(&tar, "a", &even);
    add_film(&tar, "b", &uneven);
    if (!all_told) add_film(&tar, "c", &broken);
    assert_int_equal(shard_finish(&tar, &e), 0);
    assert_int_equal(store_put(s, key, tar.data, tar.len, false, &e), 0);
    buf_fini(&tar);
}

static struct store *open_store(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    assert_int_equal(store_open(&s, url, NULL, &e), 0);
    return s;
}

static struct dataset *open_set(const char *url) {
    struct err e = {ERR_OK};
    struct dataset *d;
    if (dataset_open(&d, url, NULL, &e)) fail_msg("%s", e.text);
    return d;
}

static void keep_line(void *arg, const char *line) {
    snprintf(arg, ERR_TEXT_BYTES, "%s", line);
}

static void first_line(void *arg, const char *line) {
    if (!*(char *)arg) keep_line(arg, line);
}

static void an_index_holds_the_tables(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct dataset_check sum;
    struct film_sums films;
    char line[ERR_TEXT_BYTES] = "";
    struct store *s = open_store("mem:films");
    put_films(s, "x.tar", false);
    assert_int_equal(dataset_index_all(s, false, NULL, first_line, line, &e), 0);
    assert_string_equal(line, "indexed x.tar: 3 samples, 6 members, 3 films (1 without a table of frames)");
    struct dataset *d = open_set("mem:films");
    const struct film_make *made[] = {&even, &uneven};
    for (int i = 0; i < 2; i++) {
        struct film_table t, want = read_film(made[i]);
        assert_int_equal(dataset_film(d, i, "cam.mp4", &t, &e), 0);
        assert_true(film_same(&t, &want));
        film_fini(&t);
        film_fini(&want);
        assert_int_equal(dataset_film(d, i, "cls", &t, &e), 0);
        assert_true(!t.frames && !*t.why);
    }
    struct film_table t;
    assert_int_equal(dataset_film(d, 2, "cam.mp4", &t, &e), 0);
    assert_string_equal(t.why, "it has no video track");
    assert_int_equal(dataset_film(d, 3, "cam.mp4", &t, &e), -ERR_BUG);
    dataset_films(d, &films);
    assert_int_equal(films.n, 1);
    assert_string_equal(films.sum[0].member, "cam.mp4");
    assert_int_equal(films.sum[0].films, 3);
    assert_int_equal(films.sum[0].left_out, 1);
    assert_int_equal(films.sum[0].frames, 17);
    assert_int_equal(films.sum[0].width[1], 640);
    assert_true(films.sum[0].rate_hz[0] == 25 && films.sum[0].rate_hz[1] == 30);
    err_clear(&e);
    if (dataset_check(d, NULL, NULL, &sum, &e)) fail_msg("%s", e.text);
    dataset_close(d);
    store_close(s);
}

static void replace(struct buf *b, const char *from, const char *to) {
    char *at = strstr(b->data, from);
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
}

static struct buf get_index(struct store *s) {
    struct err e = {ERR_OK};
    struct buf text;
    buf_init(&text, DATASET_INDEX_MAX);
    assert_int_equal(store_get(s, "x.tar.index.json", DATASET_INDEX_MAX, &text, &e), 0);
    return text;
}

// The index is changed, and the manifest made of it.
static void check_finds_a_table_of_another_film(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct dataset_check sum;
    struct store *s = open_store("mem:other");
    put_films(s, "x.tar", true);
    assert_int_equal(dataset_index_all(s, false, NULL, NULL, NULL, &e), 0);
    struct buf text = get_index(s);
    replace(&text, "\"step\":512", "\"step\":511");
    replace(&text, "\"last\":4608", "\"last\":4599");
    assert_int_equal(store_put(s, "x.tar.index.json", text.data, text.len, false, &e), 0);
    assert_int_equal(dataset_write_manifest(s, NULL, 0, &e), 0);
    struct dataset *d = open_set("mem:other");
    assert_int_equal(dataset_check(d, NULL, NULL, &sum, &e), -ERR_DATA);
    assert_int_equal(sum.problems, 1);
    assert_non_null(strstr(e.text, "x.tar: member 'a.cam.mp4'"));
    assert_non_null(strstr(e.text, "table of frames is not the index's"));
    dataset_close(d);
    // An index from before there were tables: its samples alone.
    err_clear(&e);
    for (char *at; (at = strstr(text.data, ",\"films\":{"));) {
        size_t n = (size_t)(strstr(at, "}}") + 2 - at);
        memmove(at, at + n, strlen(at + n) + 1);
    }
    assert_int_equal(store_put(s, "x.tar.index.json", text.data, strlen(text.data), false, &e), 0);
    assert_int_equal(dataset_write_manifest(s, NULL, 0, &e), 0);
    d = open_set("mem:other");
    if (dataset_check(d, NULL, NULL, &sum, &e)) fail_msg("%s", e.text);
    struct film_table t;
    assert_int_equal(dataset_film(d, 0, "cam.mp4", &t, &e), 0);
    assert_true(!t.frames && !*t.why);
    dataset_close(d);
    buf_fini(&text);
    store_close(s);
}

#define FILM_SCHEMA(rate, from)                                                                              \
    "{\"rate_hz\":" rate ",\"frames_from\":\"" from "\",\"streams\":[{\"modality\":\"video\",\"name\":"      \
    "\"cam\",\"member\":\"cam.mp4\",\"dtype\":\"u8\",\"shape\":[32,32,3],\"rate_hz\":30}]}"

static void parse_schema(struct dataset_schema *out, const char *text) {
    struct err e = {ERR_OK};
    if (dataset_schema_parse(out, text, strlen(text), "schema", &e)) fail_msg("%s", e.text);
}

// The second film's list of steps has no place in the index; the rest of its table has.
static void lists_beyond_the_bound_are_not_kept(void **state) {
    (void)state;
    enum { MANY = 300000 };
    static const struct film_make long_film = {.pictures = MANY,
                                               .timescale = 1000,
                                               .step = 33,
                                               .odd_step = 34,
                                               .picture_bytes = 1,
                                               .per_chunk = 1000};
    struct err e = {ERR_OK};
    struct dataset_check sum;
    struct film_table t[2];
    struct buf tar;
    struct store *s = open_store("mem:long");
    buf_init(&tar, 32 << 20);
    add_film(&tar, "a", &long_film);
    add_film(&tar, "b", &long_film);
    assert_int_equal(shard_finish(&tar, &e), 0);
    assert_int_equal(store_put(s, "x.tar", tar.data, tar.len, false, &e), 0);
    buf_fini(&tar);
    assert_int_equal(dataset_index_all(s, false, NULL, NULL, NULL, &e), 0);
    struct dataset *d = open_set("mem:long");
    for (int i = 0; i < 2; i++) assert_int_equal(dataset_film(d, i, "cam.mp4", &t[i], &e), 0);
    assert_true(film_has_times(&t[0]) && !film_has_times(&t[1]));
    assert_int_equal(t[0].frames, MANY);
    assert_int_equal(t[1].frames, MANY);
    assert_int_equal(t[0].last, t[1].last);
    if (dataset_check(d, NULL, NULL, &sum, &e)) fail_msg("%s", e.text);
    for (int i = 0; i < 2; i++) film_fini(&t[i]);
    dataset_close(d);
    store_close(s);
}

// 10 pictures at 25 Hz are 0.36 s and a thirtieth; 7 at 30 are 7 thirtieths.
static void frames_come_from_a_film(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct dataset_schema y;
    struct dataset_sample row;
    struct store *s = open_store("mem:counted");
    put_films(s, "x.tar", true);
    parse_schema(&y, FILM_SCHEMA("30", "cam.mp4"));
    if (dataset_index_all(s, true, &y, NULL, NULL, &e)) fail_msg("%s", e.text);
    struct dataset *d = open_set("mem:counted");
    dataset_sample(d, 0, &row);
    assert_int_equal(row.frames, 11);
    dataset_sample(d, 1, &row);
    assert_int_equal(row.frames, 7);
    assert_int_equal(dataset_frames(d), 18);
    dataset_close(d);
    parse_schema(&y, FILM_SCHEMA("10", "cam.mp4"));
    assert_int_equal(dataset_index_all(s, true, &y, NULL, NULL, &e), 0);
    d = open_set("mem:counted");
    assert_int_equal(dataset_frames(d), 3 + 2);
    dataset_close(d);
    put_films(s, "x.tar", false);
    assert_int_equal(dataset_index_all(s, true, &y, NULL, NULL, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "sample 'c'"));
    assert_non_null(strstr(e.text, "is no .npy or .mp4 with a frame: it has no video track"));
    err_clear(&e);
    const char *bad = FILM_SCHEMA("10", "xmp4");
    assert_int_equal(dataset_schema_parse(&y, bad, strlen(bad), "schema", &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "'xmp4', which is no stream's .npy or .mp4 member"));
    store_close(s);
}

// ---- hostile documents

#define INDEX_OF(films)                                                                                      \
    "{\"format\":\"orrery-shard-index\",\"version\":1,\"bytes\":99,\"crc32c\":\"00000000\",\"streams\":[],"  \
    "\"samples\":[{\"stem\":\"a\",\"frames\":0,\"members\":[[\"m\",0,9,\"00000000\"]],\"films\":" films      \
    "}]}"
#define FILM_OF(frames, rest)                                                                                \
    "{\"m\":{\"codec\":\"avc1\",\"width\":64,\"height\":48,\"frames\":" frames ",\"timescale\":1000," rest   \
    "}}"

static void index_of(const char *text, const char *words) {
    struct err e = {ERR_OK};
    struct dataset_index x;
    dataset_index_init(&x);
    int rc = dataset_index_parse(&x, text, strlen(text), "x.tar", &e);
    if (*words ? rc != -ERR_DATA || !strstr(e.text, words) : rc != 0)
        fail_msg("%s: %d, '%s', not '%s'", text, rc, e.text, words);
    dataset_index_fini(&x);
}

static void hostile_tables(void **state) {
    (void)state;
    index_of(INDEX_OF("{}"), "");
    index_of(INDEX_OF("{\"m\":{\"left_out\":\"why\"}}"), "");
    index_of(INDEX_OF(FILM_OF("2", "\"last\":5,\"duration\":9,\"step\":5,\"key_step\":2")), "");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"steps\":[2,3],\"keys\":[0,2]")), "");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9")), ""); // lists that were not kept
    index_of(INDEX_OF("[]"), "'films' of sample 'a' is no object");
    index_of(INDEX_OF("{\"n\":{\"left_out\":\"why\"}}"), "has no member of");
    index_of(INDEX_OF("{\"m\":{\"left_out\":\"\"}}"), "'left_out' of a film has 0 bytes");
    index_of(INDEX_OF(FILM_OF("0", "\"last\":5,\"duration\":9")), "'frames' is 0");
    index_of(INDEX_OF(FILM_OF("1048577", "\"last\":5,\"duration\":9")), "'frames' is 1048577");
    index_of(INDEX_OF(FILM_OF("2", "\"last\":5,\"duration\":4,\"step\":5")), "'duration' is 4");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"step\":5")), "add up to 10 ticks, not 5");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"steps\":[2,4]")), "add up to 6");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"steps\":[5]")), "3 frames has 1 steps");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"steps\":[0,5]")), "entry 0 of a film's");
    index_of(INDEX_OF(FILM_OF("3", "\"last\":5,\"duration\":9,\"steps\":7")), "'steps' of a film is no list");
    index_of(INDEX_OF(FILM_OF("2", "\"last\":5,\"duration\":9,\"step\":5,\"keys\":[2]")), "out of order");
    index_of(INDEX_OF(FILM_OF("2", "\"last\":5,\"duration\":9,\"step\":5,\"keys\":[1,0]")), "out of order");
}

// ---- parts

static struct film_part part_of(const struct film_make *m, int first, int last) {
    struct err e = {ERR_OK};
    struct film_table t;
    struct film_scan s;
    struct film_part p;
    struct buf b = film_make(m);
    film_scan_init(&s, true);
    assert_int_equal(film_scan_feed(&s, b.data, b.len, &e), 0);
    assert_int_equal(film_scan_end(&s, &t, &e), 0);
    assert_int_equal(t.n_crcs, 1);
    assert_int_equal(t.crcs[0], hash_crc32c(0, b.data, b.len));
    assert_int_equal(t.bytes, b.len);
    assert_memory_equal(b.data + t.moov_at + (b.data[t.moov_at + 3] == 1 ? 0 : 4), "moov", 4);
    if (film_part_of(&t, b.data + t.moov_at, first, last, &p, &e)) fail_msg("%s", e.text);
    film_fini(&t);
    buf_fini(&b);
    return p;
}

// Picture i, in the order of decoding, has 10 + i bytes.
static void check_part(const struct film_make *m, int first, int last, int key, int from, int to) {
    struct film_part p = part_of(m, first, last);
    int64_t bytes = 0;
    for (int i = from; i <= to; i++) bytes += 10 + i;
    assert_int_equal(p.key, key);
    assert_int_equal(p.hi - p.lo, bytes);
    assert_int_equal(p.key_byte, p.lo);
    assert_int_equal(p.last_byte, p.hi - 10 - to);
}

static void a_part_begins_at_the_nearest_key_frame(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct film_make m = even;
        m.header_behind = i & 1;
        m.wide = i & 2;
        m.keys = first_and_sixth;
        check_part(&m, 7, 8, 5, 5, 8);
        check_part(&m, 5, 5, 5, 5, 5);
        check_part(&m, 4, 5, 0, 0, 5);
        check_part(&m, 0, 9, 0, 0, 9);
    }
    static const int offsets[] = {0, 200, -100, -100, 0, 200, -100, -100}, keys[] = {1, 2, 5, 0};
    struct film_make m = {
        .pictures = 8, .timescale = 1000, .step = 100, .offsets = offsets, .keys = keys, .per_chunk = 3};
    check_part(&m, 1, 1, 0, 0, 2);
    check_part(&m, 3, 3, 3, 1, 3); // 3 is decoded before 1 and 2, which are shown before it
    check_part(&m, 6, 6, 4, 4, 7);
    m.n_edits = 2;
    memcpy(m.edits, ((int64_t[3][2]){{250, -1}, {800, 0}}), sizeof m.edits);
    assert_int_equal(part_of(&m, 1, 1).start, 250);
}

// The index's text with one word replaced, read again.
static int parse_with(const struct buf *text, const char *from, const char *to, struct dataset_index *x) {
    struct err e = {ERR_OK};
    struct buf other;
    char *at = strstr(text->data, from);
    assert_non_null(at);
    buf_init(&other, (size_t)1 << 20);
    if (buf_append(&other, text->data, (size_t)(at - text->data), &e) || buf_appends(&other, to, &e) ||
        buf_appends(&other, at + strlen(from), &e))
        abort();
    dataset_index_init(x);
    int rc = dataset_index_parse(x, other.data, other.len, "a.tar", &e);
    buf_fini(&other);
    return rc;
}

static void parts_in_an_index(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct buf film = film_make(&even), tar, text;
    struct dataset_index x;
    buf_init(&tar, (size_t)1 << 20);
    buf_init(&text, (size_t)1 << 20);
    if (shard_append(&tar, "a", "cam.mp4", film.data, film.len, &e) || shard_finish(&tar, &e) ||
        dataset_index_tar("a.tar", tar.data, tar.len, &text, &e))
        fail_msg("%s", e.text);
    assert_int_equal(parse_with(&text, "\"block\"", "\"block\"", &x), 0);
    const struct film_table *t = dataset_index_film(&x, 0);
    assert_int_equal(t->n_crcs, 1);
    assert_int_equal(t->bytes, film.len);
    dataset_index_fini(&x);
    static const char *const older[][2] = {{"\"block\"", "\"blocks\""}, {"65536", "4096"}};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(parse_with(&text, older[i][0], older[i][1], &x), 0);
        assert_int_equal(dataset_index_film(&x, 0)->n_crcs, 0);
        assert_int_equal(dataset_index_film(&x, 0)->frames, 10);
        dataset_index_fini(&x);
    }
    static const char *const wrong[][2] = {
        {"\"moov_bytes\":", "\"moov_bytes\":9"}, {"\"moov_at\":", "\"moov_at\":9999"},
        {"\"lead\":", "\"lead\":99999"},         {"\"lead\":", "\"lead\":30,\"was\":"},
        {"\"crc32c\":[", "\"crc32c\":[1,"},      {"\"crc32c\":[", "\"crc32c\":[-"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        if (parse_with(&text, wrong[i][0], wrong[i][1], &x) != -ERR_DATA)
            fail_msg("%s is taken", wrong[i][1]);
        dataset_index_fini(&x);
    }
    buf_fini(&film);
    buf_fini(&tar);
    buf_fini(&text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_begins_at_the_nearest_key_frame),
        cmocka_unit_test(parts_in_an_index),
        cmocka_unit_test(even_times_are_one_number),
        cmocka_unit_test(uneven_times_and_another_order_of_decoding),
        cmocka_unit_test(edits_cut_pieces_out),
        cmocka_unit_test(what_has_no_table_says_why),
        cmocka_unit_test(odd_files),
        cmocka_unit_test(hostile_bytes),
        cmocka_unit_test(an_index_holds_the_tables),
        cmocka_unit_test(check_finds_a_table_of_another_film),
        cmocka_unit_test(lists_beyond_the_bound_are_not_kept),
        cmocka_unit_test(frames_come_from_a_film),
        cmocka_unit_test(hostile_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
