// SPDX-License-Identifier: Apache-2.0
// The texts that credentials are read from.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/clock.h"
#include "storage/creds_source.h"

static void words_of_a_command(void **state) {
    char **w = creds_split(" /a\\ b/c  'x $y' \"q\\\"r\"  z''w ");
    assert_non_null(w);
    assert_string_equal(w[0], "/a b/c");
    assert_string_equal(w[1], "x $y");
    assert_string_equal(w[2], "q\"r");
    assert_string_equal(w[3], "zw");
    assert_null(w[4]);
    free(w);
    assert_null(creds_split("open 'quote"));
    assert_null(creds_split("   "));
}

static void times(void **state) {
    assert_int_equal(creds_parse_time("1970-01-02T00:00:00Z"), 86400);
    assert_int_equal(creds_parse_time("1970-01-02T00:00:00.123456Z"), 86400);
    assert_int_equal(creds_parse_time("1970-01-02T02:00:00+02:00"), 86400);
    assert_int_equal(creds_parse_time("1970-01-01T22:30:00-01:30"), 86400);
    assert_int_equal(creds_parse_time("1970-01-02 00:00:00"), 0);
    assert_int_equal(creds_parse_time("soon"), 0);
}

static void profiles(void **state) {
    char text[] =
        "aws_access_key_id=outside\n[profile a]\naws_access_key_id = A\n[default]\naws_access_key_id = D\n"
        "s3 =\n  aws_secret_access_key = nested\naws_secret_access_key=S\n# aws_session_token=x\n";
    char *copy = strdup(text);
    struct creds_profile p = {.name = "default"}, named = {.name = "a"}, none = {.name = "b"};
    creds_read_profile(copy, true, &p);
    assert_true(p.found);
    assert_string_equal(p.access, "D");
    assert_string_equal(p.secret, "S");
    assert_null(p.token);
    free(copy);
    copy = strdup(text);
    creds_read_profile(copy, true, &named);
    assert_string_equal(named.access, "A");
    free(copy);
    creds_read_profile(text, true, &none);
    assert_false(none.found);
}

static int read_json(const char *text, struct creds_set *out, struct err *e) {
    char *copy = strdup(text);
    int rc = creds_from_json(copy, "a test", out, e);
    free(copy);
    return rc;
}

static void json(void **state) {
    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{\"a\"}",
        "{\"a\": \"\\u00e9\"}",
        "{\"a\": \"x}",
        "{\"a\": 1 \"b\"",
        "{\"AccessKeyId\": \"A\"}",
        "{\"Code\": \"Failed\"}",
        "{\"AccessKeyId\": \"A B\", \"SecretAccessKey\": \"S\"}",
        "{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"S\", \"Expiration\": \"x\"}",
        "{\"AccessKeyId\": \"A\", \"SecretAccessKey\": \"S\", \"Expiration\": \"2001-01-01T00:00:00Z\"}"};
    struct creds_set *s = creds_set_create();
    struct err e = {0};
    assert_non_null(s);
    assert_int_equal(
        read_json(" {\"n\": {\"AccessKeyId\": [\"x\", \"}\"]}, \"AccessKeyId\": \"A\", \"i\": 1.5,"
                  "\"SecretAccessKey\": \"S\\/\\u0041\", \"Token\": \"T==\"}",
                  s, &e),
        0);
    assert_string_equal(s->access_key, "A");
    assert_string_equal(s->secret_key, "S/A");
    assert_string_equal(s->session_token, "T==");
    assert_int_equal(s->expires_s, 0);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err_clear(&e);
        if (!read_json(bad[i], s, &e)) fail_msg("taken: %s", bad[i]);
        assert_non_null(strstr(e.text, "a test"));
    }
    creds_set_destroy(s);
}

// A program has its time to end, also one that has said all: a lock is held while it is waited for.
static int stay(const char *seconds, int64_t deadline_ms, struct err *e) {
    char command[256];
    struct creds_set *s = creds_set_create();
    assert_non_null(s);
    snprintf(
        command, sizeof command,
        "sh -c 'echo \"{\\\"AccessKeyId\\\": \\\"A\\\", \\\"SecretAccessKey\\\": \\\"S\\\"}\"; exec >&-; "
        "exec sleep %s'",
        seconds);
    int rc = creds_from_process(command, "a test", deadline_ms, s, e);
    if (!rc) assert_string_equal(s->access_key, "A");
    creds_set_destroy(s);
    return rc;
}

static void a_program_that_stays_is_ended(void **state) {
    struct err e = {0};
    if (stay("0.3", 60000, &e)) fail_msg("%s", e.text);
    double begin = clock_seconds();
    assert_int_equal(stay("30", 2000, &e), -ERR_DENIED);
    assert_non_null(strstr(e.text, "does not end in time"));
    assert_true(clock_seconds() - begin < 20);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_a_command),
        cmocka_unit_test(times),
        cmocka_unit_test(profiles),
        cmocka_unit_test(json),
        cmocka_unit_test(a_program_that_stays_is_ended),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
