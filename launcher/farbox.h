// SPDX-License-Identifier: Apache-2.0
// The black box of a rank on another machine: its guard sends what has changed, the supervisor keeps a copy
// in its own folder of boxes, so that whoever reads boxes need not know where a rank runs.
#ifndef ORRERY_LAUNCHER_FARBOX_H
#define ORRERY_LAUNCHER_FARBOX_H

#include <stdbool.h>
#include <stdint.h>

#include "base/blackbox.h"
#include "launcher/wire.h"

// The guard's end. Zeroed but for `path` at the start.
struct farbox {
    char path[256];
    struct blackbox *box;
    struct blackbox_page *now, *sent; // NULL until the box is there
    int piece;                        // the next to compare
};

// Looks at the box once: after it, farbox_next gives the pieces that have changed since they were sent.
void farbox_look(struct farbox *f);
// False: nothing more. Fills type, code, text and text_bytes of m.
bool farbox_next(struct farbox *f, struct wire_message *m);
void farbox_fini(struct farbox *f);

// The supervisor's end: puts a piece into FOLDER/rank-R.box, times moved by `shift_ns` onto this machine's
// clock. DATA when it is no piece of a black box.
int farbox_store(const char *folder, int rank, struct wire_message *m, int64_t shift_ns,
                 struct err *e) ERR_CHECK;

#endif
