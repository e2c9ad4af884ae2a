// SPDX-License-Identifier: Apache-2.0
#include "trainer/media_npy.h"

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Format: numpy.org "NEP 1 - A simple file format for NumPy arrays".
static const char npy_magic[6] = "\x93NUMPY";

// A cursor over the header's Python literal.
struct npy_text {
    const char *p, *end;
};

static void npy_blanks(struct npy_text *t) {
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t')) t->p++;
}

static bool npy_skip(struct npy_text *t, char c) {
    npy_blanks(t);
    if (t->p == t->end || *t->p != c) return false;
    t->p++;
    return true;
}

// A quoted word of at most cap - 1 bytes, without escapes.
static bool npy_word(struct npy_text *t, char *out, size_t cap) {
    npy_blanks(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"')) return false;
    char quote = *t->p++;
    size_t n = 0;
    while (t->p < t->end && *t->p != quote) {
        if (*t->p == '\\' || n + 1 >= cap) return false;
        out[n++] = *t->p++;
    }
    out[n] = 0;
    return t->p < t->end && *t->p++ == quote;
}

static bool npy_number(struct npy_text *t, int64_t *out) {
    npy_blanks(t);
    int64_t v = 0;
    int digits = 0;
    for (; t->p < t->end && *t->p >= '0' && *t->p <= '9'; t->p++, digits++) {
        if (v > (INT64_MAX - 9) / 10) return false;
        v = v * 10 + (*t->p - '0');
    }
    *out = v;
    return digits > 0;
}

static bool npy_shape(struct npy_text *t, struct media_npy *out) {
    if (!npy_skip(t, '(')) return false;
    out->rank = 0;
    while (!npy_skip(t, ')')) {
        if (out->rank == MEDIA_NPY_RANK_MAX || !npy_number(t, &out->shape[out->rank])) return false;
        out->rank++;
        if (!npy_skip(t, ',')) return npy_skip(t, ')');
    }
    return true;
}

static bool npy_false(struct npy_text *t) {
    npy_blanks(t);
    if (t->end - t->p < 5 || memcmp(t->p, "False", 5) != 0) return false;
    t->p += 5;
    return true;
}

// {'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }: each key exactly once.
static bool npy_header(struct npy_text *t, char descr[8], struct media_npy *out) {
    int seen = 0;
    if (!npy_skip(t, '{')) return false;
    while (!npy_skip(t, '}')) {
        char key[16];
        if (!npy_word(t, key, sizeof key) || !npy_skip(t, ':')) return false;
        int bit = !strcmp(key, "descr")           ? 1
                  : !strcmp(key, "fortran_order") ? 2
                  : !strcmp(key, "shape")         ? 4
                                                  : 0;
        if (!bit || (seen & bit)) return false;
        seen |= bit;
        if (bit == 1 && !npy_word(t, descr, 8)) return false;
        if (bit == 2 && !npy_false(t)) return false;
        if (bit == 4 && !npy_shape(t, out)) return false;
        if (!npy_skip(t, ',')) {
            if (!npy_skip(t, '}')) return false;
            break;
        }
    }
    npy_blanks(t);
    return seen == 7 && t->p == t->end;
}

static float npy_f4(const unsigned char *p) {
    uint32_t u = bytes_le32(p);
    float v;
    memcpy(&v, &u, 4);
    return v;
}
static float npy_f8(const unsigned char *p) {
    uint64_t u = bytes_le64(p);
    double v;
    memcpy(&v, &u, 8);
    return (float)v;
}
static float npy_u1(const unsigned char *p) {
    return (float)p[0];
}
static float npy_i1(const unsigned char *p) {
    return (float)(signed char)p[0];
}
static float npy_u2(const unsigned char *p) {
    return (float)bytes_le16(p);
}
static float npy_i2(const unsigned char *p) {
    return (float)(int16_t)bytes_le16(p);
}
static float npy_u4(const unsigned char *p) {
    return (float)bytes_le32(p);
}
static float npy_i4(const unsigned char *p) {
    return (float)(int32_t)bytes_le32(p);
}
static float npy_i8(const unsigned char *p) {
    return (float)(int64_t)bytes_le64(p);
}

static const struct npy_type {
    const char *descr;
    size_t bytes;
    float (*get)(const unsigned char *);
} npy_types[] = {{"<f4", 4, npy_f4}, {"<f8", 8, npy_f8}, {"|u1", 1, npy_u1},
                 {"|i1", 1, npy_i1}, {"<u2", 2, npy_u2}, {"<i2", 2, npy_i2},
                 {"<u4", 4, npy_u4}, {"<i4", 4, npy_i4}, {"<i8", 8, npy_i8}};

static const struct npy_type *npy_find_type(const char *descr) {
    for (size_t i = 0; i < sizeof npy_types / sizeof *npy_types; i++)
        if (!strcmp(npy_types[i].descr, descr)) return &npy_types[i];
    return NULL;
}

// Where the header's text stands; false when the file is too short for what it says.
static bool npy_locate(const unsigned char *p, size_t n, size_t *text, size_t *length) {
    if (n < 12 || memcmp(p, npy_magic, sizeof npy_magic) != 0) return false;
    if (p[6] == 1) {
        *text = 10;
        *length = bytes_le16(p + 8);
    } else if (p[6] == 2 || p[6] == 3) {
        *text = 12;
        *length = bytes_le32(p + 8);
    } else {
        return false;
    }
    return *length <= 65536 && *length <= n - *text;
}

static bool npy_count(struct media_npy *a, int64_t max_elems) {
    a->elems = 1;
    for (int i = 0; i < a->rank; i++) {
        if (a->shape[i] != 0 && a->elems > max_elems / a->shape[i]) return false;
        a->elems *= a->shape[i];
    }
    return a->elems <= max_elems;
}

int media_npy_read(const void *bytes, size_t n, int64_t max_elems, struct media_npy *out, struct err *e) {
    const unsigned char *p = bytes;
    size_t at = 0, length = 0;
    char descr[8] = "";
    memset(out, 0, sizeof *out);
    if (!npy_locate(p, n, &at, &length))
        return err_set(e, ERR_DATA, "not a .npy file, or cut short in its header");
    struct npy_text t = {(const char *)p + at, (const char *)p + at + length};
    if (!npy_header(&t, descr, out)) return err_set(e, ERR_DATA, ".npy header is malformed or not C order");
    const struct npy_type *type = npy_find_type(descr);
    if (!type) return err_set(e, ERR_DATA, ".npy element type '%s' is not supported", descr);
    if (!npy_count(out, max_elems))
        return err_set(e, ERR_DATA, ".npy array has more than the %lld elements expected",
                       (long long)max_elems);
    at += length;
    if (n - at != (size_t)out->elems * type->bytes)
        return err_set(e, ERR_DATA, ".npy data has %zu bytes where its header says %lld elements of %zu",
                       n - at, (long long)out->elems, type->bytes);
    out->data = malloc((size_t)out->elems * sizeof(float) + 1);
    if (!out->data)
        return err_set(e, ERR_MEMORY, "no memory for a .npy of %lld elements", (long long)out->elems);
    for (int64_t i = 0; i < out->elems; i++) out->data[i] = type->get(p + at + (size_t)i * type->bytes);
    return 0;
}

int media_npy_check_finite(const struct media_npy *a, struct err *e) {
    int64_t row = a->rank && a->shape[0] ? a->elems / a->shape[0] : 1;
    for (int64_t i = 0; i < a->elems; i++)
        if (!isfinite(a->data[i]))
            return err_set(e, ERR_DATA, "row %lld holds %g, which no model can learn", (long long)(i / row),
                           (double)a->data[i]);
    return 0;
}

void media_npy_fini(struct media_npy *a) {
    if (!a) return;
    free(a->data);
    memset(a, 0, sizeof *a);
}

int media_npy_write(struct buf *out, int rank, const int64_t *shape, const float *data, struct err *e) {
    char dims[MEDIA_NPY_RANK_MAX * 22 + 4] = "";
    size_t used = 0, elems = 1;
    for (int i = 0; i < rank; i++) {
        used += (size_t)snprintf(dims + used, sizeof dims - used, "%lld,%s", (long long)shape[i],
                                 i + 1 < rank ? " " : "");
        elems *= (size_t)shape[i];
    }
    char text[256];
    int length =
        snprintf(text, sizeof text, "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", dims);
    // Data starts at a multiple of 64; the padding is blanks and the last byte a newline.
    size_t header = ((size_t)length + 1 + 10 + 63) / 64 * 64 - 10;
    unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 0, 0};
    bytes_put_le16(head + 8, (uint16_t)header);
    memset(text + length, ' ', header - (size_t)length);
    text[header - 1] = '\n';
    int rc = buf_append(out, head, sizeof head, e);
    if (!rc) rc = buf_append(out, text, header, e);
    for (size_t i = 0; i < elems && !rc; i++) {
        uint32_t u;
        unsigned char le[4];
        memcpy(&u, data + i, 4);
        bytes_put_le32(le, u);
        rc = buf_append(out, le, 4, e);
    }
    return rc;
}
