// SPDX-License-Identifier: Apache-2.0
#include "launcher/ckpt_import.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "launcher/store_place.h"
#include "storage/ckpt.h"
#include "storage/safetensors.h"

#define NAMES_BYTES_MAX ((size_t)16 << 20)
#define PART_BYTES_MAX  ((size_t)64 << 20) // of one part's JSON
#define PART_DATA       ((int64_t)256 << 20)
#define SLAB_BYTES      ((int64_t)8 << 20)
#define PARTS_MAX       65536

struct import {
    const struct ckpt_import *from;
    struct store_place place;
    struct store_result object; // all that is read is of this version
    struct safetensors file;
    int64_t data_begin;
    struct json *names;
    const char **our_names; // per entry; NULL: left out
    struct buf *parts;
    size_t n_parts, cap_parts, n_tensors;
};

// ---- the file's header and the map of names

static int read_at(const struct import *m, int64_t at, int64_t n, void *into, struct err *e) {
    return store_get_range_of(m->place.store, m->place.key, &m->object, at, (size_t)n, into, e);
}

static int read_header(struct import *m, struct err *e) {
    unsigned char first[8];
    int64_t bytes;
    const char *what = m->from->file;
    int rc = store_head(m->place.store, m->place.key, &m->object, e);
    int64_t whole = rc ? 0 : m->object.object_bytes;
    if (!rc && whole < 8) rc = err_set(e, ERR_DATA, "%s: too short for a safetensors file", what);
    if (!rc) rc = read_at(m, 0, 8, first, e);
    if (!rc) rc = safetensors_header_bytes(first, whole, what, &bytes, e);
    if (rc) return rc;
    char *text = malloc((size_t)bytes);
    if (!text) return err_set(e, ERR_MEMORY, "%s: no memory for its header", what);
    m->data_begin = 8 + bytes;
    rc = read_at(m, 8, bytes, text, e);
    if (!rc) rc = safetensors_parse(&m->file, text, (size_t)bytes, whole - m->data_begin, what, e);
    free(text);
    return rc;
}

static int read_names(struct import *m, struct err *e) {
    struct buf text;
    if (!m->from->names) return 0;
    buf_init(&text, NAMES_BYTES_MAX);
    int rc = bytes_read_file(m->from->names, NAMES_BYTES_MAX, &text, e);
    if (!rc) rc = json_parse(&m->names, text.data, text.len, m->from->names, e);
    if (!rc && !json_is_object(json_root(m->names)))
        rc = err_set(e, ERR_DATA, "%s: no JSON object of names", m->from->names);
    buf_fini(&text);
    return rc;
}

static bool has_entry(const struct import *m, const char *name) {
    for (size_t i = 0; i < m->file.n; i++)
        if (!strcmp(m->file.entries[i].name, name)) return true;
    return false;
}

// A name in the map that the file lacks is a mistake, most likely in spelling.
static int check_names(const struct import *m, struct err *e) {
    const struct json_value *v = NULL;
    const char *key = NULL, *text;
    while (json_next(json_root(m->names), &key, &v)) {
        int64_t number;
        double real;
        bool flag;
        if (json_as_int(v, &number) || json_as_double(v, &real) || json_as_bool(v, &flag) ||
            json_is_object(v) || json_is_array(v) || (json_as_string(v, &text) && !*text))
            return err_set(e, ERR_DATA, "%s: '%.200s' must be a name, or null", m->from->names, key);
        if (!has_entry(m, key))
            return err_set(e, ERR_DATA, "%s: %s has no tensor '%.200s'", m->from->names, m->from->file, key);
    }
    return 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int check_doubles(const struct import *m, struct err *e) {
    const char **sorted = calloc(m->file.n + 1, sizeof *sorted);
    size_t n = 0;
    int rc = sorted ? 0 : err_set(e, ERR_MEMORY, "no memory for %zu names", m->file.n);
    for (size_t i = 0; i < m->file.n && !rc; i++)
        if (m->our_names[i]) sorted[n++] = m->our_names[i];
    if (!rc) qsort(sorted, n, sizeof *sorted, by_text);
    for (size_t i = 1; i < n && !rc; i++)
        if (!strcmp(sorted[i], sorted[i - 1]))
            rc = err_set(e, ERR_DATA, "%s: two tensors would be named '%.200s'", m->from->file, sorted[i]);
    if (!rc && !n) rc = err_set(e, ERR_DATA, "%s: no tensor to import", m->from->file);
    free(sorted);
    return rc;
}

static int map_names(struct import *m, struct err *e) {
    m->our_names = calloc(m->file.n + 1, sizeof *m->our_names);
    if (!m->our_names) return err_set(e, ERR_MEMORY, "no memory for %zu names", m->file.n);
    int rc = check_names(m, e);
    for (size_t i = 0; i < m->file.n && !rc; i++) {
        const char *name = m->file.entries[i].name;
        const struct json_value *v = json_get(json_root(m->names), name);
        m->our_names[i] = name;
        if (v && !json_as_string(v, &m->our_names[i])) m->our_names[i] = NULL;
        if (m->our_names[i] && strlen(m->our_names[i]) > CKPT_NAME_MAX)
            rc = err_set(e, ERR_DATA, "%s: the name '%.100s...' is longer than %d bytes", m->from->file,
                         m->our_names[i], CKPT_NAME_MAX);
    }
    return rc ? rc : check_doubles(m, e);
}

// ---- numbers

static float float_of_bits(uint32_t bits) {
    float out;
    memcpy(&out, &bits, sizeof out);
    return out;
}

// IEEE 754 binary16: subnormals are multiples of 2^-24.
static float float_of_half(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    if (exponent == 31) return float_of_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent) return float_of_bits(sign | (exponent + 112) << 23 | fraction << 13);
    float small = (float)fraction * 0x1p-24f;
    return sign ? -small : small;
}

static bool is_known(const char *dtype) {
    static const char *const known[] = {"F64", "F32", "F16", "BF16"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(dtype, known[i])) return true;
    return false;
}

// Of a known type.
static int element_bytes(const char *dtype) {
    if (!strcmp(dtype, "F64")) return 8;
    if (!strcmp(dtype, "F32")) return 4;
    return 2;
}

static void convert(const char *dtype, const unsigned char *from, int64_t n, float *to) {
    for (int64_t i = 0; i < n; i++) {
        if (!strcmp(dtype, "F32")) {
            to[i] = float_of_bits(bytes_le32(from + 4 * i));
        } else if (!strcmp(dtype, "F16")) {
            to[i] = float_of_half(bytes_le16(from + 2 * i));
        } else if (!strcmp(dtype, "BF16")) {
            to[i] = float_of_bits((uint32_t)bytes_le16(from + 2 * i) << 16);
        } else {
            double wide;
            uint64_t bits = bytes_le64(from + 8 * i);
            memcpy(&wide, &bits, sizeof wide);
            to[i] = (float)wide;
        }
    }
}

static int check_entry(const struct import *m, const struct safetensors_entry *t, struct err *e) {
    if (!is_known(t->dtype))
        return err_set(e, ERR_DATA, "%s: tensor '%.200s' is %s; only F32, F16, BF16 and F64 can be imported",
                       m->from->file, t->name, t->dtype);
    if (t->rank > CKPT_DIMS || t->begin == t->end)
        return err_set(e, ERR_DATA, "%s: tensor '%.200s' is empty, or has more than %d dimensions",
                       m->from->file, t->name, CKPT_DIMS);
    return 0;
}

static int read_tensor(const struct import *m, const struct safetensors_entry *t, float *to, struct err *e) {
    int64_t size = element_bytes(t->dtype), slab = SLAB_BYTES;
    unsigned char *raw = malloc((size_t)slab);
    int rc = raw ? 0 : err_set(e, ERR_MEMORY, "no memory to import");
    for (int64_t at = t->begin; at < t->end && !rc; at += slab) {
        int64_t n = t->end - at < slab ? t->end - at : slab;
        rc = read_at(m, m->data_begin + at, n, raw, e);
        if (!rc) convert(t->dtype, raw, n / size, to + (at - t->begin) / size);
    }
    free(raw);
    return rc;
}

// ---- parts: a file of the checkpoint for every 256 MiB

struct part {
    struct ckpt_tensor *tensors;
    size_t n;
    int64_t elems;
};

static void part_fini(struct part *p) {
    for (size_t i = 0; i < p->n; i++) free((void *)(uintptr_t)p->tensors[i].data);
    p->n = 0;
    p->elems = 0;
}

static int part_add(const struct import *m, struct part *p, size_t i, struct err *e) {
    const struct safetensors_entry *t = &m->file.entries[i];
    int rc = check_entry(m, t, e);
    if (rc) return rc;
    int64_t elems = (t->end - t->begin) / element_bytes(t->dtype);
    float *data = malloc((size_t)elems * sizeof *data);
    if (!data) return err_set(e, ERR_MEMORY, "no memory for tensor '%.200s'", t->name);
    struct ckpt_tensor *out = &p->tensors[p->n++];
    *out = (struct ckpt_tensor){.name = m->our_names[i], .rank = t->rank, .data = data};
    for (int d = 0; d < t->rank; d++) out->shape[d] = out->extent[d] = t->shape[d];
    p->elems += elems;
    return read_tensor(m, t, data, e);
}

static int part_send(struct import *m, struct store *to, const char *id, struct part *p, struct err *e) {
    if (!p->n) return 0;
    if (m->n_parts == m->cap_parts) {
        size_t want = m->cap_parts ? 2 * m->cap_parts : 16;
        struct buf *grown = want <= PARTS_MAX ? realloc(m->parts, want * sizeof *grown) : NULL;
        if (!grown) return err_set(e, ERR_MEMORY, "no memory for %zu parts", want);
        m->parts = grown;
        m->cap_parts = want;
    }
    struct buf *json = &m->parts[m->n_parts];
    buf_init(json, PART_BYTES_MAX);
    int rc = ckpt_write_part(to, id, (int)m->n_parts++, p->tensors, p->n, json, e);
    m->n_tensors += p->n;
    part_fini(p);
    return rc;
}

static int send_all(struct import *m, struct store *to, const char *id, struct err *e) {
    struct part p = {.tensors = calloc(m->file.n + 1, sizeof *p.tensors)};
    int rc = p.tensors ? 0 : err_set(e, ERR_MEMORY, "no memory for %zu tensors", m->file.n);
    for (size_t i = 0; i < m->file.n && !rc; i++) {
        if (!m->our_names[i]) continue;
        rc = part_add(m, &p, i, e);
        if (!rc && p.elems * 4 >= PART_DATA) rc = part_send(m, to, id, &p, e);
    }
    if (!rc) rc = part_send(m, to, id, &p, e);
    part_fini(&p);
    free(p.tensors);
    return rc;
}

static int fill_state(const struct ckpt_import *from, struct ckpt_state *state, struct err *e) {
    const struct config *c = config_values(from->config);
    struct buf yaml;
    buf_init(&yaml, sizeof state->config_yaml - 1);
    state->step = from->step;
    state->next_sample = from->step * c->train_batch;
    state->seed = (uint64_t)c->run_seed;
    state->config_hash = config_hash(c);
    memset(state->sample_sha256, '0', 64);
    int rc = config_write_values(from->config, &yaml, e);
    if (!rc) memcpy(state->config_yaml, yaml.data, yaml.len);
    buf_fini(&yaml);
    return rc;
}

static int commit(const struct import *m, struct store *to, const char *id, struct err *e) {
    const char **parts = calloc(m->n_parts + 1, sizeof *parts);
    struct ckpt_state *state = calloc(1, sizeof *state);
    int rc = parts && state ? fill_state(m->from, state, e) : err_set(e, ERR_MEMORY, "no memory to import");
    for (size_t i = 0; i < m->n_parts && !rc; i++) parts[i] = m->parts[i].data;
    if (!rc) rc = ckpt_commit(to, id, state, parts, m->n_parts, e);
    free(parts);
    free(state);
    return rc;
}

int ckpt_import(struct store *to, const struct ckpt_import *from, size_t *tensors, struct err *e) {
    struct import m = {.from = from};
    char id[CKPT_ID_BYTES];
    ckpt_new_id(id, from->step, 0);
    int rc = store_place_open(&m.place, from->file, false, from->options, e);
    if (!rc) rc = read_header(&m, e);
    if (!rc) rc = read_names(&m, e);
    if (!rc) rc = map_names(&m, e);
    if (!rc) rc = send_all(&m, to, id, e);
    if (!rc) rc = commit(&m, to, id, e);
    *tensors = m.n_tensors;
    for (size_t i = 0; i < m.n_parts; i++) buf_fini(&m.parts[i]);
    free(m.parts);
    free(m.our_names);
    json_destroy(m.names);
    safetensors_fini(&m.file);
    store_place_close(&m.place);
    return rc;
}
