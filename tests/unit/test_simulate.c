// SPDX-License-Identifier: Apache-2.0
// The task simulate: the same data set from any number of ranks, gone on with after a stop, never mixed with
// another.
#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "storage/dataset.h"
#include "storage/hash.h"
#include "trainer/simulate.h"

// What the ranks of a test share.
struct meeting {
    pthread_barrier_t barrier;
    int64_t value[8];
    int ranks;
};

struct member {
    struct meeting *meeting;
    int rank, stop_after; // asked to stop after so many questions; -1: never
};

static bool stop(void *arg) {
    struct member *m = arg;
    return m->stop_after >= 0 && m->stop_after-- == 0;
}

static int meet(void *arg, int64_t *v, struct err *e) {
    struct member *m = arg;
    (void)e;
    m->meeting->value[m->rank] = *v;
    pthread_barrier_wait(&m->meeting->barrier);
    for (int i = 0; i < m->meeting->ranks; i++)
        if (m->meeting->value[i] > *v) *v = m->meeting->value[i];
    pthread_barrier_wait(&m->meeting->barrier);
    return 0;
}

static int run_rank(struct member *m, const char *dir, const char *knobs, struct err *e) {
    char out[256], knob[128];
    const char *overrides[] = {out,           knob, "sim.episodes=7", "sim.frames=12", "sim.per_shard=2",
                               "sim.first=40"};
    struct config_file *f = NULL;
    struct store_options options = {0};
    struct log log;
    struct blackbox *box = NULL;
    snprintf(out, sizeof out, "sim.out=%s", dir);
    snprintf(knob, sizeof knob, "sim.knobs=%s", knobs);
    log_init(&log, STDERR_FILENO, LOG_ERROR, "");
    int rc = config_load(&f, NULL, overrides, sizeof overrides / sizeof *overrides, e);
    if (!rc) rc = blackbox_create(&box, NULL, m->rank, m->meeting->ranks, 1, "simulate", e);
    struct simulate_team team = {m->rank, m->meeting->ranks, &options, &log, box, stop, meet, m};
    if (!rc) rc = simulate_run(config_values(f), &team, e);
    blackbox_close(box);
    config_close(f);
    return rc;
}

// All ranks as processes; the exit code of each must be `want`.
static void run(int ranks, const char *dir, const char *knobs, int stop_after, int want) {
    struct meeting *meeting =
        mmap(NULL, sizeof *meeting, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_barrierattr_t shared;
    pthread_barrierattr_init(&shared);
    pthread_barrierattr_setpshared(&shared, PTHREAD_PROCESS_SHARED);
    pthread_barrier_init(&meeting->barrier, &shared, (unsigned)ranks);
    meeting->ranks = ranks;
    for (int i = 0; i < ranks; i++) {
        if (fork()) continue;
        struct member m = {meeting, i, i == ranks - 1 ? stop_after : -1};
        struct err e = {0};
        alarm(60);
        int rc = run_rank(&m, dir, knobs, &e);
        _exit(rc ? err_exit_code(e.code) : 0);
    }
    for (int i = 0; i < ranks; i++) {
        int status;
        assert_true(wait(&status) > 0);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), want);
    }
    munmap(meeting, sizeof *meeting);
}

static char base[64];

static int set_up(void **state) {
    (void)state;
    snprintf(base, sizeof base, "/tmp/orrery-simulate-XXXXXX");
    return mkdtemp(base) ? 0 : -1;
}

static const char *folder(const char *name) {
    static char path[4][128];
    static int next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", base, name);
    return p;
}

static void remove_folder(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        char path[512];
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s", dir, entry->d_name);
        if (unlink(path)) remove_folder(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

static int tear_down(void **state) {
    (void)state;
    remove_folder(base);
    return 0;
}

// One digest over names and bytes of all files, in order of names.
static void digest(const char *dir, unsigned char out[32], int *files) {
    struct dirent **names;
    struct hash_sha256 *h = hash_sha256_create();
    struct err e = {0};
    int n = scandir(dir, &names, NULL, alphasort);
    assert_true(n > 0);
    *files = 0;
    for (int i = 0; i < n; i++) {
        char path[512];
        struct buf b;
        buf_init(&b, 1 << 24);
        if (names[i]->d_name[0] != '.') {
            snprintf(path, sizeof path, "%s/%s", dir, names[i]->d_name);
            assert_int_equal(bytes_read_file(path, 1 << 24, &b, &e), 0);
            hash_sha256_update(h, names[i]->d_name, strlen(names[i]->d_name));
            hash_sha256_update(h, b.data, b.len);
            ++*files;
        }
        buf_fini(&b);
        free(names[i]);
    }
    free(names);
    hash_sha256_peek(h, out);
    hash_sha256_destroy(h);
}

static void assert_same(const char *a, const char *b) {
    unsigned char x[32], y[32];
    int n, m;
    digest(a, x, &n);
    digest(b, y, &m);
    assert_int_equal(n, 10); // 4 shards, 4 indices, manifest, description
    assert_int_equal(m, n);
    assert_memory_equal(x, y, 32);
}

static void any_number_of_ranks(void **state) {
    (void)state;
    run(1, folder("one"), "pucks=2", -1, 0);
    run(3, folder("three"), "pucks=2", -1, 0);
    assert_same(folder("one"), folder("three"));
}

static void the_data_set_opens(void **state) {
    (void)state;
    struct dataset *d;
    struct err e = {0};
    const struct stream_schema *streams;
    struct dataset_check check;
    assert_int_equal(dataset_open(&d, folder("one"), NULL, &e), 0);
    assert_int_equal(dataset_samples(d), 7);
    assert_int_equal(dataset_shards(d), 4);
    assert_int_equal(dataset_frames(d), 7 * 12);
    assert_int_equal(dataset_streams(d, &streams), 5);
    assert_int_equal(dataset_check(d, NULL, NULL, &check, &e), 0);
    assert_int_equal(check.problems, 0);
    dataset_close(d);
}

static void goes_on_after_a_stop(void **state) {
    (void)state;
    unsigned char x[32];
    int files;
    run(2, folder("stopped"), "pucks=2", 1, err_exit_code(ERR_SAVED));
    digest(folder("stopped"), x, &files);
    assert_true(files < 10);
    run(2, folder("stopped"), "pucks=2", -1, 0);
    assert_same(folder("one"), folder("stopped"));
    run(3, folder("stopped"), "pucks=2", -1, 0); // complete: nothing to do
    assert_same(folder("one"), folder("stopped"));
}

static void another_simulation_is_refused(void **state) {
    (void)state;
    run(1, folder("one"), "pucks=1", -1, err_exit_code(ERR_CONFLICT));
    assert_same(folder("one"), folder("three"));
}

static void the_difference_is_named(void **state) {
    (void)state;
    struct meeting one = {.ranks = 1};
    struct member m = {&one, 0, -1};
    struct err e = {0};
    pthread_barrier_init(&one.barrier, NULL, 1);
    assert_int_equal(run_rank(&m, folder("one"), "pucks=2,mass=2", &e), -ERR_CONFLICT);
    assert_non_null(strstr(e.text, "mass differs"));
    pthread_barrier_destroy(&one.barrier);
}

static void strange_shards_are_refused(void **state) {
    (void)state;
    struct err e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s/other.tar", folder("strange"));
    assert_int_equal(bytes_make_dirs(folder("strange"), &e), 0);
    assert_int_equal(bytes_write_file(path, "x", 1, &e), 0);
    run(1, folder("strange"), "", -1, err_exit_code(ERR_CONFLICT));
}

static void wrong_words_are_refused(void **state) {
    (void)state;
    run(1, folder("none"), "wind=1", -1, err_exit_code(ERR_CONFIG));
    run(1, "", "", -1, err_exit_code(ERR_CONFIG));
    assert_int_equal(access(folder("none"), F_OK), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_ranks),     cmocka_unit_test(the_data_set_opens),
        cmocka_unit_test(goes_on_after_a_stop),    cmocka_unit_test(another_simulation_is_refused),
        cmocka_unit_test(the_difference_is_named), cmocka_unit_test(strange_shards_are_refused),
        cmocka_unit_test(wrong_words_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
