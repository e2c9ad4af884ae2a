// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/err.h"

static void the_first_error_survives(void **state) {
    struct err e = {0};
    assert_int_equal(err_set(&e, ERR_DATA, "shard %d is cut", 7), -ERR_DATA);
    assert_int_equal(err_set(&e, ERR_IO, "later"), -ERR_DATA);
    assert_int_equal(err_errno(&e, ENOENT, "later"), -ERR_DATA);
    assert_string_equal(e.text, "shard 7 is cut");
    assert_non_null(strstr(e.file, "test_err.c"));
    assert_true(e.line > 0);
    err_clear(&e);
    assert_int_equal(err_set(&e, ERR_IO, "now"), -ERR_IO);
}

static void nobody_needs_an_err(void **state) {
    assert_int_equal(err_set(NULL, ERR_IO, "x"), -ERR_IO);
    assert_int_equal(err_errno(NULL, EACCES, "x"), -ERR_DENIED);
    assert_int_equal(err_prefix(NULL, "x"), 0);
}

static void errno_becomes_a_code(void **state) {
    static const struct {
        int number;
        enum err_code code;
    } rows[] = {{ENOENT, ERR_MISSING},
                {EACCES, ERR_DENIED},
                {EPERM, ERR_DENIED},
                {ENOMEM, ERR_MEMORY},
                {ENOSPC, ERR_IO}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct err e = {0};
        assert_int_equal(err_errno(&e, rows[i].number, "open x"), -(int)rows[i].code);
        assert_non_null(strstr(e.text, strerror(rows[i].number)));
    }
}

static void a_prefix_goes_in_front(void **state) {
    struct err e = {0};
    assert_int_equal(err_prefix(&e, "nothing"), 0);
    assert_int_equal(err_set(&e, ERR_DATA, "bad\nheader"), -ERR_DATA);
    assert_int_equal(err_prefix(&e, "shard %d", 3), -ERR_DATA);
    assert_string_equal(e.text, "shard 3: bad header");
}

static void long_texts_are_cut_not_spilled(void **state) {
    char longer[3 * ERR_TEXT_BYTES];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = 0;
    struct err e = {0};
    (void)err_set(&e, ERR_DATA, "%s", longer);
    assert_int_equal(strlen(e.text), ERR_TEXT_BYTES - 1);
    (void)err_prefix(&e, "%s", longer);
    assert_true(strlen(e.text) < ERR_TEXT_BYTES);
    err_clear(&e);
    (void)err_errno(&e, EIO, "%s", longer);
    assert_true(strlen(e.text) < ERR_TEXT_BYTES);
}

static void exit_codes_go_both_ways(void **state) {
    for (int code = 1; code < ERR_COUNT; code++) {
        int exit_code = err_exit_code((enum err_code)code);
        assert_in_range(exit_code, 64, 79);
        if (code == ERR_ABSENT) // shares UNAVAILABLE's, but another attempt would meet it again
            assert_int_equal(exit_code, err_exit_code(ERR_UNAVAILABLE));
        else
            assert_int_equal(err_from_exit_code(exit_code), code);
        assert_true(err_class_of((enum err_code)code) != ERR_CLASS_NONE);
        assert_true(err_words((enum err_code)code)[0] != 0);
    }
    assert_int_equal(err_exit_code(ERR_OK), 0);
    assert_int_equal(err_exit_code((enum err_code)99), 70);
    assert_int_equal(err_class_of((enum err_code)99), ERR_CLASS_BUG);
    assert_int_equal(err_from_exit_code(1), ERR_OK);
    assert_int_equal(err_from_exit_code(137), ERR_OK);
    assert_string_equal(err_class_name(err_class_of(ERR_CONFIG)), "USER");
    assert_string_equal(err_class_name(err_class_of(ERR_PEER)), "RETRY");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_error_survives),       cmocka_unit_test(nobody_needs_an_err),
        cmocka_unit_test(errno_becomes_a_code),           cmocka_unit_test(a_prefix_goes_in_front),
        cmocka_unit_test(long_texts_are_cut_not_spilled), cmocka_unit_test(exit_codes_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
