// SPDX-License-Identifier: Apache-2.0
#include "base/err.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct code_row {
    enum err_class cls;
    int exit_code;
    const char *words;
};

static const struct code_row code_rows[ERR_COUNT] = {[ERR_OK] = {ERR_CLASS_NONE, 0, "ok"},
#define ROW(name, cls, exit_code, words) [ERR_##name] = {ERR_CLASS_##cls, exit_code, words},
                                                     ERR_CODES(ROW)
#undef ROW
};

static void flatten_lines(char *text) {
    for (; *text; text++)
        if (*text == '\n' || *text == '\r') *text = ' ';
}

static void fill(struct err *e, enum err_code code, const char *file, int line, const char *fmt, va_list ap) {
    e->code = code;
    e->file = file;
    e->line = line;
    vsnprintf(e->text, sizeof e->text, fmt, ap);
    flatten_lines(e->text);
}

int err_set_at(struct err *e, enum err_code code, const char *file, int line, const char *fmt, ...) {
    if (!e || e->code) return -(int)(e ? e->code : code);
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, file, line, fmt, ap);
    va_end(ap);
    return -(int)code;
}

static enum err_code code_from_errno(int saved_errno) {
    switch (saved_errno) {
    case ENOENT: return ERR_MISSING;
    case EACCES:
    case EPERM: return ERR_DENIED;
    case ENOMEM: return ERR_MEMORY;
    default: return ERR_IO;
    }
}

int err_errno_at(struct err *e, int saved_errno, const char *file, int line, const char *fmt, ...) {
    enum err_code code = code_from_errno(saved_errno);
    if (!e || e->code) return -(int)(e ? e->code : code);
    va_list ap;
    va_start(ap, fmt);
    fill(e, code, file, line, fmt, ap);
    va_end(ap);
    size_t used = strlen(e->text);
    snprintf(e->text + used, sizeof e->text - used, ": %s", strerror(saved_errno));
    return -(int)code;
}

int err_prefix(struct err *e, const char *fmt, ...) {
    if (!e || !e->code) return 0;
    char context[ERR_TEXT_BYTES / 2];
    char rest[ERR_TEXT_BYTES];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(context, sizeof context, fmt, ap);
    va_end(ap);
    memcpy(rest, e->text, sizeof rest);
    rest[sizeof rest - 1] = 0;
    int room = (int)(sizeof e->text - strlen(context) - 3);
    snprintf(e->text, sizeof e->text, "%s: %.*s", context, room, rest);
    flatten_lines(e->text);
    return -(int)e->code;
}

void err_clear(struct err *e) {
    e->code = ERR_OK;
    e->text[0] = 0;
}

enum err_class err_class_of(enum err_code code) {
    return (unsigned)code < ERR_COUNT ? code_rows[code].cls : ERR_CLASS_BUG;
}

int err_exit_code(enum err_code code) {
    return (unsigned)code < ERR_COUNT ? code_rows[code].exit_code : 70;
}

enum err_code err_from_exit_code(int exit_code) {
    for (int code = 1; code < ERR_COUNT; code++)
        if (code_rows[code].exit_code == exit_code) return (enum err_code)code;
    return ERR_OK;
}

const char *err_words(enum err_code code) {
    return (unsigned)code < ERR_COUNT ? code_rows[code].words : "unknown";
}

const char *err_class_name(enum err_class cls) {
    static const char *const names[] = {
        [ERR_CLASS_NONE] = "NONE", [ERR_CLASS_USER] = "USER", [ERR_CLASS_RETRY] = "RETRY",
        [ERR_CLASS_RANK] = "RANK", [ERR_CLASS_JOB] = "JOB",   [ERR_CLASS_BUG] = "BUG",
    };
    return (unsigned)cls < sizeof names / sizeof *names ? names[cls] : "BUG";
}
