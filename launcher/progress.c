// SPDX-License-Identifier: Apache-2.0
#include "launcher/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"

#define TERMINAL_MS 200
#define PLAIN_MS    5000

void progress_init(struct progress *p, const struct log *log) {
    memset(p, 0, sizeof *p);
    p->log = log;
    p->terminal = isatty(log->fd);
}

static void put(const struct progress *p, const char *text, size_t n) {
    if (write(p->log->fd, text, n) < 0) return; // a terminal that is gone is told nothing
}

void progress_clear(struct progress *p) {
    if (p->shown) put(p, "\r\033[K", 4);
    p->shown = false;
}

static void rewrite(struct progress *p, const char *text) {
    char line[320];
    struct winsize size = {0};
    int width = ioctl(p->log->fd, TIOCGWINSZ, &size) || !size.ws_col ? 80 : size.ws_col;
    int n = snprintf(line, sizeof line, "\r%.*s\033[K", width - 1 < 255 ? width - 1 : 255, text);
    put(p, line, (size_t)n);
    p->shown = true;
}

void progress_show(struct progress *p, const char *text) {
    int64_t now = clock_monotonic_ns();
    int64_t pause_ms = p->terminal ? TERMINAL_MS : PLAIN_MS;
    if (!*text || (p->last_ns && now - p->last_ns < pause_ms * 1000000) || !strcmp(text, p->last)) return;
    p->last_ns = now;
    snprintf(p->last, sizeof p->last, "%s", text);
    if (p->terminal)
        rewrite(p, text);
    else
        log_info(p->log, "%s", text);
}

void progress_final(struct progress *p, const char *text) {
    progress_clear(p);
    if (*text) log_info(p->log, "%s", text);
}
