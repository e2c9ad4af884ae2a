// SPDX-License-Identifier: Apache-2.0
// JSON: a writer (ours: no allocation per value, stable key order as written) and a reader (jansson behind
// an opaque handle, with caps on size and depth). No jansson type leaves json.c.
#ifndef ORRERY_BASE_JSON_H
#define ORRERY_BASE_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

// ---- writing: appends to a buf. Calls nest; a key is NULL inside an array and for the root. Doubles are
// written with the fewest digits that read back equal (%.17g at most); NaN and infinities become null.
// The first failure (the buf is full) is kept and returned by json_end. (json_put_: jansson owns json_object
// and its kin, and the linker would let the one call the other.)
struct json_writer {
    struct buf *out;
    int depth;
    bool need_comma, failed;
    struct err err;
};
void json_begin(struct json_writer *w, struct buf *out);
void json_put_object(struct json_writer *w, const char *key);
void json_put_array(struct json_writer *w, const char *key);
void json_close(struct json_writer *w, char bracket); // '}' or ']'
void json_put_string(struct json_writer *w, const char *key, const char *value);
void json_put_stringn(struct json_writer *w, const char *key, const char *value, size_t n);
void json_put_int(struct json_writer *w, const char *key, int64_t value);
void json_put_double(struct json_writer *w, const char *key, double value);
void json_put_bool(struct json_writer *w, const char *key, bool value);
void json_put_null(struct json_writer *w, const char *key);
int json_end(struct json_writer *w, struct err *e) ERR_CHECK;

// ---- reading: at most 64 MiB, 64 levels and 4 Mi values; duplicate keys and NUL are refused. `what` names
// the document in messages ("manifest ckpt/7/manifest.json").
struct json;       // one document
struct json_value; // borrowed from its document
int json_parse(struct json **out, const char *text, size_t n, const char *what, struct err *e) ERR_CHECK;
void json_destroy(struct json *doc);
const struct json_value *json_root(const struct json *doc);

// NULL-safe queries: a NULL value or a wrong type answers NULL / false.
const struct json_value *json_get(const struct json_value *object, const char *key);
const struct json_value *json_at(const struct json_value *array, size_t i);
size_t json_size(const struct json_value *v); // members or elements; 0 otherwise
bool json_is_object(const struct json_value *v);
bool json_is_array(const struct json_value *v);
bool json_as_string(const struct json_value *v, const char **out); // borrowed
bool json_as_int(const struct json_value *v, int64_t *out);
bool json_as_double(const struct json_value *v, double *out); // integers too
bool json_as_bool(const struct json_value *v, bool *out);
// A member's value; `otherwise` where it is missing or of another type. A text is borrowed from its document.
const char *json_string_or(const struct json_value *object, const char *key, const char *otherwise);
int64_t json_int_or(const struct json_value *object, const char *key, int64_t otherwise);
double json_double_or(const struct json_value *object, const char *key, double otherwise); // integers too
bool json_bool_or(const struct json_value *object, const char *key, bool otherwise);
// Iterates an object's members in insertion order: start with *key NULL; false after the last. One step is
// O(1).
bool json_next(const struct json_value *object, const char **key, const struct json_value **value);
// Member i of 0 .. json_size-1, in insertion order. O(i): for small objects; json_next for those of any size.
bool json_member(const struct json_value *object, size_t i, const char **key,
                 const struct json_value **value);

// Required members, with an error that names document and key.
int json_need_int(const struct json *doc, const struct json_value *o, const char *key, int64_t lo, int64_t hi,
                  int64_t *out, struct err *e) ERR_CHECK;
int json_need_string(const struct json *doc, const struct json_value *o, const char *key, const char **out,
                     struct err *e) ERR_CHECK;

#endif
