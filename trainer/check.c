// SPDX-License-Identifier: Apache-2.0
// The task `check`: do the ranks reach each other, is what they sum right, and how fast is it? For `orrery
// doctor`; needs neither data nor a run folder. Rank 0 prints one line of JSON.
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/json.h"
#include "base/process.h"
#include "trainer/task.h"

#define ELEMS  ((int64_t)1 << 20)
#define BYTES  ((size_t)ELEMS * sizeof(float))
#define ROUNDS 5

struct check {
    float *host, *buffer; // buffer: the device's
    int64_t *offset;
    int64_t wrong;
    double seconds; // of the best round
};

// Whole numbers small enough that every order of summing gives the same float.
static float given(int64_t i, int rank) {
    return (float)((i * 7 + rank * 13) % 1000);
}

static float expected(int64_t i, int world) {
    float sum = 0;
    for (int r = 0; r < world; r++) sum += given(i, r);
    return sum;
}

static int sum_once(struct rank *r, struct check *c, struct err *e) {
    struct coll_op *op = NULL;
    struct device *d = r->device;
    for (int64_t i = 0; i < ELEMS; i++) c->host[i] = given(i, r->number);
    int rc = d->vtable->copy_in(d, c->buffer, c->host, BYTES, e);
    if (!rc) rc = coll_barrier(r->coll, "check", e);
    double began = clock_seconds();
    if (!rc) rc = coll_reduce_scatter(r->coll, &op, "reduce-scatter check", c->buffer, c->offset, e);
    if (!rc) rc = coll_wait(r->coll, op, e);
    if (!rc) rc = coll_all_gather(r->coll, &op, "all-gather check", c->buffer, c->offset, e);
    if (!rc) rc = coll_wait(r->coll, op, e);
    double took = clock_seconds() - began;
    if (!rc) rc = d->vtable->copy_out(d, c->host, c->buffer, BYTES, e);
    if (!rc && (c->seconds <= 0 || took < c->seconds)) c->seconds = took;
    for (int64_t i = 0; !rc && i < ELEMS; i++) c->wrong += !(c->host[i] == expected(i, r->world));
    return rc;
}

static int print(const struct rank *r, const struct check *c, struct err *e) {
    char host[256];
    struct buf text;
    struct json_writer w;
    buf_init(&text, 65536);
    json_begin(&w, &text);
    json_put_object(&w, NULL);
    json_put_int(&w, "ranks", r->world);
    json_put_string(&w, "host", process_host(host, sizeof host, "?"));
    json_put_int(&w, "wrong", c->wrong);
    json_put_int(&w, "bytes", (int64_t)BYTES);
    json_put_double(&w, "seconds", c->seconds);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) puts(text.data);
    buf_fini(&text);
    return rc;
}

static int take_buffer(struct device *d, float **out, struct err *e) {
    void *at = NULL;
    int rc = d->vtable->alloc(d, &at, BYTES, e);
    *out = at;
    return rc;
}

int task_check(struct rank *r, struct err *e) {
    struct check c = {.host = malloc(BYTES), .offset = calloc((size_t)r->world + 1, sizeof *c.offset)};
    int rc = c.host && c.offset ? 0 : err_set(e, ERR_MEMORY, "no memory for a check of %d ranks", r->world);
    if (!rc) rc = take_buffer(r->device, &c.buffer, e);
    for (int k = 0; !rc && k <= r->world; k++) c.offset[k] = ELEMS * k / r->world;
    for (int i = 0; !rc && i < ROUNDS; i++) rc = sum_once(r, &c, e);
    if (!rc) rc = coll_sum_i64(r->coll, "wrong sums", &c.wrong, 1, e);
    if (!rc && rank_is_root(r)) rc = print(r, &c, e);
    if (c.buffer) r->device->vtable->release(r->device, c.buffer);
    free(c.host);
    free(c.offset);
    return rc;
}
