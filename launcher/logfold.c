// SPDX-License-Identifier: Apache-2.0
#include "launcher/logfold.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "launcher/watch.h"

#define AHEAD 200 // lines within which an equal one is looked for

static const char *without_rank(const char *at, int rank, size_t *n) {
    char prefix[32];
    int len = snprintf(prefix, sizeof prefix, "rank %d: ", rank);
    if (*n < (size_t)len || strncmp(at, prefix, (size_t)len) != 0) return at;
    *n -= (size_t)len;
    return at + len;
}

static int add_rank(struct logfold_line *l, int rank, struct err *e) {
    int *ranks = realloc(l->ranks, (size_t)(l->n + 1) * sizeof *ranks);
    if (!ranks) return err_set(e, ERR_MEMORY, "no memory for a folded line");
    l->ranks = ranks;
    ranks[l->n++] = rank;
    return 0;
}

// A new line behind line `after` (-1: the first).
static int insert(struct logfold *f, int after, const char *text, size_t n, struct err *e) {
    if (f->n == f->cap) {
        int cap = f->cap ? 2 * f->cap : 256;
        struct logfold_line *lines = realloc(f->lines, (size_t)cap * sizeof *lines);
        if (!lines) return err_set(e, ERR_MEMORY, "no memory for %d folded lines", cap);
        f->lines = lines;
        f->cap = cap;
    }
    if (f->n == 0) f->first = -1;
    struct logfold_line *l = &f->lines[f->n];
    *l = (struct logfold_line){.text = strndup(text, n), .next = after < 0 ? f->first : f->lines[after].next};
    if (!l->text) return err_set(e, ERR_MEMORY, "no memory for a folded line");
    if (after < 0)
        f->first = f->n;
    else
        f->lines[after].next = f->n;
    f->n++;
    return 0;
}

static int find(const struct logfold *f, int after, const char *text, size_t n) {
    int at = after < 0 ? f->first : f->lines[after].next;
    for (int i = 0; i < AHEAD && at >= 0; i++, at = f->lines[at].next)
        if (strlen(f->lines[at].text) == n && !memcmp(f->lines[at].text, text, n)) return at;
    return -1;
}

int logfold_add(struct logfold *f, int rank, const char *text, struct err *e) {
    int after = -1, rc = 0;
    if (f->n == 0) f->first = -1;
    while (*text && !rc) {
        size_t whole = strcspn(text, "\n"), n = whole;
        const char *line = without_rank(text, rank, &n);
        int at = find(f, after, line, n);
        if (at < 0) {
            rc = insert(f, after, line, n, e);
            at = f->n - 1;
        }
        if (!rc) rc = add_rank(&f->lines[at], rank, e);
        after = at;
        text += whole + (text[whole] == '\n');
    }
    return rc;
}

void logfold_print(const struct logfold *f, FILE *out) {
    for (int at = f->n ? f->first : -1; at >= 0; at = f->lines[at].next) {
        const struct logfold_line *l = &f->lines[at];
        int last = l->ranks[l->n - 1];
        char text[256];
        bool *in = calloc((size_t)last + 1, sizeof *in);
        if (!in) return;
        for (int i = 0; i < l->n; i++) in[l->ranks[i]] = true;
        watch_ranks_text(in, last + 1, text, sizeof text);
        fprintf(out, "rank%s %s: %s\n", l->n > 1 ? "s" : "", text, l->text);
        free(in);
    }
}

void logfold_fini(struct logfold *f) {
    for (int i = 0; i < f->n; i++) {
        free(f->lines[i].text);
        free(f->lines[i].ranks);
    }
    free(f->lines);
    *f = (struct logfold){0};
}
