// SPDX-License-Identifier: Apache-2.0
// Collectives over float buffers in device memory, asynchronous, with deadlines. Back ends: self (one rank),
// mpi, nccl. Every rank calls the same operations in the same order. Thread rule: one thread per coll.
// No MPI or NCCL type appears here.
#ifndef ORRERY_COMM_COLL_H
#define ORRERY_COMM_COLL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "kernels/device.h"

struct coll;
struct coll_op; // one operation under way; owned by coll_wait

enum coll_kind { COLL_SELF, COLL_MPI, COLL_NCCL }; // NCCL: device buffers through it, all else through MPI

// Told when an operation begins, when this rank begins to wait for it, and when it has ended: the black box's
// hook. `shape`: bytes where they must be the same on all ranks, else -1.
enum coll_moment { COLL_BEGINS, COLL_WAITS, COLL_ENDS };
struct coll_note {
    enum coll_moment moment;
    const char *name;
    int64_t seq, bytes, shape;
};
typedef void coll_notify_fn(void *arg, const struct coll_note *note);
// A word about how the library is used: what it offers, or why something is done without it.
typedef void coll_say_fn(void *arg, const char *text);

// A rehearsed fault: what this rank does instead of the next operation.
enum coll_slip { COLL_SLIP_NONE, COLL_SLIP_SKIP, COLL_SLIP_MISMATCH };

struct coll_options {
    enum coll_kind kind;
    int64_t deadline_ms;    // for every wait; 0: 120000
    struct device *device;  // where the buffers live
    coll_notify_fn *notify; // optional
    coll_say_fn *say;       // optional
    void *notify_arg;       // of both
    // NCCL: several ranks may share a GPU. Where the library at hand refuses that and `or_mpi` is set, all
    // ranks go through MPI.
    bool share, or_mpi;
    bool reach; // NCCL: buffers that peers reach without a copy, where it offers them
};

// MPI: initialises MPI if nobody has (MPI_THREAD_FUNNELED or better).
int coll_open(struct coll **out, const struct coll_options *options, struct err *e) ERR_CHECK;
// Orderly end. With `abort`, or after a failed operation, it waits for nobody and leaves the library as it
// is: the process must end right away with its own exit code, upon which mpirun ends the peers. Where
// operations run in a GPU's queues a failed one makes the device `lost`: what it holds need not end either.
void coll_close(struct coll *c, bool abort);
void coll_slip(struct coll *c, enum coll_slip slip); // the next operation is left out, or is another one
// "Open MPI v4.1.4": what this program is linked with. Needs no coll.
void coll_mpi_version(char *out, size_t out_bytes);
// Every wait that begins from now on has this deadline: for work that ranks end at very different times.
// Returns the one before.
int64_t coll_set_deadline(struct coll *c, int64_t ms);
const char *coll_name(const struct coll *c); // "self", "mpi", "nccl"
int coll_rank(const struct coll *c);
int coll_size(const struct coll *c);

// ---- start: buffers stay valid and untouched until the wait. `name` is static text for verdicts.
// Segment r of the buffer is [offset[r], offset[r+1]) elements, r < size; a segment may be empty.
// Library's own reduction order ("fast"); after it this rank's segment holds the sum over ranks.
int coll_reduce_scatter(struct coll *c, struct coll_op **op, const char *name, float *buffer,
                        const int64_t *offset, struct err *e) ERR_CHECK;
// Every rank's segment goes to every other rank.
int coll_all_gather(struct coll *c, struct coll_op **op, const char *name, float *buffer,
                    const int64_t *offset, struct err *e) ERR_CHECK;
// Pieces to and from each rank, `rows` of each: send[send_offset[row * size + r]..) goes to r, whose piece of
// that row goes to recv[recv_offset[row * size + its rank]..). Offsets count elements, rows * size + 1
// entries, and stay valid until the wait. A rank's own piece is copied, or left where it is when its place in
// recv is empty. What the exact reduction is made of.
int coll_exchange(struct coll *c, struct coll_op **op, const char *name, int rows, const float *send,
                  const int64_t *send_offset, float *recv, const int64_t *recv_offset,
                  struct err *e) ERR_CHECK;
// Host memory: the bytes that `root` has in `host` get into every other rank's. All ranks call it, with the
// same root and as many bytes, less than 2 GiB.
int coll_broadcast(struct coll *c, struct coll_op **op, const char *name, void *host, size_t bytes, int root,
                   struct err *e) ERR_CHECK;
// Frees the operation whatever happens. TIMEOUT names the operation and its sequence number; PEER when the
// library reports a lost peer, BUG when ranks disagree on sizes. After any failure every later operation
// fails too.
int coll_wait(struct coll *c, struct coll_op *op, struct err *e) ERR_CHECK;
// Lets what is under way go on, and returns at once: for the pauses of a long computation. A failure that it
// meets is told here already.
int coll_progress(struct coll *c, struct err *e) ERR_CHECK;
// For an operation whose result nobody wants any more, since this rank has failed: waits for nobody.
// NULL-safe.
void coll_drop(struct coll *c, struct coll_op *op);

// Seconds since the start, of reduce-scatter, all-gather and exchange: in which at least one was under way,
// as far as waits and coll_progress looked, and that this rank spent in waits for them.
struct coll_clock {
    double busy, wait;
};
struct coll_clock coll_clock(const struct coll *c);

// Like coll_wait, but it is the device's queue that waits: the host goes on, and the operation keeps its
// buffers until coll_settle. Where operations run on the host: coll_wait.
int coll_join(struct coll *c, struct coll_op *op, struct err *e) ERR_CHECK;
// Waits, with the deadline, for all that was joined or launched, in order.
int coll_settle(struct coll *c, struct err *e) ERR_CHECK;

// ---- operations inside recorded work (struct device_graphs): all ranks record the same and launch the same.
// Do operations run in the device's queues, so that they are recorded with the kernels around them?
bool coll_is_queued(const struct coll *c);
// Until it is called again with false, operations are started and joined, but recorded.
void coll_record(struct coll *c, bool on);
// Work with recorded operations was launched: coll_settle is to wait for it.
int coll_launched(struct coll *c, const char *name, struct err *e) ERR_CHECK;

// ---- small and blocking, host memory; integer and bitwise-exact on any number of ranks.
int coll_barrier(struct coll *c, const char *name, struct err *e) ERR_CHECK;
int coll_sum_i64(struct coll *c, const char *name, int64_t *v, int n, struct err *e) ERR_CHECK;
int coll_max_i64(struct coll *c, const char *name, int64_t *v, int n, struct err *e) ERR_CHECK;
// Equal-sized pieces of every rank, in rank order, on every rank.
int coll_gather_all(struct coll *c, const char *name, const void *piece, size_t bytes, void *all,
                    struct err *e) ERR_CHECK;

#endif
