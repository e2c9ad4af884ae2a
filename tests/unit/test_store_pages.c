// SPDX-License-Identifier: Apache-2.0
// Listings that are handed over key by key: in order, whole, with prefixes once, across pages and batches;
// and jobs that finish in the order in which they were given.
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
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "storage/inorder.h"
#include "storage/store.h"
#include "store_suite.h"

enum { KEYS = 2400, FILES = 17000 };

struct seen {
    int objects, prefixes, stop_at;
    char last[64];
    struct store *remove_from;
};

static int see(void *arg, const struct store_entry *o, struct err *e) {
    struct seen *s = arg;
    assert_true(strcmp(s->last, o->key) < 0);
    snprintf(s->last, sizeof s->last, "%s", o->key);
    *(o->bytes < 0 ? &s->prefixes : &s->objects) += 1;
    if (s->remove_from) return store_delete(s->remove_from, o->key, e);
    return s->objects + s->prefixes == s->stop_at;
}

static void expect(struct store *s, const char *prefix, const char *delimiter, int objects, int prefixes) {
    struct seen seen = {0};
    struct err e = {0};
    if (store_each(s, prefix, delimiter, see, &seen, &e)) fail_msg("%s", e.text);
    assert_int_equal(seen.objects, objects);
    assert_int_equal(seen.prefixes, prefixes);
}

// Without the fsync of a PUT.
static void touch(const char *root, const char *key) {
    struct err e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/%s", root, key);
    char *slash = strrchr(path, '/');
    *slash = 0;
    assert_int_equal(bytes_make_dirs(path, &e), 0);
    *slash = '/';
    int fd = open(path, O_CREAT | O_WRONLY | O_EXCL, 0600);
    assert_true(fd >= 0);
    close(fd);
}

// "k/NNN/x", "k/NNN-" and "k/NNN.y": '-' and '.' sort before '/'.
static void fill(struct store *s) {
    struct err e = {0};
    char key[64];
    for (int i = 0; i < KEYS; i++) {
        static const char *const forms[] = {"k/%03d/x", "k/%03d-", "k/%03d.y", "k/%03d/sub/z"};
        snprintf(key, sizeof key, forms[i % 4], i / 4);
        if (store_url(s)[0] == '/')
            touch(store_url(s), key);
        else if (store_put(s, key, "v", 1, false, &e))
            fail_msg("%s", e.text);
    }
}

static void check_pages(const char *url) {
    struct store *s = suite_open(url);
    struct err e = {0};
    fill(s);
    expect(s, "", NULL, KEYS, 0);
    expect(s, "", "/", 0, 1);
    expect(s, "k", "/", 0, 1);
    expect(s, "k/", "/", KEYS / 2, KEYS / 4);
    expect(s, "k/1", NULL, 4 * 100, 0);
    expect(s, "k/5", "/", 200, 100);
    expect(s, "nothing", NULL, 0, 0);
    struct seen few = {.stop_at = 1234}, all = {.remove_from = s};
    assert_int_equal(store_each(s, "k/", "/", see, &few, &e), 0);
    assert_int_equal(few.objects + few.prefixes, 1234);
    assert_int_equal(store_each(s, "", NULL, see, &all, &e), 0); // what is deleted meanwhile is met once
    assert_int_equal(all.objects, KEYS);
    expect(s, "", NULL, 0, 0);
    store_close(s);
}

static void pages_of_memory(void **state) {
    (void)state;
    check_pages("mem:pages");
    check_pages("fault:503=0.5%,seed=3:mem:faulty-pages");
}

static void pages_of_files(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/tree", suite_folder);
    assert_int_equal(mkdir(path, 0700), 0);
    check_pages(path);
}

// More files than a batch of one folder holds.
static void a_large_folder(void **state) {
    (void)state;
    char path[128];
    snprintf(path, sizeof path, "%s/large", suite_folder);
    assert_int_equal(mkdir(path, 0700), 0);
    struct store *s = suite_open(path);
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%08x", (unsigned)i * 2654435761u);
        touch(store_url(s), path);
    }
    expect(s, "", NULL, FILES, 0);
    store_close(s);
}

// ---- jobs

struct jobs {
    pthread_mutex_t lock;
    int now, most, worked, finished, dropped, fail_at;
};
struct job {
    struct jobs *all;
    int number;
};

static void count(struct jobs *j, int by) {
    pthread_mutex_lock(&j->lock);
    j->now += by;
    j->worked += by > 0;
    if (j->now > j->most) j->most = j->now;
    pthread_mutex_unlock(&j->lock);
}

static void work(void *arg) {
    struct job *j = arg;
    struct timespec pause = {0, 1000000L * (7 - j->number % 7)}; // later ones are done first
    count(j->all, 1);
    nanosleep(&pause, NULL);
    count(j->all, -1);
}

static int finish(void *arg, void *job, struct err *e) {
    struct jobs *all = arg;
    const struct job *j = job;
    assert_int_equal(j->number, all->finished++);
    return j->number == all->fail_at ? err_set(e, ERR_DATA, "job %d", j->number) : 0;
}

static void drop(void *job) {
    ((struct job *)job)->all->dropped++;
    free(job);
}

static int run_jobs(struct jobs *all, int n, int width, struct err *e) {
    struct inorder o = {.width = width, .work = work, .finish = finish, .drop = drop, .arg = all};
    int rc = 0;
    for (int i = 0; i < n && !rc; i++) {
        struct job *j = malloc(sizeof *j);
        *j = (struct job){all, i};
        rc = inorder_give(&o, j, e);
    }
    return inorder_end(&o, rc, e);
}

static void jobs_finish_in_order(void **state) {
    (void)state;
    struct err e = {0};
    struct jobs all = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = -1};
    assert_int_equal(run_jobs(&all, 50, 5, &e), 0);
    assert_int_equal(all.finished, 50);
    assert_int_equal(all.dropped, 50);
    assert_true(all.most > 1 && all.most <= 5);
    struct jobs broken = {.lock = PTHREAD_MUTEX_INITIALIZER, .fail_at = 11};
    assert_int_equal(run_jobs(&broken, 50, 4, &e), -ERR_DATA);
    assert_string_equal(e.text, "job 11");
    assert_int_equal(broken.finished, 12);
    assert_true(broken.dropped >= broken.worked && broken.dropped <= 17);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pages_of_memory),
        cmocka_unit_test(pages_of_files),
        cmocka_unit_test(a_large_folder),
        cmocka_unit_test(jobs_finish_in_order),
    };
    return cmocka_run_group_tests(tests, suite_folder_make, suite_folder_remove);
}
