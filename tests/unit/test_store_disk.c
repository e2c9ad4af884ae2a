// SPDX-License-Identifier: Apache-2.0
// Stores and the cache on a disk that fails: what they ask of the system is wrapped.
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "storage/cache.h"
#include "storage/store.h"
#include "store_suite.h"

static char folder[64];
static int names_left = -1; // before readdir fails; -1: it does not
static const char *unseen;  // a name that lstat fails on

struct dirent *__real_readdir(DIR *d);
struct dirent *__wrap_readdir(DIR *d);
int __real_lstat(const char *path, struct stat *st);
int __wrap_lstat(const char *path, struct stat *st);

struct dirent *__wrap_readdir(DIR *d) {
    if (names_left < 0 || names_left-- > 0) return __real_readdir(d);
    names_left = -1;
    errno = EIO;
    return NULL;
}

int __wrap_lstat(const char *path, struct stat *st) {
    size_t n = strlen(path), u = unseen ? strlen(unseen) : 0;
    if (!u || n < u || strcmp(path + n - u, unseen)) return __real_lstat(path, st);
    errno = EIO;
    return -1;
}

static int make_folder(void **state) {
    folder_template(folder, sizeof folder);
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state) {
    remove_tree(folder);
    return 0;
}

static struct store *open_folder(const char *under) {
    struct store *s;
    char url[128];
    snprintf(url, sizeof url, "file://%s/%s", folder, under);
    SUITE_OK(store_open(&s, url, NULL, err));
    return s;
}

static int count_key(void *arg, const struct store_entry *entry, struct err *e) {
    ++*(int *)arg;
    return 0;
}

static int count_keys(struct store *s, int *n, struct err *e) {
    *n = 0;
    return store_each(s, NULL, NULL, count_key, n, e);
}

// Three steps, as checkpoints have them: a manifest that is not listed would be taken for one that is not
// there.
static struct store *open_steps(const char *under) {
    struct store *s = open_folder(under);
    const char *const keys[] = {"1/manifest.json", "2/manifest.json", "3/manifest.json"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        SUITE_OK(store_put(s, keys[i], "{}", 2, true, err));
    return s;
}

static void a_listing_that_breaks_off_is_an_error(void **state) {
    struct err e = {0};
    struct store *s = open_steps("list");
    int n, broken = 0;
    for (int i = 0;; i++) {
        names_left = i;
        int rc = count_keys(s, &n, &e);
        if (!rc) break;
        assert_int_equal(rc, -ERR_IO);
        assert_non_null(strstr(e.text, "reading "));
        err_clear(&e);
        broken++;
    }
    assert_int_equal(n, 3);
    assert_true(broken > 9); // four folders of three entries or more
    names_left = -1;
    store_close(s);
}

static void a_name_that_cannot_be_looked_at_is_an_error(void **state) {
    struct err e = {0};
    struct store *s = open_steps("look");
    int n;
    unseen = "2/manifest.json";
    assert_int_equal(count_keys(s, &n, &e), -ERR_IO);
    assert_non_null(strstr(e.text, unseen));
    unseen = NULL;
    store_close(s);
}

static bool all_mine(void *arg, const char *key) {
    return true;
}

static void a_sweep_that_breaks_off_is_an_error(void **state) {
    struct err e = {0};
    struct store *s = open_steps("sweep");
    names_left = 1;
    assert_int_equal(store_sweep(s, all_mine, NULL, NULL, &e), -ERR_IO);
    names_left = -1;
    store_close(s);
}

// What cannot be counted has no bound.
static void a_cache_that_cannot_be_counted_takes_nothing(void **state) {
    struct cache *c;
    char path[128], back[4];
    snprintf(path, sizeof path, "%s/cache", folder);
    SUITE_OK(cache_open(&c, path, 1 << 20, err));
    names_left = 1;
    cache_put(c, "a", "word", 4);
    assert_false(cache_get(c, "a", back, 4));
    names_left = -1;
    cache_put(c, "a", "word", 4);
    assert_true(cache_get(c, "a", back, 4));
    cache_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listing_that_breaks_off_is_an_error),
        cmocka_unit_test(a_name_that_cannot_be_looked_at_is_an_error),
        cmocka_unit_test(a_sweep_that_breaks_off_is_an_error),
        cmocka_unit_test(a_cache_that_cannot_be_counted_takes_nothing),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
