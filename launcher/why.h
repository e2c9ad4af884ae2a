// SPDX-License-Identifier: Apache-2.0
// Reads the black boxes of a run, live or after its end, and compares the ranks. Prints nothing.
#ifndef ORRERY_LAUNCHER_WHY_H
#define ORRERY_LAUNCHER_WHY_H

#include <stdbool.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/err.h"
#include "launcher/rundir.h"
#include "launcher/verdict.h"

struct why {
    bool live; // a supervisor holds the run
    bool has_record, has_verdict;
    struct rundir_record record;
    struct verdict verdict;      // the newest in events.jsonl
    struct blackbox_page *pages; // [n], by rank
    int n;
    char unread[ERR_TEXT_BYTES]; // why a box could not be read, the first one; empty: none
    int64_t now_ns;              // live: now; else the last sign of life of any rank
    char comparison[512];        // "rank 0 waits in ...; rank 1 is in forward for 9.1 s"
};

int why_read(struct why *w, const struct rundir *run, struct err *e) ERR_CHECK;
void why_fini(struct why *w);

#endif
