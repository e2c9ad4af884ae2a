// SPDX-License-Identifier: Apache-2.0
#include "storage/safetensors.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"

static const struct {
    const char *name;
    int64_t bytes;
} dtypes[] = {{"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F64", 8},     {"I64", 8},
              {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
              {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

static int64_t dtype_bytes(const char *name) {
    for (size_t i = 0; i < sizeof dtypes / sizeof *dtypes; i++)
        if (!strcmp(dtypes[i].name, name)) return dtypes[i].bytes;
    return 0;
}

// ---- writing

static void put_entry(struct json_writer *w, const struct safetensors_entry *t) {
    json_put_object(w, t->name);
    json_put_string(w, "dtype", t->dtype);
    json_put_array(w, "shape");
    for (int i = 0; i < t->rank; i++) json_put_int(w, NULL, t->shape[i]);
    json_close(w, ']');
    json_put_array(w, "data_offsets");
    json_put_int(w, NULL, t->begin);
    json_put_int(w, NULL, t->end);
    json_close(w, ']');
    json_close(w, '}');
}

int safetensors_write_header(struct buf *out, const struct safetensors_entry *entries, size_t n,
                             const char *const (*metadata)[2], struct err *e) {
    static const char blanks[SAFETENSORS_ALIGN + 1] = "";
    char pad[SAFETENSORS_ALIGN];
    struct json_writer w;
    size_t start = out->len;
    int rc = buf_append(out, blanks, 8, e);
    if (rc) return rc;
    json_begin(&w, out);
    json_put_object(&w, NULL);
    if (metadata) {
        json_put_object(&w, "__metadata__");
        for (; (*metadata)[0]; metadata++) json_put_string(&w, (*metadata)[0], (*metadata)[1]);
        json_close(&w, '}');
    }
    for (size_t i = 0; i < n; i++) put_entry(&w, &entries[i]);
    json_close(&w, '}');
    if ((rc = json_end(&w, e))) return rc;
    memset(pad, ' ', sizeof pad);
    size_t used = (out->len - start) % SAFETENSORS_ALIGN;
    if (used && (rc = buf_append(out, pad, SAFETENSORS_ALIGN - used, e))) return rc;
    bytes_put_le64(out->data + start, out->len - start - 8);
    return 0;
}

// ---- reading

int safetensors_header_bytes(const unsigned char first[8], int64_t file_bytes, const char *what, int64_t *out,
                             struct err *e) {
    uint64_t n = bytes_le64(first);
    if (file_bytes < 8 || n > SAFETENSORS_HEADER_MAX || (int64_t)n > file_bytes - 8 || n < 2)
        return err_set(e, ERR_DATA, "%s: offset 0: a header of %" PRIu64 " bytes in a file of %" PRId64, what,
                       n, file_bytes);
    *out = (int64_t)n;
    return 0;
}

static int parse_shape(const struct json_value *v, const char *what, struct safetensors_entry *t,
                       int64_t *elems, struct err *e) {
    size_t rank = json_size(v);
    if (!json_is_array(v) || rank > SAFETENSORS_DIMS)
        return err_set(e, ERR_DATA, "%s: tensor '%.200s': 'shape' is no array of at most %d sizes", what,
                       t->name, SAFETENSORS_DIMS);
    t->rank = (int)rank;
    *elems = 1;
    for (size_t i = 0; i < rank; i++)
        if (!json_as_int(json_at(v, i), &t->shape[i]) || t->shape[i] < 0 ||
            __builtin_mul_overflow(*elems, t->shape[i], elems))
            return err_set(e, ERR_DATA, "%s: tensor '%.200s': size %zu of its shape is bad", what, t->name,
                           i);
    return 0;
}

static int parse_entry(const struct json_value *v, int64_t data_bytes, const char *what,
                       struct safetensors_entry *t, struct err *e) {
    const char *dtype;
    int64_t elems = 0, bytes;
    const struct json_value *offsets = json_get(v, "data_offsets");
    if (!json_as_string(json_get(v, "dtype"), &dtype) || !dtype_bytes(dtype))
        return err_set(e, ERR_DATA, "%s: tensor '%.200s': 'dtype' is missing or unknown", what, t->name);
    memcpy(t->dtype, dtype, strlen(dtype) + 1);
    int rc = parse_shape(json_get(v, "shape"), what, t, &elems, e);
    if (rc) return rc;
    if (json_size(offsets) != 2 || !json_as_int(json_at(offsets, 0), &t->begin) ||
        !json_as_int(json_at(offsets, 1), &t->end) || t->begin < 0 || t->end < t->begin ||
        t->end > data_bytes)
        return err_set(e, ERR_DATA,
                       "%s: tensor '%.200s': 'data_offsets' are no range inside the %" PRId64 " bytes", what,
                       t->name, data_bytes);
    if (__builtin_mul_overflow(elems, dtype_bytes(dtype), &bytes) || bytes != t->end - t->begin)
        return err_set(e, ERR_DATA,
                       "%s: tensor '%.200s': offsets %" PRId64 " .. %" PRId64 " do not fit its shape", what,
                       t->name, t->begin, t->end);
    return 0;
}

static int by_place(const void *a, const void *b) {
    const struct safetensors_entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static int check_cover(const struct safetensors *s, int64_t data_bytes, const char *what, struct err *e) {
    int64_t at = 0;
    for (size_t i = 0; i < s->n; i++) {
        const struct safetensors_entry *t = &s->entries[i];
        if (t->begin != at)
            return err_set(e, ERR_DATA,
                           "%s: tensor '%.200s' starts at %" PRId64 " of the data, not at %" PRId64, what,
                           t->name, t->begin, at);
        at = t->end;
    }
    if (at != data_bytes)
        return err_set(e, ERR_DATA, "%s: the tensors end at %" PRId64 " of %" PRId64 " bytes of data", what,
                       at, data_bytes);
    return 0;
}

static int parse_entries(struct safetensors *out, int64_t data_bytes, const char *what, struct err *e) {
    const struct json_value *root = json_root(out->doc), *v = NULL;
    const char *key = NULL;
    if (!json_is_object(root)) return err_set(e, ERR_DATA, "%s: the header is no JSON object", what);
    out->entries = calloc(json_size(root) + 1, sizeof *out->entries);
    if (!out->entries) return err_set(e, ERR_MEMORY, "%s: no memory for %zu tensors", what, json_size(root));
    while (json_next(root, &key, &v)) {
        if (!strcmp(key, "__metadata__")) continue;
        struct safetensors_entry *t = &out->entries[out->n++];
        t->name = key;
        int rc = parse_entry(v, data_bytes, what, t, e);
        if (rc) return rc;
    }
    qsort(out->entries, out->n, sizeof *out->entries, by_place);
    return check_cover(out, data_bytes, what, e);
}

int safetensors_parse(struct safetensors *out, const char *json, size_t n, int64_t data_bytes,
                      const char *what, struct err *e) {
    memset(out, 0, sizeof *out);
    int rc = json_parse(&out->doc, json, n, what, e);
    if (!rc) rc = parse_entries(out, data_bytes, what, e);
    if (rc) safetensors_fini(out);
    return rc;
}

void safetensors_fini(struct safetensors *s) {
    free(s->entries);
    json_destroy(s->doc);
    memset(s, 0, sizeof *s);
}
