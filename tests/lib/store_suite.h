// SPDX-License-Identifier: Apache-2.0
// The contract of store.h as assertions, for any store; and small helpers of the store tests. Include after
// cmocka.h.
#ifndef ORRERY_TESTS_STORE_SUITE_H
#define ORRERY_TESTS_STORE_SUITE_H

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store.h"
#include "store_collect.h"

#define SUITE_OK(call)                                                                                       \
    do {                                                                                                     \
        struct err suite_err = {0};                                                                          \
        struct err *err = &suite_err;                                                                        \
        if (call) fail_msg("%s: %s", #call, suite_err.text);                                                 \
    } while (0)

static inline int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    return remove(path);
}

// As a group's setup and teardown too.
static char suite_folder[64];

static inline int suite_folder_make(void **state) {
    const char *tmp = getenv("TMPDIR");
    snprintf(suite_folder, sizeof suite_folder, "%s/orrery-store-XXXXXX",
             tmp && strlen(tmp) < 32 ? tmp : "/tmp");
    return mkdtemp(suite_folder) ? 0 : -1;
}

static inline int suite_folder_remove(void **state) {
    (void)nftw(suite_folder, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    return 0;
}

static inline struct store *suite_open(const char *url) {
    struct store *s;
    struct err e = {0};
    if (store_open(&s, url, NULL, &e)) fail_msg("%s", e.text);
    return s;
}

static inline void suite_put_get(struct store *s) {
    char text[16] = {0};
    struct store_result head;
    struct buf all;
    buf_init(&all, 100);
    SUITE_OK(store_put(s, "a/one", "0123456789", 10, false, err));
    SUITE_OK(store_get_range(s, "a/one", 3, 4, text, err));
    assert_string_equal(text, "3456");
    SUITE_OK(store_head(s, "a/one", &head, err));
    assert_int_equal(head.object_bytes, 10);
    SUITE_OK(buf_append(&all, ">", 1, err));
    SUITE_OK(store_get(s, "a/one", 10, &all, err));
    assert_string_equal(all.data, ">0123456789");
    SUITE_OK(store_put(s, "a/one", "new", 3, false, err));
    buf_clear(&all);
    SUITE_OK(store_get(s, "a/one", 10, &all, err));
    assert_string_equal(all.data, "new");
    SUITE_OK(store_put(s, "a/empty", "", 0, false, err));
    buf_clear(&all);
    SUITE_OK(store_get(s, "a/empty", 10, &all, err));
    assert_int_equal(all.len, 0);
    SUITE_OK(store_get(s, "a/empty", 0, &all, err));
    buf_fini(&all);
}

static inline void suite_errors(struct store *s) {
    struct err e = {0};
    struct store_result head;
    struct buf all;
    char c[64];
    buf_init(&all, 100);
    assert_int_equal(store_get_range(s, "no/such", 0, 1, c, &e), -ERR_MISSING);
    assert_non_null(strstr(e.text, "no/such"));
    assert_int_equal(store_head(s, "no/such", &head, NULL), -ERR_MISSING);
    assert_int_equal(store_get(s, "no/such", 5, &all, NULL), -ERR_MISSING);
    SUITE_OK(store_put(s, "a/one", "0123456789", 10, false, err));
    assert_int_equal(store_get_range(s, "a/one", 5, 6, c, NULL), -ERR_DATA);
    assert_int_equal(store_get_range(s, "a/one", 10, 1, c, NULL), -ERR_DATA);
    assert_int_equal(store_get_range(s, "a/one", 11, 1, c, NULL), -ERR_DATA);
    assert_int_equal(store_get_range(s, "a/one", -1, 1, c, NULL), -ERR_USAGE);
    assert_int_equal(store_get(s, "a/one", 9, &all, NULL), -ERR_DATA);
    assert_int_equal(store_put(s, "", "x", 1, false, NULL), -ERR_USAGE);
    char *big = calloc(1, 2000);
    memset(big, 'k', 1999);
    assert_int_equal(store_put(s, big, "x", 1, false, NULL), -ERR_USAGE);
    free(big);
    buf_fini(&all);
}

static inline void suite_create_only(struct store *s) {
    struct err e = {0};
    char c[4] = {0};
    SUITE_OK(store_delete(s, "c/once", err));
    SUITE_OK(store_put(s, "c/once", "abc", 3, true, err));
    assert_int_equal(store_put(s, "c/once", "xyz", 3, true, &e), -ERR_CONFLICT);
    assert_non_null(strstr(e.text, "c/once"));
    SUITE_OK(store_get_range(s, "c/once", 0, 3, c, err));
    assert_string_equal(c, "abc");
    SUITE_OK(store_delete(s, "c/once", err));
    SUITE_OK(store_delete(s, "c/once", err)); // a missing key is no error
    SUITE_OK(store_put(s, "c/once", "xyz", 3, true, err));
}

static inline void suite_list(struct store *s) {
    const char *keys[] = {"l/b/2", "l/a", "l/b/1", "l/c/d/e", "l/bz", "lx"};
    const char *sorted[] = {"l/a", "l/b/1", "l/b/2", "l/bz", "l/c/d/e"};
    struct store_listing l;
    for (size_t i = 0; i < 6; i++) SUITE_OK(store_put(s, keys[i], keys[i], strlen(keys[i]), false, err));
    SUITE_OK(store_collect(s, "l/", NULL, &l, err));
    assert_int_equal(l.n, 5);
    assert_int_equal(l.n_prefixes, 0);
    for (size_t i = 0; i < 5; i++) {
        assert_string_equal(l.objects[i].key, sorted[i]);
        assert_int_equal(l.objects[i].bytes, strlen(sorted[i]));
    }
    store_listing_fini(&l);
    SUITE_OK(store_collect(s, "l/", "/", &l, err));
    assert_int_equal(l.n, 2);
    assert_int_equal(l.n_prefixes, 2);
    assert_string_equal(l.prefixes[0], "l/b/");
    assert_string_equal(l.prefixes[1], "l/c/");
    store_listing_fini(&l);
    SUITE_OK(store_collect(s, "l/b", "/", &l, err)); // a prefix need not end at a slash
    assert_int_equal(l.n, 1);
    assert_int_equal(l.n_prefixes, 1);
    store_listing_fini(&l);
    SUITE_OK(store_collect(s, "nothing/", "/", &l, err));
    assert_int_equal(l.n + l.n_prefixes, 0);
    store_listing_fini(&l);
}

// Two parts and a bit, written in uneven pieces, read back whole, at once and across the seams of parts.
static inline void suite_large(struct store *s) {
    size_t n = ((size_t)20 << 20) + 12345, at = 0;
    struct store_writer *w;
    struct store_result head;
    struct buf all;
    unsigned char *data = malloc(n), *back = malloc(n);
    uint32_t x = 1;
    for (size_t i = 0; i < n; i++) data[i] = (unsigned char)((x = x * 1664525u + 1013904223u) >> 24);
    SUITE_OK(store_writer_open(s, &w, "big/written", err));
    for (size_t step = 1; at < n; at += step, step = step * 3 + 1) {
        if (step > n - at) step = n - at;
        SUITE_OK(store_writer_write(w, data + at, step, err));
    }
    assert_int_equal(store_head(s, "big/written", &head, NULL), -ERR_MISSING); // not before the commit
    SUITE_OK(store_writer_commit(w, err));
    SUITE_OK(store_get_range(s, "big/written", 0, n, back, err));
    assert_memory_equal(data, back, n);
    SUITE_OK(store_get_range(s, "big/written", (8 << 20) - 5, 10, back, err));
    assert_memory_equal(data + (8 << 20) - 5, back, 10);
    SUITE_OK(store_put(s, "big/put", data, n, false, err));
    buf_init(&all, n);
    SUITE_OK(store_get(s, "big/put", n, &all, err));
    assert_int_equal(all.len, n);
    assert_memory_equal(all.data, data, n);
    buf_fini(&all);
    SUITE_OK(store_writer_open(s, &w, "big/none", err));
    SUITE_OK(store_writer_commit(w, err)); // nothing written: an empty object
    SUITE_OK(store_head(s, "big/none", &head, err));
    assert_int_equal(head.object_bytes, 0);
    free(data);
    free(back);
}

static inline void suite_async(struct store *s) {
    enum { N = 100 };
    struct store_request *requests[N];
    char keys[N][16], values[N][16], got[N][16];
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < N; i++) {
            snprintf(keys[i], sizeof keys[i], "async/%d", i);
            snprintf(values[i], sizeof values[i], "value %d", i * i);
            memset(got[i], 0, sizeof got[i]);
            struct store_call put = {
                .op = STORE_PUT, .key = keys[i], .data = values[i], .bytes = strlen(values[i])};
            struct store_call get = {
                .op = STORE_GET, .key = keys[i], .length = -1, .into = got[i], .capacity = 15};
            SUITE_OK(store_start(s, &requests[i], round ? &get : &put, err));
        }
        for (int i = N - 1; i >= 0; i--) {
            struct store_result r;
            SUITE_OK(store_wait(s, requests[i], &r, err));
            if (!round) continue;
            assert_int_equal(r.bytes, strlen(values[i]));
            assert_string_equal(got[i], values[i]);
        }
    }
    struct store_call small = {.op = STORE_GET, .key = keys[50], .length = -1, .into = got[0], .capacity = 3};
    struct store_request *r;
    SUITE_OK(store_start(s, &r, &small, err));
    assert_int_equal(store_wait(s, r, NULL, NULL), -ERR_DATA);
}

static inline void store_suite_run(struct store *s) {
    suite_put_get(s);
    suite_errors(s);
    suite_create_only(s);
    suite_list(s);
    suite_large(s);
    suite_async(s);
}

#endif
