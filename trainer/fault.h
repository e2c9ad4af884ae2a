// SPDX-License-Identifier: Apache-2.0
// Fault injection inside a rank: fault.inject, for rehearsals and for our own tests. Part of the product.
// SPEC = FAULT[;FAULT...], FAULT = KIND[=VALUE][:NAME=VALUE,...], e.g. "kill:rank=1,step=20;nan:step=30".
//
// kinds:     kill (SIGKILL), exit=CODE, segv, stop (SIGSTOP), spin (never comes back), nan (the caller
// poisons its
//            loss), enospc (the caller's next save fails as on a full disk), skip-collective (the
// caller leaves its next collective out), mismatch (it starts another one instead), slow=20ms or slow=1.5x
// (every
//            step)
//            store=KIND:RATE, e.g. store=503:5% or store=delay:20ms@10%: the run's stores, as behind
//            "fault:KIND=RATE:"; lasts as long as the attempt
// selectors: rank=N (any), step=N (any), phase=NAME (any; enospc: checkpoint), attempt=N or attempt=any
// (default 1,
//            so that the run that resumes goes on)
// Every fault but slow and store happens once per process. Thread rule: the rank's main thread.
#ifndef ORRERY_TRAINER_FAULT_H
#define ORRERY_TRAINER_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/err.h"

// What the caller has to do itself.
enum fault_action { FAULT_NONE, FAULT_NAN, FAULT_ENOSPC, FAULT_SKIP_COLLECTIVE, FAULT_MISMATCH };

enum fault_kind {
    FAULT_KILL,
    FAULT_EXIT,
    FAULT_SEGV,
    FAULT_STOP,
    FAULT_SPIN,
    FAULT_POISON,
    FAULT_FULL,
    FAULT_SLOW,
    FAULT_STORE,
    FAULT_SKIP,
    FAULT_OTHER
};

#define FAULT_STORE_BYTES 256

struct fault_rule {
    enum fault_kind kind;
    int exit_code;
    int64_t slow_ns;    // slow=20ms
    double slow_factor; // slow=1.5x
    int64_t step;       // -1: any
    int phase;          // -1: any
    bool spent;
};

#define FAULT_RULES 8

struct fault {
    struct fault_rule rules[FAULT_RULES]; // those that concern this rank and attempt
    int n;
    char store[FAULT_STORE_BYTES];    // "KIND=RATE,..." of a fault: URL; empty: none
    int64_t last_step, step_began_ns; // for slow=1.5x
};

// CONFIG error with the place in the spec, or when a fault of this attempt names no rank of the world: a
// rehearsal that cannot take place is none. "" means no faults.
int fault_init(struct fault *f, const char *spec, int rank, int world, int attempt, struct err *e) ERR_CHECK;
// Puts `url` behind the store faults, when there are any: "fault:503=5%:URL".
int fault_store_url(const struct fault *f, const char *url, char *out, size_t room, struct err *e) ERR_CHECK;
// Call where a phase of a step begins. May never return.
enum fault_action fault_at(struct fault *f, int64_t step, enum blackbox_phase phase);

#endif
