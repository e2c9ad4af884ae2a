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

#define FILE_BYTES_MAX ((size_t)1 << 30)
#define LINE_BYTES_MAX 65536

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

// Bytes of the leading lines whose step is at most `keep`.
static size_t kept_bytes(const struct buf *text, int64_t keep) {
    size_t at = 0;
    while (at < text->len) {
        const char *end = memchr(text->data + at, '\n', text->len - at);
        int64_t step = 0;
        if (!end || !line_step(text->data + at, (size_t)(end - text->data) - at, &step) || step > keep) break;
        at = (size_t)(end - text->data) + 1;
    }
    return at;
}

static int cut(const struct metrics *m, int64_t keep, struct err *e) {
    struct buf text;
    buf_init(&text, FILE_BYTES_MAX);
    int rc = bytes_read_file(m->path, FILE_BYTES_MAX, &text, e);
    if (!rc && ftruncate(m->fd, (off_t)kept_bytes(&text, keep))) rc = err_errno(e, errno, "%s", m->path);
    buf_fini(&text);
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
