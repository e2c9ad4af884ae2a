// SPDX-License-Identifier: Apache-2.0
// Names of a folder on a disk that fails: readdir is wrapped.
#include "base/folder.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int failing = -1; // after so many names; -1: never

struct dirent *__real_readdir(DIR *d);
struct dirent *__wrap_readdir(DIR *d);

struct dirent *__wrap_readdir(DIR *d) {
    if (failing < 0 || failing-- > 0) return __real_readdir(d);
    errno = EIO;
    return NULL;
}

static int count(int fail_after, int *n, struct err *e) {
    DIR *d = opendir("/");
    struct dirent *entry;
    int rc;
    assert_non_null(d);
    failing = fail_after;
    for (*n = 0; !(rc = folder_next(d, "/", &entry, e)) && entry; ++*n) errno = EBADF;
    closedir(d);
    return rc;
}

static void an_error_is_no_end(void **state) {
    struct err e = {0};
    int all, n;
    assert_int_equal(count(-1, &all, &e), 0);
    assert_true(all > 2);
    for (int i = 0; i < all; i++) {
        err_clear(&e);
        assert_int_equal(count(i, &n, &e), -ERR_IO);
        assert_int_equal(n, i);
        assert_non_null(strstr(e.text, "reading /"));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(an_error_is_no_end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
