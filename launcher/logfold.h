// SPDX-License-Identifier: Apache-2.0
// Logs of many ranks as one: a line that several wrote stands once, with their numbers. The order of each
// rank's lines is kept.
#ifndef ORRERY_LAUNCHER_LOGFOLD_H
#define ORRERY_LAUNCHER_LOGFOLD_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/err.h"

struct logfold_line {
    char *text;
    int *ranks;  // ascending
    int n, next; // next: index of the line behind it, -1 at the end
};

struct logfold { // zeroed at the start
    struct logfold_line *lines;
    int n, cap, first;
};

// A rank's whole log, ranks in ascending order; "rank N: " before a line is taken away.
int logfold_add(struct logfold *f, int rank, const char *text, struct err *e) ERR_CHECK;
void logfold_print(const struct logfold *f, FILE *out); // "ranks 1-7: text"
void logfold_fini(struct logfold *f);

#endif
