// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/json.h"

#define LINE_BYTES_MAX 65536
#define WINDOW_BYTES   (4 * LINE_BYTES_MAX)

struct metrics {
    int fd;
    struct buf line;
    char path[1024];
};

static bool line_step(const char *text, size_t n, int64_t *step) {
    struct json *doc = NULL;
    if (json_parse(&doc, text, n, "metrics.jsonl", NULL)) return false;
    bool ok = json_as_int(json_get(json_root(doc), "step"), step);
    json_destroy(doc);
    return ok;
}

// Where in text[0, n) the last whole line ends whose step is at most `keep`; -1: none does. *from: where the
// first line begins that is surely whole, as it is at 0 only if `whole`.
static int64_t kept_in(const char *text, size_t n, bool whole, int64_t keep, size_t *from) {
    const char *end = memrchr(text, '\n', n);
    *from = 0;
    if (!end) return -1;
    for (*from = (size_t)(end - text) + 1; *from > 0;) {
        size_t line_end = *from - 1;
        const char *before = memrchr(text, '\n', line_end);
        size_t begin = before ? (size_t)(before - text) + 1 : 0;
        int64_t step = 0;
        if (!before && !whole) return -1;
        if (line_step(text + begin, line_end - begin, &step) && step <= keep) return (int64_t)*from;
        *from = begin;
    }
    return -1;
}

// Bytes of the file up to the last whole line whose step is at most `keep`, looked for from the end: steps
// ascend, and a long run's file is large.
static int kept_bytes(const struct metrics *m, int64_t size, int64_t keep, int64_t *kept, struct err *e) {
    char *text = malloc(WINDOW_BYTES);
    int rc = 0;
    *kept = -1;
    if (!text) return err_set(e, ERR_MEMORY, "no memory to read %s", m->path);
    for (int64_t end = size; !rc && *kept < 0 && end > 0;) {
        int64_t at = end > WINDOW_BYTES ? end - WINDOW_BYTES : 0;
        size_t n = (size_t)(end - at), from;
        rc = bytes_read_at(m->fd, text, n, at, m->path, e);
        if (rc) break;
        int64_t found = kept_in(text, n, at == 0, keep, &from);
        if (found >= 0) *kept = at + found;
        end = from > 0 && from < n ? at + (int64_t)from : at; // a line longer than the window is none of ours
    }
    if (*kept < 0) *kept = 0;
    free(text);
    return rc;
}

static int cut(const struct metrics *m, int64_t keep, struct err *e) {
    struct stat st;
    int64_t kept = 0;
    if (fstat(m->fd, &st)) return err_errno(e, errno, "%s", m->path);
    int rc = kept_bytes(m, st.st_size, keep, &kept, e);
    if (!rc && ftruncate(m->fd, (off_t)kept)) rc = err_errno(e, errno, "%s", m->path);
    return rc;
}

// It will be cut and written: never what a link of others points to.
static int open_file(struct metrics *m, struct err *e) {
    struct stat st;
    m->fd = open(m->path, O_CREAT | O_RDWR | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0666);
    if (m->fd < 0 && errno == ELOOP)
        return err_set(e, ERR_DATA, "%s is a symbolic link; remove it, or name another run.dir", m->path);
    if (m->fd < 0) return err_errno(e, errno, "cannot open %s", m->path);
    if (!fstat(m->fd, &st) && S_ISREG(st.st_mode)) return 0;
    return err_set(e, ERR_DATA, "%s is no regular file; remove it, or name another run.dir", m->path);
}

int metrics_open(struct metrics **out, const char *dir, int64_t keep, struct err *e) {
    struct metrics *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory for metrics");
    m->fd = -1;
    buf_init(&m->line, LINE_BYTES_MAX);
    int n = snprintf(m->path, sizeof m->path, "%s/metrics.jsonl", dir);
    int rc =
        n < (int)sizeof m->path ? bytes_make_dirs(dir, e) : err_set(e, ERR_CONFIG, "run.dir is too long");
    if (rc) goto out;
    rc = open_file(m, e);
    if (!rc) rc = cut(m, keep, e);
out:
    if (rc)
        metrics_close(m);
    else
        *out = m;
    return rc;
}

void metrics_close(struct metrics *m) {
    if (!m) return;
    if (m->fd >= 0) close(m->fd);
    buf_fini(&m->line);
    free(m);
}

static void put_numbers(struct json_writer *w, const struct metrics_line *l) {
    json_put_int(w, "step", l->step);
    json_put_double(w, "loss", l->report->loss);
    json_put_object(w, "losses");
    for (int i = 0; i < l->set->n; i++)
        json_put_double(w, l->set->spec[i].modality->name, l->report->loss_of[i]);
    json_close(w, '}');
    json_put_double(w, "grad_norm", l->report->grad_norm);
    json_put_double(w, "lr", l->report->rate);
    if (l->report->skipped) {
        json_put_bool(w, "skipped", true);
        json_put_int(w, "suspect_first", l->report->suspect_first);
        json_put_int(w, "suspects", l->report->suspects);
    }
    json_put_double(w, "samples_per_s", l->samples_per_s);
    json_put_double(w, "data_wait", l->data_wait);
    json_put_double(w, "comm_busy", l->comm_busy);
    json_put_double(w, "comm_wait", l->comm_wait);
    json_put_object(w, "seconds");
    for (int i = 0; i < STEP_PARTS; i++) json_put_double(w, step_part_name((enum step_part)i), l->seconds[i]);
    json_close(w, '}');
}

int metrics_write(struct metrics *m, const struct metrics_line *l, struct err *e) {
    struct json_writer w;
    buf_clear(&m->line);
    json_begin(&w, &m->line);
    json_put_object(&w, NULL);
    put_numbers(&w, l);
    json_close(&w, '}');
    int rc = json_end(&w, e);
    if (!rc) rc = buf_append(&m->line, "\n", 1, e);
    if (rc) return rc;
    ssize_t n = write(m->fd, m->line.data, m->line.len);
    if (n == (ssize_t)m->line.len) return 0;
    return n < 0 ? err_errno(e, errno, "%s", m->path) : err_set(e, ERR_IO, "%s: written in part", m->path);
}
