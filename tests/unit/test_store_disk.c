// SPDX-License-Identifier: Apache-2.0
// Stores, transfers and the cache on a disk that fails, or that another process uses at the same moment: what
// they ask of the system is wrapped.
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/cache.h"
#include "storage/store.h"
#include "store_suite.h"

static int names_left = -1;       // before readdir fails; -1: it does not
static const char *unseen;        // a name that lstat fails on
static void (*before_lock)(void); // called once
static char calls[32];            // a letter for each fsync of a file or folder, and each rename

struct dirent *__real_readdir(DIR *d);
struct dirent *__wrap_readdir(DIR *d);
int __real_lstat(const char *path, struct stat *st);
int __wrap_lstat(const char *path, struct stat *st);
int __real_flock(int fd, int how);
int __wrap_flock(int fd, int how);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);

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

int __wrap_flock(int fd, int how) {
    void (*then)(void) = before_lock;
    before_lock = NULL;
    if (then) then();
    return __real_flock(fd, how);
}

static void note(char call) {
    size_t n = strlen(calls);
    if (n + 1 < sizeof calls) calls[n] = call;
}

int __wrap_fsync(int fd) {
    struct stat st;
    note(!fstat(fd, &st) && S_ISDIR(st.st_mode) ? 'd' : 'f');
    return __real_fsync(fd);
}

int __wrap_rename(const char *from, const char *to) {
    note('r');
    return __real_rename(from, to);
}

static struct store *open_folder(const char *under) {
    struct store *s;
    char url[128];
    snprintf(url, sizeof url, "file://%s/%s", suite_folder, under);
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
    snprintf(path, sizeof path, "%s/cache", suite_folder);
    SUITE_OK(cache_open(&c, path, 1 << 20, err));
    names_left = 1;
    cache_put(c, "a", "word", 4);
    assert_false(cache_get(c, "a", back, 4));
    names_left = -1;
    cache_put(c, "a", "word", 4);
    assert_true(cache_get(c, "a", back, 4));
    cache_close(c);
}

// ---- files that are fetched.

static char target[128], part[160];

static struct store *open_object(const char *content) {
    struct store *s = open_folder("from");
    SUITE_OK(store_put(s, "key", content, strlen(content), false, err));
    snprintf(target, sizeof target, "%s/out", suite_folder);
    snprintf(part, sizeof part, "%s.orrery-part", target);
    return s;
}

static void assert_target(const char *want) {
    struct buf text;
    buf_init(&text, 100);
    SUITE_OK(bytes_read_file(target, 100, &text, err));
    assert_string_equal(text.data, want);
    buf_fini(&text);
}

static int finished_fd;

// Another process ends its copy to the same place between our open and our lock.
static void other_finishes(void) {
    assert_int_equal(__real_rename(part, target), 0);
    finished_fd = open(target, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(finished_fd, "finished", 8, 0), 8);
}

static void a_file_that_another_finished_is_not_written_to(void **state) {
    char back[9] = "";
    struct store_transfer t = {.resume = true, .verify = true};
    struct store *s = open_object("the words");
    before_lock = other_finishes;
    SUITE_OK(store_get_file(s, "key", target, &t, err));
    assert_null(before_lock);
    assert_target("the words");
    assert_int_equal(pread(finished_fd, back, sizeof back, 0), 8); // as its writer left it
    assert_string_equal(back, "finished");
    close(finished_fd);
    assert_int_equal(access(part, F_OK), -1);
    store_close(s);
}

// Only what is on the disk gets the name, and the name is there after a power cut.
static void what_is_fetched_is_on_the_disk(void **state) {
    struct store_transfer t = {.verify = true};
    struct store *s = open_object("more words");
    memset(calls, 0, sizeof calls);
    SUITE_OK(store_get_file(s, "key", target, &t, err));
    assert_string_equal(calls, "frd");
    assert_target("more words");
    store_close(s);
}

// ---- objects that are read piece by piece.

static void pieces_are_of_one_version(void **state) {
    const char *const urls[] = {"mem:versions", NULL};
    for (int i = 0; i < 2; i++) {
        struct store *s;
        struct store_result head;
        struct err e = {0};
        char back[4] = "";
        if (urls[i])
            SUITE_OK(store_open(&s, urls[i], NULL, err));
        else
            s = open_folder("versions");
        SUITE_OK(store_put(s, "key", "aaaabbbb", 8, false, err));
        SUITE_OK(store_head(s, "key", &head, err));
        SUITE_OK(store_get_range_of(s, "key", &head, 0, 4, back, err));
        SUITE_OK(store_put(s, "key", "ccccdddd", 8, false, err));
        assert_int_equal(store_get_range_of(s, "key", &head, 4, 4, back, &e), -ERR_DATA);
        assert_non_null(strstr(e.text, "changed while it was read"));
        store_close(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_listing_that_breaks_off_is_an_error),
        cmocka_unit_test(a_name_that_cannot_be_looked_at_is_an_error),
        cmocka_unit_test(a_sweep_that_breaks_off_is_an_error),
        cmocka_unit_test(a_cache_that_cannot_be_counted_takes_nothing),
        cmocka_unit_test(a_file_that_another_finished_is_not_written_to),
        cmocka_unit_test(what_is_fetched_is_on_the_disk),
        cmocka_unit_test(pieces_are_of_one_version),
    };
    return cmocka_run_group_tests(tests, suite_folder_make, suite_folder_remove);
}
