// SPDX-License-Identifier: Apache-2.0
// Collectives on GPUs through NCCL, 2.20 or later, in a queue of their own beside the kernels. The library is
// loaded at run time; nothing blocks in it: its communicator is non-blocking, every wait is a poll with the
// caller's deadline, asynchronous errors are looked for at each one, and an aborted communicator leaves no
// rank hanging. What is small and in host memory goes through the host's own back end. The only file that
// knows NCCL.
//
// Segments have unequal lengths, so a reduce-scatter is a group of reductions and an all-gather a group of
// broadcasts, one per rank.
//
// What a version offers beyond that is looked up by name: memory that peers may reach without a copy (2.26:
// registered by each rank; 2.27: windows, symmetric over all ranks), several ranks on one GPU (2.30). Up to
// 2.30 ncclReduce copies through NCCL's buffers all the same (coll_reg.cc, sym_kernels.cc).
#include <dlfcn.h>
#include <inttypes.h>
#include <nccl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/coll_impl.h"

#define LEAST_VERSION 22000 // 2.20.0
#define SHARE_VERSION 23000 // 2.30.0
#define REACH_VERSION 22600 // 2.26.0
#define SYMMETRIC     1     // NCCL_WIN_COLL_SYMMETRIC, which older headers lack

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

// May be missing. A window's handle is a pointer.
#define NCCL_OPTIONAL(X)                                                                                     \
    X(ncclMemAlloc, mem_alloc, (void **, size_t))                                                            \
    X(ncclMemFree, mem_free, (void *))                                                                       \
    X(ncclCommRegister, reg, (ncclComm_t, void *, size_t, void **))                                          \
    X(ncclCommDeregister, unreg, (ncclComm_t, void *))                                                       \
    X(ncclCommWindowRegister, window, (ncclComm_t, void *, size_t, void **, int))                            \
    X(ncclCommWindowDeregister, unwindow, (ncclComm_t, void *))

struct nccl_calls {
#define CALL(name, field, arguments) ncclResult_t(*field) arguments;
    NCCL_CALLS(CALL)
    NCCL_OPTIONAL(CALL)
#undef CALL
};

// A block of the library's own memory.
struct nccl_block {
    void *at, *window, *handle; // NULL: not registered that way
};

struct nccl_coll {
    struct coll base;
    struct coll *host; // owned
    struct nccl_calls call;
    const char *(*last_error)(ncclComm_t); // NULL: this version has none
    ncclComm_t comm;
    void *queue;
    int version;
    bool loaded;
    bool told;     // that something is done without what the library offers
    bool recorded; // graphs may hold its operations
    struct nccl_block *blocks;
    int n_blocks;
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

// The first line of the library's own last words, behind ": "; empty where it has none.
static void last_words(const struct nccl_coll *n, char out[200]) {
    const char *said = n->last_error ? n->last_error(n->comm) : NULL;
    out[0] = 0;
    if (said && said[0]) snprintf(out, 200, ": %.*s", (int)strcspn(said, "\n"), said);
}

static int nccl_check(const struct nccl_coll *n, ncclResult_t rc, const char *name, struct err *e) {
    char more[200];
    if (rc == ncclSuccess || rc == ncclInProgress) return 0;
    last_words(n, more);
    if (rc == ncclInvalidArgument)
        return err_set(e, ERR_BUG, "%s: NCCL refuses its arguments (%d)%s", name, (int)rc, more);
    if (rc == ncclUnhandledCudaError) return err_set(e, ERR_DEVICE, "%s: NCCL: %s%s", name, words(rc), more);
    return err_set(e, ERR_PEER, "%s: NCCL: %s (%d)%s", name, words(rc), (int)rc, more);
}

// ---- progress

// *ready: the communicator has nothing half done.
static int look(struct nccl_coll *n, const char *name, bool *ready, struct err *e) {
    ncclResult_t state = ncclSuccess;
    int rc = nccl_check(n, n->call.async_error(n->comm, &state), name, e);
    if (!rc) rc = nccl_check(n, state, name, e);
    *ready = !rc && state == ncclSuccess;
    return rc;
}

static int poll_ready(struct nccl_coll *n, const char *name, int64_t deadline_ms, struct err *e) {
    int64_t begun = clock_monotonic_ns(), until = begun + deadline_ms * 1000000;
    for (bool ready = false;;) {
        int rc = look(n, name, &ready, e);
        if (rc || ready) return rc;
        int64_t now = clock_monotonic_ns();
        if (now >= until)
            return err_set(e, ERR_TIMEOUT,
                           "rank %d waited %" PRId64 " ms for NCCL (%s): a peer is missing or stuck",
                           n->base.rank, deadline_ms, name);
        coll_pause(now - begun);
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
    for (int64_t i = 0; i < coll_pieces(&n->base, q) && rc == ncclSuccess; i++) {
        int r = (int)(i % n->base.size);
        size_t in = (size_t)(q->recv_offset[i + 1] - q->recv_offset[i]);
        size_t out = (size_t)(q->send_offset[i + 1] - q->send_offset[i]);
        if (r == n->base.rank && in == 0) continue;
        if (in)
            rc = n->call.recv(q->recv + q->recv_offset[i], in, ncclFloat32, r, n->comm,
                              (cudaStream_t)n->queue);
        if (rc == ncclInProgress) rc = ncclSuccess;
        if (out && rc == ncclSuccess)
            rc = n->call.send(q->send + q->send_offset[i], out, ncclFloat32, r, n->comm,
                              (cudaStream_t)n->queue);
        if (rc == ncclInProgress) rc = ncclSuccess;
    }
    return rc;
}

static int issue(struct nccl_coll *n, const struct coll_request *q, struct nccl_op *op, struct err *e) {
    int rc = settle_last(n, e);
    if (!rc) rc = n->base.device->vtable->queues->follow(n->base.device, n->queue, e);
    if (!rc) rc = nccl_check(n, n->call.group_start(), q->name, e);
    if (rc) return rc;
    ncclResult_t issued = q->verb == VERB_EXCHANGE ? issue_exchange(n, q) : issue_segments(n, q);
    ncclResult_t ended = n->call.group_end();
    rc = nccl_check(n, issued, q->name, e);
    if (!rc) rc = nccl_check(n, ended, q->name, e);
    if (!rc) n->starting = op;
    // Its own thread may go on adding to the graph that this one records into; a graph takes one at a time.
    if (!rc && n->base.recording) rc = settle_last(n, e);
    if (rc) n->starting = NULL;
    n->recorded = n->recorded || n->base.recording;
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

// ---- memory that peers reach without a copy

static int run_on_host(struct coll *host, const struct coll_request *q, struct err *e);

static void __attribute__((format(printf, 2, 3))) say(struct nccl_coll *n, const char *format, ...) {
    char text[256];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (n->base.say) n->base.say(n->base.notify_arg, text);
}

static void say_once(struct nccl_coll *n, const char *what, ncclResult_t rc) {
    if (!n->told)
        say(n, "NCCL %d.%d.%d does not let peers reach this memory (%s: %s): it is copied through buffers",
            n->version / 10000, n->version % 10000 / 100, n->version % 100, what, words(rc));
    n->told = true;
}

// Has it failed on some rank? Then all do without.
static int agree(struct nccl_coll *n, const char *name, bool *failed, struct err *e) {
    int64_t value = *failed;
    struct coll_request q = {
        .verb = VERB_MAX, .name = name, .bytes = sizeof value, .values = &value, .count = 1};
    int rc = run_on_host(n->host, &q, e);
    *failed = value > 0;
    return rc;
}

static bool refused(ncclResult_t rc) {
    return rc != ncclSuccess && rc != ncclInProgress;
}

// Collective. A NULL window after success: this machine's links do not do it.
static int open_window(struct nccl_coll *n, struct nccl_block *b, size_t bytes, struct err *e) {
    ncclResult_t said = n->call.window(n->comm, b->at, bytes, &b->window, SYMMETRIC);
    bool failed = refused(said);
    int rc = failed ? 0 : poll_ready(n, "registering a window", n->base.deadline_ms, e);
    failed = failed || !b->window;
    if (!rc) rc = agree(n, "window", &failed, e);
    if (rc || !failed) return rc;
    if (b->window) (void)n->call.unwindow(n->comm, b->window);
    b->window = NULL;
    return poll_ready(n, "giving up a window", n->base.deadline_ms, e);
}

static int open_handle(struct nccl_coll *n, struct nccl_block *b, size_t bytes, struct err *e) {
    ncclResult_t said = n->call.reg ? n->call.reg(n->comm, b->at, bytes, &b->handle) : ncclInvalidUsage;
    if (!refused(said)) return poll_ready(n, "registering a buffer", n->base.deadline_ms, e);
    b->handle = NULL;
    say_once(n, "ncclCommRegister", said);
    return 0;
}

static void close_block(struct nccl_coll *n, struct nccl_block *b) {
    struct err ignored = {0};
    if (b->window) (void)n->call.unwindow(n->comm, b->window);
    if (b->handle) (void)n->call.unreg(n->comm, b->handle);
    if (!poll_ready(n, "taking a buffer back", n->base.deadline_ms, &ignored)) (void)n->call.mem_free(b->at);
}

static int keep_block(struct nccl_coll *n, const struct nccl_block *b, struct err *e) {
    struct nccl_block *more = realloc(n->blocks, ((size_t)n->n_blocks + 1) * sizeof *more);
    if (!more) return err_set(e, ERR_MEMORY, "no memory for a table of buffers");
    n->blocks = more;
    n->blocks[n->n_blocks++] = *b;
    return 0;
}

static int shared_alloc(void *arg, void **out, size_t bytes, bool alike, struct err *e) {
    struct nccl_coll *n = arg;
    struct device *d = n->base.device;
    struct nccl_block b = {0};
    ncclResult_t said = n->call.mem_alloc(&b.at, bytes);
    bool failed = refused(said);
    int rc = alike ? agree(n, "shared memory", &failed, e) : 0;
    if (failed) {
        if (b.at) (void)n->call.mem_free(b.at);
        say_once(n, "ncclMemAlloc", said);
        return rc ? rc : d->vtable->alloc(d, out, bytes, e);
    }
    if (!rc) rc = settle_last(n, e);
    if (!rc && alike && n->call.window) {
        rc = open_window(n, &b, bytes, e);
        if (rc) err_prefix(e, "comm.reach=false does without");
    }
    if (!rc && !b.window) rc = open_handle(n, &b, bytes, e);
    if (!rc) rc = keep_block(n, &b, e);
    *out = b.at;
    return rc;
}

// After a failure nothing is taken back: the process is about to end.
static void shared_release(void *arg, void *p) {
    struct nccl_coll *n = arg;
    struct err ignored = {0};
    int i = 0;
    while (i < n->n_blocks && n->blocks[i].at != p) i++;
    if (i == n->n_blocks) {
        n->base.device->vtable->release(n->base.device, p);
        return;
    }
    if (!n->base.broken && !settle_last(n, &ignored)) close_block(n, &n->blocks[i]);
    n->blocks[i] = n->blocks[--n->n_blocks];
}

// One rank has no peers to reach, and ranks on one GPU share it without this.
// Nor with an ncclMemAlloc that rounds each block up, to as much as 512 MiB: those before 2.26.
static void offer_memory(struct nccl_coll *n, bool same_gpu) {
    if (n->base.size == 1 || same_gpu || n->version < REACH_VERSION) return;
    if (!n->call.mem_alloc || !n->call.mem_free) return;
    if (!n->call.unreg) n->call.reg = NULL;
    if (!n->call.unwindow) n->call.window = NULL;
    if (!n->call.reg && !n->call.window) return;
    n->base.device->shared =
        (struct device_shared){.arg = n, .alloc = shared_alloc, .release = shared_release};
    say(n,
        "NCCL %d.%d.%d is told of gradients and weights (%s): what its version can, it moves without a copy",
        n->version / 10000, n->version % 10000 / 100, n->version % 100,
        n->call.window ? "symmetric windows" : "registered");
}

static void take_memory_back(struct nccl_coll *n, bool abort) {
    if (n->base.device->shared.arg != n) return;
    while (!abort && n->n_blocks > 0) shared_release(n, n->blocks[n->n_blocks - 1].at);
    free(n->blocks);
    n->base.device->shared = (struct device_shared){0};
}

// NCCL's abort waits for the graphs that hold its operations, and those that run never end without a peer
// (2.20's commReclaim, 2.28's commDestroySync: localPersistentRefs): then the end of the process is the
// abort.
static void close_comm(struct nccl_coll *n, bool abort) {
    struct err ignored = {0};
    if (!n->comm || (abort && n->recorded)) return;
    if (!abort && nccl_check(n, n->call.finalize(n->comm), "closing", &ignored)) abort = true;
    if (!abort && poll_ready(n, "closing", n->base.deadline_ms, &ignored)) abort = true;
    (void)(abort ? n->call.abort(n->comm) : n->call.destroy(n->comm));
}

static void nccl_close(struct coll *c, bool abort) {
    struct nccl_coll *n = nccl_of(c);
    take_memory_back(n, abort);
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

static int load(struct nccl_coll *n, bool share, struct err *e) {
    struct nccl_calls *c = &n->call;
    const char *given = getenv("ORRERY_NCCL_LIBRARY"), *path = given && given[0] ? given : "libnccl.so.2";
    if (share) { // read when it is loaded; older ones do not know it
        setenv("NCCL_MULTI_RANK_GPU_ENABLE", "1", 0);
        setenv("NCCL_NVLS_ENABLE", "0", 0);
    }
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return err_set(e, ERR_ABSENT, "NCCL is not here (%s); install libnccl2, or use comm.backend=mpi",
                       dlerror());
#define CALL(name, field, arguments)                                                                         \
    *(void **)&c->field = dlsym(library, #name);                                                             \
    if (!c->field) return err_set(e, ERR_ABSENT, "%s has no %s: NCCL 2.20 or later is needed", path, #name);
    NCCL_CALLS(CALL)
#undef CALL
#define CALL(name, field, arguments) *(void **)&c->field = dlsym(library, #name);
    NCCL_OPTIONAL(CALL)
#undef CALL
    *(void **)&n->last_error = dlsym(library, "ncclGetLastError");
    int rc = nccl_check(n, c->get_version(&n->version), "ncclGetVersion", e);
    if (!rc && n->version < LEAST_VERSION)
        rc = err_set(e, ERR_ABSENT, "NCCL is %d.%d.%d, 2.20 or later is needed; or use comm.backend=mpi",
                     n->version / 10000, n->version % 10000 / 100, n->version % 100);
    return rc;
}

// One operation of the host's back end, to its end.
static int run_on_host(struct coll *host, const struct coll_request *q, struct err *e) {
    int64_t begun = clock_monotonic_ns(), until = begun + host->deadline_ms * 1000000;
    struct coll_op *op = NULL;
    bool done = false;
    host->seq++;
    int rc = host->vtable->start(host, q, &op, e);
    if (rc) return rc;
    op->name = q->name;
    op->seq = host->seq;
    while (!rc && !done) {
        rc = host->vtable->test(host, op, &done, e);
        int64_t now = clock_monotonic_ns();
        if (!rc && !done && now >= until)
            rc = err_set(e, ERR_TIMEOUT, "rank %d waited %" PRId64 " ms for its peers (%s)", host->rank,
                         host->deadline_ms, q->name);
        if (!rc && !done) coll_pause(now - begun);
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
    int mine =
        n->base.rank == 0 ? nccl_check(n, n->call.get_unique_id(&message.id), "ncclGetUniqueId", e) : 0;
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

// What ranks tell each other before they join.
struct peer {
    uint64_t gpu;
    int64_t version; // 0: this rank cannot load NCCL, and says why itself
};

static int compare_pair(const struct nccl_coll *n, const struct peer *all, int a, int b, bool share,
                        struct err *e) {
    int64_t version = all[a].version < all[b].version ? all[a].version : all[b].version;
    if (share && version >= SHARE_VERSION) return 0;
    if (share)
        return err_set(
            e, ERR_ABSENT,
            "ranks %d and %d share a GPU, which NCCL does from 2.30 on (here %d.%d.%d): through MPI "
            "(comm.backend=mpi) it works",
            a, b, (int)(version / 10000), (int)(version % 10000 / 100), (int)(version % 100));
    return err_set(e, ERR_CONFIG,
                   "ranks %d and %d have the same GPU: start one rank per GPU, or allow it with "
                   "cuda.share=true",
                   a, b);
}

static int judge_peers(const struct nccl_coll *n, const struct peer *all, bool share, bool *same_gpu,
                       struct err *e) {
    int rc = 0;
    for (int r = 0; !rc && r < n->base.size; r++) {
        if (!all[r].version)
            rc = err_set(e, ERR_ABSENT, "rank %d has no NCCL: its log says why", r);
        else if (!all[r].gpu)
            rc = err_set(e, ERR_ABSENT, "rank %d has no GPU: give every rank one, or set device=cpu", r);
        for (int other = r + 1; !rc && other < n->base.size; other++) {
            if (all[r].gpu != all[other].gpu) continue;
            *same_gpu = true;
            rc = compare_pair(n, all, r, other, share, e);
        }
    }
    return rc;
}

// NCCL would only say that something is wrong with the usage. All ranks see the same and come to the same
// end.
static int compare_peers(struct nccl_coll *n, bool share, bool *same_gpu, struct err *e) {
    struct peer mine = {.gpu = n->base.device->identity, .version = n->loaded ? n->version : 0};
    struct peer *all = calloc((size_t)n->base.size, sizeof *all);
    if (!all) return err_set(e, ERR_MEMORY, "no memory to compare %d GPUs", n->base.size);
    struct coll_request q = {.verb = VERB_GATHER_ALL,
                             .name = "GPUs",
                             .piece = &mine,
                             .host_bytes = sizeof mine,
                             .all = all,
                             .bytes = (int64_t)sizeof mine};
    int rc = run_on_host(n->host, &q, e);
    if (!rc) rc = judge_peers(n, all, share, same_gpu, e);
    free(all);
    return rc;
}

static int join(struct nccl_coll *n, struct err *e) {
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    int rc = spread_id(n, &id, e);
    if (rc) return rc;
    rc = nccl_check(n, n->call.init_rank(&n->comm, n->base.size, id, n->base.rank, &config), "joining NCCL",
                    e);
    return rc ? rc : poll_ready(n, "joining NCCL", n->base.deadline_ms, e);
}

static int open_parts(struct nccl_coll *n, const struct coll_options *o, struct err *e) {
    struct device *d = n->base.device;
    if (!d || !d->vtable->queues)
        return err_set(e, ERR_CONFIG, "comm.backend nccl moves what is on GPUs, but this rank is on the CPU");
    bool same_gpu = false;
    struct err theirs = {0};
    int rc = load(n, o->share, e);
    n->loaded = !rc;
    int compared = compare_peers(n, o->share, &same_gpu, rc ? &theirs : e);
    if (!rc) rc = compared;
    if (!rc) rc = d->vtable->queues->open(d, &n->queue, e);
    if (!rc) rc = join(n, e);
    if (!rc && o->reach) offer_memory(n, same_gpu);
    return rc;
}

int coll_nccl_open(struct coll **out, struct coll *host, const struct coll_options *o, struct err *e) {
    struct nccl_coll *n = calloc(1, sizeof *n);
    if (!n) return err_set(e, ERR_MEMORY, "no memory for the collectives");
    n->base = (struct coll){.vtable = &nccl_vtable,
                            .rank = host->rank,
                            .size = host->size,
                            .deadline_ms = host->deadline_ms,
                            .seq = host->seq,
                            .device = o->device,
                            .say = o->say,
                            .notify_arg = o->notify_arg};
    n->host = host;
    int rc = open_parts(n, o, e);
    if (!rc) {
        *out = &n->base;
        return 0;
    }
    close_comm(n, true);
    if (n->queue) o->device->vtable->queues->close(o->device, n->queue);
    free(n);
    return rc;
}
