// SPDX-License-Identifier: Apache-2.0
// A checkpoint's manifest as JSON. The document ends with the CRC32C of all that stands before it, so that a
// flipped bit in the manifest itself is found too.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "storage/ckpt_cut.h"
#include "storage/ckpt_manifest.h"
#include "storage/hash.h"

#define FORMAT     "orrery-checkpoint"
#define TAIL       ",\"manifest_crc32c\":\"%08" PRIx32 "\"}\n"
#define TAIL_BYTES 31
#define VERSION    2 // 1: without "ways"
#define BYTES_MAX  ((int64_t)1 << 56)

// ---- writing

static void put_sizes(struct json_writer *w, const char *key, const int64_t *sizes, int n) {
    json_put_array(w, key);
    for (int i = 0; i < n; i++) json_put_int(w, NULL, sizes[i]);
    json_close(w, ']');
}

static int put_crcs(struct json_writer *w, const struct ckpt_box *b, struct err *e) {
    char *hex = malloc(8 * b->n_crcs + 1);
    if (!hex) return err_set(e, ERR_MEMORY, "no memory for a manifest");
    for (size_t i = 0; i < b->n_crcs; i++) snprintf(hex + 8 * i, 9, "%08" PRIx32, b->crcs[i]);
    json_put_stringn(w, "crc32c", hex, 8 * b->n_crcs);
    free(hex);
    return 0;
}

static int put_box(struct json_writer *w, const struct ckpt_box *b, struct err *e) {
    json_put_object(w, NULL);
    json_put_int(w, "file", (int64_t)b->file);
    put_sizes(w, "offset", b->offset, b->rank);
    put_sizes(w, "extent", b->extent, b->rank);
    json_put_int(w, "begin", b->begin);
    json_put_int(w, "chunk", b->chunk);
    json_put_int(w, "ways", b->ways);
    int rc = put_crcs(w, b, e);
    json_close(w, '}');
    return rc;
}

static void put_files(struct json_writer *w, const struct ckpt_manifest *m) {
    char hex[16];
    json_put_array(w, "files");
    for (size_t i = 0; i < m->n_files; i++) {
        const struct ckpt_file *f = &m->files[i];
        json_put_object(w, NULL);
        json_put_string(w, "name", f->name);
        json_put_int(w, "bytes", f->bytes);
        json_put_int(w, "data_begin", f->data_begin);
        snprintf(hex, sizeof hex, "%08" PRIx32, f->header_crc32c);
        json_put_string(w, "header_crc32c", hex);
        json_close(w, '}');
    }
    json_close(w, ']');
}

// Successive boxes of one name are one tensor.
static int put_tensors(struct json_writer *w, const struct ckpt_manifest *m, struct err *e) {
    int rc = 0;
    json_put_array(w, "tensors");
    for (size_t i = 0; i < m->n_boxes && !rc;) {
        const struct ckpt_box *first = &m->boxes[i];
        json_put_object(w, NULL);
        json_put_string(w, "name", first->name);
        json_put_string(w, "dtype", "F32");
        put_sizes(w, "shape", first->shape, first->rank);
        json_put_array(w, "boxes");
        for (; i < m->n_boxes && !strcmp(m->boxes[i].name, first->name) && !rc; i++)
            rc = put_box(w, &m->boxes[i], e);
        json_close(w, ']');
        json_close(w, '}');
    }
    json_close(w, ']');
    return rc;
}

static void put_head(struct json_writer *w, const struct ckpt_manifest *m) {
    json_put_object(w, NULL);
    json_put_string(w, "format", FORMAT);
    json_put_int(w, "version", VERSION);
    json_put_string(w, "id", m->id);
}

static void put_state(struct json_writer *w, const struct ckpt_manifest *m) {
    char text[32];
    json_put_int(w, "step", m->state.step);
    json_put_int(w, "next_sample", m->state.next_sample);
    snprintf(text, sizeof text, "%" PRIu64,
             m->state.seed); // as text: JSON's numbers end at 2^53 for many readers
    json_put_string(w, "seed", text);
    snprintf(text, sizeof text, "%016" PRIx64, m->state.config_hash);
    json_put_string(w, "config_hash", text);
    json_put_string(w, "sample_sha256", m->state.sample_sha256);
    json_put_int(w, "bytes", m->bytes);
    json_put_string(w, "config_yaml", m->state.config_yaml);
}

int ckpt_manifest_write_part(const struct ckpt_manifest *m, struct buf *out, struct err *e) {
    struct json_writer w;
    json_begin(&w, out);
    put_head(&w, m);
    put_files(&w, m);
    int rc = put_tensors(&w, m, e);
    json_close(&w, '}');
    int ended = json_end(&w, e);
    return rc ? rc : ended;
}

int ckpt_manifest_write(const struct ckpt_manifest *m, struct buf *out, struct err *e) {
    struct json_writer w;
    json_begin(&w, out);
    put_head(&w, m);
    put_state(&w, m);
    put_files(&w, m);
    int rc = put_tensors(&w, m, e);
    json_close(&w, '}');
    int ended = json_end(&w, e);
    if (rc || ended) return rc ? rc : ended;
    out->len--; // the tail brings the bracket again
    return buf_appendf(out, e, TAIL, hash_crc32c(0, out->data, out->len));
}

// ---- reading

struct reading {
    struct ckpt_manifest *m;
    const struct json *doc;
    const char *what;
    size_t first_file; // of this document among m's files
    size_t n_files;
};

static bool read_hex(const char *text, size_t n, uint64_t *out) {
    char digits[17];
    if (n > 16) return false;
    memcpy(digits, text, n);
    digits[n] = 0;
    if (strspn(digits, "0123456789abcdef") != n) return false;
    *out = strtoull(digits, NULL, 16);
    return true;
}

static int read_file(struct reading *r, const struct json_value *v, struct err *e) {
    struct ckpt_file f = {.bytes = 0};
    const char *name, *hex;
    uint64_t crc;
    int rc = json_need_string(r->doc, v, "name", &name, e);
    if (!rc) rc = json_need_int(r->doc, v, "bytes", 8, BYTES_MAX, &f.bytes, e);
    if (!rc)
        rc = json_need_int(r->doc, v, "data_begin", 8, (int64_t)SAFETENSORS_HEADER_MAX, &f.data_begin, e);
    if (!rc) rc = json_need_string(r->doc, v, "header_crc32c", &hex, e);
    if (rc) return rc;
    size_t n = strlen(name);
    if (n >= sizeof f.name || strncmp(name, CKPT_FILE_PREFIX, strlen(CKPT_FILE_PREFIX)) || strchr(name, '/'))
        return err_set(e, ERR_DATA, "%s: '%.100s' is no name of a checkpoint's file", r->what, name);
    if (strlen(hex) != 8 || !read_hex(hex, 8, &crc) || f.data_begin > f.bytes)
        return err_set(e, ERR_DATA, "%s: file %s: bad 'header_crc32c' or 'data_begin'", r->what, name);
    memcpy(f.name, name, n + 1);
    f.header_crc32c = (uint32_t)crc;
    return ckpt_manifest_add_file(r->m, &f, e);
}

static int read_files(struct reading *r, const struct json_value *root, struct err *e) {
    const struct json_value *files = json_get(root, "files");
    if (!json_is_array(files)) return err_set(e, ERR_DATA, "%s: 'files' is no array", r->what);
    r->first_file = r->m->n_files;
    r->n_files = json_size(files);
    int rc = 0;
    for (size_t i = 0; i < r->n_files && !rc; i++) rc = read_file(r, json_at(files, i), e);
    return rc;
}

static bool read_sizes(const struct json_value *v, int64_t lo, int64_t *out, int *n) {
    size_t count = json_size(v);
    if (!json_is_array(v) || count > CKPT_DIMS) return false;
    for (size_t i = 0; i < count; i++)
        if (!json_as_int(json_at(v, i), &out[i]) || out[i] < lo || out[i] > BYTES_MAX) return false;
    *n = (int)count;
    return true;
}

// The box and how it is cut are known: as many CRCs as chunks.
static int read_crcs(struct reading *r, const struct json_value *v, struct ckpt_box *b, struct err *e) {
    const char *hex;
    size_t want = ckpt_cut_chunks(b, NULL);
    if (!json_as_string(json_get(v, "crc32c"), &hex) || strlen(hex) != 8 * want)
        return err_set(e, ERR_DATA, "%s: tensor '%s': 'crc32c' does not hold %zu CRCs", r->what, b->name,
                       want);
    b->crcs = calloc(want, sizeof *b->crcs);
    if (!b->crcs) return err_set(e, ERR_MEMORY, "no memory for %zu CRCs", want);
    b->n_crcs = want;
    for (size_t i = 0; i < want; i++) {
        uint64_t crc;
        if (!read_hex(hex + 8 * i, 8, &crc))
            return err_set(e, ERR_DATA, "%s: tensor '%s': CRC %zu is no CRC", r->what, b->name, i);
        b->crcs[i] = (uint32_t)crc;
    }
    return 0;
}

static int read_place(struct reading *r, const struct json_value *v, struct ckpt_box *b, struct err *e) {
    int64_t file, elems, ways = 0;
    int n_offset, n_extent;
    int rc = json_need_int(r->doc, v, "file", 0, (int64_t)r->n_files - 1, &file, e);
    if (!rc) rc = json_need_int(r->doc, v, "begin", 0, BYTES_MAX, &b->begin, e);
    if (!rc) rc = json_need_int(r->doc, v, "chunk", CKPT_CHUNK_MIN, CKPT_CHUNK_MAX, &b->chunk, e);
    if (!rc && json_get(v, "ways")) rc = json_need_int(r->doc, v, "ways", 0, CKPT_WAYS, &ways, e);
    if (rc) return rc;
    bool ok = read_sizes(json_get(v, "offset"), 0, b->offset, &n_offset) && n_offset == b->rank &&
              read_sizes(json_get(v, "extent"), 1, b->extent, &n_extent) && n_extent == b->rank &&
              ckpt_volume(b->extent, b->rank, &elems);
    for (int i = 0; ok && i < b->rank; i++)
        ok = b->offset[i] <= b->shape[i] && b->extent[i] <= b->shape[i] - b->offset[i];
    if (!ok)
        return err_set(e, ERR_DATA, "%s: tensor '%s': 'offset' and 'extent' are no box inside its shape",
                       r->what, b->name);
    b->file = r->first_file + (size_t)file;
    b->bytes = elems * 4;
    b->ways = (int)ways;
    return 0;
}

static int read_tensor(struct reading *r, const struct json_value *v, struct err *e) {
    struct ckpt_box b = {.rank = 0};
    const char *name, *dtype;
    const struct json_value *boxes = json_get(v, "boxes");
    int rc = json_need_string(r->doc, v, "name", &name, e);
    if (!rc) rc = json_need_string(r->doc, v, "dtype", &dtype, e);
    if (rc) return rc;
    if (!*name || strlen(name) > CKPT_NAME_MAX || strcmp(dtype, "F32") ||
        !read_sizes(json_get(v, "shape"), 1, b.shape, &b.rank) || !json_is_array(boxes))
        return err_set(e, ERR_DATA, "%s: tensor '%.200s': bad name, 'dtype', 'shape' or 'boxes'", r->what,
                       name);
    b.name = (char *)(uintptr_t)name; // borrowed: add_box copies it
    for (size_t i = 0; i < json_size(boxes) && !rc; i++) {
        b.crcs = NULL;
        rc = read_place(r, json_at(boxes, i), &b, e);
        if (!rc) rc = read_crcs(r, json_at(boxes, i), &b, e);
        if (!rc) rc = ckpt_manifest_add_box(r->m, &b, e);
        free(b.crcs);
    }
    return rc;
}

static int read_tensors(struct reading *r, const struct json_value *root, struct err *e) {
    const struct json_value *tensors = json_get(root, "tensors");
    if (!json_is_array(tensors)) return err_set(e, ERR_DATA, "%s: 'tensors' is no array", r->what);
    int rc = 0;
    for (size_t i = 0, n = json_size(tensors); i < n && !rc; i++) rc = read_tensor(r, json_at(tensors, i), e);
    return rc;
}

static int read_head(struct reading *r, char id[CKPT_ID_BYTES], struct err *e) {
    const struct json_value *root = json_root(r->doc);
    const char *text;
    int64_t version, step;
    int rc = json_need_string(r->doc, root, "format", &text, e);
    if (!rc && strcmp(text, FORMAT))
        rc = err_set(e, ERR_DATA, "%s: its format is '%.60s', not %s", r->what, text, FORMAT);
    if (!rc) rc = json_need_int(r->doc, root, "version", 1, INT64_MAX, &version, e);
    if (!rc && version > VERSION)
        rc = err_set(e, ERR_DATA, "%s: version %" PRId64 " is newer than this program reads (%d)", r->what,
                     version, VERSION);
    if (!rc) rc = json_need_string(r->doc, root, "id", &text, e);
    if (rc) return rc;
    if (!ckpt_parse_id(text, &step, id) || !*id)
        return err_set(e, ERR_DATA, "%s: '%.60s' is no save id", r->what, text);
    return 0;
}

static int read_text(struct reading *r, const char *key, char *out, size_t cap, struct err *e) {
    const char *text;
    int rc = json_need_string(r->doc, json_root(r->doc), key, &text, e);
    if (rc) return rc;
    if (strlen(text) >= cap)
        return err_set(e, ERR_DATA, "%s: '%s' has %zu bytes, at most %zu are allowed", r->what, key,
                       strlen(text), cap - 1);
    memcpy(out, text, strlen(text) + 1);
    return 0;
}

static int read_state(struct reading *r, struct err *e) {
    struct ckpt_state *s = &r->m->state;
    const struct json_value *root = json_root(r->doc);
    char seed[24] = "", hash[17] = "", ignored[CKPT_ID_BYTES];
    int64_t id_step;
    int rc = json_need_int(r->doc, root, "step", 0, (int64_t)999999999999, &s->step, e);
    if (!rc) rc = json_need_int(r->doc, root, "next_sample", 0, INT64_MAX, &s->next_sample, e);
    if (!rc) rc = read_text(r, "seed", seed, sizeof seed, e);
    if (!rc) rc = read_text(r, "config_hash", hash, sizeof hash, e);
    if (!rc) rc = read_text(r, "sample_sha256", s->sample_sha256, sizeof s->sample_sha256, e);
    if (!rc) rc = read_text(r, "config_yaml", s->config_yaml, sizeof s->config_yaml, e);
    if (rc) return rc;
    if (!*seed || strspn(seed, "0123456789") != strlen(seed) || strlen(hash) != 16 ||
        !read_hex(hash, 16, &s->config_hash))
        return err_set(e, ERR_DATA, "%s: bad 'seed' or 'config_hash'", r->what);
    s->seed = strtoull(seed, NULL, 10);
    if (!ckpt_parse_id(r->m->id, &id_step, ignored) || id_step != s->step)
        return err_set(e, ERR_DATA, "%s: step %" PRId64 " does not belong to save %s", r->what, s->step,
                       r->m->id);
    return 0;
}

int ckpt_manifest_add_part(struct ckpt_manifest *m, const char *json, const char *what, struct err *e) {
    struct json *doc = NULL;
    char id[CKPT_ID_BYTES];
    struct reading r = {.m = m, .what = what};
    int rc = json_parse(&doc, json, strlen(json), what, e);
    if (rc) return rc;
    r.doc = doc;
    rc = read_head(&r, id, e);
    if (!rc && strcmp(id, m->id))
        rc = err_set(e, ERR_DATA, "%s: belongs to save %s, not %s", what, id, m->id);
    if (!rc) rc = read_files(&r, json_root(doc), e);
    if (!rc) rc = read_tensors(&r, json_root(doc), e);
    json_destroy(doc);
    return rc;
}

static int check_tail(const char *json, size_t n, const char *what, struct err *e) {
    char want[TAIL_BYTES + 1] = "";
    if (n > TAIL_BYTES) snprintf(want, sizeof want, TAIL, hash_crc32c(0, json, n - TAIL_BYTES));
    if (n <= TAIL_BYTES || memcmp(json + n - TAIL_BYTES, want, TAIL_BYTES))
        return err_set(e, ERR_DATA,
                       "%s: the manifest's own CRC32C is missing or wrong: %zu bytes, damaged or cut", what,
                       n);
    return 0;
}

int ckpt_manifest_parse(struct ckpt_manifest *m, const char *json, size_t n, const char *what,
                        struct err *e) {
    struct json *doc = NULL;
    struct reading r = {.m = m, .what = what};
    int rc = check_tail(json, n, what, e);
    if (!rc) rc = json_parse(&doc, json, n, what, e);
    if (rc) return rc;
    r.doc = doc;
    rc = read_head(&r, m->id, e);
    if (!rc) rc = read_state(&r, e);
    if (!rc) rc = read_files(&r, json_root(doc), e);
    if (!rc) rc = read_tensors(&r, json_root(doc), e);
    if (!rc) rc = ckpt_manifest_seal(m, what, e);
    json_destroy(doc);
    return rc;
}

static int get_once(struct ckpt_manifest *m, struct store *s, const char *key, const char *what,
                    struct buf *text, struct err *e) {
    buf_clear(text);
    int rc = store_get(s, key, CKPT_MANIFEST_MAX, text, e);
    return rc ? rc : ckpt_manifest_parse(m, text->data, text->len, what, e);
}

int ckpt_manifest_get(struct ckpt_manifest *m, struct store *s, const char *key, const char *what,
                      struct buf *text, struct err *e) {
    int rc = get_once(m, s, key, what, text, e);
    for (int reads = 1; rc == -ERR_DATA && reads < STORE_READS_MAX; reads++) {
        err_clear(e);
        ckpt_manifest_fini(m);
        rc = get_once(m, s, key, what, text, e);
    }
    return rc;
}
