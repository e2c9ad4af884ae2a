// SPDX-License-Identifier: Apache-2.0
#include "launcher/strv.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void strv_fini(struct strv *v) {
    for (size_t i = 0; i < v->n; i++) free(v->items[i]);
    free(v->items);
    *v = (struct strv){0};
}

static int grow(struct strv *v, struct err *e) {
    if (v->n + 2 <= v->cap) return 0;
    size_t cap = v->cap ? 2 * v->cap : 32;
    char **items = realloc(v->items, cap * sizeof *items);
    if (!items) return err_set(e, ERR_MEMORY, "no memory for a list of %zu strings", cap);
    v->items = items;
    v->cap = cap;
    return 0;
}

// Takes `text`, also on failure.
static int take(struct strv *v, char *text, struct err *e) {
    int rc = text ? grow(v, e) : err_set(e, ERR_MEMORY, "no memory for a string");
    if (rc) {
        free(text);
        return rc;
    }
    v->items[v->n++] = text;
    v->items[v->n] = NULL;
    return 0;
}

int strv_add(struct strv *v, const char *text, struct err *e) {
    return take(v, strdup(text), e);
}

static char *format(const char *fmt, va_list ap) {
    char *text = NULL;
    return vasprintf(&text, fmt, ap) < 0 ? NULL : text;
}

int strv_addf(struct strv *v, struct err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    char *text = format(fmt, ap);
    va_end(ap);
    return take(v, text, e);
}

int strv_add_all(struct strv *v, const char *const *texts, size_t n, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = strv_add(v, texts[i], e);
    return rc;
}

int strv_set(struct strv *v, struct err *e, const char *name, const char *fmt, ...) {
    char *text = NULL;
    size_t n = strlen(name);
    va_list ap;
    va_start(ap, fmt);
    char *value = format(fmt, ap);
    va_end(ap);
    if (!value || asprintf(&text, "%s=%s", name, value) < 0) text = NULL;
    free(value);
    if (!text) return err_set(e, ERR_MEMORY, "no memory for the environment");
    for (size_t i = 0; i < v->n; i++) {
        if (strncmp(v->items[i], name, n) != 0 || v->items[i][n] != '=') continue;
        free(v->items[i]);
        v->items[i] = text;
        return 0;
    }
    return take(v, text, e);
}

static bool is_plain(const char *word) {
    static const char fine[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=.,:/@%";
    return *word && word[strspn(word, fine)] == 0;
}

static int quote_word(const char *word, struct buf *out, struct err *e) {
    if (is_plain(word)) return buf_appends(out, word, e);
    int rc = buf_appends(out, "'", e);
    for (; *word && !rc; word++)
        rc = *word == '\'' ? buf_appends(out, "'\\''", e) : buf_append(out, word, 1, e);
    return rc ? rc : buf_appends(out, "'", e);
}

int strv_quote(const struct strv *v, struct buf *out, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < v->n && !rc; i++) {
        if (i) rc = buf_appends(out, " ", e);
        if (!rc) rc = quote_word(v->items[i], out, e);
    }
    return rc;
}
