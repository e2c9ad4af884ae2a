// SPDX-License-Identifier: Apache-2.0
// An open checkpoint: reading, digest, verification, export.
#include "storage/ckpt.h"

#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/ckpt_fetch.h"
#include "storage/ckpt_manifest.h"
#include "storage/hash.h"

#define SLAB_BYTES ((int64_t)64 << 20) // of a tensor in memory while it is hashed or exported

struct ckpt {
    struct store *store, *nearby;
    bool *has; // of each file: does `nearby` have it?
    void (*heard)(void *arg);
    void *heard_arg;
    struct ckpt_manifest m;
    atomic_int_least64_t fetched;
};

int ckpt_open(struct ckpt **out, struct store *s, const char *id, struct err *e) {
    char key[CKPT_KEY_BYTES], full[CKPT_ID_BYTES], what[600];
    int64_t step;
    struct buf text;
    *out = NULL;
    if (!ckpt_parse_id(id, &step, full))
        return err_set(e, ERR_USAGE, "'%.60s' is no checkpoint's id or step", id);
    struct ckpt *c = calloc(1, sizeof *c);
    if (!c) return err_set(e, ERR_MEMORY, "no memory for a checkpoint");
    c->store = s;
    ckpt_manifest_init(&c->m);
    buf_init(&text, CKPT_MANIFEST_MAX);
    ckpt_manifest_key(step, key);
    snprintf(what, sizeof what, "%.450s/%s", store_url(s), key);
    int rc = ckpt_manifest_get(&c->m, s, key, what, &text, e);
    if (rc == -ERR_MISSING) {
        err_clear(e);
        rc = err_set(e, ERR_MISSING, "%s: no checkpoint of step %" PRId64, store_url(s), step);
    }
    if (!rc && c->m.state.step != step)
        rc = err_set(e, ERR_DATA, "%s: tells of step %" PRId64, what, c->m.state.step);
    if (!rc && *full && strcmp(full, c->m.id))
        rc = err_set(e, ERR_MISSING, "%s: step %" PRId64 " is there, but of save %s, not %s", store_url(s),
                     step, c->m.id, full);
    buf_fini(&text);
    if (rc) {
        ckpt_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void ckpt_close(struct ckpt *c) {
    if (!c) return;
    ckpt_manifest_fini(&c->m);
    free(c->has);
    free(c);
}

void ckpt_tell(struct ckpt *c, void (*heard)(void *arg), void *arg) {
    c->heard = heard;
    c->heard_arg = arg;
}

int ckpt_use_nearby(struct ckpt *c, struct store *nearby, size_t *files, struct err *e) {
    *files = 0;
    c->has = calloc(c->m.n_files + 1, sizeof *c->has);
    if (!c->has) return err_set(e, ERR_MEMORY, "no memory for %zu files", c->m.n_files);
    for (size_t i = 0; i < c->m.n_files; i++) {
        struct err missing = {ERR_OK};
        struct store_result head;
        char key[CKPT_KEY_BYTES];
        snprintf(key, sizeof key, "%s/%s", c->m.id, c->m.files[i].name);
        c->has[i] = !store_head(nearby, key, &head, &missing) && head.object_bytes == c->m.files[i].bytes;
        *files += c->has[i];
    }
    c->nearby = nearby;
    return 0;
}

const char *ckpt_id(const struct ckpt *c) {
    return c->m.id;
}

const struct ckpt_state *ckpt_state_of(const struct ckpt *c) {
    return &c->m.state;
}

int64_t ckpt_fetched(struct ckpt *c) {
    return atomic_load(&c->fetched);
}

size_t ckpt_tensors(const struct ckpt *c) {
    return c->m.n_tensors;
}

void ckpt_tensor_at(const struct ckpt *c, size_t i, struct ckpt_tensor *out) {
    const struct ckpt_box *b = &c->m.boxes[c->m.tensors[i].first];
    *out = (struct ckpt_tensor){.name = b->name, .rank = b->rank};
    memcpy(out->shape, b->shape, sizeof out->shape);
    memcpy(out->extent, b->shape, sizeof out->extent);
}

const char *ckpt_tensor_file(const struct ckpt *c, size_t i) {
    return c->m.files[c->m.boxes[c->m.tensors[i].first].file].name;
}

static bool same_box(const struct ckpt_box *x, const struct ckpt_box *y) {
    return x->rank == y->rank && x->bytes == y->bytes && x->chunk == y->chunk && x->n_crcs == y->n_crcs &&
           !memcmp(x->shape, y->shape, sizeof x->shape) && !memcmp(x->offset, y->offset, sizeof x->offset) &&
           !memcmp(x->extent, y->extent, sizeof x->extent) &&
           !memcmp(x->crcs, y->crcs, x->n_crcs * sizeof *x->crcs);
}

bool ckpt_tensor_same(const struct ckpt *a, size_t i, const struct ckpt *b, size_t k) {
    const struct ckpt_group *x = &a->m.tensors[i], *y = &b->m.tensors[k];
    if (x->n != y->n) return false;
    for (size_t j = 0; j < x->n; j++)
        if (!same_box(&a->m.boxes[x->first + j], &b->m.boxes[y->first + j])) return false;
    return true;
}

// ---- reading

static void describe(const int64_t *shape, int rank, char *out, size_t cap) {
    int n = snprintf(out, cap, "[");
    for (int i = 0; i < rank; i++)
        n += snprintf(out + n, cap - (size_t)n, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(out + n, cap - (size_t)n, "]");
}

static int check_want(const struct ckpt *c, const struct ckpt_tensor *w, struct err *e) {
    const struct ckpt_group *g = ckpt_manifest_find(&c->m, w->name);
    if (!g) return err_set(e, ERR_MISSING, "checkpoint %s has no tensor '%.200s'", c->m.id, w->name);
    const struct ckpt_box *b = &c->m.boxes[g->first];
    bool ok = w->rank == b->rank;
    for (int i = 0; ok && i < b->rank; i++) ok = w->shape[i] == b->shape[i];
    if (!ok) {
        char have[100], wanted[100];
        describe(b->shape, b->rank, have, sizeof have);
        describe(w->shape, w->rank < CKPT_DIMS ? w->rank : CKPT_DIMS, wanted, sizeof wanted);
        return err_set(e, ERR_DATA, "checkpoint %s: tensor '%s' has shape %s, wanted is %s", c->m.id, w->name,
                       have, wanted);
    }
    for (int i = 0; ok && i < b->rank; i++)
        ok = w->offset[i] >= 0 && w->extent[i] >= 1 && w->offset[i] <= w->shape[i] - w->extent[i];
    return ok ? 0 : err_set(e, ERR_BUG, "tensor '%s': a box outside of its shape is asked for", w->name);
}

int ckpt_read_many(struct ckpt *c, const struct ckpt_tensor *wants, void *const *into, size_t n,
                   struct err *e) {
    for (size_t i = 0; i < n; i++) {
        int rc = check_want(c, &wants[i], e);
        if (rc) return rc;
    }
    int64_t fetched = 0;
    const struct ckpt_sources from = {c->store, c->nearby, c->has, c->heard, c->heard_arg};
    int rc = ckpt_fetch(&from, &c->m, wants, into, n, &fetched, e);
    atomic_fetch_add(&c->fetched, fetched);
    return rc;
}

int ckpt_read(struct ckpt *c, const struct ckpt_tensor *want, void *into, struct err *e) {
    return ckpt_read_many(c, want, &into, 1, e);
}

// ---- whole tensors, slab by slab along their first dimension

static int each_slab(struct ckpt *c, const struct ckpt_tensor *t, ckpt_write_fn *write, void *arg,
                     struct err *e) {
    struct ckpt_tensor slab = *t;
    int64_t elems;
    int64_t rows = t->rank ? t->shape[0] : 1;
    if (!ckpt_volume(t->shape, t->rank, &elems) || rows < 1)
        return err_set(e, ERR_BUG, "tensor '%s': bad shape", t->name);
    int64_t row = elems / rows * 4, most = SLAB_BYTES / row;
    if (most < 1) most = 1;
    if (most > rows) most = rows;
    char *data = malloc((size_t)(most * row));
    if (!data)
        return err_set(e, ERR_MEMORY, "no memory for %" PRId64 " bytes of tensor '%s'", most * row, t->name);
    int rc = 0;
    for (int64_t at = 0; at < rows && !rc; at += most) {
        int64_t n = rows - at < most ? rows - at : most;
        if (t->rank) {
            slab.offset[0] = at;
            slab.extent[0] = n;
        }
        rc = ckpt_read(c, &slab, data, e);
        if (!rc) rc = write(arg, data, (size_t)(n * row), e);
    }
    free(data);
    return rc;
}

static int fold(void *arg, const void *data, size_t bytes, struct err *e) {
    (void)e;
    hash_sha256_update(arg, data, bytes);
    return 0;
}

// Name, dtype and shape as "NAME\0F32[2, 3]\0", then the bytes.
int ckpt_digest(struct ckpt *c, char out[65], struct err *e) {
    struct hash_sha256 *h = hash_sha256_create();
    unsigned char digest[32];
    int rc = h ? 0 : err_set(e, ERR_MEMORY, "no memory for a digest");
    for (size_t i = 0; i < c->m.n_tensors && !rc; i++) {
        struct ckpt_tensor t;
        char shape[110] = "F32";
        ckpt_tensor_at(c, i, &t);
        describe(t.shape, t.rank, shape + 3, sizeof shape - 3);
        hash_sha256_update(h, t.name, strlen(t.name) + 1);
        hash_sha256_update(h, shape, strlen(shape) + 1);
        rc = each_slab(c, &t, fold, h, e);
    }
    if (!rc) {
        hash_sha256_peek(h, digest);
        bytes_hex(digest, 32, out);
    }
    hash_sha256_destroy(h);
    return rc;
}

// ---- verifying

// The entry whose bytes start at `begin`; entries are sorted by it.
static const struct safetensors_entry *entry_at(const struct safetensors *st, int64_t begin) {
    size_t lo = 0, hi = st->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (st->entries[mid].begin < begin)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < st->n && st->entries[lo].begin == begin ? &st->entries[lo] : NULL;
}

static int check_header(const struct ckpt *c, size_t file, const char *header, const char *what,
                        struct err *e) {
    const struct ckpt_file *f = &c->m.files[file];
    struct safetensors st;
    int64_t bytes;
    int rc = safetensors_header_bytes((const unsigned char *)header, f->bytes, what, &bytes, e);
    if (rc) return rc;
    if (bytes != f->data_begin - 8)
        return err_set(e, ERR_DATA, "%s: its header ends at %" PRId64 ", the manifest says %" PRId64, what,
                       bytes + 8, f->data_begin);
    rc = safetensors_parse(&st, header + 8, (size_t)bytes, f->bytes - f->data_begin, what, e);
    if (rc) return rc;
    for (size_t i = 0; i < c->m.n_boxes && !rc; i++) {
        const struct ckpt_box *b = &c->m.boxes[i];
        char label[CKPT_LABEL_BYTES];
        if (b->file != file) continue;
        const struct safetensors_entry *t = entry_at(&st, b->begin);
        ckpt_box_label(b, label);
        if (!t || strcmp(t->name, label) || t->end != b->begin + b->bytes)
            rc = err_set(e, ERR_DATA, "%s: its header does not name tensor '%s' at byte %" PRId64, what,
                         label, b->begin);
    }
    safetensors_fini(&st);
    return rc;
}

static int verify_file(struct ckpt *c, size_t file, struct err *e) {
    const struct ckpt_file *f = &c->m.files[file];
    char key[CKPT_KEY_BYTES], what[700];
    struct store_result head;
    snprintf(key, sizeof key, "%s/%s", c->m.id, f->name);
    snprintf(what, sizeof what, "%.500s/%s", store_url(c->store), key);
    int rc = store_head(c->store, key, &head, e);
    if (rc) return rc;
    if (head.object_bytes != f->bytes)
        return err_set(e, ERR_DATA, "%s: has %" PRId64 " bytes, the manifest says %" PRId64, what,
                       head.object_bytes, f->bytes);
    char *header = malloc((size_t)f->data_begin);
    if (!header) return err_set(e, ERR_MEMORY, "no memory for a header of %" PRId64 " bytes", f->data_begin);
    rc = store_get_range(c->store, key, 0, (size_t)f->data_begin, header, e);
    uint32_t crc = rc ? 0 : hash_crc32c(0, header, (size_t)f->data_begin);
    if (!rc && crc != f->header_crc32c)
        rc = err_set(e, ERR_DATA,
                     "%s: bytes 0 .. %" PRId64 " (header): CRC32C is %08" PRIx32
                     ", the manifest says %08" PRIx32,
                     what, f->data_begin, crc, f->header_crc32c);
    if (!rc) rc = check_header(c, file, header, what, e);
    free(header);
    return rc;
}

int ckpt_verify(struct ckpt *c, int64_t *bytes, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < c->m.n_files && !rc; i++) rc = ckpt_fetch_flaw(&c->m, verify_file(c, i, e), e);
    for (size_t i = 0; i < c->m.n_tensors && !rc; i++) {
        struct ckpt_tensor t;
        ckpt_tensor_at(c, i, &t);
        int64_t fetched = 0;
        const struct ckpt_sources from = {.store = c->store}; // the lasting copy is what is asked about
        rc = ckpt_fetch(&from, &c->m, &t, NULL, 1, &fetched, e);
    }
    *bytes = rc ? 0 : c->m.bytes;
    return rc;
}

// ---- export

static bool begins(const char *name, const char *prefix) {
    return !strncmp(name, prefix, strlen(prefix));
}

static bool is_exported(const struct ckpt_tensor *t, const char *prefix, const char *without) {
    return (!prefix || begins(t->name, prefix)) && !(without && begins(t->name, without));
}

static int export_header(const struct ckpt *c, const char *prefix, const char *without, struct buf *out,
                         struct err *e) {
    struct safetensors_entry *entries = calloc(c->m.n_tensors + 1, sizeof *entries);
    const char *const metadata[][2] = {{"format", "pt"}, {"orrery_save", c->m.id}, {NULL, NULL}};
    int64_t at = 0, elems;
    size_t n = 0;
    int rc = entries ? 0 : err_set(e, ERR_MEMORY, "no memory for %zu tensors", c->m.n_tensors);
    for (size_t i = 0; i < c->m.n_tensors && !rc; i++) {
        struct ckpt_tensor t;
        ckpt_tensor_at(c, i, &t);
        if (!is_exported(&t, prefix, without) || !ckpt_volume(t.shape, t.rank, &elems)) continue;
        struct safetensors_entry *x = &entries[n++];
        *x = (struct safetensors_entry){.name = t.name, .dtype = "F32", .rank = t.rank, .begin = at};
        memcpy(x->shape, t.shape, sizeof t.shape);
        x->end = at += 4 * elems;
    }
    if (!rc && !n)
        rc = err_set(e, ERR_MISSING, "checkpoint %s has no tensor '%s...'", c->m.id, prefix ? prefix : "");
    if (!rc) rc = safetensors_write_header(out, entries, n, metadata, e);
    free(entries);
    return rc;
}

int ckpt_export_to(struct ckpt *c, const char *prefix, const char *without, ckpt_write_fn *write, void *arg,
                   struct err *e) {
    struct buf header;
    buf_init(&header, SAFETENSORS_HEADER_MAX);
    int rc = export_header(c, prefix, without, &header, e);
    if (!rc) rc = write(arg, header.data, header.len, e);
    for (size_t i = 0; i < c->m.n_tensors && !rc; i++) {
        struct ckpt_tensor t;
        ckpt_tensor_at(c, i, &t);
        if (is_exported(&t, prefix, without)) rc = each_slab(c, &t, write, arg, e);
    }
    buf_fini(&header);
    return rc;
}
