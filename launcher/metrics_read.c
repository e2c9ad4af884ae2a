// SPDX-License-Identifier: Apache-2.0
#include "launcher/metrics_read.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/json.h"

#define FILE_BYTES_MAX ((size_t)1 << 30)

static void add_value(struct metrics_row *row, const char *before, const char *name,
                      const struct json_value *v) {
    double value = NAN;
    if (row->n == METRICS_VALUES) return;
    json_as_double(v, &value);
    snprintf(row->values[row->n].name, METRICS_NAME_BYTES, "%s%s", before, name);
    row->values[row->n++].value = value;
}

static bool take_line(struct metrics_row *row, const char *line, size_t n) {
    struct json *doc = NULL;
    const char *name = NULL;
    const struct json_value *v;
    memset(row, 0, sizeof *row);
    if (json_parse(&doc, line, n, "metrics.jsonl", NULL)) return false;
    const struct json_value *o = json_root(doc);
    bool ok = json_as_int(json_get(o, "step"), &row->step);
    if (ok && json_get(o, "loss")) add_value(row, "", "loss", json_get(o, "loss"));
    while (ok && json_next(json_get(o, "losses"), &name, &v)) add_value(row, "losses.", name, v);
    if (ok && json_get(o, "grad_norm")) add_value(row, "", "grad_norm", json_get(o, "grad_norm"));
    if (ok && json_get(o, "lr")) add_value(row, "", "lr", json_get(o, "lr"));
    json_destroy(doc);
    return ok;
}

static int by_step(const void *a, const void *b) {
    const struct metrics_row *x = a, *y = b;
    return (x->step > y->step) - (x->step < y->step);
}

// A run that went on from an earlier checkpoint has cut its file there; should it not have, the later line
// holds.
static int add_row(struct metrics_table *t, size_t *cap, const struct metrics_row *row, struct err *e) {
    while (t->n && t->rows[t->n - 1].step >= row->step) t->n--;
    if (t->n == *cap) {
        size_t more = *cap ? 2 * *cap : 64;
        struct metrics_row *rows = realloc(t->rows, more * sizeof *rows);
        if (!rows) return err_set(e, ERR_MEMORY, "no memory for %zu lines of metrics", more);
        t->rows = rows;
        *cap = more;
    }
    t->rows[t->n++] = *row;
    return 0;
}

int metrics_read(struct metrics_table *out, const char *run_dir, struct err *e) {
    char path[4096];
    struct buf text;
    struct metrics_row row;
    size_t cap = 0;
    *out = (struct metrics_table){NULL, 0, 0};
    if (snprintf(path, sizeof path, "%s/metrics.jsonl", run_dir) >= (int)sizeof path)
        return err_set(e, ERR_USAGE, "the run folder's path is too long");
    buf_init(&text, FILE_BYTES_MAX);
    int rc = bytes_read_file(path, FILE_BYTES_MAX, &text, e);
    if (rc == -ERR_MISSING) {
        err_clear(e);
        rc = 0;
    }
    bytes_blank_nul(text.data, text.len);
    for (char *line = text.data; !rc && line && *line;) {
        size_t n = strcspn(line, "\n");
        if (line[n] && take_line(&row, line, n))
            rc = add_row(out, &cap, &row, e);
        else
            out->unread += line[n] != 0;
        line += n + (line[n] == '\n');
    }
    buf_fini(&text);
    if (rc) metrics_table_fini(out);
    return rc;
}

void metrics_table_fini(struct metrics_table *t) {
    free(t->rows);
    *t = (struct metrics_table){NULL, 0, 0};
}

const struct metrics_row *metrics_find(const struct metrics_table *t, int64_t step) {
    struct metrics_row key = {.step = step};
    return t->n ? bsearch(&key, t->rows, t->n, sizeof key, by_step) : NULL;
}

bool metrics_row_get(const struct metrics_row *row, const char *name, double *out) {
    for (int i = 0; i < row->n; i++) {
        if (strcmp(row->values[i].name, name) != 0) continue;
        *out = row->values[i].value;
        return true;
    }
    return false;
}
