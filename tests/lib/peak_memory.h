// SPDX-License-Identifier: Apache-2.0
// The most memory that this process has held so far.
#ifndef ORRERY_TESTS_PEAK_MEMORY_H
#define ORRERY_TESTS_PEAK_MEMORY_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Not rusage's ru_maxrss: that begins with the memory of whoever started this program. -1: not known.
static inline long peak_memory_kib(void) {
    char line[256];
    long kib = -1;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && fgets(line, sizeof line, f))
        if (!strncmp(line, "VmHWM:", 6)) kib = strtol(line + 6, NULL, 10);
    if (f) fclose(f);
    return kib;
}

#endif
