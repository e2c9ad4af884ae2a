// SPDX-License-Identifier: Apache-2.0
#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bytes.h"

#define LINE_BYTES 4096

struct level_row {
    const char *word, *colour;
};

static const struct level_row levels[] = {
    [LOG_DEBUG] = {"debug: ", "\033[2m"},
    [LOG_INFO] = {"", ""},
    [LOG_WARN] = {"warning: ", "\033[33m"},
    [LOG_ERROR] = {"error: ", "\033[1;31m"},
};

void log_init(struct log *l, int fd, enum log_level least, const char *prefix) {
    const char *no_colour = getenv("NO_COLOR");
    l->fd = fd;
    l->least = least;
    l->colour = isatty(fd) && !(no_colour && *no_colour);
    snprintf(l->prefix, sizeof l->prefix, "%s", prefix ? prefix : "");
}

// Messages may quote files and peers: control characters must not reach a terminal.
static void flatten(char *text) {
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f) *text = ' ';
}

void log_at(const struct log *l, enum log_level level, const char *fmt, ...) {
    if ((unsigned)level > LOG_ERROR || level < l->least) return;
    const struct level_row *row = &levels[level];
    bool colour = l->colour && *row->colour;
    char text[LINE_BYTES - 128], line[LINE_BYTES];
    va_list ap;
    va_start(ap, fmt);
    int saved_errno = errno;
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n >= (int)sizeof text) memcpy(text + sizeof text - 4, "...", 4);
    flatten(text);
    n = snprintf(line, sizeof line, "%s%s%s%s%s\n", l->prefix, colour ? row->colour : "", row->word,
                 colour ? "\033[0m" : "", text);
    if (n > 0) (void)bytes_write_whole(l->fd, line, (size_t)n); // if it fails, nobody is left to be told
    errno = saved_errno;
}
