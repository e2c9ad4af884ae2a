// SPDX-License-Identifier: Apache-2.0
// The report of run folders: full, empty, and with contents that want to break out of the page.
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "launcher/report.h"

static void put(const char *dir, const char *name, const char *text) {
    char path[256];
    struct err e = {0};
    snprintf(path, sizeof path, "%s/rollouts", dir);
    assert_int_equal(bytes_make_dirs(path, &e), 0);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    assert_int_equal(bytes_write_file(path, text, strlen(text), &e), 0);
}

static void drop(const char *dir) {
    const char *const names[] = {
        "eval.json",          "metrics.jsonl",        "events.jsonl", "run.json", "config.yaml",
        "rollouts/strip.png", "rollouts/rollout.gif", "rollouts",     ""};
    char path[256];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        (void)remove(path);
    }
}

static void write_page(const char *dir, struct buf *page) {
    struct report_input in;
    struct err e = {0};
    assert_int_equal(report_read(&in, dir, &e), 0);
    buf_init(page, (size_t)1 << 26);
    assert_int_equal(report_write(&in, page, &e), 0);
    report_input_fini(&in);
}

static size_t count(const struct buf *page, const char *what) {
    size_t n = 0;
    for (const char *at = page->data; (at = strstr(at, what)); at += strlen(what)) n++;
    return n;
}

static const char eval_json[] =
    "{\"format\":\"orrery-eval\",\"version\":1,\"step\":40,\"sequences\":8,\"context\":4,\"horizon\":2,"
    "\"metrics\":[{\"name\":\"psnr\",\"label\":\"PSNR\",\"unit\":\"dB\",\"better\":\"more\",\"digits\":2},"
    "{\"name\":\"skill\",\"label\":\"skill\",\"unit\":\"\",\"better\":\"more\",\"digits\":3}],"
    "\"rows\":[{\"name\":\"copy_last\",\"label\":\"copy-last\",\"metrics\":{\"psnr\":{\"value\":13.8,\"lo\":"
    "13.1,"
    "\"hi\":14.5,\"horizon\":[15,13]},\"skill\":{\"value\":0,\"horizon\":[0,0]}}},"
    "{\"name\":\"model\",\"label\":\"<script>alert(1)</script>\",\"metrics\":{\"psnr\":{\"value\":22.83,"
    "\"lo\":22.1,\"hi\":23.5,\"horizon\":[25,21]},\"skill\":{\"value\":0.87,\"horizon\":[0.93,null]}}}],"
    "\"probes\":[{\"name\":\"inverse_dynamics\",\"label\":\"inverse\",\"value\":0.95,\"lo\":0.94,\"hi\":0.96}"
    "],"
    "\"bars\":[{\"name\":\"skill_h1\",\"label\":\"skill at h = 1\",\"value\":0.93,\"lo\":0.92,\"hi\":0.94,"
    "\"relation\":\">=\",\"threshold\":0.92,\"pass\":true},{\"name\":\"x\",\"label\":\"y\",\"value\":null,"
    "\"relation\":\"<=\",\"threshold\":0.5,\"pass\":false}],\"bars_passed\":1,\"left_out\":[\"a & b\"]}";

static void a_full_folder_gives_every_part(void **state) {
    char dir[] = "/tmp/orrery-report-XXXXXX";
    struct buf page;
    assert_non_null(mkdtemp(dir));
    put(dir, "eval.json", eval_json);
    put(dir, "metrics.jsonl",
        "{\"step\":1,\"loss\":2.5,\"losses\":{\"video\":2,\"touch\":0.5},\"lr\":0.001}\n"
        "this line is broken\n"
        "{\"step\":2,\"loss\":1.5,\"losses\":{\"video\":1,\"touch\":null},\"lr\":0.002}\n"
        "{\"step\":3,\"loss\":");
    put(dir, "events.jsonl",
        "{\"event\":\"ledger\",\"productive\":1,\"total\":100}\n"
        "{\"event\":\"ledger\",\"seconds\":12,\"start_up\":2,\"productive\":8,\"total\":10}\n");
    put(dir, "run.json", "{\"id\":\"demo-1\",\"state\":\"done\"}");
    put(dir, "config.yaml", "run:\n  dir: \"<b>\"\n");
    put(dir, "rollouts/strip.png", "PNG!");
    put(dir, "rollouts/rollout.gif", "GIF89a");
    write_page(dir, &page);
    assert_non_null(strstr(page.data, "22.83"));
    assert_non_null(strstr(page.data, "1 of 2 bars passed"));
    assert_non_null(strstr(page.data, "data:image/gif;base64,R0lGODlh"));
    assert_non_null(strstr(page.data, "data:image/png;base64,UE5HIQ=="));
    assert_non_null(strstr(page.data, "Goodput <b>80.0 %"));
    assert_non_null(strstr(page.data, "start up"));
    assert_non_null(strstr(page.data, "demo-1"));
    assert_true(count(&page, "<svg") >= 4);
    assert_int_equal(count(&page, "<svg"), count(&page, "</svg>"));
    assert_int_equal(count(&page, "<tr"), count(&page, "</tr>"));
    // Nothing breaks out, nothing is fetched.
    assert_null(strstr(page.data, "<script"));
    assert_null(strstr(page.data, "<b>\""));
    assert_non_null(strstr(page.data, "&lt;script&gt;"));
    assert_null(strstr(page.data, "http"));
    assert_null(strstr(page.data, "nan"));
    buf_fini(&page);
    drop(dir);
}

static void an_empty_folder_says_what_to_do(void **state) {
    char dir[] = "/tmp/orrery-report-XXXXXX";
    struct buf page;
    assert_non_null(mkdtemp(dir));
    write_page(dir, &page);
    assert_non_null(strstr(page.data, "orrery eval /tmp/orrery-report-"));
    assert_non_null(strstr(page.data, "orrery rollout /tmp/orrery-report-"));
    assert_non_null(strstr(page.data, "no data"));
    buf_fini(&page);
    drop(dir);
}

static void a_broken_evaluation_is_an_error_with_its_name(void **state) {
    char dir[] = "/tmp/orrery-report-XXXXXX";
    struct report_input in;
    struct err e = {0};
    assert_non_null(mkdtemp(dir));
    put(dir, "eval.json", "{\"rows\":");
    assert_int_equal(report_read(&in, dir, &e), -ERR_DATA);
    assert_non_null(strstr(e.text, "eval.json"));
    put(dir, "eval.json", "[1,2]"); // JSON of another shape: a page with nothing in it
    struct buf page;
    write_page(dir, &page);
    buf_fini(&page);
    drop(dir);
}

static void charts_stand_odd_numbers(void **state) {
    double values[][3] = {{NAN, NAN, NAN}, {0, 0, 0}, {1e-300, 1e300, 1}, {-5, INFINITY, 3}, {7, 7, 7}};
    for (size_t k = 0; k < sizeof values / sizeof *values; k++)
        for (int logarithmic = 0; logarithmic < 2; logarithmic++) {
            struct report_series s = {.name = "a"};
            struct buf out;
            struct err e = {0};
            for (int i = 0; i < 3; i++) assert_int_equal(report_series_add(&s, i, values[k][i], &e), 0);
            struct report_chart c = {.title = "t",
                                     .x_label = "x",
                                     .y_label = "y",
                                     .log_y = logarithmic,
                                     .dots = true,
                                     .series = &s,
                                     .n = 1};
            buf_init(&out, 1 << 20);
            assert_int_equal(report_chart_write(&c, &out, &e), 0);
            assert_null(strstr(out.data, "nan"));
            assert_null(strstr(out.data, "inf"));
            buf_fini(&out);
            report_series_fini(&s);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_folder_gives_every_part),
        cmocka_unit_test(an_empty_folder_says_what_to_do),
        cmocka_unit_test(a_broken_evaluation_is_an_error_with_its_name),
        cmocka_unit_test(charts_stand_odd_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
