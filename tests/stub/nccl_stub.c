// SPDX-License-Identifier: Apache-2.0
#include "nccl_stub.h"

#include <nccl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { RANKS = 8, CALLS = 64 };
enum what { REDUCE, BROADCAST, SEND, RECV };

struct nccl_stub nccl_stub = {.version = 22809, .silent_rank = -1};

struct call {
    enum what what;
    const float *from;
    float *to;
    size_t n;
    int peer;
};

// All ranks of a job meet here, group by group.
static struct {
    pthread_mutex_t lock;
    int joined, size;
    struct call call[RANKS][CALLS];
    int calls[RANKS];
    long issued[RANKS], done;
} job = {.lock = PTHREAD_MUTEX_INITIALIZER};

struct ncclComm {
    int rank, left; // polls
    long groups;
    struct ncclComm *next;
};
static struct ncclComm *alive; // also those that nobody gives back, since their process would end

static _Thread_local struct ncclComm *current;
static _Thread_local int my_rank; // a rank is a thread

ncclResult_t ncclGetVersion(int *version) {
    *version = nccl_stub.version;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    memset(id, 0, sizeof *id);
    memcpy(id->internal, "stub", 5);
    pthread_mutex_lock(&job.lock);
    job.joined = 0;
    job.done = 0;
    memset(job.issued, 0, sizeof job.issued);
    memset(job.calls, 0, sizeof job.calls); // of a job that was given up
    pthread_mutex_unlock(&job.lock);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t *comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t *config) {
    if (strcmp(id.internal, "stub") != 0 || config->blocking != 0 || size > RANKS) return ncclInvalidArgument;
    *comm = calloc(1, sizeof **comm);
    (*comm)->rank = my_rank = rank;
    (*comm)->left = nccl_stub.polls;
    pthread_mutex_lock(&job.lock);
    job.size = size;
    job.joined++;
    (*comm)->next = alive;
    alive = *comm;
    pthread_mutex_unlock(&job.lock);
    return ncclInProgress;
}

static const struct call *partner(int rank, enum what what, int peer, int number) {
    for (int i = 0; i < job.calls[rank]; i++)
        if (job.call[rank][i].what == what && job.call[rank][i].peer == peer && number-- == 0)
            return &job.call[rank][i];
    return NULL;
}

// How many calls of its kind, with its peer, a rank made before this one: pairs meet in the order of calls.
static int calls_before(int rank, const struct call *c) {
    int n = 0;
    for (const struct call *other = job.call[rank]; other < c; other++)
        n += other->what == c->what && other->peer == c->peer;
    return n;
}

// Everybody has issued the group: do it. A reduction ends where its root is.
static void run_group(void) {
    for (int r = 0; r < job.size; r++) {
        for (int i = 0; i < job.calls[r]; i++) {
            struct call *c = &job.call[r][i];
            if (c->what == REDUCE && c->peer == r) {
                for (int p = 0; p < job.size; p++) {
                    const struct call *other = p == r ? NULL : partner(p, REDUCE, r, 0);
                    for (size_t k = 0; other && k < c->n; k++) c->to[k] += other->from[k];
                }
            }
            const struct call *source = c->what == BROADCAST && c->peer != r
                                            ? partner(c->peer, BROADCAST, c->peer, 0)
                                        : c->what == RECV ? partner(c->peer, SEND, r, calls_before(r, c))
                                                          : NULL;
            if (source) memmove(c->to, source->from, c->n * sizeof *c->to);
        }
    }
    memset(job.calls, 0, sizeof job.calls);
    job.done++;
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t *state) {
    pthread_mutex_lock(&job.lock);
    bool all = job.joined >= job.size && job.done >= comm->groups;
    if (all && comm->left > 0) {
        comm->left--;
        all = false;
    }
    *state = all ? ncclSuccess : ncclInProgress;
    if (nccl_stub.fail_after && comm->groups >= nccl_stub.fail_after) *state = ncclRemoteError;
    pthread_mutex_unlock(&job.lock);
    return ncclSuccess;
}

static void forget(struct ncclComm *comm) {
    pthread_mutex_lock(&job.lock);
    struct ncclComm **at = &alive;
    while (*at != comm) at = &(*at)->next;
    *at = comm->next;
    pthread_mutex_unlock(&job.lock);
    free(comm);
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
    __atomic_fetch_add(&nccl_stub.aborts, 1, __ATOMIC_SEQ_CST);
    forget(comm);
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t comm) {
    comm->left = nccl_stub.polls;
    return ncclInProgress;
}
ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    __atomic_fetch_add(&nccl_stub.destroys, 1, __ATOMIC_SEQ_CST);
    forget(comm);
    return ncclSuccess;
}

ncclResult_t ncclGroupStart(void) {
    current = NULL;
    return ncclSuccess;
}

static ncclResult_t add(ncclComm_t comm, struct call c) {
    pthread_mutex_lock(&job.lock);
    current = comm;
    int *n = &job.calls[comm->rank];
    // A call while the last group is under way is what NCCL forbids.
    bool busy = job.issued[comm->rank] > job.done || *n == CALLS;
    if (!busy) job.call[comm->rank][(*n)++] = c;
    pthread_mutex_unlock(&job.lock);
    return busy ? ncclInvalidUsage : ncclInProgress;
}

ncclResult_t ncclGroupEnd(void) {
    if (!current) return ncclSuccess;
    pthread_mutex_lock(&job.lock);
    struct ncclComm *comm = current;
    comm->groups++;
    comm->left = nccl_stub.polls;
    if (comm->rank != nccl_stub.silent_rank) job.issued[comm->rank]++;
    bool all = true;
    for (int r = 0; r < job.size; r++) all = all && job.issued[r] > job.done;
    if (all) run_group();
    pthread_mutex_unlock(&job.lock);
    return ncclInProgress;
}

#ifndef NCCL_STUB_OLD // 2.20 without any of this

static bool refuses(int who) {
    return who == -1 || who == my_rank + 1;
}

static void count(int *what, int by) {
    __atomic_fetch_add(what, by, __ATOMIC_SEQ_CST);
}

ncclResult_t ncclMemAlloc(void **ptr, size_t bytes) {
    if (refuses(nccl_stub.refuse_memory)) return ncclUnhandledCudaError;
    *ptr = malloc(bytes);
    count(&nccl_stub.allocated, 1);
    return ncclSuccess;
}
ncclResult_t ncclMemFree(void *ptr) {
    free(ptr);
    count(&nccl_stub.allocated, -1);
    return ncclSuccess;
}
ncclResult_t ncclCommRegister(const ncclComm_t comm, void *buff, size_t bytes, void **handle) {
    if (refuses(nccl_stub.refuse_register)) return ncclInvalidUsage;
    *handle = buff;
    count(&nccl_stub.registered, 1);
    count(&nccl_stub.registrations, 1);
    return ncclSuccess;
}
ncclResult_t ncclCommDeregister(const ncclComm_t comm, void *handle) {
    count(&nccl_stub.registered, -1);
    return ncclSuccess;
}
ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void *buff, size_t bytes, ncclWindow_t *window,
                                    int flags) {
    if (flags != 1) return ncclInvalidArgument;
    if (refuses(nccl_stub.refuse_window)) return ncclInvalidUsage;
    *window = nccl_stub.no_window ? NULL : buff;
    if (*window) count(&nccl_stub.windows, 1);
    count(&nccl_stub.registrations, 1);
    return ncclInProgress;
}
ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
    count(&nccl_stub.windows, -1);
    return ncclSuccess;
}
#endif

ncclResult_t ncclReduce(const void *send, void *recv, size_t n, ncclDataType_t type, ncclRedOp_t op, int root,
                        ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat32 || op != ncclSum || !stream) return ncclInvalidArgument;
    return add(comm, (struct call){REDUCE, send, recv, n, root});
}
ncclResult_t ncclBroadcast(const void *send, void *recv, size_t n, ncclDataType_t type, int root,
                           ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat32 || !stream) return ncclInvalidArgument;
    return add(comm, (struct call){BROADCAST, send, recv, n, root});
}
ncclResult_t ncclSend(const void *from, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    if (type != ncclFloat32 || !stream) return ncclInvalidArgument;
    return add(comm, (struct call){SEND, from, NULL, n, peer});
}
ncclResult_t ncclRecv(void *to, size_t n, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    if (type != ncclFloat32 || !stream) return ncclInvalidArgument;
    return add(comm, (struct call){RECV, NULL, to, n, peer});
}
