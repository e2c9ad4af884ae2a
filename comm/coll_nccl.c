// SPDX-License-Identifier: Apache-2.0
// Collectives on GPUs through NCCL, 2.20 or later, in a queue of their own beside the kernels. The library is
// loaded at run time; nothing blocks in it: its communicator is non-blocking, every wait is a poll with the
// caller's deadline, asynchronous errors are looked for at each one, and an aborted communicator leaves no
// rank hanging. What is small and in host memory goes through the host's own back end. The only file that
// knows NCCL.
//
// Segments have unequal lengths, so a reduce-scatter is a group of reductions and an all-gather a group of
// broadcasts, one per rank.
#include <dlfcn.h>
#include <inttypes.h>
#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "comm/coll_impl.h"

#define LEAST_VERSION 22000 // 2.20.0
#define POLL_NS       20000

// Name in the library, name here, arguments.
#define NCCL_CALLS(X)                                                                                        \
    X(ncclGetVersion, get_version, (int *))                                                                  \
    X(ncclGetUniqueId, get_unique_id, (ncclUniqueId *))                                                      \
    X(ncclCommInitRankConfig, init_rank, (ncclComm_t *, int, ncclUniqueId, int, ncclConfig_t *))             \
    X(ncclCommGetAsyncError, async_error, (ncclComm_t, ncclResult_t *))                                      \
    X(ncclCommAbort, abort, (ncclComm_t))                                                                    \
    X(ncclCommFinalize, finalize, (ncclComm_t))                                                              \
    X(ncclCommDestroy, destroy, (ncclComm_t))                                                                \
    X(ncclGroupStart, group_start, (void))                                                                   \
    X(ncclGroupEnd, group_end, (void))                                                                       \
    X(ncclReduce, reduce,                                                                                    \
      (const void *, void *, size_t, ncclDataType_t, ncclRedOp_t, int, ncclComm_t, cudaStream_t))            \
    X(ncclBroadcast, broadcast,                                                                              \
      (const void *, void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t))                         \
    X(ncclSend, send, (const void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t))                 \
    X(ncclRecv, recv, (void *, size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t))

struct nccl_calls {
#define CALL(name, field, arguments) ncclResult_t(*field) arguments;
    NCCL_CALLS(CALL)
#undef CALL
};

struct nccl_coll {
    struct coll base;
    struct coll *host; // owned
    struct nccl_calls call;
    ncclComm_t comm;
    void *queue;
    struct nccl_op *starting; // issued, but NCCL has not yet put it into the queue
};

struct nccl_op {
    struct coll_op base;
    struct nccl_coll *owner;
    struct coll_op *inner; // of the host's back end, else:
    void *mark;            // NULL until it is in the queue
};

static struct nccl_coll *nccl_of(struct coll *c) {
    return (struct nccl_coll *)c;
}

static const char *words(ncclResult_t rc) {
    switch (rc) {
    case ncclUnhandledCudaError: return "a CUDA call failed";
    case ncclSystemError: return "a system call failed; NCCL_DEBUG=WARN says which";
    case ncclInternalError: return "internal error; NCCL_DEBUG=WARN says more";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage, such as two ranks on one GPU";
    case ncclRemoteError: return "a peer is lost";
    default: return "unknown error";
    }
}

static int nccl_check(ncclResult_t rc, const char *name, struct err *e) {
    if (rc == ncclSuccess || rc == ncclInProgress) return 0;
    if (rc == ncclInvalidArgument)
        return err_set(e, ERR_BUG, "%s: NCCL refuses its arguments (%d)", name, (int)rc);
    if (rc == ncclUnhandledCudaError) return err_set(e, ERR_DEVICE, "%s: NCCL: %s", name, words(rc));
    return err_set(e, ERR_PEER, "%s: NCCL: %s (%d)", name, words(rc), (int)rc);
}

// ---- progress

// *ready: the communicator has nothing half done.
static int look(struct nccl_coll *n, const char *name, bool *ready, struct err *e) {
    ncclResult_t state = ncclSuccess;
    int rc = nccl_check(n->call.async_error(n->comm, &state), name, e);
    if (!rc) rc = nccl_check(state, name, e);
    *ready = !rc && state == ncclSuccess;
    return rc;
}

static int poll_ready(struct nccl_coll *n, const char *name, int64_t deadline_ms, struct err *e) {
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t until = clock_monotonic_ns() + deadline_ms * 1000000;
    for (bool ready = false;;) {
        int rc = look(n, name, &ready, e);
        if (rc || ready) return rc;
        if (clock_monotonic_ns() >= until)
            return err_set(e, ERR_TIMEOUT,
                           "rank %d waited %" PRId64 " ms for NCCL (%s): a peer is missing or stuck",
                           n->base.rank, deadline_ms, name);
        nanosleep(&pause, NULL);
    }
}

// The operation is in the queue now: what it leaves there is marked.
static int settle(struct nccl_coll *n, struct nccl_op *op, struct err *e) {
    struct device *d = n->base.device;
    n->starting = NULL;
    return d->vtable->queues->mark(d, n->queue, &op->mark, e);
}

// A communicator takes one call at a time.
static int settle_last(struct nccl_coll *n, struct err *e) {
    if (!n->starting) return 0;
    int rc = poll_ready(n, n->starting->base.name, n->base.deadline_ms, e);
    return rc ? rc : settle(n, n->starting, e);
}

// ---- operations

static ncclResult_t issue_segments(struct nccl_coll *n, const struct coll_request *q) {
    ncclResult_t rc = ncclSuccess;
    for (int r = 0; r < n->base.size && rc == ncclSuccess; r++) {
        size_t count = (size_t)(q->offset[r + 1] - q->offset[r]);
        float *at = q->buffer + q->offset[r];
        if (count == 0) continue;
        if (q->verb == VERB_REDUCE_SCATTER)
            rc = n->call.reduce(at, at, count, ncclFloat32, ncclSum, r, n->comm, (cudaStream_t)n->queue);
        else
            rc = n->call.broadcast(at, at, count, ncclFloat32, r, n->comm, (cudaStream_t)n->queue);
        if (rc == ncclInProgress) rc = ncclSuccess;
    }
    return rc;
}

// A rank's own piece travels like the others', or stays when its place is empty.
static ncclResult_t issue_exchange(struct nccl_coll *n, const struct coll_request *q) {
    ncclResult_t rc = ncclSuccess;
    for (int r = 0; r < n->base.size && rc == ncclSuccess; r++) {
        size_t in = (size_t)(q->recv_offset[r + 1] - q->recv_offset[r]);
        size_t out = (size_t)(q->send_offset[r + 1] - q->send_offset[r]);
        if (r == n->base.rank && in == 0) continue;
        if (in)
            rc = n->call.recv(q->recv + q->recv_offset[r], in, ncclFloat32, r, n->comm,
                              (cudaStream_t)n->queue);
        if (rc == ncclInProgress) rc = ncclSuccess;
        if (out && rc == ncclSuccess)
            rc = n->call.send(q->send + q->send_offset[r], out, ncclFloat32, r, n->comm,
                              (cudaStream_t)n->queue);
        if (rc == ncclInProgress) rc = ncclSuccess;
    }
    return rc;
}

static int issue(struct nccl_coll *n, const struct coll_request *q, struct nccl_op *op, struct err *e) {
    int rc = settle_last(n, e);
    if (!rc) rc = n->base.device->vtable->queues->follow(n->base.device, n->queue, e);
    if (!rc) rc = nccl_check(n->call.group_start(), q->name, e);
    if (rc) return rc;
    ncclResult_t issued = q->verb == VERB_EXCHANGE ? issue_exchange(n, q) : issue_segments(n, q);
    ncclResult_t ended = n->call.group_end();
    rc = nccl_check(issued, q->name, e);
    if (!rc) rc = nccl_check(ended, q->name, e);
    if (!rc) n->starting = op;
    return rc;
}

static int host_start(struct nccl_coll *n, const struct coll_request *q, struct nccl_op *op, struct err *e) {
    n->host->seq = n->base.seq;
    int rc = n->host->vtable->start(n->host, q, &op->inner, e);
    if (rc) return rc;
    op->inner->name = q->name;
    op->inner->seq = n->base.seq;
    return 0;
}

static int start_one(struct nccl_coll *n, const struct coll_request *q, struct nccl_op *op, struct err *e) {
    switch (q->verb) {
    case VERB_REDUCE_SCATTER:
    case VERB_ALL_GATHER:
    case VERB_EXCHANGE: return issue(n, q, op, e);
    case VERB_LAUNCHED: return n->base.device->vtable->queues->mark(n->base.device, NULL, &op->mark, e);
    default: return host_start(n, q, op, e);
    }
}

static int nccl_start(struct coll *c, const struct coll_request *q, struct coll_op **out, struct err *e) {
    struct nccl_coll *n = nccl_of(c);
    struct nccl_op *op = calloc(1, sizeof *op);
    if (!op) return err_set(e, ERR_MEMORY, "%s: no memory for an operation", q->name);
    op->base.name = q->name;
    op->owner = n;
    int rc = start_one(n, q, op, e);
    if (rc)
        free(op);
    else
        *out = &op->base;
    return rc;
}

static int nccl_test(struct coll *c, struct coll_op *base, bool *done, struct err *e) {
    struct nccl_coll *n = nccl_of(c);
    struct nccl_op *op = (struct nccl_op *)base;
    bool ready = false;
    if (op->inner) return n->host->vtable->test(n->host, op->inner, done, e);
    int rc = look(n, base->name, &ready, e);
    if (!rc && ready && n->starting == op) rc = settle(n, op, e);
    if (rc || !op->mark) return rc;
    return c->device->vtable->queues->reached(c->device, op->mark, done, e);
}

// NCCL's own thread may still be putting it into the queue: what follows must come behind it.
static int nccl_join(struct coll *c, struct coll_op *base, struct err *e) {
    struct nccl_coll *n = nccl_of(c);
    struct nccl_op *op = (struct nccl_op *)base;
    int rc = n->starting == op ? settle_last(n, e) : 0;
    return rc || !op->mark ? rc : c->device->vtable->queues->join(c->device, op->mark, e);
}

// The library knows the buffers, not the operation: this may go even when it was given up.
static void nccl_release(struct coll_op *base, bool ended) {
    struct nccl_op *op = (struct nccl_op *)base;
    if (!op) return;
    struct nccl_coll *n = op->owner;
    if (n->starting == op) n->starting = NULL;
    if (op->inner) n->host->vtable->release(op->inner, ended);
    if (op->mark) n->base.device->vtable->queues->unmark(n->base.device, op->mark);
    free(op);
}

static void close_comm(struct nccl_coll *n, bool abort) {
    struct err ignored = {0};
    if (!n->comm) return;
    if (!abort && nccl_check(n->call.finalize(n->comm), "closing", &ignored)) abort = true;
    if (!abort && poll_ready(n, "closing", n->base.deadline_ms, &ignored)) abort = true;
    (void)(abort ? n->call.abort(n->comm) : n->call.destroy(n->comm));
}

static void nccl_close(struct coll *c, bool abort) {
    struct nccl_coll *n = nccl_of(c);
    close_comm(n, abort);
    if (!abort && n->queue) c->device->vtable->queues->close(c->device, n->queue);
    n->host->vtable->close(n->host, abort);
    free(n);
}

static const struct coll_vtable nccl_vtable = {
    .name = "nccl",
    .device_memory = true,
    .start = nccl_start,
    .test = nccl_test,
    .join = nccl_join,
    .release = nccl_release,
    .close = nccl_close,
};

// ---- opening

static int load(struct nccl_calls *c, struct err *e) {
    const char *given = getenv("ORRERY_NCCL_LIBRARY"), *path = given && given[0] ? given : "libnccl.so.2";
    int version = 0;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, ERR_ABSENT, "NCCL is not here (%s); install libnccl2, or use comm.backend=mpi",
                       dlerror());
#define CALL(name, field, arguments)                                                                         \
    *(void **)&c->field = dlsym(library, #name);                                                             \
    if (!c->field) return err_set(e, ERR_ABSENT, "%s has no %s: NCCL 2.20 or later is needed", path, #name);
    NCCL_CALLS(CALL)
#undef CALL
    int rc = nccl_check(c->get_version(&version), "ncclGetVersion", e);
    if (!rc && version < LEAST_VERSION)
        rc = err_set(e, ERR_ABSENT, "NCCL is %d.%d.%d, 2.20 or later is needed; or use comm.backend=mpi",
                     version / 10000, version % 10000 / 100, version % 100);
    return rc;
}

// One operation of the host's back end, to its end.
static int run_on_host(struct coll *host, const struct coll_request *q, struct err *e) {
    const struct timespec pause = {.tv_nsec = POLL_NS};
    int64_t until = clock_monotonic_ns() + host->deadline_ms * 1000000;
    struct coll_op *op = NULL;
    bool done = false;
    host->seq++;
    int rc = host->vtable->start(host, q, &op, e);
    if (rc) return rc;
    op->name = q->name;
    op->seq = host->seq;
    while (!rc && !done) {
        rc = host->vtable->test(host, op, &done, e);
        if (!rc && !done && clock_monotonic_ns() >= until)
            rc = err_set(e, ERR_TIMEOUT, "rank %d waited %" PRId64 " ms for its peers (%s)", host->rank,
                         host->deadline_ms, q->name);
        if (!rc && !done) nanosleep(&pause, NULL);
    }
    host->vtable->release(op, !rc);
    return rc;
}

// Rank 0's failure must not leave the others waiting for its id: they get an empty one.
static int spread_id(struct nccl_coll *n, ncclUniqueId *id, struct err *e) {
    struct {
        ncclUniqueId id;
        int64_t good;
    } message;
    memset(&message, 0, sizeof message);
    int mine = n->base.rank == 0 ? nccl_check(n->call.get_unique_id(&message.id), "ncclGetUniqueId", e) : 0;
    message.good = mine == 0;
    struct coll_request q = {.verb = VERB_BROADCAST,
                             .name = "NCCL's id",
                             .host = &message,
                             .host_bytes = sizeof message,
                             .bytes = (int64_t)sizeof message};
    int rc = run_on_host(n->host, &q, e);
    *id = message.id;
    if (mine) return mine;
    return !rc && !message.good ? err_set(e, ERR_PEER, "rank 0 has no NCCL id: its log says why") : rc;
}

// NCCL would only say that something is wrong with the usage.
static int compare_gpus(struct nccl_coll *n, struct err *e) {
    uint64_t mine = n->base.device->identity, *all = calloc((size_t)n->base.size, sizeof *all);
    if (!all) return err_set(e, ERR_MEMORY, "no memory to compare %d GPUs", n->base.size);
    struct coll_request q = {.verb = VERB_GATHER_ALL,
                             .name = "GPUs",
                             .piece = &mine,
                             .host_bytes = sizeof mine,
                             .all = all,
                             .bytes = (int64_t)sizeof mine};
    int rc = run_on_host(n->host, &q, e);
    for (int r = 0; !rc && r < n->base.size; r++) {
        if (!all[r])
            rc = err_set(e, ERR_ABSENT, "rank %d has no GPU: give every rank one, or set device=cpu", r);
        else if (r != n->base.rank && all[r] == mine)
            rc = err_set(e, ERR_CONFIG,
                         "ranks %d and %d have the same GPU: start one rank per GPU, or allow it with "
                         "cuda.share=true",
                         n->base.rank < r ? n->base.rank : r, n->base.rank < r ? r : n->base.rank);
    }
    free(all);
    return rc;
}

static int join(struct nccl_coll *n, struct err *e) {
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    int rc = compare_gpus(n, e);
    if (!rc) rc = spread_id(n, &id, e);
    if (rc) return rc;
    rc = nccl_check(n->call.init_rank(&n->comm, n->base.size, id, n->base.rank, &config), "joining NCCL", e);
    return rc ? rc : poll_ready(n, "joining NCCL", n->base.deadline_ms, e);
}

static int open_parts(struct nccl_coll *n, struct err *e) {
    struct device *d = n->base.device;
    if (!d || !d->vtable->queues)
        return err_set(e, ERR_CONFIG, "comm.backend nccl moves what is on GPUs, but this rank is on the CPU");
    int rc = load(&n->call, e);
    if (!rc) rc = d->vtable->queues->open(d, &n->queue, e);
    return rc ? rc : join(n, e);
}

int coll_nccl_open(struct coll **out, struct coll *host, const struct coll_options *o, struct err *e) {
    struct nccl_coll *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for the collectives");
    n->base = (struct coll){.vtable = &nccl_vtable,
                            .rank = host->rank,
                            .size = host->size,
                            .local_rank = host->local_rank,
                            .local_size = host->local_size,
                            .deadline_ms = host->deadline_ms,
                            .seq = host->seq,
                            .device = o->device};
    n->host = host;
    int rc = open_parts(n, e);
    if (!rc) {
        *out = &n->base;
        return 0;
    }
    close_comm(n, true);
    if (n->queue) o->device->vtable->queues->close(o->device, n->queue);
    free(n);
    return rc;
}
