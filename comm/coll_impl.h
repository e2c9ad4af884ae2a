// SPDX-License-Identifier: Apache-2.0
// What a back end of coll.h provides; included by coll*.c only. coll.c numbers the operations, waits with the
// deadline and tells the black box; a back end starts an operation and says whether it has ended.
#ifndef ORRERY_COMM_COLL_IMPL_H
#define ORRERY_COMM_COLL_IMPL_H

#include <sched.h>
#include <time.h>

#include "comm/coll.h"

enum coll_verb {
    VERB_REDUCE_SCATTER,
    VERB_ALL_GATHER,
    VERB_EXCHANGE,
    VERB_BROADCAST,
    VERB_BARRIER,
    VERB_SUM,
    VERB_MAX,
    VERB_GATHER_ALL,
    VERB_LAUNCHED, // nothing but a mark behind what the device's queue holds
};

// The arguments of one operation; which fields count depends on the verb.
struct coll_request {
    enum coll_verb verb;
    const char *name;
    int64_t bytes; // moved by this rank, for the black box
    float *buffer; // reduce-scatter, all-gather
    const int64_t *offset;
    int rows; // exchange
    const float *send;
    const int64_t *send_offset;
    float *recv;
    const int64_t *recv_offset;
    void *host; // broadcast: in and out
    size_t host_bytes;
    int root;
    int64_t *values; // sum, max: in and out
    int count;
    const void *piece; // gather: host_bytes of it
    void *all;
};

// A back end's operation starts with this. Buffers of the blocking verbs are copied into it, so that a
// deadline that passes leaves nothing on the caller's stack for the library to write to.
struct coll_op {
    const char *name;
    int64_t seq, bytes;
    bool skipped;         // nothing was started
    bool staged;          // coll_stage.c's
    bool timed;           // counts in coll_clock
    bool ended;           // its results are there
    bool joined;          // coll_settle waits for it
    struct coll_op *next; // under way, in the order of their start
};

struct coll_vtable {
    const char *name;
    bool device_memory; // works on a GPU's memory; without it coll_stage.c copies
    // Allocates *op and starts it. The request itself is gone afterwards; its arrays stay until the wait.
    int (*start)(struct coll *c, const struct coll_request *q, struct coll_op **op, struct err *e);
    // Makes progress; *done when it has ended and its results lie in the request's buffers.
    int (*test)(struct coll *c, struct coll_op *op, bool *done, struct err *e);
    // The device's first queue waits for the operation. NULL: operations run on the host.
    int (*join)(struct coll *c, struct coll_op *op, struct err *e);
    void (*release)(struct coll_op *op, bool ended);
    void (*close)(struct coll *c, bool abort); // frees c
};

// The head of every back end's own struct.
struct coll {
    const struct coll_vtable *vtable;
    int rank, size;
    int64_t deadline_ms, seq;
    bool broken;    // an operation failed: the ranks no longer agree on what comes next
    bool recording; // what is started is recorded
    struct device *device;
    coll_notify_fn *notify;
    coll_say_fn *say;
    void *notify_arg;
    enum coll_slip slip;
    int64_t slip_value; // what a rank that slipped sends
    struct coll_op *under_way;
    int timed; // operations of coll_clock that have not ended
    int64_t busy_since_ns, busy_ns, wait_ns;
};

// Of an exchange: how many go out, and come in, this rank's own counted.
static inline int64_t coll_pieces(const struct coll *c, const struct coll_request *q) {
    return (int64_t)q->rows * c->size;
}

// Between two looks. A wait that is over soon should not pay for a sleep; one that is not must leave its core
// to whoever the rank waits for: a late peer on the same core, or this rank's own data threads.
static inline void coll_pause(int64_t waited_ns) {
    enum { SPIN_NS = 200000, PAUSE_NS = 50000 };
    const struct timespec pause = {.tv_nsec = PAUSE_NS};
    if (waited_ns < SPIN_NS)
        sched_yield();
    else
        nanosleep(&pause, NULL);
}

int coll_self_open(struct coll **out, const struct coll_options *options, struct err *e) ERR_CHECK;
// Of the plug-in; takes `host` over when it succeeds.
int coll_nccl_open(struct coll **out, struct coll *host, const struct coll_options *options,
                   struct err *e) ERR_CHECK;
int coll_mpi_open(struct coll **out, const struct coll_options *options, struct err *e) ERR_CHECK;

// Operations on device memory through a back end of host memory.
bool coll_stage_needed(const struct coll *c, const struct coll_request *q);
int coll_stage_start(struct coll *c, const struct coll_request *q, struct coll_op **op,
                     struct err *e) ERR_CHECK;
int coll_stage_test(struct coll *c, struct coll_op *op, bool *done, struct err *e) ERR_CHECK;
void coll_stage_release(struct coll *c, struct coll_op *op, bool ended);

// Copies this rank's own pieces of an exchange, but those that are to be left where they are.
int coll_copy_own(struct coll *c, const struct coll_request *q, struct err *e) ERR_CHECK;

#endif
