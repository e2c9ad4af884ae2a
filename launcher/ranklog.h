// SPDX-License-Identifier: Apache-2.0
// One rank's log file: what the rank wrote to stdout and stderr, bounded: at max_bytes the file becomes
// NAME.1 (one is kept) and a new one begins. Remembers the last lines for the verdict. A disk that is full
// costs lines, never the rank.
#ifndef ORRERY_LAUNCHER_RANKLOG_H
#define ORRERY_LAUNCHER_RANKLOG_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define RANKLOG_LINES      20
#define RANKLOG_SLOTS      (RANKLOG_LINES + 1) // one for the line under way
#define RANKLOG_LINE_BYTES 400

struct ranklog {
    int fd; // -1: lines are remembered only
    char path[4096];
    int64_t bytes, max_bytes, lost_bytes;
    char lines[RANKLOG_SLOTS][RANKLOG_LINE_BYTES];
    int64_t line_count; // the newest is (line_count - 1) % RANKLOG_SLOTS
    size_t partial;     // bytes of the line under way, in lines[line_count % RANKLOG_SLOTS]
};

// Appends to an existing regular file; follows no symlink.
int ranklog_open(struct ranklog *l, const char *path, int64_t max_bytes, struct err *e) ERR_CHECK;
void ranklog_close(struct ranklog *l);
void ranklog_write(struct ranklog *l, const char *data, size_t n);
// The last lines, newline-terminated, oldest first; the newest survive when `out` is too small.
void ranklog_tail(const struct ranklog *l, char *out, size_t out_bytes);

#endif
