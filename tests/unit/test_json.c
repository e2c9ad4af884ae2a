// SPDX-License-Identifier: Apache-2.0
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static void the_writer_keeps_order_and_escapes(void **state) {
    struct err e = {0};
    struct buf b;
    struct json_writer w;
    buf_init(&b, 1000);
    json_begin(&w, &b);
    json_put_object(&w, NULL);
    json_put_string(&w, "z\"", "a\\b\n\t\x01\x7f\xc3\xa9");
    json_put_stringn(&w, "bad", "x\xff\xc3y", 4);
    json_put_string(&w, "none", NULL);
    json_put_array(&w, "a");
    json_put_int(&w, NULL, INT64_MIN);
    json_put_double(&w, NULL, 0.1);
    json_put_double(&w, NULL, NAN);
    json_put_double(&w, NULL, -INFINITY);
    json_put_double(&w, NULL, -0.0);
    json_put_bool(&w, NULL, true);
    json_put_null(&w, NULL);
    json_close(&w, ']');
    json_put_object(&w, "empty");
    json_close(&w, '}');
    json_close(&w, '}');
    assert_int_equal(json_end(&w, &e), 0);
    assert_string_equal(
        b.data, "{\"z\\\"\":\"a\\\\b\\n\\t\\u0001\\u007f\xc3\xa9\",\"bad\":\"x\xef\xbf\xbd\xef\xbf\xbdy\","
                "\"none\":null,\"a\":[-9223372036854775808,0.1,null,null,-0.0,true,null],"
                "\"empty\":{}}");
    buf_fini(&b);
}

static void the_writer_reports_a_full_buffer_and_open_brackets(void **state) {
    struct err e = {0};
    struct buf b;
    struct json_writer w;
    buf_init(&b, 8);
    json_begin(&w, &b);
    json_put_object(&w, NULL);
    json_put_string(&w, "key", "too long for eight bytes");
    json_close(&w, '}');
    assert_int_equal(json_end(&w, &e), -ERR_DATA);
    buf_fini(&b);
    err_clear(&e);
    buf_init(&b, 80);
    json_begin(&w, &b);
    json_put_array(&w, NULL);
    assert_int_equal(json_end(&w, &e), -ERR_BUG);
    buf_fini(&b);
}

static struct json *parse(const char *text) {
    struct err e = {0};
    struct json *doc;
    assert_int_equal(json_parse(&doc, text, strlen(text), "test", &e), 0);
    return doc;
}

static void the_reader_answers_by_type(void **state) {
    struct json *doc = parse("{\"s\":\"x\",\"i\":7,\"d\":2.5,\"b\":true,\"n\":null,\"a\":[1,[2]],\"o\":{}}");
    const struct json_value *root = json_root(doc), *a = json_get(root, "a");
    const char *s = NULL;
    int64_t i = 0;
    double d = 0;
    bool b = false;
    assert_true(json_is_object(root));
    assert_false(json_is_array(root));
    assert_int_equal(json_size(root), 7);
    assert_true(json_as_string(json_get(root, "s"), &s));
    assert_string_equal(s, "x");
    assert_true(json_as_int(json_get(root, "i"), &i));
    assert_int_equal(i, 7);
    assert_true(json_as_double(json_get(root, "i"), &d));
    assert_true(d == 7);
    assert_true(json_as_double(json_get(root, "d"), &d));
    assert_true(d == 2.5);
    assert_false(json_as_int(json_get(root, "d"), &i));
    assert_true(json_as_bool(json_get(root, "b"), &b));
    assert_true(b);
    assert_false(json_as_bool(json_get(root, "n"), &b));
    assert_false(json_as_string(json_get(root, "missing"), &s));
    assert_true(json_is_array(a));
    assert_int_equal(json_size(a), 2);
    assert_int_equal(json_size(json_at(a, 1)), 1);
    assert_null(json_at(a, 2));
    assert_null(json_at(root, 0));
    assert_null(json_get(a, "s"));
    assert_null(json_get(NULL, "s"));
    assert_int_equal(json_size(NULL), 0);
    assert_int_equal(json_size(json_get(root, "s")), 0);
    json_destroy(doc);
    json_destroy(NULL);
    assert_null(json_root(NULL));
}

static void a_member_that_is_missing_or_of_another_type_is_otherwise(void **state) {
    struct json *doc = parse("{\"s\":\"x\",\"i\":7,\"d\":2.5,\"b\":true,\"n\":null}");
    const struct json_value *root = json_root(doc);
    assert_string_equal(json_string_or(root, "s", "?"), "x");
    assert_string_equal(json_string_or(root, "i", "?"), "?");
    assert_null(json_string_or(root, "missing", NULL));
    assert_int_equal(json_int_or(root, "i", -1), 7);
    assert_int_equal(json_int_or(root, "d", -1), -1);
    assert_int_equal(json_int_or(NULL, "i", -1), -1);
    assert_true(json_double_or(root, "d", -1) == 2.5);
    assert_true(json_double_or(root, "i", -1) == 7);
    assert_true(json_double_or(root, "s", -1) == -1);
    assert_true(json_bool_or(root, "b", false));
    assert_true(json_bool_or(root, "n", true));
    assert_false(json_bool_or(root, "i", false));
    json_destroy(doc);
}

static void members_come_in_their_order(void **state) {
    struct json *doc = parse("{\"c\":1,\"a\":2,\"b\":3}");
    const struct json_value *root = json_root(doc), *v;
    const char *key = NULL;
    char keys[4] = "";
    while (json_next(root, &key, &v)) strncat(keys, key, 1);
    assert_string_equal(keys, "cab");
    int64_t n = 0;
    assert_true(json_member(root, 1, &key, &v));
    assert_string_equal(key, "a");
    assert_true(json_as_int(v, &n));
    assert_int_equal(n, 2);
    assert_false(json_member(root, 3, &key, &v));
    key = NULL;
    assert_false(json_next(NULL, &key, &v));
    json_destroy(doc);
}

static void refuse(const char *text, size_t n, const char *why) {
    struct err e = {0};
    struct json *doc;
    assert_int_equal(json_parse(&doc, text, n, "manifest x", &e), -ERR_DATA);
    assert_null(doc);
    assert_non_null(strstr(e.text, "manifest x"));
    if (!strstr(e.text, why)) fail_msg("'%s' lacks '%s'", e.text, why);
}

static void broken_documents_are_refused(void **state) {
    static const char *const bad[] = {
        "",         "{",           "{\"a\":}",    "[1,]",  "{\"a\":1,\"a\":2}",    "nul",  "[1] x",
        "\"\xff\"", "\"\\u0000\"", "\"\\ud800\"", "1e999", "99999999999999999999", "[NaN]"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuse(bad[i], strlen(bad[i]), "manifest x");
    refuse("{\n\"a\" 1}", 8, "manifest x:2:");
}

static char *repeat(const char *piece, size_t times, size_t *n) {
    size_t length = strlen(piece);
    char *text = malloc(length * times + 1);
    assert_non_null(text);
    for (size_t i = 0; i < times; i++) memcpy(text + i * length, piece, length);
    *n = length * times;
    return text;
}

static void hostile_sizes_are_refused_before_parsing(void **state) {
    size_t n;
    char *deep = repeat("[", 200000, &n);
    refuse(deep, n, "nested deeper than 64");
    free(deep);
    deep = repeat("{\"a\":", 65, &n);
    refuse(deep, n, "nested deeper than 64");
    free(deep);
    char *many = repeat("[],", 6000000, &n);
    many[0] = '[';
    refuse(many, n, "more than 4194304 values");
    free(many);
    char *big = repeat(" ", ((size_t)64 << 20) + 1, &n);
    refuse(big, n, "more than the 67108864 allowed");
    free(big);
}

static void brackets_in_strings_do_not_nest(void **state) {
    size_t n;
    struct err e = {0};
    struct json *doc;
    char *text = repeat("\"[[{{\\\"[\",", 1000, &n);
    text[n - 1] = ']';
    char *array = malloc(n + 2);
    array[0] = '[';
    memcpy(array + 1, text, n);
    assert_int_equal(json_parse(&doc, array, n + 1, "test", &e), 0);
    assert_int_equal(json_size(json_root(doc)), 1000);
    json_destroy(doc);
    free(array);
    free(text);
}

static void needs_name_document_and_key(void **state) {
    struct err e = {0};
    struct json *doc = parse("{\"n\":12,\"s\":\"x\"}");
    const struct json_value *root = json_root(doc);
    int64_t n;
    const char *s;
    assert_int_equal(json_need_int(doc, root, "n", 0, 12, &n, &e), 0);
    assert_int_equal(n, 12);
    assert_int_equal(json_need_string(doc, root, "s", &s, &e), 0);
    assert_int_equal(json_need_int(doc, root, "n", 13, 20, &n, &e), -ERR_DATA);
    assert_string_equal(e.text, "test: 'n' is 12, outside 13 .. 20");
    err_clear(&e);
    assert_int_equal(json_need_int(doc, root, "s", 0, 1, &n, &e), -ERR_DATA);
    err_clear(&e);
    assert_int_equal(json_need_string(doc, root, "m", &s, &e), -ERR_DATA);
    assert_string_equal(e.text, "test: 'm' is missing or no text");
    json_destroy(doc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_writer_keeps_order_and_escapes),
        cmocka_unit_test(the_writer_reports_a_full_buffer_and_open_brackets),
        cmocka_unit_test(the_reader_answers_by_type),
        cmocka_unit_test(a_member_that_is_missing_or_of_another_type_is_otherwise),
        cmocka_unit_test(members_come_in_their_order),
        cmocka_unit_test(broken_documents_are_refused),
        cmocka_unit_test(hostile_sizes_are_refused_before_parsing),
        cmocka_unit_test(brackets_in_strings_do_not_nest),
        cmocka_unit_test(needs_name_document_and_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
