// SPDX-License-Identifier: Apache-2.0
// The signer against the examples of AWS's documentation ("Authenticating Requests: Using the Authorization
// Header", S3 API reference). With "--sign" it signs requests read from stdin instead, for
// tests/unit/sigv4_peer.py.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "storage/hash.h"
#include "storage/sigv4.h"

#define EMPTY_SHA256 "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

static const struct sigv4_credentials aws_example = {
    .access_key = "AKIAIOSFODNN7EXAMPLE",
    .secret_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
};

static struct sigv4_request example_request(const char *path) {
    struct sigv4_request r = {.method = "GET",
                              .host = "examplebucket.s3.amazonaws.com",
                              .path = path,
                              .payload_sha256 = EMPTY_SHA256,
                              .region = "us-east-1",
                              .service = "s3",
                              .utc_seconds = 1369353600}; // 2013-05-24T00:00:00Z
    return r;
}

static void expect_authorization(const struct sigv4_request *r, const char *signed_names,
                                 const char *signature) {
    struct err e = {0};
    struct buf got;
    char want[512];
    buf_init(&got, 4096);
    snprintf(want, sizeof want,
             "AWS4-HMAC-SHA256 "
             "Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=%s,"
             "Signature=%s",
             signed_names, signature);
    if (sigv4_authorize(r, &aws_example, &got, &e)) fail_msg("%s", e.text);
    assert_string_equal(got.data, want);
    buf_fini(&got);
}

static void get_object(void **state) {
    struct sigv4_request r = example_request("/test.txt");
    struct sigv4_field range = {"range", "bytes=0-9"};
    r.headers = &range;
    r.n_headers = 1;
    expect_authorization(&r, "host;range;x-amz-content-sha256;x-amz-date",
                         "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
}

static void put_object(void **state) {
    struct sigv4_request r = example_request("/test$file.text");
    struct sigv4_field headers[] = {{"x-amz-storage-class", "REDUCED_REDUNDANCY"},
                                    {"date", "Fri, 24 May 2013 00:00:00 GMT"}};
    unsigned char digest[32];
    char hex[65];
    hash_sha256_of("Welcome to Amazon S3.", 21, digest);
    bytes_hex(digest, 32, hex);
    r.method = "PUT";
    r.payload_sha256 = hex;
    r.headers = headers;
    r.n_headers = 2;
    expect_authorization(&r, "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
                         "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd");
}

static void get_lifecycle(void **state) {
    struct sigv4_request r = example_request("/");
    struct sigv4_field query = {"lifecycle", NULL};
    r.query = &query;
    r.n_query = 1;
    expect_authorization(&r, "host;x-amz-content-sha256;x-amz-date",
                         "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
}

static void list_objects(void **state) {
    struct sigv4_request r = example_request("/");
    struct sigv4_field query[] = {{"prefix", "J"}, {"max-keys", "2"}};
    r.query = query;
    r.n_query = 2;
    expect_authorization(&r, "host;x-amz-content-sha256;x-amz-date",
                         "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void expect_target(const struct sigv4_request *r, const char *want) {
    struct err e = {0};
    struct buf got;
    buf_init(&got, 4096);
    if (sigv4_target(r, &got, &e)) fail_msg("%s", e.text);
    assert_string_equal(got.data, want);
    buf_fini(&got);
}

static void targets(void **state) {
    struct sigv4_request r = example_request("/b/a b=+%/~//../\xc3\xa9*'()");
    expect_target(&r, "/b/a%20b%3D%2B%25/~//../%C3%A9%2A%27%28%29");
    struct sigv4_field query[] = {{"b", "2"}, {"a/", "x/y"}, {"b", "1&"}, {"A", NULL}, {"a.", "z"}};
    r = example_request("/");
    r.query = query;
    r.n_query = 5;
    // Sorted after encoding: "a%2F" comes before "a.".
    expect_target(&r, "/?A=&a%2F=x%2Fy&a.=z&b=1%26&b=2");
}

static void dates(void **state) {
    char date[SIGV4_DATE_BYTES];
    sigv4_date(0, date);
    assert_string_equal(date, "19700101T000000Z");
    sigv4_date(1709251199, date);
    assert_string_equal(date, "20240229T235959Z");
}

static void session_token_is_signed(void **state) {
    struct err e = {0};
    struct buf got;
    struct sigv4_request r = example_request("/");
    struct sigv4_credentials c = aws_example;
    c.session_token = "to/ken==";
    buf_init(&got, 4096);
    if (sigv4_canonical(&r, &c, &got, &e)) fail_msg("%s", e.text);
    assert_non_null(strstr(got.data, "\nx-amz-security-token:to/ken==\n"));
    assert_non_null(strstr(got.data, "x-amz-date;x-amz-security-token\n"));
    buf_fini(&got);
}

static void too_many_fields(void **state) {
    struct sigv4_field many[SIGV4_FIELDS_MAX + 1];
    struct buf got;
    for (int i = 0; i <= SIGV4_FIELDS_MAX; i++) many[i] = (struct sigv4_field){"a", "b"};
    struct sigv4_request r = example_request("/");
    buf_init(&got, 4096);
    r.query = many;
    r.n_query = SIGV4_FIELDS_MAX + 1;
    assert_int_equal(sigv4_target(&r, &got, NULL), -ERR_BUG);
    r = example_request("/");
    r.headers = many;
    r.n_headers = SIGV4_FIELDS_MAX - 3;
    assert_int_equal(sigv4_authorize(&r, &aws_example, &got, NULL), -ERR_BUG);
    buf_fini(&got);
}

// ---- "--sign": lines of tab-separated METHOD, path, query name, query value (all hex), token; answers with
// one line "target authorization" each.

static int unhex(const char *hex, char *out, size_t room) {
    size_t n = strlen(hex) / 2;
    if (n >= room) return -1;
    for (size_t i = 0; i < n; i++) {
        char pair[3] = {hex[2 * i], hex[2 * i + 1], 0};
        out[i] = (char)strtoul(pair, NULL, 16);
    }
    out[n] = 0;
    return 0;
}

static int sign_line(char *line) {
    char raw[3][4097], *fields[5];
    struct err e = {0};
    struct buf out;
    line[strcspn(line, "\n")] = 0;
    for (int i = 0; i < 5; i++)
        if (!(fields[i] = strsep(&line, "\t"))) return 1;
    for (int i = 0; i < 3; i++)
        if (unhex(fields[i + 1], raw[i], sizeof raw[i])) return 1;
    struct sigv4_field query[] = {{raw[1], raw[2]}, {"list-type", "2"}}, range = {"range", "bytes=7-11"};
    struct sigv4_request r = example_request(raw[0]);
    struct sigv4_credentials c = aws_example;
    c.session_token = fields[4];
    r.method = fields[0];
    r.query = query;
    r.n_query = raw[1][0] ? 2 : 0;
    r.headers = &range;
    r.n_headers = strcmp(r.method, "GET") ? 0 : 1;
    buf_init(&out, 65536);
    int rc = sigv4_target(&r, &out, &e) || buf_appends(&out, " ", &e) || sigv4_authorize(&r, &c, &out, &e);
    if (!rc) puts(out.data);
    buf_fini(&out);
    return rc;
}

static int sign_lines(void) {
    static char line[32768];
    int rc = 0;
    while (!rc && fgets(line, sizeof line, stdin)) rc = sign_line(line);
    return rc;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(get_object),
        cmocka_unit_test(put_object),
        cmocka_unit_test(get_lifecycle),
        cmocka_unit_test(list_objects),
        cmocka_unit_test(targets),
        cmocka_unit_test(dates),
        cmocka_unit_test(session_token_is_signed),
        cmocka_unit_test(too_many_fields),
    };
    if (argc > 1 && !strcmp(argv[1], "--sign")) return sign_lines();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
