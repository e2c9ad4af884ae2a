// SPDX-License-Identifier: Apache-2.0
#include "base/json.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef json_is_object // jansson's macros; ours are functions with the same meaning
#undef json_is_array

// ---- writing

static void put(struct json_writer *w, const char *text, size_t n) {
    if (w->failed) return;
    if (buf_append(w->out, text, n, &w->err)) w->failed = true;
}

static void puts_(struct json_writer *w, const char *text) {
    put(w, text, strlen(text));
}

// Length of the well-formed UTF-8 sequence at p, 0 when there is none.
static size_t utf8_length(const char *p, size_t n) {
    unsigned char c = (unsigned char)*p;
    size_t length = c < 0x80 ? 1 : c < 0xe0 ? 2 : c < 0xf0 ? 3 : 4;
    return length <= n && bytes_is_utf8(p, length) ? length : 0;
}

static void put_escaped(struct json_writer *w, unsigned char c) {
    char escape[8];
    switch (c) {
    case '"': puts_(w, "\\\""); return;
    case '\\': puts_(w, "\\\\"); return;
    case '\n': puts_(w, "\\n"); return;
    case '\r': puts_(w, "\\r"); return;
    case '\t': puts_(w, "\\t"); return;
    default: snprintf(escape, sizeof escape, "\\u%04x", c); puts_(w, escape);
    }
}

static void put_quoted(struct json_writer *w, const char *text, size_t n) {
    put(w, "\"", 1);
    size_t start = 0, i = 0;
    while (i < n) {
        unsigned char c = (unsigned char)text[i];
        size_t length = utf8_length(text + i, n - i);
        if (length && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f) {
            i += length;
            continue;
        }
        put(w, text + start, i - start);
        if (length)
            put_escaped(w, c);
        else
            puts_(w, "\xef\xbf\xbd"); // U+FFFD for a byte that is no UTF-8
        start = ++i;
    }
    put(w, text + start, n - start);
    put(w, "\"", 1);
}

static void start_value(struct json_writer *w, const char *key) {
    if (w->need_comma) put(w, ",", 1);
    if (key) {
        put_quoted(w, key, strlen(key));
        put(w, ":", 1);
    }
    w->need_comma = true;
}

void json_begin(struct json_writer *w, struct buf *out) {
    memset(w, 0, sizeof *w);
    w->out = out;
}

void json_put_object(struct json_writer *w, const char *key) {
    start_value(w, key);
    put(w, "{", 1);
    w->depth++;
    w->need_comma = false;
}

void json_put_array(struct json_writer *w, const char *key) {
    start_value(w, key);
    put(w, "[", 1);
    w->depth++;
    w->need_comma = false;
}

void json_close(struct json_writer *w, char bracket) {
    put(w, &bracket, 1);
    w->depth--;
    w->need_comma = true;
}

void json_put_stringn(struct json_writer *w, const char *key, const char *value, size_t n) {
    start_value(w, key);
    put_quoted(w, value, n);
}

void json_put_string(struct json_writer *w, const char *key, const char *value) {
    if (value)
        json_put_stringn(w, key, value, strlen(value));
    else
        json_put_null(w, key);
}

void json_put_int(struct json_writer *w, const char *key, int64_t value) {
    char text[24];
    start_value(w, key);
    snprintf(text, sizeof text, "%" PRId64, value);
    puts_(w, text);
}

void json_put_double(struct json_writer *w, const char *key, double value) {
    char text[BYTES_F64_BYTES];
    start_value(w, key);
    if (!isfinite(value))
        puts_(w, "null");
    else if (value == 0)
        puts_(w, signbit(value) ? "-0.0" : "0"); // a plain -0 would read back as the integer 0
    else
        puts_(w, bytes_format_f64(value, text));
}

void json_put_bool(struct json_writer *w, const char *key, bool value) {
    start_value(w, key);
    puts_(w, value ? "true" : "false");
}

void json_put_null(struct json_writer *w, const char *key) {
    start_value(w, key);
    puts_(w, "null");
}

int json_end(struct json_writer *w, struct err *e) {
    if (w->failed) return err_set(e, w->err.code, "cannot write JSON: %s", w->err.text);
    if (w->depth) return err_set(e, ERR_BUG, "JSON ends with %d brackets open", w->depth);
    return 0;
}

// ---- reading

#define MAX_BYTES ((size_t)64 << 20)
#define MAX_DEPTH 64
#define MAX_VALUES                                                                                           \
    ((size_t)4 << 20) // a value of three bytes costs jansson up to 130: bounds memory, not documents

struct json {
    json_t *root;
    char *what;
};

// Depth and number of values, before the parser spends stack or memory on them.
static int scan(const char *text, size_t n, const char *what, struct err *e) {
    size_t depth = 0, values = 1;
    bool quoted = false;
    for (size_t i = 0; i < n; i++) {
        char c = text[i];
        if (quoted) {
            if (c == '\\')
                i++;
            else if (c == '"')
                quoted = false;
            continue;
        }
        if (c == '"') quoted = true;
        if (c == '{' || c == '[') depth++;
        if ((c == '}' || c == ']') && depth) depth--;
        values += c == ',' || c == '{' || c == '[';
        if (depth > MAX_DEPTH)
            return err_set(e, ERR_DATA, "%s: byte %zu: nested deeper than %d", what, i, MAX_DEPTH);
        if (values > MAX_VALUES) return err_set(e, ERR_DATA, "%s: more than %zu values", what, MAX_VALUES);
    }
    return 0;
}

int json_parse(struct json **out, const char *text, size_t n, const char *what, struct err *e) {
    *out = NULL;
    if (n > MAX_BYTES)
        return err_set(e, ERR_DATA, "%s: %zu bytes of JSON, more than the %zu allowed", what, n, MAX_BYTES);
    int rc = scan(text, n, what, e);
    if (rc) return rc;
    json_error_t why;
    struct json *doc = calloc(1, sizeof *doc);
    if (!doc || !(doc->what = strdup(what))) {
        rc = err_set(e, ERR_MEMORY, "%s: no memory to parse it", what);
        goto out;
    }
    doc->root = json_loadb(text ? text : "", n, JSON_REJECT_DUPLICATES, &why);
    if (!doc->root) {
        rc = err_set(e, ERR_DATA, "%s:%d:%d: not valid JSON: %s", what, why.line, why.column, why.text);
        goto out;
    }
    *out = doc;
    doc = NULL;
out:
    json_destroy(doc);
    return rc;
}

void json_destroy(struct json *doc) {
    if (!doc) return;
    json_decref(doc->root);
    free(doc->what);
    free(doc);
}

// A json_value is a json_t seen through an opaque name.
static const json_t *inner(const struct json_value *v) {
    return (const json_t *)v;
}
static const struct json_value *outer(const json_t *v) {
    return (const struct json_value *)v;
}

const struct json_value *json_root(const struct json *doc) {
    return doc ? outer(doc->root) : NULL;
}

const struct json_value *json_get(const struct json_value *object, const char *key) {
    return outer(json_object_get(inner(object), key));
}

const struct json_value *json_at(const struct json_value *array, size_t i) {
    return outer(json_array_get(inner(array), i));
}

bool json_is_object(const struct json_value *v) {
    return v && inner(v)->type == JSON_OBJECT;
}
bool json_is_array(const struct json_value *v) {
    return v && inner(v)->type == JSON_ARRAY;
}

size_t json_size(const struct json_value *v) {
    return json_is_object(v) ? json_object_size(inner(v)) : json_is_array(v) ? json_array_size(inner(v)) : 0;
}

bool json_as_string(const struct json_value *v, const char **out) {
    if (!v || inner(v)->type != JSON_STRING) return false;
    *out = json_string_value(inner(v));
    return true;
}

bool json_as_int(const struct json_value *v, int64_t *out) {
    if (!v || inner(v)->type != JSON_INTEGER) return false;
    *out = json_integer_value(inner(v));
    return true;
}

bool json_as_double(const struct json_value *v, double *out) {
    if (!v || (inner(v)->type != JSON_INTEGER && inner(v)->type != JSON_REAL)) return false;
    *out = json_number_value(inner(v));
    return true;
}

bool json_as_bool(const struct json_value *v, bool *out) {
    if (!v || (inner(v)->type != JSON_TRUE && inner(v)->type != JSON_FALSE)) return false;
    *out = inner(v)->type == JSON_TRUE;
    return true;
}

const char *json_string_or(const struct json_value *object, const char *key, const char *otherwise) {
    json_as_string(json_get(object, key), &otherwise);
    return otherwise;
}

int64_t json_int_or(const struct json_value *object, const char *key, int64_t otherwise) {
    json_as_int(json_get(object, key), &otherwise);
    return otherwise;
}

double json_double_or(const struct json_value *object, const char *key, double otherwise) {
    json_as_double(json_get(object, key), &otherwise);
    return otherwise;
}

bool json_bool_or(const struct json_value *object, const char *key, bool otherwise) {
    json_as_bool(json_get(object, key), &otherwise);
    return otherwise;
}

bool json_next(const struct json_value *object, const char **key, const struct json_value **value) {
    if (!json_is_object(object)) return false;
    json_t *o = (json_t *)(uintptr_t)object; // jansson's iterators are not const, but change nothing
    void *at = *key ? json_object_iter_next(o, json_object_key_to_iter(*key)) : json_object_iter(o);
    if (!at) return false;
    *key = json_object_iter_key(at);
    *value = outer(json_object_iter_value(at));
    return true;
}

bool json_member(const struct json_value *object, size_t i, const char **key,
                 const struct json_value **value) {
    const char *k = NULL;
    const struct json_value *v = NULL;
    for (size_t at = 0; json_next(object, &k, &v); at++) {
        if (at < i) continue;
        *key = k;
        *value = v;
        return true;
    }
    return false;
}

int json_need_int(const struct json *doc, const struct json_value *o, const char *key, int64_t lo, int64_t hi,
                  int64_t *out, struct err *e) {
    int64_t v;
    if (!json_as_int(json_get(o, key), &v))
        return err_set(e, ERR_DATA, "%s: '%s' is missing or no whole number", doc->what, key);
    if (v < lo || v > hi)
        return err_set(e, ERR_DATA, "%s: '%s' is %" PRId64 ", outside %" PRId64 " .. %" PRId64, doc->what,
                       key, v, lo, hi);
    *out = v;
    return 0;
}

int json_need_string(const struct json *doc, const struct json_value *o, const char *key, const char **out,
                     struct err *e) {
    if (!json_as_string(json_get(o, key), out))
        return err_set(e, ERR_DATA, "%s: '%s' is missing or no text", doc->what, key);
    return 0;
}
