// SPDX-License-Identifier: Apache-2.0
// The S3 store against a real server; tests/e2e/s3.sh brings one up and sets AWS_* and S3_BUCKET. Without
// arguments the tests; "keys" that of odd keys alone, drawn from S3_SEED; "reads SECONDS" reads and writes
// for so long and checks every byte, while the script kills the server; "bench MB" prints throughput.
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/hash.h"
#include "storage/store.h"
#include "store_suite.h"

static char bucket_url[256];

static struct store *open_at(const char *under, int64_t deadline_ms) {
    char url[512];
    struct store *s;
    struct err e = {0};
    struct store_options options = {.path_style = !getenv("S3_VIRTUAL_HOST"), .deadline_ms = deadline_ms};
    snprintf(url, sizeof url, "%s/%s", bucket_url, under);
    if (store_open(&s, url, &options, &e)) fail_msg("%s", e.text);
    return s;
}

static void suite(void **state) {
    struct store *s = open_at("suite", 0);
    store_suite_run(s);
    store_close(s);
}

static void suite_behind_faults(void **state) {
    char url[512];
    struct store *s;
    struct err e = {0};
    struct store_options options = {.path_style = true};
    snprintf(url, sizeof url, "fault:503=5%%,reset=5%%,lost=5%%,seed=1:%s/faulty", bucket_url);
    if (store_open(&s, url, &options, &e)) fail_msg("%s", e.text);
    store_suite_run(s);
    store_close(s);
}

// ---- keys of every kind: one PUT, GET, LIST and DELETE each, none refused.

enum { KEYS = 500, KEY_BYTES = 96 };

// Any byte but NUL. Keys that are no UTF-8 are refused by AWS and by radosgw, so what is above 0x7f comes in
// whole characters.
static void draw_key(struct rng_stream *r, int i, char *out) {
    static const char *const nasty[] = {"=",
                                        "+",
                                        "%",
                                        "/",
                                        "~",
                                        "//",
                                        "..",
                                        "/../",
                                        "/./",
                                        "%2F",
                                        "%",
                                        "&",
                                        "?",
                                        "#",
                                        " ",
                                        "  ",
                                        "*",
                                        "'",
                                        "\"",
                                        "<",
                                        ">",
                                        ";",
                                        ":",
                                        "@",
                                        "!",
                                        "$",
                                        ",",
                                        "(",
                                        ")",
                                        "\\",
                                        "^",
                                        "`",
                                        "{",
                                        "}",
                                        "|",
                                        "[",
                                        "]",
                                        "\t",
                                        "\n",
                                        "\x01",
                                        "\x7f",
                                        "\xc3\xa9",
                                        "\xe6\x97\xa5",
                                        "\xf0\x9f\x9a\x80",
                                        "a",
                                        "Z",
                                        "0",
                                        "-",
                                        "_",
                                        "."};
    size_t n = (size_t)snprintf(out, KEY_BYTES, "%03d", i);
    int pieces = 1 + (int)rng_next_below(r, 12);
    for (int k = 0; k < pieces; k++) {
        const char *piece = nasty[rng_next_below(r, sizeof nasty / sizeof *nasty)];
        n += (size_t)snprintf(out + n, KEY_BYTES - n, "%s", piece);
    }
}

static void on_all(struct store *s, enum store_op op, char (*keys)[KEY_BYTES], char (*got)[KEY_BYTES]) {
    static struct store_request *requests[KEYS];
    for (int i = 0; i < KEYS; i++) {
        struct store_call c = {.op = op,
                               .key = keys[i],
                               .length = -1,
                               .into = got ? got[i] : NULL,
                               .capacity = got ? KEY_BYTES : 0,
                               .data = keys[i],
                               .bytes = strlen(keys[i])};
        SUITE_OK(store_start(s, &requests[i], &c, err));
    }
    for (int i = 0; i < KEYS; i++) {
        struct err e = {0};
        if (store_wait(s, requests[i], NULL, &e)) fail_msg("%s", e.text);
    }
}

static int by_text(const void *a, const void *b) {
    return strcmp(a, b);
}

static void keys_round(uint64_t seed) {
    static char keys[KEYS][KEY_BYTES], got[KEYS][KEY_BYTES];
    struct store_listing l;
    struct rng_stream r;
    struct store *s = open_at("keys", 0);
    rng_stream_init(&r, rng_key(seed, RNG_TEST, 0), 0, 0);
    for (int i = 0; i < KEYS; i++) draw_key(&r, i, keys[i]);
    memset(got, 0, sizeof got);
    on_all(s, STORE_PUT, keys, NULL);
    on_all(s, STORE_GET, keys, got);
    for (int i = 0; i < KEYS; i++) assert_string_equal(got[i], keys[i]);
    SUITE_OK(store_collect(s, "", NULL, &l, err));
    assert_int_equal(l.n, KEYS);
    qsort(keys, KEYS, KEY_BYTES, by_text);
    for (int i = 0; i < KEYS; i++) assert_string_equal(l.objects[i].key, keys[i]);
    store_listing_fini(&l);
    on_all(s, STORE_DELETE, keys, NULL);
    SUITE_OK(store_collect(s, "", NULL, &l, err));
    assert_int_equal(l.n, 0);
    store_listing_fini(&l);
    store_close(s);
}

static uint64_t number_from(const char *name, uint64_t otherwise) {
    const char *given = getenv(name);
    return given ? strtoul(given, NULL, 10) : otherwise;
}

// S3_KEYS=10000 is the campaign.
static void keys_of_every_kind(void **state) {
    uint64_t seed = number_from("S3_SEED", 1), rounds = (number_from("S3_KEYS", KEYS) + KEYS - 1) / KEYS;
    for (uint64_t i = 0; i < rounds; i++) keys_round(seed + i);
    print_message("    %d keys: PUT, GET, LIST and DELETE of each, none refused\n", (int)(rounds * KEYS));
}

// More than one page of 1000.
static void long_listing(void **state) {
    enum { N = 2100 };
    static struct store_request *requests[N];
    static char keys[N][32];
    struct store_listing l;
    struct store *s = open_at("long", 0);
    for (int i = 0; i < N; i++) {
        snprintf(keys[i], sizeof keys[i], "d%02d/k%05d", i / 100, i);
        struct store_call c = {.op = STORE_PUT, .key = keys[i], .data = "x", .bytes = 1};
        SUITE_OK(store_start(s, &requests[i], &c, err));
    }
    for (int i = 0; i < N; i++) SUITE_OK(store_wait(s, requests[i], NULL, err));
    SUITE_OK(store_collect(s, "", NULL, &l, err));
    assert_int_equal(l.n, N);
    for (int i = 0; i < N; i++) assert_string_equal(l.objects[i].key, keys[i]);
    store_listing_fini(&l);
    SUITE_OK(store_collect(s, "", "/", &l, err));
    assert_int_equal(l.n, 0);
    assert_int_equal(l.n_prefixes, N / 100);
    store_listing_fini(&l);
    store_close(s);
}

// ---- who wins when many create one key.

enum { RACERS = 8, RACES = 10 };
struct racer {
    struct store *s;
    int number, race, rc;
};

static void *race(void *arg) {
    struct racer *r = arg;
    char key[32], text[32];
    snprintf(key, sizeof key, "race/%d", r->race);
    int n = snprintf(text, sizeof text, "racer %d", r->number);
    r->rc = store_put(r->s, key, text, (size_t)n, true, NULL);
    return NULL;
}

static void create_only_has_one_winner(void **state) {
    struct store *s = open_at("race", 0);
    for (int k = 0; k < RACES; k++) {
        struct racer racers[RACERS];
        pthread_t threads[RACERS];
        int winners = 0;
        for (int i = 0; i < RACERS; i++) {
            racers[i] = (struct racer){.s = s, .number = i, .race = k};
            assert_int_equal(pthread_create(&threads[i], NULL, race, &racers[i]), 0);
        }
        for (int i = 0; i < RACERS; i++) {
            pthread_join(threads[i], NULL);
            winners += !racers[i].rc;
            assert_true(!racers[i].rc || racers[i].rc == -ERR_CONFLICT);
        }
        assert_int_equal(winners, 1);
    }
    store_close(s);
}

// ---- errors say what is wrong and what to do.

static void expect_error(const char *url, int rc, const char *word1, const char *word2) {
    struct store *s;
    struct err e = {0};
    char c;
    struct store_options options = {.path_style = true, .deadline_ms = 3000};
    int64_t before = clock_monotonic_ns();
    int got = store_open(&s, url, &options, &e);
    if (!got) {
        got = store_get_range(s, "no/such/key", 0, 1, &c, &e);
        store_close(s);
    }
    assert_true(clock_monotonic_ns() - before < 8000000000);
    print_message("    %s\n", e.text);
    assert_int_equal(got, rc);
    assert_non_null(strstr(e.text, word1));
    assert_non_null(strstr(e.text, word2));
    assert_null(strchr(e.text, '\n'));
    assert_null(strstr(e.text, getenv("AWS_SECRET_ACCESS_KEY")));
}

static void with_env(const char *name, const char *value, const char *url, int rc, const char *word1,
                     const char *word2) {
    char *kept = getenv(name) ? strdup(getenv(name)) : NULL;
    setenv(name, value, 1);
    expect_error(url, rc, word1, word2);
    if (kept)
        setenv(name, kept, 1);
    else
        unsetenv(name);
    free(kept);
}

static void errors(void **state) {
    char other[300];
    snprintf(other, sizeof other, "%s-that-is-not-there/x", bucket_url);
    expect_error(bucket_url, -ERR_MISSING, "GET 'no/such/key' bytes=0-0", "NoSuchKey");
    expect_error(other, -ERR_MISSING, "NoSuchBucket", "create it");
    expect_error("s3://ab/x", -ERR_CONFIG, "'ab'", "bucket's name");
    expect_error("s3:///x", -ERR_CONFIG, "''", "bucket's name");
    with_env("AWS_ACCESS_KEY_ID", "AKNOBODY", bucket_url, -ERR_DENIED, "InvalidAccessKeyId",
             "the environment");
    with_env("AWS_SECRET_ACCESS_KEY", "nosecret", bucket_url, -ERR_DENIED, "SignatureDoesNotMatch",
             "secret key");
    with_env("AWS_ENDPOINT_URL", "http://127.0.0.1:1", bucket_url, -ERR_UNAVAILABLE, "127.0.0.1", "attempts");
    with_env("AWS_ENDPOINT_URL", "http://host/path", bucket_url, -ERR_CONFIG, "http://host/path", "endpoint");
    with_env("AWS_REGION", "No Region", bucket_url, -ERR_CONFIG, "No Region", "region");
}

static void credentials_file(void **state) {
    char path[128];
    struct err e = {0};
    struct store_options options = {.path_style = true};
    struct store *s;
    assert_int_equal(suite_folder_make(NULL), 0);
    snprintf(path, sizeof path, "%s/credentials", suite_folder);
    FILE *f = fopen(path, "w");
    fprintf(f,
            "[default]\naws_access_key_id=wrong\naws_secret_access_key=wrong\n# note\n[mine]\r\n"
            " aws_access_key_id = %s \r\naws_secret_access_key=%s\r\n",
            getenv("AWS_ACCESS_KEY_ID"), getenv("AWS_SECRET_ACCESS_KEY"));
    fclose(f);
    char *access = strdup(getenv("AWS_ACCESS_KEY_ID"));
    unsetenv("AWS_ACCESS_KEY_ID");
    setenv("AWS_SHARED_CREDENTIALS_FILE", path, 1);
    setenv("AWS_PROFILE", "mine", 1);
    if (store_open(&s, bucket_url, &options, &e)) fail_msg("%s", e.text);
    if (store_put(s, "by-file", "x", 1, false, &e)) fail_msg("%s", e.text);
    store_close(s);
    setenv("AWS_PROFILE", "nobody", 1);
    expect_error(bucket_url, -ERR_DENIED, "AWS_ACCESS_KEY_ID", "'nobody'");
    (void)suite_folder_remove(NULL);
    expect_error(bucket_url, -ERR_DENIED, "AWS_ACCESS_KEY_ID", "No such file");
    unsetenv("AWS_PROFILE");
    unsetenv("AWS_SHARED_CREDENTIALS_FILE");
    setenv("AWS_ACCESS_KEY_ID", access, 1);
    free(access);
}

// A broken-off upload leaves no object, and no upload either.
static void aborted_writer(void **state) {
    struct store_writer *w;
    struct store_result head;
    struct store *s = open_at("abort", 0);
    size_t n = (size_t)20 << 20;
    char *data = calloc(1, n);
    SUITE_OK(store_writer_open(s, &w, "gone", err));
    SUITE_OK(store_writer_write(w, data, n, err));
    store_writer_abort(w);
    assert_int_equal(store_head(s, "gone", &head, NULL), -ERR_MISSING);
    free(data);
    store_close(s);
}

// ---- "reads SECONDS"

static int check_one(struct store *s, int i, struct err *e) {
    char key[32], text[64], back[64] = {0};
    snprintf(key, sizeof key, "r/%d", i);
    int n = snprintf(text, sizeof text, "the value of key %d", i);
    int rc = store_put(s, key, text, (size_t)n, true, e);
    if (!rc) rc = store_get_range(s, key, 0, (size_t)n, back, e);
    if (!rc && strcmp(text, back)) rc = err_set(e, ERR_DATA, "%s: '%s' came back as '%s'", key, text, back);
    return rc;
}

static int write_and_check(struct store *s, const char *data, char *back, size_t bytes, struct err *e) {
    struct store_writer *w;
    int rc = store_writer_open(s, &w, "written", e);
    if (rc) return rc;
    rc = store_writer_write(w, data, bytes, e);
    if (rc) {
        store_writer_abort(w);
        return rc;
    }
    rc = store_writer_commit(w, e);
    memset(back, 0, bytes);
    if (!rc) rc = store_get_range(s, "written", 0, bytes, back, e);
    if (!rc && memcmp(data, back, bytes)) rc = err_set(e, ERR_DATA, "wrong bytes from the writer");
    return rc;
}

static int reads(double seconds) {
    struct err e = {0};
    enum { BYTES = 24 << 20 };
    char *data = malloc(BYTES), *back = malloc(BYTES);
    struct store *s = open_at("reads", 20000);
    int rounds = 0, rc = 0;
    for (int i = 0; i < BYTES; i++) data[i] = (char)((uint32_t)i * 2654435761u >> 13);
    rc = store_put(s, "large", data, BYTES, false, &e);
    for (double end = clock_seconds() + seconds; !rc && clock_seconds() < end; rounds++) {
        memset(back, 0, BYTES);
        rc = store_get_range(s, "large", 0, BYTES, back, &e);
        if (!rc && memcmp(data, back, BYTES)) rc = err_set(&e, ERR_DATA, "wrong bytes");
        if (!rc) rc = check_one(s, rounds, &e);
        if (!rc && rounds % 4 == 0) rc = store_put(s, "large", data, BYTES, false, &e);
        if (!rc && rounds % 2 == 0) rc = write_and_check(s, data, back, BYTES, &e);
        if (rounds % 10 == 0) printf("round %d\n", rounds), fflush(stdout);
    }
    printf("%d rounds: %s\n", rounds, rc ? e.text : "every byte right");
    store_close(s);
    free(data);
    free(back);
    return rc || rounds < 3;
}

// ---- "bench MB"

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static int bench(size_t mb) {
    struct err e = {0};
    size_t n = mb << 20;
    char *data = malloc(n);
    memset(data, 0x5a, n);
    struct store *s = open_at("bench", 60000);
    double t0 = clock_seconds(), c0 = cpu_seconds();
    int rc = store_put(s, "big", data, n, false, &e);
    double t1 = clock_seconds(), c1 = cpu_seconds();
    memset(data, 0, n);
    double t2 = clock_seconds(), c2 = cpu_seconds();
    if (!rc) rc = store_get_range(s, "big", 0, n, data, &e);
    uint32_t crc = hash_crc32c(0, data, n);
    double t3 = clock_seconds(), c3 = cpu_seconds(), gb = (double)n / 1e9;
    printf("PUT %.0f MB/s (%.2f core-s/GB, SHA-256 included), GET %.0f MB/s (%.2f core-s/GB, CRC32C "
           "included) crc %08x %s\n",
           1e3 * gb / (t1 - t0), (c1 - c0) / gb, 1e3 * gb / (t3 - t2), (c3 - c2) / gb, crc, e.text);
    store_close(s);
    free(data);
    return rc;
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suite),
        cmocka_unit_test(suite_behind_faults),
        cmocka_unit_test(keys_of_every_kind),
        cmocka_unit_test(long_listing),
        cmocka_unit_test(create_only_has_one_winner),
        cmocka_unit_test(errors),
        cmocka_unit_test(credentials_file),
        cmocka_unit_test(aborted_writer),
    };
    if (!getenv("S3_BUCKET")) return 77;
    snprintf(bucket_url, sizeof bucket_url, "s3://%s", getenv("S3_BUCKET"));
    const struct CMUnitTest keys[] = {cmocka_unit_test(keys_of_every_kind)};
    if (argc > 1 && !strcmp(argv[1], "keys")) return cmocka_run_group_tests(keys, NULL, NULL);
    if (argc > 2 && !strcmp(argv[1], "reads")) return reads(strtod(argv[2], NULL));
    if (argc > 2 && !strcmp(argv[1], "bench")) return bench(strtoul(argv[2], NULL, 10));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
