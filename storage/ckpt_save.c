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
#include "storage/ckpt_cut.h"
#include "storage/ckpt_manifest.h"
#include "storage/hash.h"

#define SLAB_BYTES ((int64_t)4 << 20)

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
               "safetensors data is little-endian, as host memory must be");

void ckpt_new_id(char out[CKPT_ID_BYTES], int64_t step, uint32_t owner) {
    uint64_t word;
    if (getrandom(&word, sizeof word, GRND_NONBLOCK) != (ssize_t)sizeof word)
        word = rng_mix64((uint64_t)clock_utc_ns() ^
                         rng_mix64((uint64_t)getpid() << 32 ^ (uint64_t)clock_monotonic_ns()));
    snprintf(out, CKPT_ID_BYTES, "%012" PRId64 "-%08" PRIx32 "%016" PRIx64, step, owner, word);
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

static int add_box(struct ckpt_manifest *m, const struct ckpt_tensor *t, int64_t chunk, int64_t column,
                   int64_t columns, struct err *e) {
    struct ckpt_box b = {.name = (char *)(uintptr_t)t->name,
                         .rank = t->rank,
                         .begin = m->bytes,
                         .chunk = chunk,
                         .ways = CKPT_WAYS};
    int64_t volume;
    for (int i = 0; i < t->rank; i++) {
        b.shape[i] = t->shape[i];
        b.offset[i] = t->offset[i];
        b.extent[i] = t->extent[i];
    }
    if (t->rank) {
        b.offset[t->rank - 1] = column;
        b.extent[t->rank - 1] = columns;
    }
    if (!ckpt_volume(b.extent, t->rank, &volume))
        return err_set(e, ERR_BUG, "tensor '%s': too large", t->name);
    b.bytes = volume * 4;
    return ckpt_manifest_add_box(m, &b, e);
}

// Where the panels of a tensor's box begin and end in its last dimension.
static size_t panel_places(const struct ckpt_tensor *t, int64_t bytes, int64_t places[CKPT_PLACES_MAX]) {
    int last = t->rank - 1, ways = t->rank > 1 && bytes >= CKPT_PANEL_MIN ? CKPT_WAYS : 0;
    places[0] = places[1] = 0;
    if (!t->rank) return 2;
    return ckpt_cut_places(t->shape[last], t->offset[last], t->offset[last] + t->extent[last], ways, places);
}

// The panels of one tensor's box, without CRCs yet.
static int add_panels(struct ckpt_manifest *m, const struct ckpt_tensor *t, struct err *e) {
    int64_t places[CKPT_PLACES_MAX], volume;
    int rc = check_tensor(t, e);
    if (rc) return rc;
    if (!ckpt_volume(t->extent, t->rank, &volume))
        return err_set(e, ERR_BUG, "tensor '%s': too large", t->name);
    size_t n = panel_places(t, volume * 4, places);
    for (size_t i = 1; i < n && !rc; i++)
        rc = add_box(m, t, ckpt_chunk_bytes(volume * 4), places[i - 1], places[i] - places[i - 1], e);
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

// One part on its way: bytes of boxes in order, their CRCs taken as they pass.
struct sending {
    struct store_writer *w;
    struct ckpt_box *box;
    size_t chunk;
    int64_t at; // in the box
};

static int pass(struct sending *s, const char *data, int64_t bytes, struct err *e) {
    for (int64_t done = 0; done < bytes;) {
        int64_t n = s->box->ends[s->chunk] - s->at;
        if (n > bytes - done) n = bytes - done;
        s->box->crcs[s->chunk] = hash_crc32c(s->box->crcs[s->chunk], data + done, (size_t)n);
        done += n;
        s->at += n;
        s->chunk += s->at == s->box->ends[s->chunk];
    }
    return store_writer_write(s->w, data, (size_t)bytes, e);
}

// The columns of a panel lie apart in memory: gathered slab by slab.
static int send_panel(struct sending *s, const struct ckpt_tensor *t, struct err *e) {
    int last = t->rank - 1;
    int64_t stride = 4 * t->extent[last], width = 4 * s->box->extent[last], rows = s->box->bytes / width;
    int64_t most = SLAB_BYTES / width < 1 ? 1 : SLAB_BYTES / width;
    const char *from = (const char *)t->data + 4 * (s->box->offset[last] - t->offset[last]);
    if (most > rows) most = rows;
    char *slab = malloc((size_t)(most * width));
    if (!slab) return err_set(e, ERR_MEMORY, "no memory for %" PRId64 " bytes to save", most * width);
    int rc = 0;
    for (int64_t row = 0; row < rows && !rc;) {
        int64_t n = rows - row < most ? rows - row : most;
        for (int64_t i = 0; i < n; i++) memcpy(slab + i * width, from + (row + i) * stride, (size_t)width);
        rc = pass(s, slab, n * width, e);
        row += n;
    }
    free(slab);
    return rc;
}

static int send_box(struct sending *s, const struct ckpt_tensor *t, struct err *e) {
    int last = t->rank - 1;
    s->chunk = 0;
    s->at = 0;
    if (t->rank && s->box->extent[last] != t->extent[last]) return send_panel(s, t, e);
    return pass(s, t->data, s->box->bytes, e);
}

// The boxes of m are the panels of the tensors, in their order.
static int send(struct store *s, const char *key, const struct buf *header, const struct ckpt_tensor *tensors,
                struct ckpt_manifest *m, struct err *e) {
    struct sending out = {.w = NULL};
    int rc = store_writer_open(s, &out.w, key, e);
    if (rc) return rc;
    rc = store_writer_write(out.w, header->data, header->len, e);
    for (size_t i = 0, t = 0; i < m->n_boxes && !rc; t++) {
        int64_t places[CKPT_PLACES_MAX], volume;
        size_t n = ckpt_volume(tensors[t].extent, tensors[t].rank, &volume)
                       ? panel_places(&tensors[t], volume * 4, places)
                       : 2;
        for (size_t k = 1; k < n && !rc; k++) {
            out.box = &m->boxes[i++];
            rc = send_box(&out, &tensors[t], e);
        }
    }
    if (!rc) return store_writer_commit(out.w, e);
    store_writer_abort(out.w);
    return rc;
}

static int write_file(struct store *s, struct ckpt_manifest *m, int writer, const struct ckpt_tensor *tensors,
                      size_t n, struct err *e) {
    struct ckpt_file file = {.bytes = 0};
    struct buf header;
    char key[CKPT_KEY_BYTES];
    int rc = 0;
    buf_init(&header, SAFETENSORS_HEADER_MAX);
    for (size_t i = 0; i < n && !rc; i++) rc = add_panels(m, &tensors[i], e);
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
    int rc = ckpt_manifest_get(&m, s, key, key, &theirs, &why);
    if (!rc && theirs.len == ours->len && !memcmp(theirs.data, ours->data, ours->len)) goto out;
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
    return rc ? err_prefix(e, "checkpoint %s", m->id) : 0;
}

// Of a save that has lost: nobody will ever name them. What cannot be deleted now goes with the next
// retention.
static void drop_files(struct store *s, const struct ckpt_manifest *m) {
    char key[CKPT_KEY_BYTES];
    for (size_t i = 0; i < m->n_files; i++) {
        struct err ignored = {ERR_OK};
        snprintf(key, sizeof key, "%s/%s", m->id, m->files[i].name);
        if (store_delete(s, key, &ignored)) err_clear(&ignored);
    }
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
    if (rc == -ERR_CONFLICT) drop_files(s, &m);
    ckpt_manifest_fini(&m);
    return rc;
}
