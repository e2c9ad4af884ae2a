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
#define BLACKBOX_VERSION 1u
#define BLACKBOX_EVENTS  256
#define BLACKBOX_TEXT    120

struct blackbox_event {
    int64_t at_ns; // monotonic
    int64_t step;
    char text[BLACKBOX_TEXT];
};

// The file's layout, fixed by magic, version and size. All times are CLOCK_MONOTONIC ns of the host.
struct blackbox_page {
    uint32_t magic, version, bytes;
    int32_t attempt, rank, world, pid;
    char host[64];
    char task[32]; // "train", "simulate", ...
    int32_t phase; // enum blackbox_phase
    int64_t phase_since_ns;
    int64_t heartbeat_ns; // last time the main thread touched the box
    int64_t step, total_steps, micro_batch;
    int64_t samples_seen;
    double loss, grad_norm, lr, samples_per_s, data_wait_share;
    int64_t coll_seq;  // sequence number of the last collective begun
    int64_t coll_done; // ... of the last one finished
    int64_t coll_bytes;
    char coll_name[32];                // "reduce-scatter gradients"
    char place[96];                    // what the phase works on: a shard's key, a checkpoint's id
    int64_t first_sample, last_sample; // global sample numbers of the step's batch
    int64_t checkpoint_step;           // newest complete, -1 none
    int64_t bytes_in_flight;
    int32_t err_code; // enum err_code, set before the rank exits for an error
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
void blackbox_coll_begin(struct blackbox *b, const char *name, int64_t bytes);
void blackbox_coll_end(struct blackbox *b);
void blackbox_set_err(struct blackbox *b, const struct err *e);
void blackbox_event(struct blackbox *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

// Copies the page as it is now, consistent enough: strings are terminated and printable, enums in range.
void blackbox_read(const struct blackbox *b, struct blackbox_page *out);

#endif
