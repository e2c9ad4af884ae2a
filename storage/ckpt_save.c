// SPDX-License-Identifier: Apache-2.0
// Saving: a part per writer, then the manifest, which alone makes the checkpoint exist.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/ckpt_manifest.h"
#include "storage/hash.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors data is little-endian, as host memory must be");

void ckpt_new_id(char out[CKPT_ID_BYTES], int64_t step) {
    uint64_t word;
    if (getrandom(&word, sizeof word, GRND_NONBLOCK) != (ssize_t)sizeof word)
        word = rng_mix64((uint64_t)clock_utc_ns() ^
                         rng_mix64((uint64_t)getpid() << 32 ^ (uint64_t)clock_monotonic_ns()));
    snprintf(out, CKPT_ID_BYTES, "%012" PRId64 "-%016" PRIx64, step, word);
}

// ---- a part

static int check_tensor(const struct ckpt_tensor *t, struct err *e) {
    int64_t volume;
    size_t n = strlen(t->name);
    if (!n || n > CKPT_NAME_MAX || !bytes_is_utf8(t->name, n) || t->rank < 0 || t->rank > CKPT_DIMS)
        return err_set(e, ERR_BUG, "tensor '%.100s' has a bad name or rank %d", t->name, t->rank);
    bool ok = t->data && ckpt_volume(t->shape, t->rank, &volume) && ckpt_volume(t->extent, t->rank, &volume);
    for (int i = 0; ok && i < t->rank; i++)
        ok = t->offset[i] >= 0 && t->offset[i] <= t->shape[i] && t->extent[i] <= t->shape[i] - t->offset[i];
    return ok ? 0
              : err_set(e, ERR_BUG, "tensor '%s': its box lies outside of its shape, or is empty", t->name);
}

static int add_box(struct ckpt_manifest *m, const struct ckpt_tensor *t, int64_t begin, struct err *e) {
    struct ckpt_box b = {.name = (char *)(uintptr_t)t->name, .rank = t->rank, .begin = begin};
    int64_t volume;
    int rc = check_tensor(t, e);
    if (rc) return rc;
    for (int i = 0; i < t->rank; i++) {
        b.shape[i] = t->shape[i];
        b.offset[i] = t->offset[i];
        b.extent[i] = t->extent[i];
    }
    if (!ckpt_volume(t->extent, t->rank, &volume))
        return err_set(e, ERR_BUG, "tensor '%s': too large", t->name);
    b.bytes = volume * 4;
    b.chunk = ckpt_chunk_bytes(b.bytes);
    b.n_crcs = (size_t)((b.bytes + b.chunk - 1) / b.chunk);
    b.crcs = calloc(b.n_crcs, sizeof *b.crcs);
    if (!b.crcs) return err_set(e, ERR_MEMORY, "no memory for %zu CRCs", b.n_crcs);
    for (size_t i = 0; i < b.n_crcs; i++) {
        int64_t at = (int64_t)i * b.chunk, left = b.bytes - at;
        b.crcs[i] = hash_crc32c(0, (const char *)t->data + at, (size_t)(left < b.chunk ? left : b.chunk));
    }
    rc = ckpt_manifest_add_box(m, &b, e);
    free(b.crcs);
    return rc;
}

static int write_header(const struct ckpt_manifest *m, struct buf *out, struct err *e) {
    char(*labels)[CKPT_LABEL_BYTES] = calloc(m->n_boxes + 1, sizeof *labels);
    struct safetensors_entry *entries = calloc(m->n_boxes + 1, sizeof *entries);
    const char *const metadata[][2] = {{"format", "pt"}, {"orrery_save", m->id}, {NULL, NULL}};
    int rc = labels && entries ? 0 : err_set(e, ERR_MEMORY, "no memory for %zu tensors", m->n_boxes);
    for (size_t i = 0; i < m->n_boxes && !rc; i++) {
        const struct ckpt_box *b = &m->boxes[i];
        struct safetensors_entry *t = &entries[i];
        ckpt_box_label(b, labels[i]);
        *t = (struct safetensors_entry){.name = labels[i], .dtype = "F32", .rank = b->rank};
        for (int d = 0; d < b->rank; d++) t->shape[d] = b->extent[d];
        t->begin = b->begin;
        t->end = b->begin + b->bytes;
    }
    if (!rc) rc = safetensors_write_header(out, entries, m->n_boxes, metadata, e);
    free(labels);
    free(entries);
    return rc;
}

static int send(struct store *s, const char *key, const struct buf *header, const struct ckpt_tensor *tensors,
                const struct ckpt_manifest *m, struct err *e) {
    struct store_writer *w;
    int rc = store_writer_open(s, &w, key, e);
    if (rc) return rc;
    rc = store_writer_write(w, header->data, header->len, e);
    for (size_t i = 0; i < m->n_boxes && !rc; i++)
        rc = store_writer_write(w, tensors[i].data, (size_t)m->boxes[i].bytes, e);
    if (!rc) return store_writer_commit(w, e);
    store_writer_abort(w);
    return rc;
}

static int write_file(struct store *s, struct ckpt_manifest *m, int writer, const struct ckpt_tensor *tensors,
                      size_t n, struct err *e) {
    struct ckpt_file file = {.bytes = 0};
    struct buf header;
    char key[CKPT_KEY_BYTES];
    int rc = 0;
    buf_init(&header, SAFETENSORS_HEADER_MAX);
    for (size_t i = 0; i < n && !rc; i++) rc = add_box(m, &tensors[i], m->bytes, e);
    if (!rc) rc = write_header(m, &header, e);
    if (rc) goto out;
    snprintf(file.name, sizeof file.name, CKPT_FILE_PREFIX "%d.safetensors", writer);
    snprintf(key, sizeof key, "%s/%s", m->id, file.name);
    file.data_begin = (int64_t)header.len;
    file.bytes = file.data_begin + m->bytes;
    file.header_crc32c = hash_crc32c(0, header.data, header.len);
    if ((rc = ckpt_manifest_add_file(m, &file, e))) goto out;
    rc = send(s, key, &header, tensors, m, e);
out:
    buf_fini(&header);
    return rc;
}

static int take_id(struct ckpt_manifest *m, const char *id, struct err *e) {
    int64_t step;
    if (!ckpt_parse_id(id, &step, m->id) || !m->id[0])
        return err_set(e, ERR_BUG, "'%.60s' is no save id", id);
    return 0;
}

int ckpt_write_part(struct store *s, const char *id, int writer, const struct ckpt_tensor *tensors, size_t n,
                    struct buf *part_json, struct err *e) {
    struct ckpt_manifest m;
    ckpt_manifest_init(&m);
    int rc = take_id(&m, id, e);
    if (!rc && n) rc = write_file(s, &m, writer, tensors, n, e);
    if (!rc) rc = ckpt_manifest_write_part(&m, part_json, e);
    ckpt_manifest_fini(&m);
    return rc ? err_prefix(e, "checkpoint %s, writer %d", id, writer) : 0;
}

// ---- the manifest

// Somebody has put a manifest for this step. Our own, by a request whose answer was lost? One that nobody can
// read is no checkpoint: *again says that it is gone and that ours may be put.
static int yield_or_claim(struct store *s, const char *key, const struct buf *ours, int64_t step, bool *again,
                          struct err *e) {
    struct buf theirs;
    struct ckpt_manifest m;
    struct err why = {ERR_OK};
    *again = false;
    buf_init(&theirs, CKPT_MANIFEST_MAX);
    ckpt_manifest_init(&m);
    int rc = store_get(s, key, CKPT_MANIFEST_MAX, &theirs, e);
    if (rc) goto out;
    if (theirs.len == ours->len && !memcmp(theirs.data, ours->data, ours->len)) goto out;
    rc = ckpt_manifest_parse(&m, theirs.data, theirs.len, key, &why);
    if (rc == -ERR_DATA) {
        *again = true;
        rc = store_delete(s, key, e);
    } else if (rc) {
        *e = why;
    } else {
        rc = err_set(e, ERR_CONFLICT, "%s/%s: step %" PRId64 " is already saved, by save %s", store_url(s),
                     key, step, m.id);
    }
out:
    ckpt_manifest_fini(&m);
    buf_fini(&theirs);
    return rc;
}

static int put_manifest(struct store *s, const struct ckpt_manifest *m, struct err *e) {
    struct buf text;
    char key[CKPT_KEY_BYTES];
    bool again = true;
    buf_init(&text, CKPT_MANIFEST_MAX);
    ckpt_manifest_key(m->state.step, key);
    int rc = ckpt_manifest_write(m, &text, e);
    for (int turn = 0; !rc && again; turn++) {
        again = false;
        rc = store_put(s, key, text.data, text.len, true, e);
        if (rc != -ERR_CONFLICT || turn) break;
        err_clear(e);
        rc = yield_or_claim(s, key, &text, m->state.step, &again, e);
    }
    buf_fini(&text);
    return rc;
}

int ckpt_commit(struct store *s, const char *id, const struct ckpt_state *state, const char *const *parts,
                size_t n, struct err *e) {
    struct ckpt_manifest m;
    char what[64], ignored[CKPT_ID_BYTES];
    int64_t step;
    ckpt_manifest_init(&m);
    int rc = take_id(&m, id, e);
    m.state = *state;
    if (!rc && (!ckpt_parse_id(id, &step, ignored) || step != state->step))
        rc = err_set(e, ERR_BUG, "save %s is committed with step %" PRId64, id, state->step);
    for (size_t i = 0; i < n && !rc; i++) {
        snprintf(what, sizeof what, "checkpoint %s, part %zu", id, i);
        rc = ckpt_manifest_add_part(&m, parts[i], what, e);
    }
    snprintf(what, sizeof what, "checkpoint %s", id);
    if (!rc) rc = ckpt_manifest_seal(&m, what, e);
    if (!rc) rc = put_manifest(s, &m, e);
    ckpt_manifest_fini(&m);
    return rc;
}
