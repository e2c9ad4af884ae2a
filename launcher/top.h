// SPDX-License-Identifier: Apache-2.0
// What `orrery top` shows: the ranks' black boxes compared with how they stood a moment ago, and the GPUs of
// this machine. Reads files only, so it works while ranks hang. Prints nothing.
#ifndef ORRERY_LAUNCHER_TOP_H
#define ORRERY_LAUNCHER_TOP_H

#include "base/bytes.h"
#include "launcher/nvml.h"
#include "launcher/why.h"

#define TOP_HEAD_LINES 3 // of top_text, before the ranks; more where there are GPUs

// What a rank had counted, at one look.
struct top_count {
    int pid;
    int64_t step, wait_ns, busy_ns; // busy: all phases
};

struct top_rank {
    double wait_share,
        data_share; // of its time since the look before (at first: since it began); NaN: not known
    double late_ms; // a step: how much later than the earliest rank it comes to collectives
    double silent_s;
    bool stopped; // by a signal, on this host
    bool wanted;  // worth a look: silent, failed, or the one that others wait for
};

struct top {
    struct rundir run;
    struct why why;
    struct top_count *before; // [n_before], by rank
    int n_before;
    struct top_rank *ranks; // [why.n]
    struct nvml *nvml;      // NULL: no GPU here
    bool by_lateness;       // order of the ranks in the text
    int head_lines;         // of the last text
};

int top_open(struct top *t, const char *run, struct err *e) ERR_CHECK; // the caller zeroes *t
void top_close(struct top *t);
int top_look(struct top *t, struct err *e) ERR_CHECK;
// As text, a line per rank after head_lines lines; a line that begins with '!' is worth a look.
int top_text(struct top *t, struct buf *out, struct err *e) ERR_CHECK;
int top_json(const struct top *t, struct buf *out, struct err *e) ERR_CHECK;

#endif
