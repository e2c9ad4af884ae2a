// SPDX-License-Identifier: Apache-2.0
// The black box: one memory-mapped file per rank, written with plain stores, readable after SIGKILL, while
// the rank is wedged, and after the job. The only thing a rank writes that the launcher reads while it runs.
// Writer: one thread (the rank's main thread), but blackbox_event may be called from any. Readers: any
// process.
#ifndef ORRERY_BASE_BLACKBOX_H
#define ORRERY_BASE_BLACKBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"

enum blackbox_phase {
    PHASE_INIT,
    PHASE_DATA,
    PHASE_FORWARD,
    PHASE_BACKWARD,
    PHASE_COLLECTIVE,
    PHASE_OPTIMISER,
    PHASE_CHECKPOINT,
    PHASE_EVALUATE,
    PHASE_ROLLOUT,
    PHASE_SIMULATE,
    PHASE_DONE,
    PHASE_COUNT
};
const char *blackbox_phase_name(enum blackbox_phase phase); // "data"

#define BLACKBOX_MAGIC   0x4f525242u // "ORRB"
#define BLACKBOX_VERSION 4u
#define BLACKBOX_EVENTS  256
#define BLACKBOX_TEXT    120
#define BLACKBOX_COLLS   16          // newest collectives, so that ranks that disagree are told apart
#define BLACKBOX_BUCKETS 32          // of silences: bucket b counts those of [2^b, 2^(b+1)) microseconds
#define BLACKBOX_WAITING PHASE_COUNT // the row of silences in waits for peers

struct blackbox_event {
    int64_t at_ns; // monotonic
    int64_t step;
    char text[BLACKBOX_TEXT];
};

struct blackbox_coll {
    int64_t seq, step;
    int64_t bytes; // equal on all ranks that agree; -1: depends on the rank
    char name[32];
};

// The file's layout, fixed by magic, version and size. All times are CLOCK_MONOTONIC ns of the host.
struct blackbox_page {
    uint32_t magic, version, bytes;
    int32_t attempt, rank, world, pid;
    char host[64];
    char task[32]; // "train", "simulate", ...
    int32_t phase; // enum blackbox_phase
    int64_t phase_since_ns;
    int64_t phase_ns[PHASE_COUNT];                        // time spent, without the phase under way
    uint32_t silences[PHASE_COUNT + 1][BLACKBOX_BUCKETS]; // times between two signs of life, by phase
    int64_t heartbeat_ns;                                 // last time the main thread touched the box
    int64_t step, total_steps, micro_batch;
    int64_t samples_seen;
    double loss, grad_norm, lr, samples_per_s, data_wait_share;
    int64_t coll_seq;  // sequence number of the last collective begun
    int64_t coll_done; // ... of the last one finished
    int64_t coll_bytes;
    char coll_name[32];    // "reduce-scatter gradients"
    int64_t coll_waiting;  // sequence number of the collective it waits in; 0: it does not wait
    int64_t coll_since_ns; // since when
    int64_t coll_wait_ns;  // time spent in waits, without the one under way
    struct blackbox_coll colls[BLACKBOX_COLLS]; // collective n at n % BLACKBOX_COLLS
    char place[96];                             // what the phase works on: a shard's key, a checkpoint's id
    int64_t part_done, part_total;              // of the phase; total 0: it does not count
    char part_of[32];                           // what it counts: "sequences"
    int64_t first_sample, last_sample;          // global sample numbers of the step's batch
    int64_t checkpoint_step;                    // newest complete, -1 none
    int32_t err_code;                           // enum err_code, set before the rank exits for an error
    char err_text[512];
    uint64_t event_count; // events[(event_count - 1) % BLACKBOX_EVENTS] is the newest
    struct blackbox_event events[BLACKBOX_EVENTS];
};

struct blackbox; // an open mapping

// Creates (or replaces) the file and maps it. Writes go nowhere if `path` is NULL: a rank without a box
// works.
int blackbox_create(struct blackbox **out, const char *path, int rank, int world, int attempt,
                    const char *task, struct err *e) ERR_CHECK;
// Opens an existing file for reading (with pread, so that a box cut short under a reader is no SIGBUS).
// Refuses a wrong magic, version or size (a forged or stale box), follows no symlink.
int blackbox_open(struct blackbox **out, const char *path, struct err *e) ERR_CHECK;
void blackbox_close(struct blackbox *b); // NULL-safe; leaves the file

// The page. A writer may set fields directly; every setter below also touches the heartbeat, except
// blackbox_event: a helper thread is no sign of life. Of a reader: the page as it was when opened.
struct blackbox_page *blackbox_page(struct blackbox *b);
void blackbox_set_phase(struct blackbox *b, enum blackbox_phase phase, const char *place);
void blackbox_set_step(struct blackbox *b, int64_t step);
void blackbox_touch(struct blackbox *b); // a sign of life in the middle of long work
// How far the phase is; the next phase begins without.
void blackbox_set_part(struct blackbox *b, int64_t done, int64_t total, const char *of);
// A collective begins; `shape`: bytes where they are the same on all ranks, else -1.
void blackbox_coll_begin(struct blackbox *b, const char *name, int64_t bytes, int64_t shape);
void blackbox_coll_wait(struct blackbox *b, const char *name, int64_t seq,
                        int64_t bytes); // waits from now on
void blackbox_coll_end(struct blackbox *b);
void blackbox_set_err(struct blackbox *b, const struct err *e);
void blackbox_event(struct blackbox *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Copies the page as it is now, consistent enough: strings are terminated and printable, enums in range.
void blackbox_read(const struct blackbox *b, struct blackbox_page *out);

#endif
