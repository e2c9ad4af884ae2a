// SPDX-License-Identifier: Apache-2.0
// A growing list of strings that ends with NULL: argument vectors and environments. Owns its strings.
#ifndef ORRERY_LAUNCHER_STRV_H
#define ORRERY_LAUNCHER_STRV_H

#include <stddef.h>

#include "base/bytes.h"
#include "base/err.h"

struct strv {
    char **items; // items[n] is NULL; NULL while empty
    size_t n, cap;
};

void strv_fini(struct strv *v); // a zeroed strv is an empty one
int strv_add(struct strv *v, const char *text, struct err *e) ERR_CHECK;
int strv_addf(struct strv *v, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))) ERR_CHECK;
int strv_add_all(struct strv *v, const char *const *texts, size_t n, struct err *e) ERR_CHECK;
// As in an environment: replaces "NAME=..." or adds it.
int strv_set(struct strv *v, struct err *e, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 4, 5))) ERR_CHECK;

// All of it as one line that a shell takes apart into the same words.
int strv_quote(const struct strv *v, struct buf *out, struct err *e) ERR_CHECK;

#endif
