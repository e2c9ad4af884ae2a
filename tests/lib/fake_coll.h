// SPDX-License-Identifier: Apache-2.0
// Ranks as threads of one process, for tests: collectives that copy between the threads' buffers, and a
// device that counts what it hands out. Includes cmocka's needs first.
#ifndef ORRERY_TESTS_FAKE_COLL_H
#define ORRERY_TESTS_FAKE_COLL_H

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "comm/coll_impl.h"

#define FAKE_RANKS 8
#define FAKE_OPS   1024

// Where the ranks meet, operation by operation.
struct fake_meeting {
    pthread_mutex_t lock;
    struct coll_request posted[FAKE_OPS][FAKE_RANKS];
    int n_posted[FAKE_OPS], n_done[FAKE_OPS];
};

struct fake_coll {
    struct coll base;
    struct fake_meeting *meeting;
};

struct fake_op {
    struct coll_op base;
    int64_t number;
    bool done;
};

static inline int fake_start(struct coll *c, const struct coll_request *q, struct coll_op **op,
                             struct err *e) {
    struct fake_meeting *m = ((struct fake_coll *)c)->meeting;
    struct fake_op *f = calloc(1, sizeof *f);
    bool known = q->verb == VERB_EXCHANGE || q->verb == VERB_REDUCE_SCATTER;
    if (!f || c->seq > FAKE_OPS || !known) abort();
    f->number = c->seq - 1;
    pthread_mutex_lock(&m->lock);
    m->posted[f->number][c->rank] = *q;
    m->n_posted[f->number]++;
    pthread_mutex_unlock(&m->lock);
    *op = &f->base;
    return 0;
}

static inline void fake_exchange(struct coll *c, const struct coll_request *posted) {
    const struct coll_request *mine = &posted[c->rank];
    for (int64_t i = 0; i < coll_pieces(c, mine); i++) {
        int r = (int)(i % c->size);
        const int64_t *to = mine->recv_offset + i, *from = posted[r].send_offset + (i - r + c->rank);
        if (posted[r].rows != mine->rows || (r != c->rank && to[1] - to[0] != from[1] - from[0])) abort();
        if (to[1] > to[0])
            memcpy(mine->recv + to[0], posted[r].send + from[0], (size_t)(to[1] - to[0]) * sizeof(float));
    }
}

// From the first rank to the last. A rank writes its own segment, which no other reads.
static inline void fake_reduce(struct coll *c, const struct coll_request *posted) {
    const struct coll_request *mine = &posted[c->rank];
    for (int r = 0; r < c->size; r++)
        if (strcmp(posted[r].name, mine->name) || posted[r].bytes != mine->bytes) abort();
    for (int64_t i = mine->offset[c->rank]; i < mine->offset[c->rank + 1]; i++) {
        float sum = posted[0].buffer[i];
        for (int r = 1; r < c->size; r++) sum += posted[r].buffer[i];
        mine->buffer[i] = sum;
    }
}

static inline int fake_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    struct fake_meeting *m = ((struct fake_coll *)c)->meeting;
    struct fake_op *f = (struct fake_op *)op;
    pthread_mutex_lock(&m->lock);
    const struct coll_request *posted = m->posted[f->number];
    if (m->n_posted[f->number] == c->size && !f->done) {
        if (posted[c->rank].verb == VERB_EXCHANGE)
            fake_exchange(c, posted);
        else
            fake_reduce(c, posted);
        f->done = true;
        m->n_done[f->number]++;
    }
    *done = m->n_done[f->number] == c->size;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static inline void fake_release(struct coll_op *op, bool ended) {
    free(op);
}

static const struct coll_vtable fake_coll_vtable = {
    .name = "fake", .start = fake_start, .test = fake_test, .release = fake_release};

static inline struct fake_coll fake_coll(struct fake_meeting *m, int rank, int size) {
    return (struct fake_coll){
        .base = {.vtable = &fake_coll_vtable, .rank = rank, .size = size, .deadline_ms = 20000},
        .meeting = m};
}

static inline struct fake_meeting *fake_meeting_open(void) {
    struct fake_meeting *m = calloc(1, sizeof *m);
    if (!m) abort();
    pthread_mutex_init(&m->lock, NULL);
    return m;
}

static inline void fake_meeting_close(struct fake_meeting *m) {
    pthread_mutex_destroy(&m->lock);
    free(m);
}

struct fake_device {
    struct device base;
    int blocks;    // now
    int64_t bytes; // of all that it ever handed out
};

static inline int fake_alloc(struct device *d, void **out, size_t bytes, struct err *e) {
    *out = malloc(bytes);
    ((struct fake_device *)d)->blocks++;
    ((struct fake_device *)d)->bytes += (int64_t)bytes;
    return *out ? 0 : err_set(e, ERR_MEMORY, "alloc");
}

static inline void fake_free(struct device *d, void *p) {
    free(p);
    ((struct fake_device *)d)->blocks--;
}

static inline int fake_zero(struct device *d, void *dst, size_t bytes, struct err *e) {
    memset(dst, 0, bytes);
    return 0;
}

static inline int fake_copy(struct device *d, void *dst, const void *src, size_t bytes, struct err *e) {
    memcpy(dst, src, bytes);
    return 0;
}

static inline int fake_add(struct device *d, float *dst, const float *a, const float *b, int64_t n,
                           struct err *e) {
    for (int64_t i = 0; i < n; i++) dst[i] = a[i] + b[i];
    return 0;
}

static const struct device_vtable fake_device_vtable = {.name = "cpu",
                                                        .alloc = fake_alloc,
                                                        .release = fake_free,
                                                        .zero = fake_zero,
                                                        .copy = fake_copy,
                                                        .add = fake_add};

static inline struct fake_device fake_device(void) {
    return (struct fake_device){.base = {.vtable = &fake_device_vtable, .host_memory = true}};
}

#endif
