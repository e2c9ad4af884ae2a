// SPDX-License-Identifier: Apache-2.0
// Reads the black boxes of one attempt's ranks: progress for people, and who is missing when nothing moves.
// Prints nothing and ends nothing. Thread rule: one thread.
#ifndef ORRERY_LAUNCHER_WATCH_H
#define ORRERY_LAUNCHER_WATCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "base/err.h"
#include "launcher/crew.h"

struct watch_options {
    const char *box_path; // folder of the boxes
    int world, attempt;
    int64_t hang_ms;     // least deadline of any phase; 0: hangs are not looked for
    int64_t hang_max_ms; // greatest deadline of any phase; 0: half an hour
    int64_t hang_factor; // deadline: this many times what is usual; 0: ten
    int64_t store_ms;    // longest wait for a store, with its retries; 0: none is used
};

struct watch;

int watch_open(struct watch **out, const struct watch_options *options, struct err *e) ERR_CHECK;
void watch_close(struct watch *w); // NULL-safe
// Looks at all boxes. Boxes that belong to another rank, attempt or world size are not believed.
void watch_poll(struct watch *w);
// NULL: the rank has no box (yet).
const struct blackbox_page *watch_page(const struct watch *w, int rank);
bool watch_waits(const struct blackbox_page *p);                // for its peers, in a collective
const struct blackbox_page *watch_front(const struct watch *w); // the box that tells progress; NULL: none yet
bool watch_started(const struct watch *w);                      // some rank is past the first phase

struct watch_hang {
    int rank;     // who is missing; -1: all wait for each other
    bool discord; // the ranks do not call the same collectives; nobody need be silent
    int64_t silent_ms;
    char text[960]; // "ranks 0, 2 wait in all-reduce 812 (4.2 MB); rank 1 is in backward for 9.1 s"
};
// True when a rank has shown no sign of life for longer than its phase may take, when all wait for each
// other, or when the ranks do not call the same collectives.
bool watch_hang(struct watch *w, const struct crew *crew, struct watch_hang *out);

// The last part alone, at once: for the verdict on a crash that may come of it.
bool watch_discord(struct watch *w, struct watch_hang *out);

// "step 120/1000  loss 0.0123  85.2 samples/s  data wait 2%  ETA 1m32s"; of a phase that counts: watch_part's
void watch_progress(const struct watch *w, char *out, size_t out_bytes);
// "evaluate 96/256 sequences"
void watch_part(const struct blackbox_page *p, char *out, size_t out_bytes);
// Where one rank stands: "step 17, backward for 0.3 s"; `now_ns` monotonic.
void watch_place(const struct blackbox_page *p, int64_t now_ns, char *out, size_t out_bytes);
// "0-2, 5"
void watch_ranks_text(const bool *in, int n, char *out, size_t out_bytes);

#endif
