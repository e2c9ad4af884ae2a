// SPDX-License-Identifier: Apache-2.0
// Device memory through a back end that knows host memory only: a copy out before, a copy in after. Slow and
// simple: for several ranks on one GPU, and for machines whose GPUs have no NCCL.
#include <stdlib.h>

#include "base/bytes.h"
#include "comm/coll_impl.h"

struct staged_op {
    struct coll_op base;
    struct coll_op *inner;
    struct coll_request request; // the device's; the inner operation has the host's
    float *send, *recv;          // host
    bool buffer;                 // the request works in place: send is recv
};

static int host_floats(float **out, int64_t n, const char *name, struct err *e) {
    size_t bytes;
    *out = NULL;
    if (n < 0 || !bytes_mul((size_t)n + 1, sizeof(float), &bytes) || !(*out = malloc(bytes)))
        return err_set(e, ERR_MEMORY, "%s: no host memory to stage %lld floats", name, (long long)n);
    return 0;
}

static int copy_out(const struct coll *c, float *host, const float *device, int64_t first, int64_t end,
                    struct err *e) {
    if (end <= first) return 0;
    size_t bytes = (size_t)(end - first) * sizeof(float);
    return c->device->vtable->copy_out(c->device, host + first, device + first, bytes, e);
}

static int copy_in(const struct coll *c, float *device, const float *host, int64_t first, int64_t end,
                   struct err *e) {
    if (end <= first) return 0;
    size_t bytes = (size_t)(end - first) * sizeof(float);
    return c->device->vtable->copy_in(c->device, device + first, host + first, bytes, e);
}

static void staged_free(struct staged_op *op) {
    if (!op) return;
    free(op->send);
    if (!op->buffer) free(op->recv);
    free(op);
}

// A reduce-scatter sends all of the buffer, an all-gather this rank's segment.
static int stage_buffer(const struct coll *c, const struct coll_request *q, struct staged_op *op,
                        struct err *e) {
    bool all = q->verb == VERB_REDUCE_SCATTER;
    int64_t first = all ? q->offset[0] : q->offset[c->rank];
    int64_t end = all ? q->offset[c->size] : q->offset[c->rank + 1];
    op->buffer = true;
    int rc = host_floats(&op->send, q->offset[c->size], q->name, e);
    op->recv = op->send;
    return rc ? rc : copy_out(c, op->send, q->buffer, first, end, e);
}

static int stage_exchange(const struct coll *c, const struct coll_request *q, struct staged_op *op,
                          struct err *e) {
    int64_t n = coll_pieces(c, q);
    int rc = host_floats(&op->send, q->send_offset[n], q->name, e);
    if (!rc) rc = host_floats(&op->recv, q->recv_offset[n], q->name, e);
    return rc ? rc : copy_out(c, op->send, q->send, q->send_offset[0], q->send_offset[n], e);
}

bool coll_stage_needed(const struct coll *c, const struct coll_request *q) {
    if (!c->device || c->device->host_memory || c->vtable->device_memory) return false;
    if (q->verb == VERB_EXCHANGE) return true;
    return c->size > 1 && (q->verb == VERB_REDUCE_SCATTER || q->verb == VERB_ALL_GATHER);
}

int coll_stage_start(struct coll *c, const struct coll_request *q, struct coll_op **out, struct err *e) {
    struct staged_op *op = calloc(1, sizeof *op);
    if (!op) return err_set(e, ERR_MEMORY, "%s: no memory for an operation", q->name);
    op->request = *q;
    bool exchange = q->verb == VERB_EXCHANGE;
    int rc = exchange ? stage_exchange(c, q, op, e) : stage_buffer(c, q, op, e);
    struct coll_request host = *q;
    host.buffer = exchange ? NULL : op->send;
    host.send = op->send;
    host.recv = op->recv;
    if (!rc) rc = c->vtable->start(c, &host, &op->inner, e);
    if (rc) {
        staged_free(op);
        return rc;
    }
    op->inner->name = q->name;
    op->inner->seq = c->seq;
    op->base.staged = true;
    *out = &op->base;
    return 0;
}

static int deliver(const struct coll *c, const struct staged_op *op, struct err *e) {
    const struct coll_request *q = &op->request;
    int rc = 0;
    if (q->verb == VERB_REDUCE_SCATTER)
        return copy_in(c, q->buffer, op->recv, q->offset[c->rank], q->offset[c->rank + 1], e);
    if (q->verb == VERB_EXCHANGE)
        return copy_in(c, q->recv, op->recv, q->recv_offset[0], q->recv_offset[coll_pieces(c, q)], e);
    for (int r = 0; r < c->size && !rc; r++)
        if (r != c->rank) rc = copy_in(c, q->buffer, op->recv, q->offset[r], q->offset[r + 1], e);
    return rc;
}

int coll_stage_test(struct coll *c, struct coll_op *base, bool *done, struct err *e) {
    struct staged_op *op = (struct staged_op *)base;
    int rc = c->vtable->test(c, op->inner, done, e);
    return rc || !*done ? rc : deliver(c, op, e);
}

void coll_stage_release(struct coll *c, struct coll_op *base, bool ended) {
    struct staged_op *op = (struct staged_op *)base;
    c->vtable->release(op->inner, ended);
    if (ended) staged_free(op); // else the library may still write there
}
