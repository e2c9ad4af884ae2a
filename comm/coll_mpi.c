// SPDX-License-Identifier: Apache-2.0
// Collectives through MPI, non-blocking underneath. Buffers are read and written in place and are host
// memory; coll_stage.c brings a GPU's there. MPI's errors are returned, never fatal. The only file that knows
// MPI.
#include <inttypes.h>
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "comm/coll_impl.h"

struct mpi_coll {
    struct coll base;
    MPI_Comm comm;
    bool ours; // we called MPI_Init, so we call MPI_Finalize
    int tag_max;
};

struct mpi_op {
    struct coll_op base;
    int n_requests;
    MPI_Request *requests;
    MPI_Status *statuses;
    int *counts; // MPI reads them until the operation has ended
    void *own;   // staging: the blocking verbs' values, reduce-scatter's result
    void *deliver_to;
    size_t deliver_bytes;
};

static struct mpi_coll *mpi_of(struct coll *c) {
    return (struct mpi_coll *)c;
}

static int mpi_fail(int code, const char *name, struct err *e) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0, cls = MPI_ERR_OTHER;
    MPI_Error_string(code, text, &length);
    MPI_Error_class(code, &cls);
    if (cls == MPI_ERR_TRUNCATE || cls == MPI_ERR_COUNT || cls == MPI_ERR_ARG)
        return err_set(e, ERR_BUG, "%s: the ranks disagree on sizes: %s", name, text);
    return err_set(e, ERR_PEER, "%s: MPI lost a peer or its connection: %s", name, text);
}

// ---- operations

static void mpi_release(struct coll_op *base, bool ended) {
    struct mpi_op *op = (struct mpi_op *)base;
    if (!op) return;
    // MPI may still write into an operation that was given up: its memory is left to the process's end.
    if (!ended) return;
    free(op->requests);
    free(op->statuses);
    free(op->counts);
    free(op->own);
    free(op);
}

static struct mpi_op *op_create(int n_requests, int n_counts, size_t own_bytes) {
    struct mpi_op *op = calloc(1, sizeof *op);
    if (!op) return NULL;
    op->requests = calloc((size_t)n_requests, sizeof *op->requests);
    op->statuses = calloc((size_t)n_requests, sizeof *op->statuses);
    op->counts = calloc((size_t)n_counts + 1, sizeof *op->counts);
    op->own = malloc(own_bytes + 1);
    if (op->requests && op->statuses && op->counts && op->own) {
        for (int i = 0; i < n_requests; i++) op->requests[i] = MPI_REQUEST_NULL;
        return op;
    }
    mpi_release(&op->base, true);
    return NULL;
}

static int too_large(const struct coll_request *q, int64_t n, struct err *e) {
    return err_set(e, ERR_BUG, "%s: %" PRId64 " elements in one piece are more than MPI's int can count",
                   q->name, n);
}

static int no_memory(const struct coll_request *q, struct err *e) {
    return err_set(e, ERR_MEMORY, "%s: no memory for an operation", q->name);
}

// counts[0..size) and, behind them, displacements from q->buffer.
static int fill_counts(const struct coll *c, const struct coll_request *q, int *counts, struct err *e) {
    if (q->offset[c->size] > INT_MAX) return too_large(q, q->offset[c->size], e);
    for (int r = 0; r < c->size; r++) {
        counts[r] = (int)(q->offset[r + 1] - q->offset[r]);
        counts[c->size + r] = (int)q->offset[r];
    }
    return 0;
}

static int start_reduce_scatter(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                                struct err *e) {
    int rank = m->base.rank, size = m->base.size;
    size_t own = (size_t)(q->offset[rank + 1] - q->offset[rank]) * sizeof(float);
    struct mpi_op *op = *out = op_create(1, 2 * size, own);
    if (!op) return no_memory(q, e);
    int rc = fill_counts(&m->base, q, op->counts, e);
    if (rc) return rc;
    op->deliver_to = q->buffer + q->offset[rank];
    op->deliver_bytes = own;
    rc = MPI_Ireduce_scatter(q->buffer + q->offset[0], op->own, op->counts, MPI_FLOAT, MPI_SUM, m->comm,
                             op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

static int start_all_gather(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                            struct err *e) {
    int size = m->base.size;
    struct mpi_op *op = *out = op_create(1, 2 * size, 0);
    if (!op) return no_memory(q, e);
    int rc = fill_counts(&m->base, q, op->counts, e);
    if (rc) return rc;
    rc = MPI_Iallgatherv(MPI_IN_PLACE, 0, MPI_FLOAT, q->buffer, op->counts, op->counts + size, MPI_FLOAT,
                         m->comm, op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

// A row of an exchange's pieces, to or from every other rank: each rank begins with another one.
static int start_row(struct mpi_coll *m, const struct coll_request *q, int row, bool in, struct mpi_op *op,
                     struct err *e) {
    int rank = m->base.rank, size = m->base.size, tag = (int)(m->base.seq % m->tag_max), rc = 0;
    const int64_t *offset = (in ? q->recv_offset : q->send_offset) + (int64_t)row * size;
    for (int i = 1; i < size && !rc; i++) {
        int peer = (in ? rank + size - i : rank + i) % size;
        int64_t n = offset[peer + 1] - offset[peer];
        if (n == 0) continue;
        if (n > INT_MAX) return too_large(q, n, e);
        MPI_Request *request = &op->requests[op->n_requests++];
        if (in)
            rc = MPI_Irecv(q->recv + offset[peer], (int)n, MPI_FLOAT, peer, tag, m->comm, request);
        else
            rc = MPI_Isend(q->send + offset[peer], (int)n, MPI_FLOAT, peer, tag, m->comm, request);
        if (rc) rc = mpi_fail(rc, q->name, e);
    }
    return rc;
}

// Receives first, so that no piece arrives unexpected and is copied twice.
static int start_exchange(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                          struct err *e) {
    struct mpi_op *op = *out = op_create((int)(2 * coll_pieces(&m->base, q)), 0, 0);
    if (!op) return no_memory(q, e);
    int rc = coll_copy_own(&m->base, q, e);
    for (int row = 0; row < q->rows && !rc; row++) rc = start_row(m, q, row, true, op, e);
    for (int row = 0; row < q->rows && !rc; row++) rc = start_row(m, q, row, false, op, e);
    return rc;
}

static int start_broadcast(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                           struct err *e) {
    struct mpi_op *op = *out = op_create(1, 0, 0);
    if (!op) return no_memory(q, e);
    if (q->host_bytes > INT_MAX) return too_large(q, (int64_t)q->host_bytes, e);
    int rc = MPI_Ibcast(q->host, (int)q->host_bytes, MPI_BYTE, q->root, m->comm, op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

static int start_barrier(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                         struct err *e) {
    struct mpi_op *op = *out = op_create(1, 0, 0);
    if (!op) return no_memory(q, e);
    int rc = MPI_Ibarrier(m->comm, op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

static int start_reduce_i64(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                            struct err *e) {
    size_t bytes = (size_t)q->count * sizeof *q->values;
    struct mpi_op *op = *out = op_create(1, 0, bytes);
    if (!op) return no_memory(q, e);
    if (bytes) memcpy(op->own, q->values, bytes);
    op->deliver_to = q->values;
    op->deliver_bytes = bytes;
    int rc = MPI_Iallreduce(MPI_IN_PLACE, op->own, q->count, MPI_INT64_T,
                            q->verb == VERB_SUM ? MPI_SUM : MPI_MAX, m->comm, op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

static int start_gather_all(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out,
                            struct err *e) {
    size_t all;
    if (q->host_bytes > INT_MAX || !bytes_mul(q->host_bytes, (size_t)m->base.size, &all))
        return too_large(q, (int64_t)q->host_bytes, e);
    struct mpi_op *op = *out = op_create(1, 0, all);
    if (!op) return no_memory(q, e);
    char *own = op->own;
    if (all) memcpy(own + q->host_bytes * (size_t)m->base.rank, q->piece, q->host_bytes);
    op->deliver_to = q->all;
    op->deliver_bytes = all;
    int rc =
        MPI_Iallgather(MPI_IN_PLACE, 0, MPI_BYTE, own, (int)q->host_bytes, MPI_BYTE, m->comm, op->requests);
    op->n_requests = 1;
    return rc ? mpi_fail(rc, q->name, e) : 0;
}

typedef int start_fn(struct mpi_coll *m, const struct coll_request *q, struct mpi_op **out, struct err *e);

static int mpi_start(struct coll *c, const struct coll_request *q, struct coll_op **out, struct err *e) {
    static start_fn *const starts[] = {
        [VERB_REDUCE_SCATTER] = start_reduce_scatter,
        [VERB_ALL_GATHER] = start_all_gather,
        [VERB_EXCHANGE] = start_exchange,
        [VERB_BROADCAST] = start_broadcast,
        [VERB_BARRIER] = start_barrier,
        [VERB_SUM] = start_reduce_i64,
        [VERB_MAX] = start_reduce_i64,
        [VERB_GATHER_ALL] = start_gather_all,
    };
    struct mpi_op *op = NULL;
    int rc = starts[q->verb](mpi_of(c), q, &op, e);
    if (rc && op)
        mpi_release(&op->base, op->n_requests == 0);
    else
        *out = &op->base;
    return rc;
}

static int first_failure(const struct mpi_op *op, int code) {
    if (code != MPI_ERR_IN_STATUS) return code;
    for (int i = 0; i < op->n_requests; i++)
        if (op->statuses[i].MPI_ERROR != MPI_SUCCESS && op->statuses[i].MPI_ERROR != MPI_ERR_PENDING)
            return op->statuses[i].MPI_ERROR;
    return code;
}

static int mpi_test(struct coll *c, struct coll_op *base, bool *done, struct err *e) {
    struct mpi_op *op = (struct mpi_op *)base;
    int flag = 0;
    int rc = MPI_Testall(op->n_requests, op->requests, &flag, op->statuses);
    if (rc) return mpi_fail(first_failure(op, rc), base->name, e);
    if (!flag) return 0;
    if (op->deliver_bytes) memcpy(op->deliver_to, op->own, op->deliver_bytes);
    *done = true;
    return 0;
}

// ---- opening and closing

// Without MPI_Finalize the process must end at once, with its own exit code: mpirun then ends the peers.
static void mpi_close(struct coll *c, bool abort) {
    struct mpi_coll *m = mpi_of(c);
    if (!abort) {
        MPI_Comm_free(&m->comm);
        if (m->ours) MPI_Finalize();
    }
    free(m);
}

static const struct coll_vtable mpi_vtable = {
    .name = "mpi",
    .start = mpi_start,
    .test = mpi_test,
    .release = mpi_release,
    .close = mpi_close,
};

static int init_library(struct mpi_coll *m, struct err *e) {
    int ready = 0, level = 0;
    MPI_Initialized(&ready);
    if (ready) return 0;
    int rc = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level);
    if (rc) return err_set(e, ERR_UNAVAILABLE, "MPI does not start (code %d)", rc);
    m->ours = true;
    if (level < MPI_THREAD_FUNNELED)
        return err_set(e, ERR_UNAVAILABLE, "this MPI was built without threads (MPI_THREAD_FUNNELED)");
    return 0;
}

static int read_layout(struct mpi_coll *m, struct err *e) {
    int *tag_max = NULL, found = 0;
    int rc = MPI_Comm_dup(MPI_COMM_WORLD, &m->comm);
    if (!rc) rc = MPI_Comm_rank(m->comm, &m->base.rank);
    if (!rc) rc = MPI_Comm_size(m->comm, &m->base.size);
    if (!rc) rc = MPI_Comm_get_attr(m->comm, MPI_TAG_UB, &tag_max, &found);
    if (rc) return mpi_fail(rc, "opening MPI", e);
    m->tag_max = found && tag_max ? *tag_max : 32767; // the least that the standard promises
    return 0;
}

int coll_mpi_open(struct coll **out, const struct coll_options *options, struct err *e) {
    struct mpi_coll *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory for the collectives");
    m->base.vtable = &mpi_vtable;
    int rc = init_library(m, e);
    if (!rc) MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN); // the duplicate inherits it
    if (!rc) rc = read_layout(m, e);
    if (rc) {
        free(m);
        return rc;
    }
    *out = &m->base;
    return 0;
}

void coll_mpi_version(char *out, size_t out_bytes) {
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int n = 0;
    if (MPI_Get_library_version(text, &n))
        snprintf(text, sizeof text, "an MPI that does not tell its version");
    text[strcspn(text, ",\n")] = 0; // "Open MPI v4.1.4"
    snprintf(out, out_bytes, "%s", text);
}
