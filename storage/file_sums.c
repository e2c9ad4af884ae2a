// SPDX-License-Identifier: Apache-2.0
#include "storage/file_sums.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "storage/hash.h"

#define STEP        ((size_t)16 << 10) // of every lane: HASH_LANES of them stay in the cache
#define LANES_LEAST 4                  // fewer parts than that are faster one by one
#define THREADS_MAX 4

// Groups of parts are taken by the threads one after the other.
struct summing {
    struct file_sums *out;
    int fd;
    int64_t bytes;
    size_t part;
    uint32_t *crcs; // by part
    int64_t groups;
    _Atomic int64_t next;
};

struct summer {
    struct summing *g;
    unsigned char *block; // HASH_LANES * STEP
    struct hash_md5 *md5;
    struct err err;
    int rc;
};

static size_t size_of(const struct summing *g, int64_t i) {
    int64_t left = g->bytes - i * (int64_t)g->part;
    return left < (int64_t)g->part ? (size_t)left : g->part;
}

static int read_at(int fd, unsigned char *into, size_t n, int64_t at, struct err *e) {
    while (n) {
        ssize_t got = pread(fd, into, n, at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return err_errno(e, errno, "cannot read the file");
        if (!got) return err_set(e, ERR_DATA, "the file became shorter while it was read");
        into += got;
        at += got;
        n -= (size_t)got;
    }
    return 0;
}

static int sum_one(struct summer *s, int64_t i, struct err *e) {
    struct summing *g = s->g;
    size_t size = size_of(g, i), step = HASH_LANES * STEP;
    uint32_t crc = 0;
    for (size_t at = 0; at < size; at += step) {
        size_t n = size - at < step ? size - at : step;
        int rc = read_at(g->fd, s->block, n, i * (int64_t)g->part + (int64_t)at, e);
        if (rc) return rc;
        crc = hash_crc32c(crc, s->block, n);
        if (s->md5) hash_md5_update(s->md5, s->block, n);
    }
    g->crcs[i] = crc;
    if (s->md5) hash_md5_end(s->md5, g->out->md5s[i]);
    return 0;
}

// n whole parts from `first` on, in step.
static int sum_lanes(struct summer *s, int64_t first, int n, struct err *e) {
    struct summing *g = s->g;
    struct hash_md5s md5s;
    const unsigned char *lanes[HASH_LANES];
    unsigned char digests[HASH_LANES][16];
    for (int l = 0; l < HASH_LANES; l++) lanes[l] = s->block + (size_t)(l < n ? l : 0) * STEP;
    hash_md5s_begin(&md5s);
    for (size_t at = 0; at < g->part; at += STEP) {
        size_t size = g->part - at < STEP ? g->part - at : STEP;
        for (int l = 0; l < n; l++) {
            unsigned char *lane = s->block + (size_t)l * STEP;
            int rc = read_at(g->fd, lane, size, (first + l) * (int64_t)g->part + (int64_t)at, e);
            if (rc) return rc;
            g->crcs[first + l] = hash_crc32c(g->crcs[first + l], lane, size);
        }
        hash_md5s_update(&md5s, lanes, size);
    }
    hash_md5s_end(&md5s, lanes, 0, digests);
    for (int l = 0; l < n; l++) memcpy(g->out->md5s[first + l], digests[l], sizeof digests[l]);
    return 0;
}

static int sum_group(struct summer *s, int64_t group, struct err *e) {
    struct summing *g = s->g;
    int64_t first = group * HASH_LANES, end = first + HASH_LANES, whole = g->bytes / (int64_t)g->part;
    int n = (int)((end < whole ? end : whole) - first), rc = 0;
    if (end > g->out->parts) end = g->out->parts;
    if (s->md5 && n >= LANES_LEAST) {
        rc = sum_lanes(s, first, n, e);
        first += n;
    }
    for (; first < end && !rc; first++) rc = sum_one(s, first, e);
    return rc;
}

static void *sum_groups(void *arg) {
    struct summer *s = arg;
    int64_t group;
    while (!s->rc && (group = atomic_fetch_add(&s->g->next, 1)) < s->g->groups)
        s->rc = sum_group(s, group, &s->err);
    return NULL;
}

static int run(struct summing *g, struct err *e) {
    struct summer all[THREADS_MAX] = {{0}};
    pthread_t threads[THREADS_MAX];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    int n = cores < THREADS_MAX ? (int)cores : THREADS_MAX, ready = 0, started = 1, rc = 0;
    if (g->groups < n) n = (int)g->groups;
    if (n < 1) n = 1;
    for (; ready < n; ready++) {
        struct summer *s = &all[ready];
        s->g = g;
        s->block = malloc(HASH_LANES * STEP);
        s->md5 = g->out->md5s ? hash_md5_create() : NULL;
        if (!s->block || (g->out->md5s && !s->md5)) rc = err_set(e, ERR_MEMORY, "no memory for checksums");
    }
    while (!rc && started < n && !pthread_create(&threads[started], NULL, sum_groups, &all[started]))
        started++;
    if (!rc) sum_groups(&all[0]);
    for (int i = 1; i < started; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < ready; i++) {
        if (!rc && all[i].rc) *e = all[i].err;
        if (!rc) rc = all[i].rc;
        hash_md5_destroy(all[i].md5);
        free(all[i].block);
    }
    return rc;
}

int file_sums_make(struct file_sums *out, int fd, int64_t bytes, size_t part, struct err *e) {
    struct hash_md5 *allowed = hash_md5_create();
    struct err local = {0};
    struct summing g = {.out = out, .fd = fd, .bytes = bytes, .part = part};
    out->parts = (bytes + (int64_t)part - 1) / (int64_t)part;
    out->crc = 0;
    out->md5s = allowed ? calloc((size_t)out->parts, sizeof *out->md5s) : NULL;
    g.crcs = calloc((size_t)out->parts, sizeof *g.crcs);
    g.groups = (out->parts + HASH_LANES - 1) / HASH_LANES;
    int rc = g.crcs && (out->md5s || !allowed) ? run(&g, &local)
                                               : err_set(&local, ERR_MEMORY, "no memory for checksums");
    for (int64_t i = 0; i < out->parts && !rc; i++)
        out->crc = hash_crc32c_join(out->crc, g.crcs[i], size_of(&g, i));
    hash_md5_destroy(allowed);
    free(g.crcs);
    if (rc && e && !e->code) *e = local;
    return rc;
}

void file_sums_fini(struct file_sums *s) {
    free(s->md5s);
    s->md5s = NULL;
}
