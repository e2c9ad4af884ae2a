// SPDX-License-Identifier: Apache-2.0
// The progress line: one line rewritten on a terminal, a plain line every few seconds elsewhere. On stderr.
#ifndef ORRERY_LAUNCHER_PROGRESS_H
#define ORRERY_LAUNCHER_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"

struct progress {
    const struct log *log;
    bool terminal, shown; // shown: a line stands on the terminal
    int64_t last_ns;
    char last[256];
};

void progress_init(struct progress *p, const struct log *log);
void progress_show(struct progress *p, const char *text);  // as often as one likes
void progress_clear(struct progress *p);                   // before anything else is printed
void progress_final(struct progress *p, const char *text); // stays

#endif
