// SPDX-License-Identifier: Apache-2.0
// events.jsonl: one line per event of a run's life, and the account of its wall time. Every moment belongs to
// exactly one category, so the categories add up. A disk that is full costs lines, never the run.
#ifndef ORRERY_LAUNCHER_LEDGER_H
#define ORRERY_LAUNCHER_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/json.h"

// X(name, key)
#define LEDGER_KINDS(X)                                                                                      \
    X(STARTUP, "start_up")                                                                                   \
    X(PRODUCTIVE, "productive")                                                                              \
    X(DATA_WAIT, "data_wait")                                                                                \
    X(CHECKPOINT, "checkpoint")                                                                              \
    X(EVALUATE, "evaluate")                                                                                  \
    X(LOST, "lost_work")                                                                                     \
    X(DETECT, "detection")                                                                                   \
    X(RESTART, "restart")                                                                                    \
    X(IDLE, "idle")                                                                                          \
    X(STOP, "stopping")

enum ledger_kind {
#define LEDGER_ENUM(name, key) LEDGER_##name,
    LEDGER_KINDS(LEDGER_ENUM)
#undef LEDGER_ENUM
        LEDGER_COUNT
};

struct ledger {
    int fd; // of events.jsonl; -1: no record is kept
    int64_t begin_ns, last_ns;
    int64_t spent_ns[LEDGER_COUNT];
    bool torn;          // the file ends in the midst of a line
    int64_t at_risk_ns; // productive time since the newest checkpoint: lost if the attempt fails
    struct buf line;
    struct json_writer json;
};

void ledger_init(struct ledger *l, int fd); // takes fd, which it may read too
void ledger_fini(struct ledger *l);
// The time since the last call was spent on `kind`; `wait_share` of it (0..1) waited for data.
void ledger_spend(struct ledger *l, enum ledger_kind kind, double wait_share);
void ledger_saved(struct ledger *l); // a checkpoint is complete: nothing is at risk
void ledger_lose(struct ledger *l);  // what was at risk is lost

// One event: begin, json_put_* through the writer, end.
struct json_writer *ledger_event(struct ledger *l, const char *name);
void ledger_end_event(struct ledger *l);
void ledger_note(struct ledger *l, const char *name, const char *text); // an event with a text
void ledger_account(struct ledger *l); // the event "ledger": seconds per category

#endif
