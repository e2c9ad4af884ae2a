// SPDX-License-Identifier: Apache-2.0
#include "launcher/ranklog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"

static int open_file(struct ranklog *l, struct err *e) {
    struct stat st;
    l->fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0666);
    if (l->fd < 0) return err_errno(e, errno, "cannot open the log %s", l->path);
    if (fstat(l->fd, &st) || !S_ISREG(st.st_mode)) {
        ranklog_close(l);
        return err_set(e, ERR_DATA, "the log %s is no regular file", l->path);
    }
    l->bytes = st.st_size;
    return 0;
}

int ranklog_open(struct ranklog *l, const char *path, int64_t max_bytes, struct err *e) {
    memset(l, 0, sizeof *l);
    l->fd = -1;
    l->max_bytes = max_bytes;
    if ((size_t)snprintf(l->path, sizeof l->path, "%s", path) >= sizeof l->path)
        return err_set(e, ERR_USAGE, "the log's path is too long");
    return open_file(l, e);
}

void ranklog_close(struct ranklog *l) {
    if (l->fd >= 0) close(l->fd);
    l->fd = -1;
}

static void rotate(struct ranklog *l) {
    char old[sizeof l->path + 2];
    struct err ignored = {0};
    snprintf(old, sizeof old, "%s.1", l->path);
    if (rename(l->path, old)) return;
    ranklog_close(l);
    if (open_file(l, &ignored)) l->bytes = 0;
}

static void remember(struct ranklog *l, const char *data, size_t n) {
    for (size_t i = 0; i < n; i++) {
        char *line = l->lines[l->line_count % RANKLOG_SLOTS];
        unsigned char c = (unsigned char)data[i];
        if (c == '\n' || c == '\r') {
            line[l->partial] = 0;
            if (l->partial) l->line_count++;
            l->partial = 0;
        } else if (l->partial < RANKLOG_LINE_BYTES - 1) {
            line[l->partial++] =
                c < 0x20 || c == 0x7f ? ' ' : data[i]; // nothing that moves a terminal's cursor
        }
    }
    l->lines[l->line_count % RANKLOG_SLOTS][l->partial] = 0;
}

void ranklog_write(struct ranklog *l, const char *data, size_t n) {
    remember(l, data, n);
    if (l->bytes > 0 && l->bytes + (int64_t)n > l->max_bytes) rotate(l);
    size_t done = l->fd >= 0 ? bytes_write_whole(l->fd, data, n) : 0;
    l->bytes += (int64_t)done;
    l->lost_bytes += (int64_t)(n - done);
}

void ranklog_tail(const struct ranklog *l, char *out, size_t out_bytes) {
    int64_t end = l->line_count + (l->partial > 0);
    int64_t first = end > RANKLOG_LINES ? end - RANKLOG_LINES : 0;
    size_t used = 0, need = 0;
    for (int64_t i = first; i < end; i++) need += strlen(l->lines[i % RANKLOG_SLOTS]) + 1;
    for (; first < end && need >= out_bytes; first++) need -= strlen(l->lines[first % RANKLOG_SLOTS]) + 1;
    out[0] = 0;
    for (int64_t i = first; i < end; i++)
        used += (size_t)snprintf(out + used, out_bytes - used, "%s\n", l->lines[i % RANKLOG_SLOTS]);
}
