// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/process.h"

static void its_program_is_found(void **state) {
    char path[4096], small[8];
    struct err e = {0};
    assert_int_equal(process_path(path, sizeof path, &e), 0);
    assert_int_equal(path[0], '/');
    assert_non_null(strstr(path, "test_process"));
    assert_int_equal(access(path, X_OK), 0);
    size_t n = strlen(path);
    assert_int_equal(process_path(path, n + 1, &e), 0);
    assert_int_equal(process_path(small, sizeof small, &e), -ERR_MISSING); // and no other program's path
}

static void a_host_name_has_its_end(void **state) {
    char name[256], out[256], tiny[2];
    assert_int_equal(gethostname(name, sizeof name), 0);
    size_t n = strlen(name);
    memset(out, 'x', sizeof out);
    assert_ptr_equal(process_host(out, n + 1, "?"), out);
    assert_string_equal(out, name);
    if (n < 2) skip();
    memset(tiny, 'x', sizeof tiny);
    assert_string_equal(process_host(tiny, sizeof tiny, "?"), "?");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(its_program_is_found),
                                       cmocka_unit_test(a_host_name_has_its_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
