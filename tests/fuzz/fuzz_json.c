// SPDX-License-Identifier: Apache-2.0
// The JSON reader on any bytes. What it accepts is written again by the writer, and reads back to the same
// text.
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void copy_value(struct json_writer *w, const char *key, const struct json_value *v) {
    const char *text, *name = NULL;
    const struct json_value *member;
    int64_t whole;
    double real;
    bool flag;
    if (json_is_object(v)) {
        json_put_object(w, key);
        while (json_next(v, &name, &member)) copy_value(w, name, member);
        json_close(w, '}');
    } else if (json_is_array(v)) {
        json_put_array(w, key);
        for (size_t i = 0; i < json_size(v); i++) copy_value(w, NULL, json_at(v, i));
        json_close(w, ']');
    } else if (json_as_string(v, &text))
        json_put_string(w, key, text);
    else if (json_as_int(v, &whole))
        json_put_int(w, key, whole);
    else if (json_as_double(v, &real))
        json_put_double(w, key, real);
    else if (json_as_bool(v, &flag))
        json_put_bool(w, key, flag);
    else
        json_put_null(w, key);
}

static bool rewrite(const void *data, size_t n, struct buf *out) {
    struct err e = {0};
    struct json *doc;
    if (json_parse(&doc, data, n, "input", &e)) {
        if (e.code != ERR_DATA) abort();
        return false;
    }
    struct json_writer w;
    json_begin(&w, out);
    copy_value(&w, NULL, json_root(doc));
    if (json_end(&w, &e)) abort();
    json_destroy(doc);
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct buf once, twice;
    if (n > ((size_t)1 << 20)) return 0;
    buf_init(&once, (size_t)16 << 20);
    buf_init(&twice, (size_t)16 << 20);
    if (rewrite(data, n, &once)) {
        if (!rewrite(once.data, once.len, &twice)) abort();
        if (once.len != twice.len || memcmp(once.data, twice.data, once.len)) abort();
    }
    buf_fini(&once);
    buf_fini(&twice);
    return 0;
}
