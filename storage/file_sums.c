// SPDX-License-Identifier: Apache-2.0
#include "storage/file_sums.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/hash.h"

#define STEP        ((size_t)16 << 10) // of every lane: HASH_LANES of them stay in the cache
#define BLOCK       (HASH_LANES * STEP)
#define THREADS_MAX 4
#define CHUNK       ((int64_t)1 << 20) // what a thread of file_crc32c takes at a time
#define GIVEN_UP    1                  // no error: nobody waits any more, or another thread failed

static int64_t least(int64_t a, int64_t b) {
    return a < b ? a : b;
}

// Threads worth having for so many pieces of work, of which `share` of the cores is for this.
static int threads_for(int64_t pieces, int share) {
    int64_t cores = sysconf(_SC_NPROCESSORS_ONLN) / share;
    int64_t n = least(least(cores, THREADS_MAX), pieces);
    return n < 1 ? 1 : (int)n;
}

// ---- the CRC32C of the whole, before it is sent.

struct crc_work {
    int fd;
    const char *name;
    int64_t bytes, chunks;
    uint32_t *crcs; // by chunk
    _Atomic int64_t next;
};

struct crc_thread {
    struct crc_work *g;
    struct err err;
    int rc;
};

static int crc_chunk(struct crc_work *g, int64_t i, unsigned char *block, struct err *e) {
    int64_t at = i * CHUNK, end = least(at + CHUNK, g->bytes);
    int rc = 0;
    for (; at < end && !rc; at += (int64_t)BLOCK) {
        size_t n = (size_t)least(end - at, (int64_t)BLOCK);
        rc = bytes_read_at(g->fd, block, n, at, g->name, e);
        if (!rc) g->crcs[i] = hash_crc32c(g->crcs[i], block, n);
    }
    return rc;
}

static void *crc_chunks(void *arg) {
    struct crc_thread *c = arg;
    unsigned char *block = malloc(BLOCK);
    if (!block) c->rc = err_set(&c->err, ERR_MEMORY, "no memory for checksums");
    for (int64_t i; !c->rc && (i = atomic_fetch_add(&c->g->next, 1)) < c->g->chunks;)
        c->rc = crc_chunk(c->g, i, block, &c->err);
    free(block);
    return NULL;
}

static int crc_all(struct crc_work *g, struct err *e) {
    struct crc_thread all[THREADS_MAX] = {{.g = g}};
    pthread_t threads[THREADS_MAX];
    int n = threads_for(g->chunks, 1), started = 1, rc = 0;
    for (; started < n; started++) {
        all[started].g = g;
        if (pthread_create(&threads[started], NULL, crc_chunks, &all[started])) break;
    }
    crc_chunks(&all[0]);
    for (int i = 0; i < started; i++) {
        if (i) pthread_join(threads[i], NULL);
        if (!rc && all[i].rc) *e = all[i].err;
        if (!rc) rc = all[i].rc;
    }
    return rc;
}

int file_crc32c(int fd, const char *name, int64_t bytes, uint32_t *out, struct err *e) {
    struct crc_work g = {.fd = fd, .name = name, .bytes = bytes, .chunks = (bytes + CHUNK - 1) / CHUNK};
    struct err local = {0};
    g.crcs = calloc((size_t)g.chunks + 1, sizeof *g.crcs);
    int rc = g.crcs ? crc_all(&g, &local) : err_set(&local, ERR_MEMORY, "no memory for checksums");
    *out = 0;
    for (int64_t i = 0; i < g.chunks && !rc; i++)
        *out = hash_crc32c_join(*out, g.crcs[i], (uint64_t)least(bytes - i * CHUNK, CHUNK));
    free(g.crcs);
    if (rc && e && !e->code) *e = local;
    return rc;
}

// ---- the sums of the parts, while they are sent.

struct file_sums {
    int fd;
    const char *name;
    bool md5s; // else CRC32C alone
    int64_t bytes, parts, groups;
    size_t part;
    _Atomic int64_t next; // group
    _Atomic bool stop;
    int n_threads;
    pthread_t threads[THREADS_MAX];
    // What a thread writes before it says that the part is made.
    unsigned char (*digests)[16];
    uint32_t *crcs;
    // Guarded by the lock.
    pthread_mutex_t lock;
    pthread_cond_t progress;
    bool *made;
    int rc;
    struct err err;
};

// What one thread works with.
struct summer {
    struct file_sums *s;
    unsigned char *block;
    struct hash_md5 *md5; // NULL: no MD5s
};

static size_t size_of(const struct file_sums *s, int64_t i) {
    return (size_t)least(s->bytes - i * (int64_t)s->part, (int64_t)s->part);
}

static int sum_one(struct summer *w, int64_t i, struct err *e) {
    struct file_sums *s = w->s;
    size_t size = size_of(s, i);
    for (size_t at = 0; at < size; at += BLOCK) {
        if (atomic_load(&s->stop)) return GIVEN_UP;
        size_t n = size - at < BLOCK ? size - at : BLOCK;
        int rc = bytes_read_at(s->fd, w->block, n, i * (int64_t)s->part + (int64_t)at, s->name, e);
        if (rc) return rc;
        s->crcs[i] = hash_crc32c(s->crcs[i], w->block, n);
        if (w->md5) hash_md5_update(w->md5, w->block, n);
    }
    if (w->md5) hash_md5_end(w->md5, s->digests[i]);
    return 0;
}

// n whole parts from `first` on, in step.
static int sum_lanes(struct summer *w, int64_t first, int n, struct err *e) {
    struct file_sums *s = w->s;
    struct hash_md5s md5s;
    const unsigned char *lanes[HASH_LANES];
    unsigned char digests[HASH_LANES][16];
    for (int l = 0; l < n; l++) lanes[l] = w->block + (size_t)l * STEP;
    hash_md5s_begin(&md5s, n);
    for (size_t at = 0; at < s->part; at += STEP) {
        if (atomic_load(&s->stop)) return GIVEN_UP;
        size_t size = s->part - at < STEP ? s->part - at : STEP;
        for (int l = 0; l < n; l++) {
            unsigned char *lane = w->block + (size_t)l * STEP;
            int64_t from = (first + l) * (int64_t)s->part + (int64_t)at;
            int rc = bytes_read_at(s->fd, lane, size, from, s->name, e);
            if (rc) return rc;
            s->crcs[first + l] = hash_crc32c(s->crcs[first + l], lane, size);
        }
        hash_md5s_update(&md5s, lanes, size);
    }
    hash_md5s_end(&md5s, lanes, 0, digests);
    for (int l = 0; l < n; l++) memcpy(s->digests[first + l], digests[l], sizeof digests[l]);
    return 0;
}

static void tell_made(struct file_sums *s, int64_t first, int64_t end) {
    pthread_mutex_lock(&s->lock);
    for (; first < end; first++) s->made[first] = true;
    pthread_cond_broadcast(&s->progress);
    pthread_mutex_unlock(&s->lock);
}

static void tell_failure(struct file_sums *s, int rc, const struct err *err) {
    pthread_mutex_lock(&s->lock);
    if (!s->rc) s->err = *err;
    if (!s->rc) s->rc = rc;
    pthread_cond_broadcast(&s->progress);
    pthread_mutex_unlock(&s->lock);
    atomic_store(&s->stop, true);
}

static int sum_group(struct summer *w, int64_t group, struct err *e) {
    struct file_sums *s = w->s;
    int64_t first = group * HASH_LANES, end = least(first + HASH_LANES, s->parts);
    int n = (int)(least(end, s->bytes / (int64_t)s->part) - first), rc = 0;
    if (w->md5 && n > 1) {
        rc = sum_lanes(w, first, n, e);
        if (!rc) tell_made(s, first, first + n);
        first += n;
    }
    for (; first < end && !rc; first++) {
        rc = sum_one(w, first, e);
        if (!rc) tell_made(s, first, first + 1);
    }
    return rc;
}

static void *sum_groups(void *arg) {
    struct file_sums *s = arg;
    struct err err = {0};
    struct summer w = {.s = s, .block = malloc(BLOCK), .md5 = s->md5s ? hash_md5_create() : NULL};
    int rc = w.block && (w.md5 || !s->md5s) ? 0 : err_set(&err, ERR_MEMORY, "no memory for checksums");
    for (int64_t g; !rc && (g = atomic_fetch_add(&s->next, 1)) < s->groups;) rc = sum_group(&w, g, &err);
    if (rc < 0) tell_failure(s, rc, &err);
    hash_md5_destroy(w.md5);
    free(w.block);
    return NULL;
}

static bool allowed(void) {
    struct hash_md5 *md5 = hash_md5_create();
    hash_md5_destroy(md5);
    return md5 != NULL;
}

int file_sums_start(struct file_sums **out, int fd, const char *name, int64_t bytes, size_t part,
                    struct err *e) {
    struct file_sums *s = calloc(1, sizeof *s);
    if (!s) return err_set(e, ERR_MEMORY, "no memory for checksums");
    s->fd = fd;
    s->name = name;
    s->bytes = bytes;
    s->part = part;
    s->md5s = allowed();
    s->parts = bytes ? (bytes + (int64_t)part - 1) / (int64_t)part : 1;
    s->groups = (s->parts + HASH_LANES - 1) / HASH_LANES;
    s->digests = calloc((size_t)s->parts, sizeof *s->digests);
    s->crcs = calloc((size_t)s->parts, sizeof *s->crcs);
    s->made = calloc((size_t)s->parts, sizeof *s->made);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->progress, NULL);
    bool memory = s->digests && s->crcs && s->made;
    int n = memory ? threads_for(s->groups, 2) : 0; // the other half of the cores sends
    while (s->n_threads < n && !pthread_create(&s->threads[s->n_threads], NULL, sum_groups, s))
        s->n_threads++;
    *out = s;
    if (s->n_threads) return 0;
    file_sums_stop(s);
    *out = NULL;
    return memory ? err_set(e, ERR_MEMORY, "no thread can be started for checksums (limit on processes?)")
                  : err_set(e, ERR_MEMORY, "no memory for checksums");
}

bool file_sums_md5s(const struct file_sums *s) {
    return s->md5s;
}

static int wait_for(struct file_sums *s, int64_t part, struct err *e) {
    pthread_mutex_lock(&s->lock);
    while (!s->made[part] && !s->rc) pthread_cond_wait(&s->progress, &s->lock);
    int rc = s->made[part] ? 0 : s->rc;
    if (rc && e && !e->code) *e = s->err;
    pthread_mutex_unlock(&s->lock);
    return rc;
}

int file_sums_md5(struct file_sums *s, int64_t part, unsigned char out[16], struct err *e) {
    int rc = wait_for(s, part, e);
    memcpy(out, s->digests[part], 16);
    return rc;
}

int file_sums_crc32c(struct file_sums *s, uint32_t *out, struct err *e) {
    int rc = 0;
    *out = 0;
    for (int64_t i = 0; i < s->parts && !rc; i++) {
        rc = wait_for(s, i, e);
        if (!rc) *out = hash_crc32c_join(*out, s->crcs[i], size_of(s, i));
    }
    return rc;
}

void file_sums_stop(struct file_sums *s) {
    if (!s) return;
    atomic_store(&s->stop, true);
    for (int i = 0; i < s->n_threads; i++) pthread_join(s->threads[i], NULL);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->progress);
    free(s->digests);
    free(s->crcs);
    free(s->made);
    free(s);
}
