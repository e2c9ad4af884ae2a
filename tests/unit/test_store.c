// SPDX-License-Identifier: Apache-2.0
// What every store must do, run over file: and mem: (the S3 test runs the same over a real radosgw), then
// what is particular to each.
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/store.h"
#include "store_suite.h"

static struct store *open_folder(const char *under) {
    char url[128];
    snprintf(url, sizeof url, "file://%s/%s", suite_folder, under);
    return suite_open(url);
}

static void suite_posix(void **state) {
    struct store *s = open_folder("suite");
    store_suite_run(s);
    store_close(s);
}

static void suite_mem(void **state) {
    struct store *s = suite_open("mem:suite");
    store_suite_run(s);
    store_close(s);
}

static void urls(void **state) {
    struct store *s;
    struct err e = {0};
    const char *bad[] = {"", "ftp://host/x", "file://host/dir", "file:", "mem:", "zz://"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&e);
        assert_int_equal(store_open(&s, bad[i], NULL, &e), -ERR_CONFIG);
        assert_true(e.text[0]);
    }
    store_close(NULL);
    const char *good[] = {"file:///tmp/x", "file://localhost/tmp/x", "file:tmp/x", "tmp/x/", "/"};
    const char *root[] = {"/tmp/x", "/tmp/x", "tmp/x", "tmp/x", "/"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        s = suite_open(good[i]);
        assert_string_equal(store_url(s), root[i]);
        store_close(s);
    }
}

static void urls_unopened(void **state) {
    const struct {
        const char *url, *path;
        bool scheme, remote;
    } rows[] = {
        {"/a/b", "/a/b", false, false},       {"a:b/c", "a:b/c", false, false},
        {"files/x", "files/x", false, false}, {"file:/a/b", "/a/b", true, false},
        {"file:///a/b", "/a/b", true, false}, {"file://localhost/a/b", "/a/b", true, false},
        {"file:a/b", "a/b", true, false},     {"file:", NULL, true, false},
        {"file://host/a", NULL, true, false}, {"file://localhost", NULL, true, false},
        {"mem:x", NULL, true, false},         {"s3://bucket/a", NULL, true, true},
        {"s3:bucket/a", NULL, true, true},    {"fault:503=5%:/a", NULL, true, true},
        {"gs://bucket/a", NULL, true, false}, {"", NULL, false, false},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *path = store_local_path(rows[i].url);
        assert_int_equal(path == NULL, rows[i].path == NULL);
        if (path) assert_string_equal(path, rows[i].path);
        assert_int_equal(store_has_scheme(rows[i].url), rows[i].scheme);
        assert_int_equal(store_is_remote(rows[i].url), rows[i].remote);
    }
}

static void mem_outlives_its_handle(void **state) {
    struct err e = {0};
    struct store *s = suite_open("mem:alive");
    assert_int_equal(store_put(s, "k", "v", 1, false, &e), 0);
    store_close(s);
    char c = 0;
    s = suite_open("mem:alive");
    assert_int_equal(store_get_range(s, "k", 0, 1, &c, &e), 0);
    assert_int_equal(c, 'v');
    store_close(s);
}

static void posix_refuses_keys(void **state) {
    const char *bad[] = {"..", "a/../b", "/etc/passwd",   "a//b",           "a/",
                         ".",  "a/./b",  ".orrery-tmp.x", "a/.orrery-tmp.1"};
    struct store *s = open_folder("keys");
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        struct store_writer *w;
        char c;
        assert_int_equal(store_put(s, bad[i], "x", 1, false, NULL), -ERR_USAGE);
        assert_int_equal(store_get_range(s, bad[i], 0, 1, &c, NULL), -ERR_USAGE);
        assert_int_equal(store_delete(s, bad[i], NULL), -ERR_USAGE);
        assert_int_equal(store_writer_open(s, &w, bad[i], NULL), -ERR_USAGE);
    }
    store_close(s);
}

static int count_entries(const char *path) {
    DIR *d = opendir(path);
    int n = 0;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n - 2;
}

static void posix_leaves_nothing_behind(void **state) {
    struct err e = {0};
    struct store_writer *w;
    char path[128];
    struct store *s = open_folder("clean");
    assert_int_equal(store_put(s, "d/k", "1", 1, true, &e), 0);
    assert_int_equal(store_put(s, "d/k", "2", 1, true, &e), -ERR_CONFLICT);
    err_clear(&e);
    assert_int_equal(store_put(s, "d/k", "3", 1, false, &e), 0);
    assert_int_equal(store_writer_open(s, &w, "d/w", &e), 0);
    assert_int_equal(store_writer_write(w, "abc", 3, &e), 0);
    store_writer_abort(w);
    store_writer_abort(NULL);
    snprintf(path, sizeof path, "%s/clean/d", suite_folder);
    assert_int_equal(count_entries(path), 1);
    assert_int_equal(store_delete(s, "d/k", &e), 0);
    snprintf(path, sizeof path, "%s/clean", suite_folder);
    assert_int_equal(count_entries(path), 0); // the empty folder went too, the root stayed
    store_close(s);
}

static void posix_odd_files(void **state) {
    struct err e = {0};
    struct store_listing l;
    char path[128], c;
    struct store *s = open_folder("odd");
    assert_int_equal(store_put(s, "a/b", "1", 1, false, &e), 0);
    snprintf(path, sizeof path, "%s/odd/fifo", suite_folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    snprintf(path, sizeof path, "%s/odd/a/loop", suite_folder);
    assert_int_equal(symlink("..", path), 0);
    snprintf(path, sizeof path, "%s/odd/.orrery-tmp.77", suite_folder);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(store_collect(s, NULL, NULL, &l, &e), 0);
    assert_int_equal(l.n, 1);
    store_listing_fini(&l);
    assert_int_equal(store_get_range(s, "fifo", 0, 1, &c, &e), -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(store_get_range(s, "a", 0, 1, &c, &e), -ERR_MISSING);
    err_clear(&e);
    assert_int_equal(store_put(s, "a/b/c", "1", 1, false, &e), -ERR_IO); // a file is no folder
    store_close(s);
}

static void posix_says_which_file(void **state) {
    struct err e = {0};
    struct store *s = suite_open("/proc/self");
    assert_true(store_put(s, "x/y", "1", 1, false, &e) < 0);
    assert_non_null(strstr(e.text, "/proc/self"));
    store_close(s);
}

enum { RACERS = 8 };
struct racer {
    struct store *s;
    int number, rc;
};

static void *race(void *arg) {
    struct racer *r = arg;
    char text[32];
    int n = snprintf(text, sizeof text, "racer %d", r->number);
    r->rc = store_put(r->s, "race/key", text, (size_t)n, true, NULL);
    return NULL;
}

static void create_only_has_one_winner(void **state) {
    struct store *stores[] = {open_folder("race"), suite_open("mem:race")};
    for (int k = 0; k < 2; k++) {
        struct racer racers[RACERS];
        pthread_t threads[RACERS];
        int winners = 0, winner = -1;
        for (int i = 0; i < RACERS; i++) {
            racers[i] = (struct racer){.s = stores[k], .number = i};
            assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        for (int i = 0; i < RACERS; i++) {
            pthread_join(threads[i], NULL);
            if (!racers[i].rc) winner = i;
            winners += !racers[i].rc;
            assert_true(!racers[i].rc || racers[i].rc == -ERR_CONFLICT);
        }
        assert_int_equal(winners, 1);
        char want[32], got[32] = {0};
        snprintf(want, sizeof want, "racer %d", winner);
        assert_int_equal(store_get_range(stores[k], "race/key", 0, strlen(want), got, NULL), 0);
        assert_string_equal(got, want);
        store_close(stores[k]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suite_posix),
        cmocka_unit_test(suite_mem),
        cmocka_unit_test(urls),
        cmocka_unit_test(urls_unopened),
        cmocka_unit_test(mem_outlives_its_handle),
        cmocka_unit_test(posix_refuses_keys),
        cmocka_unit_test(posix_leaves_nothing_behind),
        cmocka_unit_test(posix_odd_files),
        cmocka_unit_test(posix_says_which_file),
        cmocka_unit_test(create_only_has_one_winner),
    };
    return cmocka_run_group_tests(tests, suite_folder_make, suite_folder_remove);
}
