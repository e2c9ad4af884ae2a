// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "storage/store_config.h"

static void options(void **state) {
    static struct config c = {.store_endpoint = "http://h",
                              .store_region = "r",
                              .store_path_style = true,
                              .store_deadline_s = 7,
                              .store_connections = 3,
                              .run_seed = 11};
    struct store_options o = store_config_options(&c);
    assert_string_equal(o.endpoint, "http://h");
    assert_string_equal(o.region, "r");
    assert_true(o.path_style);
    assert_int_equal(o.deadline_ms, 7000);
    assert_int_equal(o.connections, 3);
    assert_int_equal(o.seed, 11);
}

static void checkpoints(void **state) {
    static struct config c;
    char url[STORE_CONFIG_URL_BYTES], run_dir[CONFIG_TEXT_BYTES] = "";
    struct err e = {0};
    assert_int_equal(store_config_checkpoints(&c, "runs/a", url, sizeof url, &e), 0);
    assert_string_equal(url, "runs/a/ckpt");
    memset(run_dir, 'd', sizeof run_dir - 1);
    assert_int_equal(store_config_checkpoints(&c, run_dir, url, sizeof url, &e), 0);
    assert_int_equal(strlen(url), sizeof run_dir - 1 + 5);
    assert_int_equal(store_config_checkpoints(&c, "runs/a", url, 11, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "run.dir"));
    snprintf(c.checkpoint_url, sizeof c.checkpoint_url, "s3://bucket/a");
    err_clear(&e);
    assert_int_equal(store_config_checkpoints(&c, run_dir, url, sizeof url, &e), 0);
    assert_string_equal(url, "s3://bucket/a");
    assert_int_equal(store_config_checkpoints(&c, run_dir, url, 13, &e), -ERR_CONFIG);
    assert_non_null(strstr(e.text, "checkpoint.url"));
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(options), cmocka_unit_test(checkpoints)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
