// SPDX-License-Identifier: Apache-2.0
#include "storage/ckpt.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/rng.h"
#include "storage/ckpt_manifest.h"
#include "storage/hash.h"
#include "storage/safetensors.h"
#include "store_collect.h"

// A toy model: a few tensors of every rank, one of them larger than a chunk.
struct toy {
    const char *name;
    int rank;
    int64_t shape[CKPT_DIMS];
    int split_dim; // along which several writers share it; -1: one of them has it whole
};
static const struct toy toys[] = {
    {"blocks.0.w", 2, {6, 5}, 0},  {"blocks.1.w", 2, {8, 12}, 1}, {"blocks.10.w", 3, {2, 9, 4}, 1},
    {"conv", 4, {3, 2, 10, 3}, 2}, {"large", 2, {300, 257}, 0},   {"wide", 2, {64, 1031}, 1},
    {"optim.step", 0, {0}, -1},    {"tail", 1, {1}, -1},          {"optim.m.blocks.0.w", 2, {6, 5}, -1},
};
#define TOYS (sizeof toys / sizeof *toys)

static int64_t volume(const int64_t *shape, int rank) {
    int64_t v = 1;
    for (int i = 0; i < rank; i++) v *= shape[i];
    return v;
}

// Value of an element: a function of tensor, place and generation.
static float value(size_t toy, int64_t element, int generation) {
    uint32_t out[4];
    rng_block(rng_key((uint64_t)generation, RNG_TEST, (uint32_t)toy), 0, (uint64_t)element, 0, out);
    return rng_unit(out[0]);
}

static float *fill_box(size_t toy, const struct ckpt_tensor *t, int generation) {
    int64_t n = volume(t->extent, t->rank), at[CKPT_DIMS];
    float *data = malloc((size_t)n * sizeof *data);
    assert_non_null(data);
    for (int64_t i = 0; i < n; i++) {
        int64_t left = i, element = 0;
        for (int d = t->rank - 1; d >= 0; d--) {
            at[d] = t->offset[d] + left % t->extent[d];
            left /= t->extent[d];
        }
        for (int d = 0; d < t->rank; d++) element = element * t->shape[d] + at[d];
        data[i] = value(toy, element, generation);
    }
    return data;
}

// The box that writer w of n has of a toy; false when it has none.
static bool box_of(size_t toy, int w, int n, struct ckpt_tensor *t) {
    const struct toy *y = &toys[toy];
    *t = (struct ckpt_tensor){.name = y->name, .rank = y->rank};
    memcpy(t->shape, y->shape, sizeof t->shape);
    memcpy(t->extent, y->shape, sizeof t->extent);
    if (y->split_dim < 0) return (int)toy % n == w;
    int d = y->split_dim;
    int64_t lo = y->shape[d] * w / n, hi = y->shape[d] * (w + 1) / n;
    t->offset[d] = lo;
    t->extent[d] = hi - lo;
    return hi > lo;
}

static struct ckpt_state *state_of(int64_t step) {
    static const char sha[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct ckpt_state *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->step = step;
    s->next_sample = step * 12;
    s->seed = UINT64_MAX - 3;
    s->config_hash = 0x0123456789abcdef;
    memcpy(s->sample_sha256, sha, sizeof sha);
    snprintf(s->config_yaml, sizeof s->config_yaml, "run:\n  dir: \"x\"\n");
    return s;
}

static struct store *open_store(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    assert_int_equal(store_open(&s, url, NULL, &e), 0);
    return s;
}

static void write_part(struct store *s, const char *id, int w, int n, int generation, struct buf *part) {
    struct ckpt_tensor tensors[TOYS];
    struct err e = {ERR_OK};
    size_t count = 0;
    for (size_t i = 0; i < TOYS; i++)
        if (box_of(i, w, n, &tensors[count])) {
            tensors[count].data = fill_box(i, &tensors[count], generation);
            count++;
        }
    buf_init(part, 1 << 24);
    int rc = ckpt_write_part(s, id, w, tensors, count, part, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    for (size_t i = 0; i < count; i++) free((void *)(uintptr_t)tensors[i].data);
}

static int save_as(struct store *s, const char *id, int64_t step, int writers, int generation,
                   struct err *e) {
    struct buf parts[8];
    const char *texts[8];
    for (int w = 0; w < writers; w++) {
        write_part(s, id, w, writers, generation, &parts[w]);
        texts[w] = parts[w].data;
    }
    struct ckpt_state *state = state_of(step);
    int rc = ckpt_commit(s, id, state, texts, (size_t)writers, e);
    free(state);
    for (int w = 0; w < writers; w++) buf_fini(&parts[w]);
    return rc;
}

static void save(struct store *s, int64_t step, int writers) {
    struct err e = {ERR_OK};
    char id[CKPT_ID_BYTES];
    ckpt_new_id(id, step, 1);
    int rc = save_as(s, id, step, writers, (int)step, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
}

static struct ckpt *open_step(struct store *s, const char *id) {
    struct err e = {ERR_OK};
    struct ckpt *c;
    int rc = ckpt_open(&c, s, id, &e);
    if (rc) fprintf(stderr, "%s\n", e.text);
    assert_int_equal(rc, 0);
    return c;
}

// Loads as `readers` ranks would, and compares every bit.
static int load(struct ckpt *c, int readers, int generation, struct err *e) {
    int rc = 0;
    for (int r = 0; r < readers && !rc; r++) {
        struct ckpt_tensor wants[TOYS];
        void *into[TOYS];
        float *expected[TOYS];
        size_t n = 0;
        for (size_t i = 0; i < TOYS; i++)
            if (box_of(i, r, readers, &wants[n])) {
                expected[n] = fill_box(i, &wants[n], generation);
                into[n] = calloc((size_t)volume(wants[n].extent, wants[n].rank), 4);
                n++;
            }
        rc = ckpt_read_many(c, wants, into, n, e);
        for (size_t i = 0; i < n; i++) {
            if (!rc)
                assert_memory_equal(into[i], expected[i], (size_t)volume(wants[i].extent, wants[i].rank) * 4);
            free(into[i]);
            free(expected[i]);
        }
    }
    return rc;
}

static void get(struct store *s, const char *key, struct buf *out) {
    struct err e = {ERR_OK};
    buf_init(out, 1 << 24);
    assert_int_equal(store_get(s, key, 1 << 24, out, &e), 0);
}

static void put(struct store *s, const char *key, const struct buf *b) {
    struct err e = {ERR_OK};
    assert_int_equal(store_put(s, key, b->data, b->len, false, &e), 0);
}

static void flip(struct store *s, const char *key, size_t offset) {
    struct buf b;
    get(s, key, &b);
    assert_true(offset < b.len);
    b.data[offset] = (char)(b.data[offset] ^ 16);
    put(s, key, &b);
    buf_fini(&b);
}

static size_t count_keys(struct store *s, const char *prefix) {
    struct err e = {ERR_OK};
    struct store_listing l;
    assert_int_equal(store_collect(s, prefix, NULL, &l, &e), 0);
    size_t n = l.n;
    store_listing_fini(&l);
    return n;
}

// ---- tests

static void saved_on_n_loads_on_m(void **state) {
    (void)state;
    char first[65] = "";
    for (int n = 1; n <= 8; n++) {
        char url[32], digest[65];
        struct err e = {ERR_OK};
        snprintf(url, sizeof url, "mem:reshard-%d", n);
        struct store *s = open_store(url);
        char id[CKPT_ID_BYTES];
        ckpt_new_id(id, 7, 1);
        assert_int_equal(save_as(s, id, 7, n, 7, &e), 0);
        struct ckpt *c = open_step(s, "7");
        assert_string_equal(ckpt_id(c), id);
        assert_int_equal(ckpt_tensors(c), TOYS);
        for (int m = 1; m <= 8; m++) {
            int rc = load(c, m, 7, &e);
            if (rc) fprintf(stderr, "%d -> %d: %s\n", n, m, e.text);
            assert_int_equal(rc, 0);
        }
        assert_int_equal(ckpt_digest(c, digest, &e), 0);
        if (n == 1) memcpy(first, digest, sizeof first);
        assert_string_equal(digest, first);
        int64_t bytes;
        assert_int_equal(ckpt_verify(c, &bytes, &e), 0);
        const struct ckpt_state *st = ckpt_state_of(c);
        assert_int_equal(st->step, 7);
        assert_int_equal(st->next_sample, 84);
        assert_true(st->seed == UINT64_MAX - 3);
        assert_true(st->config_hash == 0x0123456789abcdef);
        assert_int_equal(strlen(st->sample_sha256), 64);
        assert_string_equal(st->config_yaml, "run:\n  dir: \"x\"\n");
        ckpt_close(c);
        store_close(s);
    }
}

static void digests_tell_checkpoints_apart(void **state) {
    (void)state;
    struct store *s = open_store("mem:digest");
    struct err e = {ERR_OK};
    char a[65], b[65];
    save(s, 1, 2);
    save(s, 2, 2);
    struct ckpt *c = open_step(s, "1"), *d = open_step(s, "000000000002");
    assert_int_equal(ckpt_digest(c, a, &e), 0);
    assert_int_equal(ckpt_digest(d, b, &e), 0);
    assert_string_not_equal(a, b);
    ckpt_close(c);
    ckpt_close(d);
    store_close(s);
}

// The digest is part of what users compare: name, NUL, "F32[2]", NUL, bytes, in the order of names.
static void the_digest_is_what_the_page_says(void **state) {
    (void)state;
    struct store *s = open_store("mem:digest-form");
    struct err e = {ERR_OK};
    const float w[2] = {1, 2}, b[1] = {3};
    struct ckpt_tensor tensors[2] = {{.name = "w", .rank = 1, .shape = {2}, .extent = {2}, .data = w},
                                     {.name = "b", .rank = 0, .data = b}};
    char id[CKPT_ID_BYTES], got[65], want[65];
    unsigned char raw[32];
    struct buf part;
    buf_init(&part, 1 << 20);
    ckpt_new_id(id, 3, 1);
    assert_int_equal(ckpt_write_part(s, id, 0, tensors, 2, &part, &e), 0);
    struct ckpt_state *st = state_of(3);
    const char *parts[1] = {part.data};
    assert_int_equal(ckpt_commit(s, id, st, parts, 1, &e), 0);
    struct ckpt *c = open_step(s, id);
    assert_int_equal(ckpt_digest(c, got, &e), 0);
    struct hash_sha256 *h = hash_sha256_create();
    hash_sha256_update(h, "b\0F32[]", 8);
    hash_sha256_update(h, b, sizeof b);
    hash_sha256_update(h, "w\0F32[2]", 9);
    hash_sha256_update(h, w, sizeof w);
    hash_sha256_peek(h, raw);
    hash_sha256_destroy(h);
    bytes_hex(raw, 32, want);
    assert_string_equal(got, want);
    ckpt_close(c);
    free(st);
    buf_fini(&part);
    store_close(s);
}

static void two_jobs_one_commit(void **state) {
    (void)state;
    struct store *s = open_store("mem:race");
    struct err e = {ERR_OK};
    char a[CKPT_ID_BYTES], b[CKPT_ID_BYTES];
    ckpt_new_id(a, 5, 1);
    ckpt_new_id(b, 5, 1);
    assert_string_not_equal(a, b);
    assert_int_equal(save_as(s, a, 5, 2, 1, &e), 0);
    assert_int_equal(save_as(s, b, 5, 2, 2, &e), -ERR_CONFLICT);
    assert_non_null(strstr(e.text, a));
    err_clear(&e);
    struct ckpt *c = open_step(s, "5");
    assert_string_equal(ckpt_id(c), a);
    assert_int_equal(load(c, 1, 1, &e), 0);
    ckpt_close(c);
    // The loser's files are gone.
    assert_int_equal(count_keys(s, b), 0);
    assert_int_equal(count_keys(s, a), 2);
    store_close(s);
}

static void a_retried_commit_is_a_success(void **state) {
    (void)state;
    struct store *s = open_store("mem:retry");
    struct err e = {ERR_OK};
    char id[CKPT_ID_BYTES];
    struct buf part;
    ckpt_new_id(id, 5, 1);
    write_part(s, id, 0, 1, 1, &part);
    const char *parts[1] = {part.data};
    struct ckpt_state *st = state_of(5);
    assert_int_equal(ckpt_commit(s, id, st, parts, 1, &e), 0);
    assert_int_equal(ckpt_commit(s, id, st, parts, 1, &e), 0);
    free(st);
    buf_fini(&part);
    store_close(s);
}

static void commit_fails(struct store *s, const char *id, const char *const *parts, size_t n,
                         const char *words) {
    struct err e = {ERR_OK};
    struct ckpt_state *st = state_of(5);
    int rc = ckpt_commit(s, id, st, parts, n, &e);
    assert_true(rc < 0);
    if (!strstr(e.text, words)) fprintf(stderr, "'%s' lacks '%s'\n", e.text, words);
    assert_non_null(strstr(e.text, words));
    assert_int_equal(count_keys(s, "manifest"), 0);
    free(st);
}

static void incomplete_saves_are_refused(void **state) {
    (void)state;
    struct store *s = open_store("mem:incomplete");
    char id[CKPT_ID_BYTES], other[CKPT_ID_BYTES];
    struct buf a, b, c, d;
    ckpt_new_id(id, 5, 1);
    ckpt_new_id(other, 5, 1);
    write_part(s, id, 0, 2, 1, &a);
    write_part(s, id, 1, 2, 1, &b);
    write_part(s, id, 2, 3, 1, &c); // of another layout
    write_part(s, other, 1, 2, 1, &d);
    const char *const missing[] = {a.data}, *const twice[] = {a.data, a.data, b.data},
                      *const mixed[] = {a.data, c.data}, *const foreign[] = {a.data, d.data},
                      *const rubbish[] = {a.data, "{"};
    commit_fails(s, id, missing, 1, "its boxes hold");
    commit_fails(s, id, twice, 3, "its boxes hold more than its shape");
    commit_fails(s, id, mixed, 2, "boxes");
    commit_fails(s, id, foreign, 2, "belongs to save");
    commit_fails(s, id, rubbish, 2, "part 1");
    commit_fails(s, "000000000006-0123456789abcdef", missing, 1, "is committed with step 5");
    commit_fails(s, "nonsense", missing, 1, "no save id");
    buf_fini(&a);
    buf_fini(&b);
    buf_fini(&c);
    buf_fini(&d);
    store_close(s);
}

// Boxes whose sizes add up but that overlap, in one and in two dimensions.
static void overlaps_are_found(void **state) {
    (void)state;
    static const int64_t layouts[][4][4] = {// offset 0, offset 1, extent 0, extent 1; of a 4 x 4 tensor
                                            {{0, 0, 2, 4}, {1, 0, 2, 4}},
                                            {{0, 0, 4, 2}, {0, 1, 4, 2}},
                                            {{0, 0, 2, 2}, {0, 2, 2, 2}, {2, 0, 2, 2}, {1, 1, 2, 2}}};
    static const float data[16];
    struct store *s = open_store("mem:overlap");
    for (size_t l = 0; l < 3; l++) {
        struct ckpt_tensor t[4];
        size_t n = 0;
        for (; n < 4 && layouts[l][n][2]; n++)
            t[n] = (struct ckpt_tensor){.name = "t",
                                        .rank = 2,
                                        .shape = {4, 4},
                                        .offset = {layouts[l][n][0], layouts[l][n][1]},
                                        .extent = {layouts[l][n][2], layouts[l][n][3]},
                                        .data = data};
        struct err e = {ERR_OK};
        struct buf part;
        char id[CKPT_ID_BYTES];
        ckpt_new_id(id, 5, 1);
        buf_init(&part, 1 << 20);
        assert_int_equal(ckpt_write_part(s, id, 0, t, n, &part, &e), 0);
        const char *const parts[] = {part.data};
        commit_fails(s, id, parts, 1, "overlap");
        buf_fini(&part);
    }
    store_close(s);
}

static void bad_boxes_are_not_written(void **state) {
    (void)state;
    static const float data[16];
    const struct ckpt_tensor bad[] = {
        {.name = "", .rank = 1, .shape = {4}, .extent = {4}, .data = data},
        {.name = "t", .rank = 5, .shape = {4}, .extent = {4}, .data = data},
        {.name = "t", .rank = 1, .shape = {4}, .extent = {4}, .data = NULL},
        {.name = "t", .rank = 1, .shape = {4}, .extent = {0}, .data = data},
        {.name = "t", .rank = 1, .shape = {4}, .offset = {2}, .extent = {3}, .data = data},
        {.name = "t", .rank = 1, .shape = {4}, .offset = {-1}, .extent = {3}, .data = data},
        {.name = "t", .rank = 2, .shape = {INT64_MAX, 4}, .extent = {1, 4}, .data = data},
        {.name = "t\xff", .rank = 1, .shape = {4}, .extent = {4}, .data = data}};
    struct store *s = open_store("mem:bad-boxes");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct err e = {ERR_OK};
        struct buf part;
        buf_init(&part, 1 << 20);
        assert_int_equal(ckpt_write_part(s, "000000000005-0123456789abcdef", 0, &bad[i], 1, &part, &e),
                         -ERR_BUG);
        buf_fini(&part);
    }
    assert_int_equal(count_keys(s, ""), 0);
    store_close(s);
}

static void lists_newest_first(void **state) {
    (void)state;
    struct store *s = open_store("mem:list");
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    size_t n;
    assert_int_equal(ckpt_list(s, &entries, &n, &e), 0);
    assert_int_equal(n, 0);
    free(entries);
    save(s, 900, 1);
    save(s, 1000, 2);
    save(s, 50, 1);
    struct buf rubbish = {.data = (char *)(uintptr_t) "x", .len = 1};
    put(s, "manifest-notastep.json", &rubbish);
    put(s, "manifest-000000000060.json", &rubbish);
    assert_int_equal(ckpt_list(s, &entries, &n, &e), 0);
    assert_int_equal(n, 4);
    const int64_t steps[] = {1000, 900, 60, 50};
    for (size_t i = 0; i < n; i++) {
        assert_int_equal(entries[i].step, steps[i]);
        assert_int_equal(entries[i].broken, steps[i] == 60);
        if (!entries[i].broken) assert_int_equal(entries[i].bytes, entries[0].bytes);
    }
    struct ckpt *c;
    assert_int_equal(ckpt_open(&c, s, entries[2].id, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "manifest-000000000060.json"));
    err_clear(&e);
    assert_int_equal(ckpt_open(&c, s, "77", &e), -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(ckpt_open(&c, s, "000000000900-0123456789abcdef", &e), -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(ckpt_open(&c, s, "../900", &e), -ERR_USAGE);
    free(entries);
    store_close(s);
}

static void expect_steps(struct store *s, const int64_t *steps, size_t n) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    size_t got;
    assert_int_equal(ckpt_list(s, &entries, &got, &e), 0);
    assert_int_equal(got, n);
    for (size_t i = 0; i < n; i++) assert_int_equal(entries[i].step, steps[i]);
    free(entries);
}

static void retention_keeps_the_newest(void **state) {
    (void)state;
    struct store *s = open_store("mem:retain");
    struct err e = {ERR_OK};
    struct buf part;
    char unfinished_old[CKPT_ID_BYTES], unfinished_new[CKPT_ID_BYTES];
    for (int64_t step = 1; step <= 5; step++) save(s, step * 100, 2);
    ckpt_new_id(unfinished_old, 250, 1);
    ckpt_new_id(unfinished_new, 600, 2); // being written by another run while retention runs
    write_part(s, unfinished_old, 0, 2, 1, &part);
    buf_fini(&part);
    write_part(s, unfinished_new, 0, 2, 1, &part);
    buf_fini(&part);
    assert_int_equal(ckpt_retain(s, 3, 1, &e), 0);
    expect_steps(s, (const int64_t[]){500, 400, 300}, 3);
    assert_int_equal(count_keys(s, ""), 3 * 3 + 1);
    assert_int_equal(count_keys(s, unfinished_new), 1);
    assert_int_equal(count_keys(s, unfinished_old), 0);
    // A manifest that cannot be read is no complete checkpoint, and keeps its files while it is among the
    // newest.
    flip(s, "manifest-000000000500.json", 40);
    assert_int_equal(ckpt_retain(s, 1, 1, &e), 0);
    expect_steps(s, (const int64_t[]){500, 400}, 2);
    assert_int_equal(count_keys(s, "000000000500-"), 2);
    assert_int_equal(ckpt_retain(s, 0, 1, &e), 0); // never the newest complete one
    expect_steps(s, (const int64_t[]){500, 400}, 2);
    assert_int_equal(ckpt_remove(s, "500", &e), 0);
    assert_int_equal(ckpt_remove(s, "500", &e), -ERR_MISSING);
    err_clear(&e);
    save(s, 500, 1);
    assert_int_equal(ckpt_retain(s, 5, 1, &e), 0);
    expect_steps(s, (const int64_t[]){500, 400}, 2);
    assert_int_equal(count_keys(s, "000000000500-"), 1);
    assert_int_equal(count_keys(s, unfinished_new), 1);
    size_t cleaned;
    assert_int_equal(ckpt_clean(s, &cleaned, &e), 0); // a person says that nobody is saving
    assert_int_equal(cleaned, 1);
    assert_int_equal(count_keys(s, unfinished_new), 0);
    struct ckpt *c = open_step(s, "500");
    assert_int_equal(load(c, 3, 500, &e), 0);
    ckpt_close(c);
    store_close(s);
}

// A run that passes over a broken manifest comes to that step again: its save must not fail on the ruin.
static void a_broken_manifest_is_replaced(void **state) {
    (void)state;
    struct store *s = open_store("mem:ruin");
    struct err e = {ERR_OK};
    save(s, 100, 2);
    save(s, 200, 2);
    flip(s, "manifest-000000000200.json", 100);
    save(s, 200, 3);
    struct ckpt *c = open_step(s, "200");
    assert_int_equal(load(c, 2, 200, &e), 0);
    ckpt_close(c);
    assert_int_equal(ckpt_retain(s, 2, 1, &e), 0);
    assert_int_equal(count_keys(s, "000000000200-"), 3);
    store_close(s);
}

// Manifest deleted, files not yet: what a kill inside retention leaves behind.
static void half_deleted_checkpoints_go(void **state) {
    (void)state;
    struct store *s = open_store("mem:half");
    struct err e = {ERR_OK};
    save(s, 100, 2);
    save(s, 200, 2);
    assert_int_equal(store_delete(s, "manifest-000000000100.json", &e), 0);
    assert_int_equal(ckpt_retain(s, 3, 1, &e), 0);
    assert_int_equal(count_keys(s, "000000000100-"), 0);
    assert_int_equal(count_keys(s, ""), 3);
    store_close(s);
}

static void missing_and_misfit_tensors(void **state) {
    (void)state;
    struct store *s = open_store("mem:misfit");
    struct err e = {ERR_OK};
    float into[100];
    save(s, 1, 2);
    struct ckpt *c = open_step(s, "1");
    struct ckpt_tensor t = {.name = "nope", .rank = 1, .shape = {1}, .extent = {1}};
    assert_int_equal(ckpt_read(c, &t, into, &e), -ERR_MISSING);
    assert_non_null(strstr(e.text, "'nope'"));
    err_clear(&e);
    t = (struct ckpt_tensor){.name = "blocks.0.w", .rank = 2, .shape = {5, 6}, .extent = {5, 6}};
    assert_int_equal(ckpt_read(c, &t, into, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "has shape [6, 5], wanted is [5, 6]"));
    err_clear(&e);
    t = (struct ckpt_tensor){
        .name = "blocks.0.w", .rank = 2, .shape = {6, 5}, .offset = {4, 0}, .extent = {3, 5}};
    assert_int_equal(ckpt_read(c, &t, into, &e), -ERR_BUG);
    ckpt_close(c);
    store_close(s);
}

// A part of a box is read without the chunks that it does not need: damage elsewhere does not matter.
static void only_needed_chunks_are_read(void **state) {
    (void)state;
    struct store *s = open_store("mem:chunks");
    struct err e = {ERR_OK};
    save(s, 1, 1);
    struct ckpt *c = open_step(s, "1");
    char key[CKPT_KEY_BYTES];
    struct buf file;
    snprintf(key, sizeof key, "%s/rank-0.safetensors", ckpt_id(c));
    get(s, key, &file);
    struct ckpt_tensor t = {
        .name = "large", .rank = 2, .shape = {300, 257}, .offset = {290, 0}, .extent = {10, 257}};
    float *into = malloc(10 * 257 * 4), *want = fill_box(4, &t, 1);
    assert_non_null(into);
    struct ckpt_tensor head = t;
    head.offset[0] = 0;
    float *first = fill_box(4, &head, 1);
    char *at = memmem(file.data, file.len, first, 64);
    assert_non_null(at);
    flip(s, key, (size_t)(at - file.data) + 5);
    assert_int_equal(ckpt_read(c, &t, into, &e), 0);
    assert_memory_equal(into, want, 10 * 257 * 4);
    assert_int_equal(ckpt_read(c, &head, into, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "tensor 'large', bytes "));
    assert_non_null(strstr(e.text, key));
    free(into);
    free(want);
    free(first);
    buf_fini(&file);
    ckpt_close(c);
    store_close(s);
}

// A copy of the files nearby is read instead of the store's; a damaged one is as good as none.
static void files_nearby_are_read_first(void **state) {
    (void)state;
    struct store *s = open_store("mem:far"), *nearby = open_store("mem:near");
    struct err e = {ERR_OK};
    size_t files;
    save(s, 1, 2);
    struct ckpt *c = open_step(s, "1");
    char key[2][CKPT_KEY_BYTES];
    for (int i = 0; i < 2; i++) {
        struct buf file;
        snprintf(key[i], CKPT_KEY_BYTES, "%s/rank-%d.safetensors", ckpt_id(c), i);
        get(s, key[i], &file);
        assert_int_equal(store_put(nearby, key[i], file.data, file.len, false, &e), 0);
        buf_fini(&file);
    }
    assert_int_equal(store_delete(s, key[0], &e), 0); // only there
    assert_int_equal(ckpt_use_nearby(c, nearby, &files, &e), 0);
    assert_int_equal(files, 2);
    assert_int_equal(load(c, 3, 1, &e), 0);
    struct buf file;
    get(nearby, key[1], &file);
    size_t last = file.len - 9;
    buf_fini(&file);
    flip(nearby, key[1], last);
    assert_int_equal(load(c, 3, 1, &e), 0);                // from the store itself
    assert_int_equal(store_delete(nearby, key[1], &e), 0); // gone since it was looked for
    assert_int_equal(load(c, 3, 1, &e), 0);
    flip(s, key[1], last);
    assert_int_equal(load(c, 3, 1, &e), -ERR_DATA);
    ckpt_close(c);
    store_close(nearby);
    store_close(s);
}

// Reads and verifies; true when either names the damage.
static bool is_found(struct store *s, const char *id) {
    struct err e = {ERR_OK};
    struct ckpt *c;
    int64_t bytes;
    int rc = ckpt_open(&c, s, id, &e);
    if (rc) return e.text[0] != 0;
    rc = ckpt_verify(c, &bytes, &e);
    struct err ignored = {ERR_OK};
    (void)!load(c, 1, 1, &ignored); // asserts that what loads is right
    ckpt_close(c);
    return rc == -ERR_DATA && strstr(e.text, "rank-0.safetensors");
}

static void every_flipped_bit_is_found(void **state) {
    (void)state;
    struct store *s = open_store("mem:bits");
    save(s, 1, 1);
    struct ckpt *c = open_step(s, "1");
    char keys[2][CKPT_KEY_BYTES], id[CKPT_ID_BYTES];
    snprintf(id, sizeof id, "%s", ckpt_id(c));
    snprintf(keys[0], sizeof keys[0], "manifest-000000000001.json");
    snprintf(keys[1], sizeof keys[1], "%s/rank-0.safetensors", id);
    ckpt_close(c);
    assert_false(is_found(s, id));
    for (int k = 0; k < 2; k++) {
        struct buf b;
        get(s, keys[k], &b);
        for (size_t i = 0; i < b.len; i += k ? 1021 : 1) {
            b.data[i] = (char)(b.data[i] ^ 1 << i % 8);
            put(s, keys[k], &b);
            bool found = is_found(s, id);
            if (!found) fprintf(stderr, "%s: byte %zu\n", keys[k], i);
            assert_true(found);
            b.data[i] = (char)(b.data[i] ^ 1 << i % 8);
        }
        for (size_t cut = 0; cut < b.len; cut += k ? 4093 : 100) {
            struct buf shorter = {.data = b.data, .len = cut};
            put(s, keys[k], &shorter);
            assert_true(is_found(s, id));
        }
        put(s, keys[k], &b);
        buf_fini(&b);
    }
    assert_false(is_found(s, id));
    store_close(s);
}

static int into_buf(void *arg, const void *data, size_t bytes, struct err *e) {
    return buf_append(arg, data, bytes, e);
}

static void exports_one_plain_file(void **state) {
    (void)state;
    struct store *s = open_store("mem:export");
    struct err e = {ERR_OK};
    struct buf out;
    struct safetensors st;
    int64_t header;
    save(s, 1, 3);
    struct ckpt *c = open_step(s, "1");
    buf_init(&out, 1 << 24);
    assert_int_equal(ckpt_export_to(c, NULL, NULL, into_buf, &out, &e), 0);
    assert_int_equal(safetensors_header_bytes((unsigned char *)out.data, (int64_t)out.len, "x", &header, &e),
                     0);
    assert_int_equal((header + 8) % 4096, 0);
    assert_int_equal(
        safetensors_parse(&st, out.data + 8, (size_t)header, (int64_t)out.len - 8 - header, "x", &e), 0);
    assert_int_equal(st.n, TOYS);
    for (size_t i = 0; i < TOYS; i++)
        for (size_t k = 0; k < st.n; k++) {
            struct ckpt_tensor t;
            if (strcmp(st.entries[k].name, toys[i].name) != 0) continue;
            (void)box_of(i, 0, 1, &t);
            float *want = fill_box(i, &t, 1);
            assert_memory_equal(out.data + 8 + header + st.entries[k].begin, want,
                                (size_t)(st.entries[k].end - st.entries[k].begin));
            free(want);
        }
    safetensors_fini(&st);
    buf_clear(&out);
    assert_int_equal(ckpt_export_to(c, "blocks.", NULL, into_buf, &out, &e), 0);
    assert_null(memmem(out.data, out.len, "optim", 5));
    buf_clear(&out);
    assert_int_equal(ckpt_export_to(c, "nope", NULL, into_buf, &out, &e), -ERR_MISSING);
    buf_fini(&out);
    ckpt_close(c);
    store_close(s);
}

static void saves_and_loads_through_faults(void **state) {
    (void)state;
    struct err e = {ERR_OK};
    struct store_options o = {.deadline_ms = 20000};
    struct store *s;
    assert_int_equal(store_open(&s, "fault:503=5%,reset=5%,lost=10%,seed=3:mem:faults", &o, &e), 0);
    for (int64_t step = 1; step <= 12; step++) {
        save(s, step, 2);
        assert_int_equal(ckpt_retain(s, 2, 1, &e), 0);
        char id[16];
        snprintf(id, sizeof id, "%d", (int)step);
        struct ckpt *c = open_step(s, id);
        assert_int_equal(load(c, 3, (int)step, &e), 0);
        ckpt_close(c);
    }
    store_close(s);
}

// Loads 60 times through a store that spoils reads at that rate; how many loads were refused.
static int refused_at(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    int refused = 0;
    assert_int_equal(store_open(&s, url, NULL, &e), 0);
    for (int i = 0; i < 60; i++) {
        struct err why = {ERR_OK};
        struct ckpt *c = NULL;
        int rc = ckpt_open(&c, s, "1", &why);
        if (!rc) rc = load(c, 2, 1, &why); // compares what it reads
        ckpt_close(c);
        if (rc) assert_int_equal(rc, -ERR_DATA);
        refused += rc != 0;
    }
    store_close(s);
    return refused;
}

static void wrong_bytes_never_get_through(void **state) {
    (void)state;
    struct store *clean = open_store("mem:lies");
    save(clean, 1, 2);
    assert_true(refused_at("fault:flip=85%,seed=5:mem:lies") > 10);
    assert_int_equal(refused_at("fault:flip=5%,short=5%,seed=5:mem:lies"), 0); // spoilt reads are read again
    store_close(clean);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(saved_on_n_loads_on_m),
        cmocka_unit_test(digests_tell_checkpoints_apart),
        cmocka_unit_test(the_digest_is_what_the_page_says),
        cmocka_unit_test(two_jobs_one_commit),
        cmocka_unit_test(a_retried_commit_is_a_success),
        cmocka_unit_test(incomplete_saves_are_refused),
        cmocka_unit_test(overlaps_are_found),
        cmocka_unit_test(bad_boxes_are_not_written),
        cmocka_unit_test(lists_newest_first),
        cmocka_unit_test(retention_keeps_the_newest),
        cmocka_unit_test(a_broken_manifest_is_replaced),
        cmocka_unit_test(half_deleted_checkpoints_go),
        cmocka_unit_test(missing_and_misfit_tensors),
        cmocka_unit_test(only_needed_chunks_are_read),
        cmocka_unit_test(files_nearby_are_read_first),
        cmocka_unit_test(every_flipped_bit_is_found),
        cmocka_unit_test(exports_one_plain_file),
        cmocka_unit_test(saves_and_loads_through_faults),
        cmocka_unit_test(wrong_bytes_never_get_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
