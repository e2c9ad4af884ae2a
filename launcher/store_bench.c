// SPDX-License-Identifier: Apache-2.0
#include "launcher/store_bench.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/rng.h"
#include "storage/hash.h"

#define WIDTH_MAX   64
#define SMALL_BYTES ((size_t)4096)
#define PART_BYTES  ((size_t)512 << 10) // 64 of them are 32 MiB
#define JSON_MAX    ((size_t)1 << 20)

struct row {
    char what[32];
    int width;
    double seconds, cpu_seconds;
    int64_t bytes, requests;
    double p50_ms, p99_ms; // 0: not measured
};

struct bench {
    struct store *s;
    const struct store_bench *b;
    char key[256];
    char *block; // PART_BYTES of noise: part i of an object is this with i in its first bytes
    char *back;
    uint32_t *crcs; // of the parts that were sent
    struct row rows[16];
    int n_rows;
};

static double cpu_seconds(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

static struct row *row_begin(struct bench *k, const char *what, int width) {
    struct row *r = &k->rows[k->n_rows];
    *r = (struct row){.width = width, .seconds = -clock_seconds(), .cpu_seconds = -cpu_seconds()};
    snprintf(r->what, sizeof r->what, "%s", what);
    return r;
}

static void row_end(struct bench *k, struct row *r, int64_t bytes, int64_t requests) {
    r->seconds += clock_seconds();
    r->cpu_seconds += cpu_seconds();
    r->bytes = bytes;
    r->requests = requests;
    k->n_rows++;
}

static void mark(char *block, int64_t i) {
    memcpy(block, &i, sizeof i);
}

// ---- one large object, front to back.

static int put_large(struct bench *k, int64_t parts, struct err *e) {
    struct store_writer *w = NULL;
    struct row *r = row_begin(k, "PUT one object", 1);
    int rc = store_writer_open(k->s, &w, k->key, e);
    for (int64_t i = 0; i < parts && !rc; i++) {
        mark(k->block, i);
        k->crcs[i] = hash_crc32c(0, k->block, PART_BYTES);
        rc = store_writer_write(w, k->block, PART_BYTES, e);
    }
    if (rc)
        store_writer_abort(w);
    else
        rc = store_writer_commit(w, e);
    row_end(k, r, parts * (int64_t)PART_BYTES, 1);
    return rc;
}

static int check_part(const struct bench *k, const char *got, int64_t i, struct err *e) {
    if (hash_crc32c(0, got, PART_BYTES) == k->crcs[i]) return 0;
    return err_set(e, ERR_DATA, "%s: '%s': part %" PRId64 " came back with a wrong CRC32C", store_url(k->s),
                   k->key, i);
}

static int start_get(struct bench *k, int64_t i, int width, struct store_request **out, struct err *e) {
    struct store_call c = {.op = STORE_GET,
                           .key = k->key,
                           .offset = i * (int64_t)PART_BYTES,
                           .length = (int64_t)PART_BYTES,
                           .into = k->back + (size_t)(i % width) * PART_BYTES,
                           .capacity = PART_BYTES};
    return store_start(k->s, out, &c, e);
}

static int get_parts(struct bench *k, int64_t parts, int width, struct err *e) {
    struct store_request *ring[WIDTH_MAX] = {NULL};
    struct row *r = row_begin(k, "GET ranges", width);
    int64_t started = 0;
    int rc = 0;
    for (int64_t i = 0; i < parts; i++) {
        for (; !rc && started < parts && started < i + width; started += !rc)
            rc = start_get(k, started, width, &ring[started % width], e);
        if (i >= started) break;
        int got = store_wait(k->s, ring[i % width], NULL, e);
        if (!rc) rc = got ? got : check_part(k, k->back + (size_t)(i % width) * PART_BYTES, i, e);
    }
    row_end(k, r, parts * (int64_t)PART_BYTES, parts);
    return rc;
}

// ---- small requests.

static int by_value(const void *a, const void *b) {
    const double *x = a, *y = b;
    return (*x > *y) - (*x < *y);
}

struct small {
    struct store_request *r;
    char key[300], data[SMALL_BYTES];
    double begun;
};

static int start_small(struct bench *k, enum store_op op, struct small *s, int64_t i, struct err *e) {
    snprintf(s->key, sizeof s->key, "%s.%" PRId64, k->key, i);
    s->begun = clock_seconds();
    struct store_call c = {.op = op, .key = s->key};
    if (op == STORE_PUT) {
        c.data = k->block;
        c.bytes = SMALL_BYTES;
    }
    if (op == STORE_GET) {
        c.into = s->data;
        c.length = (int64_t)SMALL_BYTES;
        c.capacity = SMALL_BYTES;
    }
    return store_start(k->s, &s->r, &c, e);
}

static int end_small(struct bench *k, enum store_op op, struct small *s, double *took, struct err *e) {
    struct store_result got;
    int rc = store_wait(k->s, s->r, &got, e);
    *took = clock_seconds() - s->begun;
    if (rc || op != STORE_GET) return rc;
    if (got.bytes == SMALL_BYTES && !memcmp(s->data, k->block, SMALL_BYTES)) return 0;
    return err_set(e, ERR_DATA, "%s: '%s' came back wrong", store_url(k->s), s->key);
}

static int small_objects(struct bench *k, const char *what, enum store_op op, int width, struct err *e) {
    int64_t n = k->b->requests, started = 0;
    struct small *ring = calloc((size_t)width, sizeof *ring);
    double *took = calloc((size_t)n + 1, sizeof *took);
    int rc = ring && took ? 0 : err_set(e, ERR_MEMORY, "no memory for the benchmark");
    struct row *r = row_begin(k, what, width);
    for (int64_t i = 0; i < n && ring && took; i++) {
        for (; !rc && started < n && started < i + width; started += !rc)
            rc = start_small(k, op, &ring[started % width], started, e);
        if (i >= started) break;
        int ended = end_small(k, op, &ring[i % width], &took[i], e);
        if (!rc) rc = ended;
    }
    row_end(k, r, n * (int64_t)SMALL_BYTES * (op != STORE_DELETE), n);
    if (took && n) {
        qsort(took, (size_t)n, sizeof *took, by_value);
        r->p50_ms = 1e3 * took[n / 2];
        r->p99_ms = 1e3 * took[n * 99 / 100];
    }
    free(took);
    free(ring);
    return rc;
}

// ---- the report.

static double per_gb(const struct row *r) {
    return r->bytes ? r->cpu_seconds / (1e-9 * (double)r->bytes) : 0;
}

static void print_rows(const struct bench *k, int64_t rss) {
    printf("%-16s %6s %10s %12s %12s %9s %9s\n", "what", "width", "MB/s", "requests/s", "core-s/GB", "p50 ms",
           "p99 ms");
    for (int i = 0; i < k->n_rows; i++) {
        const struct row *r = &k->rows[i];
        printf("%-16s %6d %10.1f %12.1f %12.2f %9.2f %9.2f\n", r->what, r->width,
               1e-6 * (double)r->bytes / r->seconds, (double)r->requests / r->seconds, per_gb(r), r->p50_ms,
               r->p99_ms);
    }
    printf("most memory %" PRId64 " MB; every byte that came back has its CRC32C\n", rss >> 10);
}

static int print_json(const struct bench *k, int64_t rss, struct err *e) {
    struct json_writer w;
    struct buf out;
    buf_init(&out, JSON_MAX);
    json_begin(&w, &out);
    json_put_object(&w, NULL);
    json_put_int(&w, "rss_bytes", rss << 10);
    json_put_array(&w, "rows");
    for (int i = 0; i < k->n_rows; i++) {
        const struct row *r = &k->rows[i];
        json_put_object(&w, NULL);
        json_put_string(&w, "what", r->what);
        json_put_int(&w, "width", r->width);
        json_put_int(&w, "bytes", r->bytes);
        json_put_int(&w, "requests", r->requests);
        json_put_double(&w, "seconds", r->seconds);
        json_put_double(&w, "cpu_seconds", r->cpu_seconds);
        json_put_double(&w, "p50_ms", r->p50_ms);
        json_put_double(&w, "p99_ms", r->p99_ms);
        json_close(&w, '}');
    }
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) printf("%s\n", out.data);
    buf_fini(&out);
    return rc;
}

static int measure(struct bench *k, struct err *e) {
    static const int widths[] = {1, 16, 64};
    int64_t parts = k->b->bytes / (int64_t)PART_BYTES;
    int rc = put_large(k, parts, e);
    for (int i = 0; i < 3 && !rc; i++) rc = get_parts(k, parts, widths[i], e);
    mark(k->block, 0);
    for (int i = 0; i < 3 && !rc; i++) rc = small_objects(k, "PUT 4 KiB", STORE_PUT, widths[i], e);
    for (int i = 0; i < 3 && !rc; i++) rc = small_objects(k, "GET 4 KiB", STORE_GET, widths[i], e);
    return rc;
}

static void clean_up(struct bench *k) {
    struct err ignored = {0};
    int deleted = store_delete(k->s, k->key, &ignored);
    if (k->n_rows > 4) deleted = small_objects(k, "DELETE", STORE_DELETE, 64, &ignored);
    if (deleted) fprintf(stderr, "not all of '%s*' was deleted: %s\n", k->key, ignored.text);
}

int store_bench_run(const struct store_bench *b, const struct store_place *at, struct err *e) {
    struct rng_stream noise;
    struct rusage u;
    struct bench k = {.s = at->store, .b = b};
    const char *slash = *at->key && at->key[strlen(at->key) - 1] != '/' ? "/" : "";
    snprintf(k.key, sizeof k.key, "%.200s%sorrery-bench-%d", at->key, slash, (int)getpid());
    k.block = malloc(PART_BYTES);
    k.back = malloc(WIDTH_MAX * PART_BYTES);
    k.crcs = calloc((size_t)(b->bytes / (int64_t)PART_BYTES) + 1, sizeof *k.crcs);
    int rc = k.block && k.back && k.crcs ? 0 : err_set(e, ERR_MEMORY, "no memory for the benchmark");
    if (!rc) {
        rng_stream_init(&noise, rng_key((uint64_t)clock_utc_ns(), RNG_TEST, 0), 0, 0);
        for (size_t i = 0; i < PART_BYTES; i++) k.block[i] = (char)rng_next_below(&noise, 256);
        rc = measure(&k, e);
        getrusage(RUSAGE_SELF, &u);
        clean_up(&k);
    }
    if (!rc && b->json)
        rc = print_json(&k, u.ru_maxrss, e);
    else if (!rc)
        print_rows(&k, u.ru_maxrss);
    free(k.block);
    free(k.back);
    free(k.crcs);
    return rc;
}
