// SPDX-License-Identifier: Apache-2.0
// store_faults URL OBJECTS [KIND=RATE...]: writes so many small objects and a data set of so many samples,
// reads all of it back, clean and behind each fault in turn. Fails on a wrong byte, a lost or doubled object
// or sample; prints the times side by side. Without kinds: every kind of `fault:` at 5 %. "none": as the URL
// is.
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/dataset.h"
#include "storage/hash.h"
#include "storage/loader.h"
#include "storage/shard.h"
#include "tests/lib/store_collect.h"

#define IN_FLIGHT   64
#define BYTES_MAX   4096
#define PER_SHARD   500
#define READERS     16
#define DEADLINE_MS 120000

struct tally {
    double seconds;
    int64_t again, wrong, lost, doubled;
};

struct object {
    char key[32];
    size_t bytes;
    char *data, *back;
    struct store_request *request;
};

// ---- objects. The content is a function of the number.

static void fill(struct object *o, int64_t number, bool data) {
    struct rng_stream r;
    rng_stream_init(&r, rng_key(17, RNG_TEST, 1), 0, (uint64_t)number);
    snprintf(o->key, sizeof o->key, "o/%06" PRId64, number);
    o->bytes = 1 + rng_next_below(&r, BYTES_MAX);
    for (size_t i = 0; data && i < o->bytes; i++) o->data[i] = (char)rng_next_u32(&r);
}

static int begin(struct store *s, struct object *o, bool put, int64_t number, struct err *e) {
    fill(o, number, true);
    struct store_call c = {.op = put ? STORE_PUT : STORE_GET,
                           .key = o->key,
                           .length = put ? 0 : (int64_t)o->bytes,
                           .into = o->back,
                           .capacity = o->bytes,
                           .data = o->data,
                           .bytes = o->bytes,
                           .create_only = number % 2};
    return store_start(s, &o->request, &c, e);
}

// What came is believed by its checksum alone, as everywhere; then compared with the truth.
static int check(struct store *s, struct object *o, struct tally *t, struct err *e) {
    uint32_t want = hash_crc32c(0, o->data, o->bytes);
    for (int reads = 1; hash_crc32c(0, o->back, o->bytes) != want; reads++) {
        if (reads == STORE_READS_MAX) return err_set(e, ERR_DATA, "'%s' is damaged", o->key);
        int rc = store_get_range(s, o->key, 0, o->bytes, o->back, e);
        if (rc) return rc;
        t->again++;
    }
    t->wrong += memcmp(o->data, o->back, o->bytes) != 0;
    return 0;
}

static int finish(struct store *s, struct object *o, bool put, struct tally *t, struct err *e) {
    struct store_result got;
    int rc = store_wait(s, o->request, &got, e);
    o->request = NULL;
    if (!rc && !put && got.bytes != o->bytes) rc = err_set(e, ERR_DATA, "'%s': %zu bytes", o->key, got.bytes);
    return rc || put ? rc : check(s, o, t, e);
}

static int pass(struct store *s, struct object *ring, int64_t n, bool put, struct tally *t, struct err *e) {
    int64_t begun = 0, done = 0;
    int rc = 0;
    while (done < n) {
        for (; !rc && begun < n && begun < done + IN_FLIGHT; begun += !rc)
            rc = begin(s, &ring[begun % IN_FLIGHT], put, begun, e);
        if (done == begun) break;
        struct err late = {0};
        int one = finish(s, &ring[done % IN_FLIGHT], put, t, rc ? &late : e);
        if (!rc) rc = one;
        done++;
    }
    return rc;
}

// Exactly the objects that were put, each once, with its size.
static int count(struct store *s, int64_t n, struct tally *t, struct err *e) {
    struct store_listing all;
    int rc = store_collect(s, "o/", NULL, &all, e);
    if (rc) return rc;
    struct object o = {.bytes = 0};
    size_t at = 0;
    for (int64_t i = 0; i < n; i++) {
        fill(&o, i, false);
        bool found = at < all.n && !strcmp(all.objects[at].key, o.key);
        if (!found || all.objects[at].bytes != (int64_t)o.bytes) t->lost++;
        if (found) at++;
        for (; at < all.n && !strcmp(all.objects[at].key, o.key); at++) t->doubled++;
    }
    t->doubled += (int64_t)(all.n - at);
    store_listing_fini(&all);
    return 0;
}

static int objects(struct store *s, int64_t n, struct tally *t, struct err *e) {
    struct object *ring = calloc(IN_FLIGHT, sizeof *ring);
    char *memory = malloc((size_t)IN_FLIGHT * 2 * BYTES_MAX);
    if (!ring || !memory) return err_set(e, ERR_MEMORY, "no memory");
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        ring[i].data = memory + 2 * i * BYTES_MAX;
        ring[i].back = ring[i].data + BYTES_MAX;
    }
    int rc = pass(s, ring, n, true, t, e);
    if (!rc) rc = pass(s, ring, n, false, t, e);
    if (!rc) rc = count(s, n, t, e);
    free(memory);
    free(ring);
    return rc;
}

// ---- samples: a data set, read in the loader's order by several readers.

static int put_shard(struct store *s, int64_t first, int64_t n, struct err *e) {
    struct buf tar;
    char key[32];
    int rc = 0;
    buf_init(&tar, (size_t)64 << 20);
    for (int64_t i = first; i < first + n && !rc; i++) {
        char stem[32], text[64];
        snprintf(stem, sizeof stem, "s%07" PRId64, i);
        int length = snprintf(text, sizeof text, "the truth about sample %" PRId64, i);
        rc = shard_append(&tar, stem, "bin", text, (size_t)length, e);
    }
    if (!rc) rc = shard_finish(&tar, e);
    snprintf(key, sizeof key, "d/%06" PRId64 ".tar", first / PER_SHARD);
    if (!rc) rc = dataset_put_shard(s, key, tar.data, tar.len, e);
    buf_fini(&tar);
    return rc;
}

struct reading {
    struct dataset *d;
    struct loader_plan *plan;
    int64_t n;
    _Atomic int64_t next, wrong;
    _Atomic int *seen; // per sample
    pthread_mutex_t lock;
    struct err err;
};

static int read_one(struct reading *r, int64_t g, struct err *e) {
    struct loader_item item;
    struct sample sample;
    char want[64];
    loader_item_at(r->plan, g, &item);
    int rc = dataset_read(r->d, item.sample, &sample, e);
    if (rc) return rc;
    int length = snprintf(want, sizeof want, "the truth about sample %" PRId64, item.sample);
    const struct sample_member *m = sample_find(&sample, "bin");
    if (!m || m->bytes != (size_t)length || memcmp(m->data, want, m->bytes) != 0) r->wrong++;
    r->seen[item.sample]++;
    sample_fini(&sample);
    return 0;
}

static void *reader(void *arg) {
    struct reading *r = arg;
    struct err e = {0};
    int rc = 0;
    for (int64_t g; !rc && (g = r->next++) < r->n;) rc = read_one(r, g, &e);
    pthread_mutex_lock(&r->lock);
    if (rc && !r->err.code) r->err = e;
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

static int read_all(struct reading *r, struct tally *t, struct err *e) {
    pthread_t threads[READERS];
    int started = 0;
    while (started < READERS && !pthread_create(&threads[started], NULL, reader, r)) started++;
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    if (r->err.code) *e = r->err;
    for (int64_t i = 0; i < r->n; i++) {
        t->lost += !r->seen[i];
        t->doubled += r->seen[i] > 1 ? r->seen[i] - 1 : 0;
    }
    t->wrong += r->wrong;
    return r->err.code ? -(int)r->err.code : 0;
}

static int read_set(const char *url, const struct store_options *o, int64_t n, struct tally *t,
                    struct err *e) {
    struct reading r = {.n = n, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct loader_options order = {3, 1, 64};
    int64_t *frames = malloc((size_t)n * sizeof *frames);
    r.seen = calloc((size_t)n, sizeof *r.seen);
    if (!frames || !r.seen) return err_set(e, ERR_MEMORY, "no memory");
    for (int64_t i = 0; i < n; i++) frames[i] = 1;
    int rc = dataset_open(&r.d, url, o, e);
    if (!rc && dataset_samples(r.d) != n)
        rc = err_set(e, ERR_DATA, "%" PRId64 " samples instead of %" PRId64, dataset_samples(r.d), n);
    if (!rc) rc = loader_plan_create_frames(&r.plan, frames, n, &order, e);
    if (!rc) rc = read_all(&r, t, e);
    loader_plan_destroy(r.plan);
    dataset_close(r.d);
    free(frames);
    free((void *)r.seen);
    return rc;
}

// ---- a round: everything once.

static int round_once(const char *url, int64_t n, struct tally *t, struct err *e) {
    struct store *s = NULL;
    struct store_options o = {.path_style = true, .deadline_ms = DEADLINE_MS, .seed = 11};
    double begun = clock_seconds();
    *t = (struct tally){0};
    int rc = store_open(&s, url, &o, e);
    if (!rc) rc = objects(s, n, t, e);
    for (int64_t first = 0; first < n && !rc; first += PER_SHARD)
        rc = put_shard(s, first, n - first < PER_SHARD ? n - first : PER_SHARD, e);
    if (!rc) rc = dataset_write_manifest(s, NULL, 0, e);
    if (!rc) rc = read_set(url, &o, n, t, e);
    t->seconds = clock_seconds() - begun;
    store_close(s);
    return rc;
}

static int compare(const char *base, const char *fault, int number, int64_t n) {
    struct err e = {0};
    struct tally clean, rough = {0};
    char url[512];
    snprintf(url, sizeof url, "%s/clean-%d", base, number);
    int rc = round_once(url, n, &clean, &e);
    if (!rc && strcmp(fault, "none")) {
        snprintf(url, sizeof url, "fault:%s,seed=%d:%s/rough-%d", fault, number, base, number);
        rc = round_once(url, n, &rough, &e);
    } else {
        rough = clean;
    }
    if (rc) {
        printf("%-18s FAILED: %s\n", fault, e.text);
        return 1;
    }
    bool good = !(clean.wrong + clean.lost + clean.doubled + rough.wrong + rough.lost + rough.doubled);
    printf("%-18s %8" PRId64 " %9.2f %9.2f %6.2f %8" PRId64 " %6" PRId64 " %5" PRId64 " %8" PRId64 "%s\n",
           fault, n, clean.seconds, rough.seconds, rough.seconds / clean.seconds, rough.again, rough.wrong,
           rough.lost, rough.doubled, good ? "" : "  FAILED");
    fflush(stdout);
    return !good;
}

int main(int argc, char **argv) {
    static const char *const all[] = {"503=5%",         "reset=5%", "lost=5%", "delay=20ms@5%",
                                      "stall=100ms@5%", "flip=5%",  "short=5%"};
    int failed = 0;
    int64_t n;
    if (argc < 3 || !bytes_parse_i64(argv[2], &n) || n < 1 || n > 1000000) {
        fprintf(stderr, "usage: store_faults URL OBJECTS [KIND=RATE...]\n");
        return 64;
    }
    printf("%-18s %8s %9s %9s %6s %8s %6s %5s %8s\n", "fault", "objects", "clean s", "fault s", "ratio",
           "re-read", "wrong", "lost", "doubled");
    int kinds = argc > 3 ? argc - 3 : (int)(sizeof all / sizeof *all);
    for (int i = 0; i < kinds; i++) failed |= compare(argv[1], argc > 3 ? argv[3 + i] : all[i], i + 1, n);
    return failed;
}
