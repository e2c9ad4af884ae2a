// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/json.h"
#include "launcher/ledger.h"

static double member(const struct json *doc, const char *key) {
    double value = -1;
    assert_true(json_as_double(json_get(json_root(doc), key), &value));
    return value;
}

static void categories_add_up_and_lost_work_moves(void **state) {
    static const char *const keys[] = {"start_up",  "productive", "data_wait", "checkpoint", "evaluate",
                                       "lost_work", "detection",  "restart",   "stopping"};
    char path[] = "/tmp/orrery-test-ledger-XXXXXX";
    struct ledger l;
    struct buf text;
    struct json *doc = NULL;
    struct err e = {0};
    ledger_init(&l, mkstemp(path));
    clock_sleep_ms(10);
    ledger_spend(&l, LEDGER_STARTUP, 0);
    clock_sleep_ms(20);
    ledger_spend(&l, LEDGER_PRODUCTIVE, 0.5);
    ledger_saved(&l);
    clock_sleep_ms(10);
    ledger_spend(&l, LEDGER_PRODUCTIVE, 0);
    ledger_lose(&l);
    clock_sleep_ms(5);
    ledger_spend(&l, LEDGER_DETECT, 0);
    int64_t wall_ns = clock_monotonic_ns() - l.begin_ns;
    ledger_account(&l);
    ledger_fini(&l);
    buf_init(&text, 65536);
    assert_int_equal(bytes_read_file(path, 65536, &text, &e), 0);
    assert_int_equal(json_parse(&doc, text.data, text.len, "ledger", &e), 0);
    double sum = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) sum += member(doc, keys[i]);
    double total = member(doc, "total");
    assert_true(sum > total - 1e-9 && sum < total + 1e-9);
    assert_true(total > 0.999e-9 * (double)wall_ns - 1e-3 && total <= 1e-9 * (double)wall_ns + 1e-9);
    assert_true(member(doc, "lost_work") >= 0.010);
    assert_true(member(doc, "productive") >= 0.010 && member(doc, "data_wait") >= 0.010);
    assert_true(member(doc, "productive") < member(doc, "total") - member(doc, "lost_work"));
    json_destroy(doc);
    buf_fini(&text);
    unlink(path);
}

static void a_disk_that_is_full_costs_lines_only(void **state) {
    struct ledger l;
    int fd = open("/dev/full", O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "x", 1), -1);
    ledger_init(&l, fd);
    for (int i = 0; i < 2; i++) {
        clock_sleep_ms(5);
        ledger_note(&l, "note", "text");
        ledger_spend(&l, LEDGER_PRODUCTIVE, 0);
        ledger_account(&l);
    }
    assert_true(l.spent_ns[LEDGER_PRODUCTIVE] >= 10000000);
    assert_int_equal(l.spent_ns[LEDGER_PRODUCTIVE], l.last_ns - l.begin_ns);
    ledger_fini(&l);
}

static void half_a_line_spoils_no_other(void **state) {
    char path[] = "/tmp/orrery-test-ledger-XXXXXX";
    struct ledger l;
    struct buf text;
    struct err e = {0};
    static const char half[] = "{\"time\":\"2026-11";
    int fd = mkstemp(path);
    assert_int_equal(write(fd, half, sizeof half - 1), sizeof half - 1);
    ledger_init(&l, fd);
    ledger_note(&l, "first", "a");
    ledger_note(&l, "second", "b");
    ledger_fini(&l);
    buf_init(&text, 65536);
    assert_int_equal(bytes_read_file(path, 65536, &text, &e), 0);
    char *line = strchr(text.data, '\n');
    assert_int_equal(line - text.data, sizeof half - 1);
    for (int i = 0; i < 2; i++) {
        struct json *doc = NULL;
        char *end = strchr(++line, '\n');
        assert_int_equal(json_parse(&doc, line, (size_t)(end - line), "ledger", &e), 0);
        json_destroy(doc);
        line = end;
    }
    assert_int_equal(line[1], 0);
    buf_fini(&text);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(categories_add_up_and_lost_work_moves),
        cmocka_unit_test(half_a_line_spoils_no_other),
        cmocka_unit_test(a_disk_that_is_full_costs_lines_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
