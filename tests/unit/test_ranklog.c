// SPDX-License-Identifier: Apache-2.0
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
#include "launcher/ranklog.h"

static char folder[] = "/tmp/orrery-test-ranklog-XXXXXX";
static char path[128];

static int make_folder(void **state) {
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/rank-0.log", folder);
    return 0;
}

static int remove_folder(void **state) {
    boxdir_remove_tree(folder);
    return 0;
}

static int64_t size_of(const char *name) {
    struct stat st;
    return stat(name, &st) ? -1 : (int64_t)st.st_size;
}

static void put(struct ranklog *l, const char *text) {
    ranklog_write(l, text, strlen(text));
}

static void keeps_the_last_lines(void **state) {
    static struct ranklog l;
    struct err e = {0};
    char tail[16384], line[32];
    assert_int_equal(ranklog_open(&l, path, 1 << 20, &e), 0);
    for (int i = 0; i < 50; i++) {
        snprintf(line, sizeof line, "line %d\n", i);
        put(&l, line);
    }
    ranklog_tail(&l, tail, sizeof tail);
    assert_true(!strncmp(tail, "line 30\n", 8));
    assert_string_equal(strrchr(tail, 'l'), "line 49\n");
    put(&l, "half a line");
    ranklog_tail(&l, tail, sizeof tail);
    assert_non_null(strstr(tail, "line 49\nhalf a line\n"));
    ranklog_tail(&l, tail, 32); // room for the newest only
    assert_string_equal(tail, "line 48\nline 49\nhalf a line\n");
    ranklog_close(&l);
    unlink(path);
}

static void long_lines_and_control_characters_are_tamed(void **state) {
    static struct ranklog l;
    struct err e = {0};
    static char tail[16384], text[5000];
    assert_int_equal(ranklog_open(&l, path, 1 << 20, &e), 0);
    memset(text, 'a', sizeof text - 1);
    put(&l, text);
    put(&l, "\n\033[2Jx\ty\n");
    ranklog_tail(&l, tail, sizeof tail);
    assert_int_equal(strcspn(tail, "\n"), RANKLOG_LINE_BYTES - 1);
    assert_string_equal(strchr(tail, '\n') + 1, " [2Jx y\n");
    assert_int_equal(size_of(path), 4999 + 9);
    ranklog_close(&l);
    unlink(path);
}

static void rotates_and_stays_bounded(void **state) {
    static struct ranklog l;
    struct err e = {0};
    char old[160], line[101];
    snprintf(old, sizeof old, "%s.1", path);
    memset(line, 'x', 100);
    line[99] = '\n';
    line[100] = 0;
    assert_int_equal(ranklog_open(&l, path, 1000, &e), 0);
    for (int i = 0; i < 35; i++) put(&l, line);
    assert_int_equal(size_of(path), 500);
    assert_int_equal(size_of(old), 1000);
    ranklog_close(&l);
    unlink(old);
    unlink(path);
}

static void follows_no_symlink_and_writes_no_device(void **state) {
    static struct ranklog l;
    struct err e = {0};
    char target[160];
    snprintf(target, sizeof target, "%s/victim", folder);
    assert_int_equal(symlink(target, path), 0);
    assert_int_not_equal(ranklog_open(&l, path, 1000, &e), 0);
    assert_int_equal(size_of(target), -1);
    unlink(path);
    err_clear(&e);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_not_equal(ranklog_open(&l, path, 1000, &e), 0);
    unlink(path);
}

static void a_full_disk_costs_lines_only(void **state) {
    static struct ranklog l = {.fd = -1};
    char tail[256];
    l.line_count = 0;
    l.partial = 0;
    put(&l, "still remembered\n");
    ranklog_tail(&l, tail, sizeof tail);
    assert_string_equal(tail, "still remembered\n");
    assert_int_equal(l.lost_bytes, 17);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_the_last_lines),
        cmocka_unit_test(long_lines_and_control_characters_are_tamed),
        cmocka_unit_test(rotates_and_stays_bounded),
        cmocka_unit_test(follows_no_symlink_and_writes_no_device),
        cmocka_unit_test(a_full_disk_costs_lines_only),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
