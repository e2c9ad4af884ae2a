// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "launcher/opts.h"

static const struct cmd verb = {.name = "try", .usage = "WORD [--count N]", .help = "for the test"};

struct values {
    bool flag;
    const char *text;
    int64_t count;
};

static int parse(struct values *v, struct opts_rest *rest, struct err *e, int argc, const char *const *argv) {
    const struct opt table[] = {
        {"flag", 'f', OPT_FLAG, NULL, "a flag", &v->flag, 0, 0},
        {"text", 0, OPT_TEXT, "WORD", "a text", &v->text, 0, 0},
        {"count", 'n', OPT_INT, "N", "a number", &v->count, 1, 10},
    };
    char *copy[16];
    for (int i = 0; i < argc; i++) copy[i] = (char *)(uintptr_t)argv[i];
    return opts_parse(&verb, argc, copy, table, OPTS_COUNT(table), 1, 2, rest, e);
}

#define TRY(v, rest, e, ...)                                                                                 \
    parse((v), (rest), (e), (int)(sizeof((const char *[]){"try", __VA_ARGS__}) / sizeof(char *)),            \
          (const char *[]){"try", __VA_ARGS__})

static void takes_options_words_and_overrides_in_any_order(void **state) {
    struct values v = {0};
    struct opts_rest rest;
    struct err e = {0};
    assert_int_equal(
        TRY(&v, &rest, &e, "--count=3", "a.yaml", "train.steps=5", "-f", "--text", "x=y", "s3://b/k=v"), 0);
    assert_true(v.flag);
    assert_int_equal(v.count, 3);
    assert_string_equal(v.text, "x=y");
    assert_int_equal(rest.n_words, 2);
    assert_string_equal(rest.words[1], "s3://b/k=v");
    assert_int_equal(rest.n_overrides, 1);
    assert_string_equal(rest.overrides[0], "train.steps=5");
}

static void two_dashes_end_the_options(void **state) {
    struct values v = {0};
    struct opts_rest rest;
    struct err e = {0};
    assert_int_equal(TRY(&v, &rest, &e, "--", "--flag"), 0);
    assert_false(v.flag);
    assert_string_equal(rest.words[0], "--flag");
}

static void expect_usage(struct err *e, const char *part) {
    assert_int_equal(e->code, ERR_USAGE);
    assert_non_null(strstr(e->text, part));
    err_clear(e);
}

static void bad_usage_says_what_to_type(void **state) {
    struct values v = {0};
    struct opts_rest rest;
    struct err e = {0};
    assert_int_not_equal(TRY(&v, &rest, &e, "w", "--cuont", "3"), 0);
    expect_usage(&e, "did you mean '--count'");
    assert_int_not_equal(TRY(&v, &rest, &e, "w", "--count", "x"), 0);
    expect_usage(&e, "whole number");
    assert_int_not_equal(TRY(&v, &rest, &e, "w", "-n", "11"), 0);
    expect_usage(&e, "between 1 and 10");
    assert_int_not_equal(TRY(&v, &rest, &e, "w", "--text"), 0);
    expect_usage(&e, "needs a value");
    assert_int_not_equal(TRY(&v, &rest, &e, "w", "--flag=1"), 0);
    expect_usage(&e, "takes no value");
    assert_int_not_equal(TRY(&v, &rest, &e, "-f"), 0);
    expect_usage(&e, "usage: orrery try WORD");
    assert_int_not_equal(TRY(&v, &rest, &e, "a", "b", "c"), 0);
    expect_usage(&e, "unexpected argument 'c'");
}

static void finds_the_nearest_word_or_none(void **state) {
    static const char *const words[] = {"run", "plan", "simulate"};
    assert_string_equal(opts_nearest("simlate", words, 3), "simulate");
    assert_string_equal(opts_nearest("rnu", words, 3), "run");
    assert_null(opts_nearest("checkpoint", words, 3));
    assert_null(opts_nearest("flag", words, 3));
    assert_string_equal(opts_nearest("paln", words, 3), "plan");
    assert_null(opts_nearest("a-word-much-longer-than-any-slip-of-the-hand-could-make-of-another-word-at-all",
                             words, 3));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_options_words_and_overrides_in_any_order),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(bad_usage_says_what_to_type),
        cmocka_unit_test(finds_the_nearest_word_or_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
