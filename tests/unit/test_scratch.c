// SPDX-License-Identifier: Apache-2.0
// Folders for the logs of jobs without a run folder: which stay, and which go.
#include <fcntl.h>
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

#include "launcher/boxdir.h"
#include "launcher/scratch.h"

#define PATH_BYTES RUNDIR_PATH_BYTES

static int open_tmp(void **state) {
    char *tmp = calloc(1, 64);
    snprintf(tmp, 64, "/tmp/orrery-test-scratch-XXXXXX");
    *state = tmp;
    return mkdtemp(tmp) ? setenv("TMPDIR", tmp, 1) : -1;
}

static int close_tmp(void **state) {
    boxdir_remove_tree(*state);
    unsetenv("TMPDIR");
    free(*state);
    return 0;
}

static bool is_there(const char *path) {
    struct stat st;
    return lstat(path, &st) == 0;
}

// One that is left behind, changed `seconds` after the epoch.
static void leave(char path[PATH_BYTES], int seconds) {
    struct rundir scratch;
    struct err e = {0};
    const struct timespec times[2] = {{.tv_sec = seconds}, {.tv_sec = seconds}};
    assert_int_equal(scratch_make(&scratch, &e), 0);
    snprintf(path, PATH_BYTES, "%s", scratch.path);
    scratch_close(&scratch, true);
    assert_int_equal(utimensat(AT_FDCWD, path, times, AT_SYMLINK_NOFOLLOW), 0);
}

static void after_success_nothing_stays(void **state) {
    struct rundir scratch;
    struct err e = {0};
    char path[PATH_BYTES];
    assert_int_equal(scratch_make(&scratch, &e), 0);
    assert_int_equal(strncmp(scratch.path, *state, strlen(*state)), 0);
    snprintf(path, sizeof path, "%s", scratch.path);
    assert_true(is_there(path));
    scratch_close(&scratch, false);
    assert_false(is_there(path));
}

static void only_the_newest_failures_stay(void **state) {
    char paths[SCRATCH_KEPT + 4][PATH_BYTES];
    for (int i = 0; i < SCRATCH_KEPT + 4; i++) leave(paths[i], 1000 + i);
    for (int i = 0; i < SCRATCH_KEPT + 4; i++) assert_int_equal(is_there(paths[i]), i >= 4);
}

static void a_living_job_keeps_its_logs(void **state) {
    struct rundir living;
    struct err e = {0};
    char path[PATH_BYTES];
    const struct timespec old[2] = {{.tv_sec = 1}, {.tv_sec = 1}};
    assert_int_equal(scratch_make(&living, &e), 0);
    assert_int_equal(utimensat(AT_FDCWD, living.path, old, 0), 0);
    for (int i = 0; i < SCRATCH_KEPT + 2; i++) leave(path, 1000 + i);
    assert_true(is_there(living.path));
    scratch_close(&living, false);
}

static void what_is_not_ours_is_left_alone(void **state) {
    const char *tmp = *state, *names[] = {"orrery-logs-toolong", "orrery-logs-link00", "orrery-logs-file00"};
    char path[PATH_BYTES], target[PATH_BYTES];
    snprintf(target, sizeof target, "%s/precious", tmp);
    assert_int_equal(mkdir(target, 0700), 0);
    snprintf(path, sizeof path, "%s/%s", tmp, names[0]);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/%s", tmp, names[1]);
    assert_int_equal(symlink(target, path), 0);
    snprintf(path, sizeof path, "%s/%s", tmp, names[2]);
    close(open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    for (int i = 0; i < SCRATCH_KEPT + 2; i++) leave(path, 1000 + i);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", tmp, names[i]);
        assert_true(is_there(path));
    }
    assert_true(is_there(target));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(after_success_nothing_stays, open_tmp, close_tmp),
        cmocka_unit_test_setup_teardown(only_the_newest_failures_stay, open_tmp, close_tmp),
        cmocka_unit_test_setup_teardown(a_living_job_keeps_its_logs, open_tmp, close_tmp),
        cmocka_unit_test_setup_teardown(what_is_not_ours_is_left_alone, open_tmp, close_tmp)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
