// SPDX-License-Identifier: Apache-2.0
// The inside of a watch, shared by watch.c, which looks, and watch_hang.c, which judges.
#ifndef ORRERY_LAUNCHER_WATCH_IMPL_H
#define ORRERY_LAUNCHER_WATCH_IMPL_H

#include "launcher/watch.h"

struct eye {
    struct blackbox *box;
    struct blackbox_page *page;
    bool have;
    int64_t heartbeat_ns, silent_ms; // silence as we saw it, not as the clocks say
    int64_t step, step_seen_ns;
    int64_t first_step, first_ns; // where the first change of step was seen
};

struct watch {
    struct watch_options options;
    char box_path[256];
    struct eye *eyes;
    int64_t last_ns;
    const struct blackbox_page **pages; // [world], for comparisons
    int64_t compared_ns;
    bool discord_seen; // by the last comparison
};

#endif
