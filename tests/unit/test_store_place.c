// SPDX-License-Identifier: Apache-2.0
// Places that nobody means to remove.
#include "launcher/store_place.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "store_suite.h"

static bool is_whole(const char *url) {
    struct store_place p;
    SUITE_OK(store_place_open(&p, url, false, NULL, err));
    bool whole = store_place_is_whole(&p);
    store_place_close(&p);
    return whole;
}

static void a_machine_is_whole(void **state) {
    static const char *const all[] = {
        "/",       "///", "/.", "/tmp/..", "file:///", "file:///.", "file:///usr/..", "file://localhost/",
        "mem:all",
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!is_whole(all[i])) fail_msg("%s", all[i]);
    assert_false(is_whole("/tmp"));
    assert_false(is_whole("file:///usr/bin"));
}

static void a_home_is_whole(void **state) {
    char path[128], url[160];
    const char *folder = suite_folder;
    assert_int_equal(suite_folder_make(NULL), 0);
    snprintf(path, sizeof path, "%s/home", folder);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_false(is_whole(path));
    setenv("HOME", path, 1);
    assert_true(is_whole(path));
    assert_true(is_whole(folder)); // it lies in there
    snprintf(url, sizeof url, "file://%s/home/../home/", folder);
    assert_true(is_whole(url));
    snprintf(url, sizeof url, "%s/to-root", folder);
    assert_int_equal(symlink("/", url), 0);
    assert_true(is_whole(url));
    snprintf(url, sizeof url, "%s/home/data", folder);
    assert_int_equal(mkdir(url, 0700), 0);
    assert_false(is_whole(url));
    snprintf(url, sizeof url, "%s/hom", folder);
    assert_int_equal(mkdir(url, 0700), 0);
    assert_false(is_whole(url));
    (void)suite_folder_remove(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(a_machine_is_whole),
                                       cmocka_unit_test(a_home_is_whole)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
