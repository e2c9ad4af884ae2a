// SPDX-License-Identifier: Apache-2.0
// Talk for people, on stderr (stdout is data). One line per call, written with one write(2), so lines of
// several threads never mix. A log is a value that main makes and hands down; there is no global one.
#ifndef ORRERY_BASE_LOG_H
#define ORRERY_BASE_LOG_H

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

struct log {
    int fd;
    enum log_level least;
    bool colour;     // a terminal and no NO_COLOR
    char prefix[32]; // "rank 3: ", or empty
};

void log_init(struct log *l, int fd, enum log_level least, const char *prefix);
void log_at(const struct log *l, enum log_level level, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#define log_debug(l, ...) log_at((l), LOG_DEBUG, __VA_ARGS__)
#define log_info(l, ...)  log_at((l), LOG_INFO, __VA_ARGS__)
#define log_warn(l, ...)  log_at((l), LOG_WARN, __VA_ARGS__)
#define log_error(l, ...) log_at((l), LOG_ERROR, __VA_ARGS__)

#endif
