// SPDX-License-Identifier: Apache-2.0
#include "comm/coll.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "comm/coll_impl.h"

#define DEFAULT_DEADLINE_MS 120000

static void fill(struct coll *c, const struct coll_options *options) {
    c->deadline_ms = options->deadline_ms > 0 ? options->deadline_ms : DEFAULT_DEADLINE_MS;
    c->device = options->device;
    c->notify = options->notify;
    c->say = options->say;
    c->notify_arg = options->notify_arg;
}

// MPI spreads NCCL's unique id and goes on to carry what is small and in host memory.
static int open_nccl(struct coll **out, const struct coll_options *options, struct err *e) {
    const struct device_plugin *plugin;
    struct coll *host = NULL;
    int rc = device_plugin(&plugin, e);
    if (!rc) rc = coll_mpi_open(&host, options, e);
    if (rc) return rc;
    fill(host, options);
    rc = plugin->coll_open(out, host, options, e);
    if (rc == -ERR_ABSENT && options->share && options->or_mpi) {
        if (options->say) options->say(options->notify_arg, e->text);
        err_clear(e);
        *out = host;
        return 0;
    }
    if (rc) coll_close(host, true);
    return rc;
}

int coll_open(struct coll **out, const struct coll_options *options, struct err *e) {
    int rc;
    *out = NULL;
    switch (options->kind) {
    case COLL_SELF: rc = coll_self_open(out, options, e); break;
    case COLL_MPI: rc = coll_mpi_open(out, options, e); break;
    case COLL_NCCL: rc = open_nccl(out, options, e); break;
    default: return err_set(e, ERR_BUG, "no collective back end %d", (int)options->kind);
    }
    if (rc) return rc;
    fill(*out, options);
    return 0;
}

void coll_slip(struct coll *c, enum coll_slip slip) {
    c->slip = slip;
}

int64_t coll_set_deadline(struct coll *c, int64_t ms) {
    int64_t before = c->deadline_ms;
    c->deadline_ms = ms;
    return before;
}

const char *coll_name(const struct coll *c) {
    return c->vtable->name;
}
int coll_rank(const struct coll *c) {
    return c->rank;
}
int coll_size(const struct coll *c) {
    return c->size;
}

static void tell(struct coll *c, enum coll_moment moment, const char *name, int64_t bytes, int64_t shape,
                 int64_t seq) {
    const struct coll_note note = {moment, name, seq, bytes, shape};
    if (c->notify) c->notify(c->notify_arg, &note);
}

static int skip(const struct coll_request *q, struct coll_op **op, struct err *e) {
    *op = calloc(1, sizeof **op);
    if (!*op) return err_set(e, ERR_MEMORY, "%s: no memory for an operation", q->name);
    (*op)->name = q->name;
    (*op)->skipped = true;
    return 0;
}

// ---- what is under way

static bool is_timed(const struct coll_request *q) {
    return q->verb == VERB_REDUCE_SCATTER || q->verb == VERB_ALL_GATHER || q->verb == VERB_EXCHANGE;
}

static void enlist(struct coll *c, struct coll_op *op) {
    struct coll_op **end = &c->under_way;
    while (*end) end = &(*end)->next;
    *end = op;
    if (op->timed && c->timed++ == 0) c->busy_since_ns = clock_monotonic_ns();
}

static void leave_clock(struct coll *c, struct coll_op *op) {
    if (op->timed && --c->timed == 0) c->busy_ns += clock_monotonic_ns() - c->busy_since_ns;
    op->timed = false;
}

static void delist(struct coll *c, struct coll_op *op) {
    struct coll_op **at = &c->under_way;
    while (*at && *at != op) at = &(*at)->next;
    if (*at) *at = op->next;
    leave_clock(c, op);
}

static int test(struct coll *c, struct coll_op *op, bool *done, struct err *e) {
    *done = op->ended;
    if (op->ended) return 0;
    int rc = op->staged ? coll_stage_test(c, op, done, e) : c->vtable->test(c, op, done, e);
    op->ended = !rc && *done;
    if (op->ended) leave_clock(c, op);
    return rc;
}

static void release(struct coll *c, struct coll_op *op) {
    delist(c, op);
    if (op->staged)
        coll_stage_release(c, op, op->ended);
    else
        c->vtable->release(op, op->ended);
}

// No operation follows on this one. A GPU's queues may hold work that waits for the peers' part of it.
static void give_up(struct coll *c) {
    c->broken = true;
    if (c->vtable->join) c->device->lost = true;
}

// They end in the order of their start, more or less: the first that has not tells enough.
int coll_progress(struct coll *c, struct err *e) {
    bool done = true;
    int rc = 0;
    if (c->recording) return 0;
    for (struct coll_op *op = c->under_way; op && !c->broken && !rc && done; op = op->next)
        rc = test(c, op, &done, e);
    if (rc) give_up(c);
    return rc;
}

void coll_drop(struct coll *c, struct coll_op *op) {
    struct err ignored = {0};
    bool done = false;
    if (!op) return;
    if (op->skipped) {
        free(op);
        return;
    }
    if (!c->broken && test(c, op, &done, &ignored)) give_up(c);
    if (!op->ended) give_up(c);
    release(c, op);
}

struct coll_clock coll_clock(const struct coll *c) {
    int64_t now = clock_monotonic_ns(), busy = c->busy_ns + (c->timed > 0 ? now - c->busy_since_ns : 0);
    return (struct coll_clock){.busy = 1e-9 * (double)busy, .wait = 1e-9 * (double)c->wait_ns};
}

// ---- start and wait

static int start(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e) {
    enum coll_slip slip = q->verb == VERB_LAUNCHED ? COLL_SLIP_NONE : c->slip;
    const struct coll_request other = {
        .verb = VERB_SUM, .name = "mismatched", .bytes = 8, .values = &c->slip_value, .count = 1};
    *op = NULL;
    if (q->verb != VERB_LAUNCHED) c->slip = COLL_SLIP_NONE;
    if (c->broken) return err_set(e, ERR_PEER, "%s: not started, an earlier collective failed", q->name);
    if (slip == COLL_SLIP_SKIP) return skip(q, op, e);
    if (slip == COLL_SLIP_MISMATCH) q = &other;
    c->seq++;
    tell(c, COLL_BEGINS, q->name, q->bytes, q->verb == VERB_EXCHANGE ? -1 : q->bytes, c->seq);
    int rc = coll_stage_needed(c, q) ? coll_stage_start(c, q, op, e) : c->vtable->start(c, q, op, e);
    if (rc) {
        give_up(c);
        return rc;
    }
    (*op)->name = q->name;
    (*op)->seq = c->seq;
    (*op)->bytes = q->bytes;
    (*op)->timed = is_timed(q);
    enlist(c, *op);
    return 0;
}

// Polls: MPI makes progress only while somebody calls it, and a poll is what lets a deadline end the wait.
static int poll_until_done(struct coll *c, struct coll_op *op, struct err *e) {
    int64_t begun = clock_monotonic_ns();
    int64_t until = begun + c->deadline_ms * 1000000;
    for (;;) {
        bool done = false;
        int rc = test(c, op, &done, e);
        if (rc || done) return rc;
        int64_t now = clock_monotonic_ns();
        if (now >= until)
            return err_set(e, ERR_TIMEOUT,
                           "rank %d waited %" PRId64 " ms in collective %" PRId64
                           " (%s) for its peers; the black "
                           "boxes say who is missing, comm.deadline_s how long to wait",
                           c->rank, c->deadline_ms, op->seq, op->name);
        coll_pause(now - begun);
    }
}

int coll_wait(struct coll *c, struct coll_op *op, struct err *e) {
    if (!op) return err_set(e, ERR_BUG, "a wait for no collective");
    if (op->skipped) {
        free(op);
        return 0;
    }
    tell(c, COLL_WAITS, op->name, op->bytes, -1, op->seq);
    int64_t begun = clock_monotonic_ns();
    bool timed = op->timed;
    int rc = c->broken ? err_set(e, ERR_PEER, "%s: given up, an earlier collective failed", op->name)
                       : poll_until_done(c, op, e);
    if (timed) c->wait_ns += clock_monotonic_ns() - begun;
    if (rc) give_up(c);
    release(c, op);
    if (!rc) tell(c, COLL_ENDS, "", 0, -1, 0);
    return rc;
}

int coll_join(struct coll *c, struct coll_op *op, struct err *e) {
    if (!op || op->skipped || op->staged || c->broken || !c->vtable->join) return coll_wait(c, op, e);
    int rc = c->vtable->join(c, op, e);
    if (rc) give_up(c);
    op->joined = true;
    if (rc || c->recording) {
        op->ended = !rc;
        release(c, op);
    }
    return rc;
}

static struct coll_op *first_joined(const struct coll *c) {
    struct coll_op *op = c->under_way;
    while (op && !op->joined) op = op->next;
    return op;
}

int coll_settle(struct coll *c, struct err *e) {
    int rc = 0;
    for (struct coll_op *op; (op = first_joined(c));) {
        if (rc)
            release(c, op);
        else
            rc = coll_wait(c, op, e);
    }
    return rc;
}

void coll_close(struct coll *c, bool abort) {
    if (!c) return;
    struct err ignored = {0};
    if (!abort && !c->broken && coll_barrier(c, "closing", &ignored)) abort = true;
    for (struct coll_op *op; (op = first_joined(c));) release(c, op); // of a step that failed
    c->vtable->close(c, abort || c->broken);
}

bool coll_is_queued(const struct coll *c) {
    return c->vtable->join != NULL;
}

void coll_record(struct coll *c, bool on) {
    c->recording = on;
    if (!on) tell(c, COLL_ENDS, "", 0, -1, 0);
}

int coll_launched(struct coll *c, const char *name, struct err *e) {
    struct coll_request q = {.verb = VERB_LAUNCHED, .name = name};
    struct coll_op *op;
    if (!c->vtable->join) return 0;
    int rc = start(c, &q, &op, e);
    if (!rc) op->joined = true;
    return rc;
}

static int run(struct coll *c, const struct coll_request *q, struct err *e) {
    struct coll_op *op;
    int rc = start(c, q, &op, e);
    return rc ? rc : coll_wait(c, op, e);
}

// ---- the operations

static int64_t float_bytes(const struct coll *c, int rows, const int64_t *offset) {
    return (offset[(int64_t)rows * c->size] - offset[0]) * (int64_t)sizeof(float);
}

int coll_reduce_scatter(struct coll *c, struct coll_op **op, const char *name, float *buffer,
                        const int64_t *offset, struct err *e) {
    struct coll_request q = {.verb = VERB_REDUCE_SCATTER, .name = name, .bytes = float_bytes(c, 1, offset)};
    q.buffer = buffer;
    q.offset = offset;
    return start(c, &q, op, e);
}

int coll_all_gather(struct coll *c, struct coll_op **op, const char *name, float *buffer,
                    const int64_t *offset, struct err *e) {
    struct coll_request q = {.verb = VERB_ALL_GATHER, .name = name, .bytes = float_bytes(c, 1, offset)};
    q.buffer = buffer;
    q.offset = offset;
    return start(c, &q, op, e);
}

int coll_exchange(struct coll *c, struct coll_op **op, const char *name, int rows, const float *send,
                  const int64_t *send_offset, float *recv, const int64_t *recv_offset, struct err *e) {
    struct coll_request q = {.verb = VERB_EXCHANGE, .name = name, .bytes = float_bytes(c, rows, send_offset)};
    q.rows = rows;
    q.send = send;
    q.send_offset = send_offset;
    q.recv = recv;
    q.recv_offset = recv_offset;
    return start(c, &q, op, e);
}

int coll_copy_own(struct coll *c, const struct coll_request *q, struct err *e) {
    for (int64_t i = c->rank; i < coll_pieces(c, q); i += c->size) {
        int64_t n = q->recv_offset[i + 1] - q->recv_offset[i];
        if (n == 0) continue;
        if (n != q->send_offset[i + 1] - q->send_offset[i])
            return err_set(e, ERR_BUG, "%s: rank %d sends itself %" PRId64 " elements and expects %" PRId64,
                           q->name, c->rank, q->send_offset[i + 1] - q->send_offset[i], n);
        memcpy(q->recv + q->recv_offset[i], q->send + q->send_offset[i], (size_t)n * sizeof(float));
    }
    return 0;
}

int coll_broadcast(struct coll *c, struct coll_op **op, const char *name, void *host, size_t bytes, int root,
                   struct err *e) {
    struct coll_request q = {.verb = VERB_BROADCAST, .name = name, .bytes = (int64_t)bytes};
    q.host = host;
    q.host_bytes = bytes;
    q.root = root;
    return start(c, &q, op, e);
}

int coll_barrier(struct coll *c, const char *name, struct err *e) {
    struct coll_request q = {.verb = VERB_BARRIER, .name = name};
    return run(c, &q, e);
}

static int reduce_i64(struct coll *c, enum coll_verb verb, const char *name, int64_t *v, int n,
                      struct err *e) {
    struct coll_request q = {
        .verb = verb, .name = name, .bytes = n * (int64_t)sizeof *v, .values = v, .count = n};
    return run(c, &q, e);
}

int coll_sum_i64(struct coll *c, const char *name, int64_t *v, int n, struct err *e) {
    return reduce_i64(c, VERB_SUM, name, v, n, e);
}

int coll_max_i64(struct coll *c, const char *name, int64_t *v, int n, struct err *e) {
    return reduce_i64(c, VERB_MAX, name, v, n, e);
}

int coll_gather_all(struct coll *c, const char *name, const void *piece, size_t bytes, void *all,
                    struct err *e) {
    struct coll_request q = {.verb = VERB_GATHER_ALL, .name = name, .bytes = (int64_t)bytes};
    q.piece = piece;
    q.host_bytes = bytes;
    q.all = all;
    return run(c, &q, e);
}
