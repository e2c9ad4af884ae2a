// SPDX-License-Identifier: Apache-2.0
// Stragglers: a rank that the others wait for, by the time each spends waiting at collectives (its peers'
// wait is its lateness; no two clocks are compared; what uneven shards explain does not count), and a host
// that is far away on the network. Thread rule: one thread.
#ifndef ORRERY_LAUNCHER_SKEW_H
#define ORRERY_LAUNCHER_SKEW_H

#include <stdbool.h>
#include <stdint.h>

#include "launcher/crew.h"
#include "launcher/hosts.h"
#include "launcher/watch.h"

struct skew {
    double share;    // of a step that the others must wait; 0: never
    int64_t shards;  // of the batch, dealt to the ranks; 0: not known
    int world, last; // last: who was late in the window before; -1: nobody
    int told;        // who has been named; -1: nobody
    int told_host;
    int64_t since_ns, step;
    int64_t *waited_ns; // [world] at the window's begin
    double *waits_ms;   // [world] of a step, of the newest window
};

struct skew_verdict {
    int rank, host;   // -1: none
    double late_ms;   // of a step; of a host: there and back
    double others_ms; // of a host: the others' way there and back
    double step_ms;
};

int skew_init(struct skew *s, int world, int64_t shards, double share, struct err *e) ERR_CHECK;
void skew_fini(struct skew *s);
// True when a rank has been late in two windows running and was not named before. A window is five seconds
// and five steps at least.
bool skew_rank(struct skew *s, const struct watch *w, int64_t now_ns, struct skew_verdict *out);
// True when a host's guards answer far later than those of the other hosts, and it was not named before.
bool skew_host(struct skew *s, const struct crew *crew, const struct hosts *hosts, struct skew_verdict *out);

#endif
