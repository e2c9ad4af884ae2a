// SPDX-License-Identifier: Apache-2.0
// Making a data set (indices and manifest of given tars) and checking one, byte by byte.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "storage/dataset_manifest.h"
#include "storage/hash.h"
#include "storage/tar.h"

#define PIECE_BYTES ((size_t)4 << 20) // of one GET while a shard is read front to back
#define KEY_BYTES   (TAR_NAME_MAX + 32)

// ---- one shard

int dataset_index_tar(const char *shard_key, const void *tar, size_t bytes, struct buf *out, struct err *e) {
    struct tar_memory memory = {tar, bytes};
    struct tar_source source = tar_memory_source(&memory, shard_key);
    struct dataset_index x;
    dataset_index_init(&x);
    int rc = dataset_index_scan(&x, &source, NULL, e);
    if (!rc) rc = dataset_index_write(&x, shard_key, out, e);
    dataset_index_fini(&x);
    return rc;
}

static bool ends_in(const char *text, const char *suffix) {
    size_t n = strlen(text), k = strlen(suffix);
    return n > k && !strcmp(text + n - k, suffix);
}

static int put_large(struct store *s, const char *key, const void *data, size_t bytes, struct err *e) {
    struct store_writer *w;
    int rc = store_writer_open(s, &w, key, e);
    if (rc) return rc;
    if ((rc = store_writer_write(w, data, bytes, e))) {
        store_writer_abort(w);
        return rc;
    }
    return store_writer_commit(w, e);
}

int dataset_put_shard(struct store *s, const char *key, const void *tar, size_t bytes, struct err *e) {
    char index_key[KEY_BYTES];
    struct buf index;
    if (!ends_in(key, ".tar") || tar_name_flaw(key, strlen(key)))
        return err_set(e, ERR_BUG, "'%.200s' is no key for a shard", key);
    snprintf(index_key, sizeof index_key, "%s%s", key, DATASET_INDEX_SUFFIX);
    buf_init(&index, DATASET_INDEX_MAX);
    int rc = dataset_index_tar(key, tar, bytes, &index, e);
    if (!rc) rc = put_large(s, key, tar, bytes, e);
    if (!rc) rc = store_put(s, index_key, index.data, index.len, false, e);
    buf_fini(&index);
    return rc;
}

// ---- reading a shard of a store front to back

struct remote {
    struct store *store;
    const char *key;
    char *data;
    int64_t first, bytes;
    size_t n;
};

static int remote_read(void *arg, int64_t offset, size_t n, void *into, struct err *e) {
    struct remote *r = arg;
    char *to = into;
    while (n) {
        if (offset >= r->first && offset < r->first + (int64_t)r->n) {
            size_t have = (size_t)(r->first + (int64_t)r->n - offset), piece = n < have ? n : have;
            memcpy(to, r->data + (offset - r->first), piece);
            to += piece;
            offset += (int64_t)piece;
            n -= piece;
            continue;
        }
        int64_t left = r->bytes - offset;
        size_t want = left < (int64_t)PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        int rc = store_get_range(r->store, r->key, offset, want, r->data, e);
        if (rc) return rc;
        r->first = offset;
        r->n = want;
    }
    return 0;
}

static int remote_open(struct remote *r, struct store *s, const char *key, int64_t bytes, struct err *e) {
    *r = (struct remote){.store = s, .key = key, .bytes = bytes, .data = malloc(PIECE_BYTES)};
    return r->data ? 0 : err_set(e, ERR_MEMORY, "no memory to read %s", key);
}

// ---- the manifest

static int add_index(struct dataset_manifest *m, struct store *s, const char *shard, struct err *e) {
    char key[KEY_BYTES];
    struct buf text;
    struct dataset_index x;
    dataset_index_init(&x);
    buf_init(&text, DATASET_INDEX_MAX);
    snprintf(key, sizeof key, "%s%s", shard, DATASET_INDEX_SUFFIX);
    int rc = dataset_get_agreed(s, key, DATASET_INDEX_MAX, &text, e);
    if (!rc) rc = dataset_index_parse(&x, text.data, text.len, shard, e);
    if (!rc) rc = dataset_manifest_add(m, shard, &x, text.data, text.len, e);
    buf_fini(&text);
    dataset_index_fini(&x);
    return rc;
}

static int add_listed(struct dataset_manifest *m, struct store *s, struct err *e) {
    struct store_listing all;
    char key[KEY_BYTES];
    int rc = store_list(s, "", NULL, &all, e);
    if (rc) return rc;
    for (size_t i = 0; i < all.n && !rc; i++) {
        const char *name = all.objects[i].key;
        if (!ends_in(name, ".tar" DATASET_INDEX_SUFFIX) || strlen(name) >= sizeof key) continue;
        snprintf(key, sizeof key, "%.*s", (int)(strlen(name) - strlen(DATASET_INDEX_SUFFIX)), name);
        rc = add_index(m, s, key, e);
    }
    store_listing_fini(&all);
    return rc;
}

int dataset_write_manifest(struct store *s, const char *const *keys, size_t n, struct err *e) {
    struct dataset_manifest m;
    struct buf text;
    int rc = 0;
    dataset_manifest_init(&m);
    buf_init(&text, DATASET_MANIFEST_MAX);
    if (!keys) rc = add_listed(&m, s, e);
    for (size_t i = 0; keys && i < n && !rc; i++) rc = add_index(&m, s, keys[i], e);
    if (!rc && !m.samples)
        rc = err_set(e, ERR_MISSING, "%s: no indexed shard to write a manifest of", store_url(s));
    if (!rc) rc = dataset_manifest_write(&m, &text, e);
    if (!rc) rc = store_put(s, DATASET_MANIFEST, text.data, text.len, false, e);
    buf_fini(&text);
    dataset_manifest_fini(&m);
    return rc;
}

// ---- indexing what others wrote

struct talk {
    dataset_report_fn *report;
    void *arg;
    const struct dataset_schema *schema;
};

static void say(const struct talk *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct talk *t, const char *fmt, ...) {
    char line[ERR_TEXT_BYTES + 64];
    va_list ap;
    if (!t->report) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    t->report(t->arg, line);
}

// Is there an index that can be read and fits the shard's size?
static bool has_index(struct store *s, const char *shard, int64_t bytes) {
    struct err ignored = {ERR_OK};
    struct buf text;
    struct dataset_index x;
    char key[KEY_BYTES];
    dataset_index_init(&x);
    buf_init(&text, DATASET_INDEX_MAX);
    snprintf(key, sizeof key, "%s%s", shard, DATASET_INDEX_SUFFIX);
    bool good = !store_get(s, key, DATASET_INDEX_MAX, &text, &ignored) &&
                !dataset_index_parse(&x, text.data, text.len, shard, &ignored) && x.bytes == bytes;
    buf_fini(&text);
    dataset_index_fini(&x);
    return good;
}

static int index_one(struct store *s, const struct store_object *o, const struct talk *t, struct err *e) {
    char key[KEY_BYTES];
    struct remote r;
    struct buf text;
    struct dataset_index x;
    snprintf(key, sizeof key, "%s%s", o->key, DATASET_INDEX_SUFFIX);
    dataset_index_init(&x);
    buf_init(&text, DATASET_INDEX_MAX);
    int rc = remote_open(&r, s, o->key, o->bytes, e);
    struct tar_source source = {remote_read, &r, o->bytes, o->key};
    if (!rc) rc = dataset_index_scan(&x, &source, t->schema, e);
    if (!rc) rc = dataset_index_write(&x, o->key, &text, e);
    if (!rc) rc = store_put(s, key, text.data, text.len, false, e);
    if (!rc) say(t, "indexed %s: %zu samples, %zu members", o->key, x.n_samples, x.n_members);
    free(r.data);
    buf_fini(&text);
    dataset_index_fini(&x);
    return rc;
}

static int index_listed(struct store *s, const struct store_listing *all, bool again, const struct talk *t,
                        const char **keys, size_t *n, struct err *e) {
    int rc = 0;
    for (size_t i = 0; i < all->n && !rc; i++) {
        const struct store_object *o = &all->objects[i];
        if (!ends_in(o->key, ".tar")) continue;
        const char *flaw = tar_name_flaw(o->key, strlen(o->key));
        if (flaw) return err_set(e, ERR_DATA, "%s: the key '%.200s' %s", store_url(s), o->key, flaw);
        keys[(*n)++] = o->key;
        if (!again && has_index(s, o->key, o->bytes))
            say(t, "kept    %s: has its index", o->key);
        else
            rc = index_one(s, o, t, e);
    }
    return rc;
}

int dataset_index_all(struct store *s, bool again, const struct dataset_schema *schema,
                      dataset_report_fn *report, void *arg, struct err *e) {
    struct store_listing all;
    struct talk t = {report, arg, schema};
    size_t n = 0;
    int rc = store_list(s, "", NULL, &all, e);
    if (rc) return rc;
    const char **keys = calloc(all.n + 1, sizeof *keys);
    if (!keys) rc = err_set(e, ERR_MEMORY, "no memory for %zu keys", all.n);
    if (!rc) rc = index_listed(s, &all, again, &t, keys, &n, e);
    if (!rc && !n) rc = err_set(e, ERR_MISSING, "%s: no object whose key ends in .tar", store_url(s));
    if (!rc) rc = dataset_write_manifest(s, keys, n, e);
    if (!rc) say(&t, "wrote   %s: %zu shards", DATASET_MANIFEST, n);
    free(keys);
    store_listing_fini(&all);
    return rc;
}

// ---- checking

struct checking {
    struct dataset *d;
    struct talk talk;
    struct dataset_check *sum;
    struct err *first;
};

static void problem(struct checking *c, const struct err *what) {
    c->sum->problems++;
    say(&c->talk, "%s", what->text);
    if (!c->first->code) *c->first = *what;
}

static int read_crc(struct remote *r, int64_t from, int64_t to, uint32_t *crc, uint32_t *whole,
                    struct err *e) {
    char piece[16384];
    *crc = 0;
    while (from < to) {
        size_t n = to - from < (int64_t)sizeof piece ? (size_t)(to - from) : sizeof piece;
        int rc = remote_read(r, from, n, piece, e);
        if (rc) return rc;
        *crc = hash_crc32c(*crc, piece, n);
        *whole = hash_crc32c(*whole, piece, n);
        from += (int64_t)n;
    }
    return 0;
}

static void check_member(struct checking *c, const struct dataset_index *x, const struct index_sample *s,
                         const struct index_member *m, const char *shard, uint32_t crc) {
    struct err e = {ERR_OK};
    if (crc == m->crc32c) return;
    int rc = err_set(&e, ERR_DATA,
                     "%s: member '%s.%s' at offset %" PRId64 ", %" PRId64 " bytes: CRC32C is %08" PRIx32
                     ", the index says %08" PRIx32,
                     shard, dataset_index_text(x, s->stem), dataset_index_text(x, m->name), m->offset,
                     m->bytes, crc, m->crc32c);
    if (rc) problem(c, &e);
}

// Walks the members in the order of the tar; headers and padding lie between them.
static int check_bytes(struct checking *c, const struct manifest_shard *shard, const struct dataset_index *x,
                       struct remote *r, struct err *e) {
    uint32_t crc, whole = 0;
    int64_t at = 0, before = c->sum->problems;
    int rc = 0;
    for (size_t i = 0; i < x->n_samples; i++) {
        const struct index_sample *s = &x->samples[i];
        for (uint32_t k = 0; k < s->n; k++) {
            const struct index_member *m = &x->members[s->first + k];
            if ((rc = read_crc(r, at, m->offset, &crc, &whole, e))) return rc;
            if ((rc = read_crc(r, m->offset, m->offset + m->bytes, &crc, &whole, e))) return rc;
            check_member(c, x, s, m, shard->key, crc);
            at = m->offset + m->bytes;
        }
        c->sum->samples++;
    }
    if ((rc = read_crc(r, at, x->bytes, &crc, &whole, e))) return rc;
    if (whole == shard->crc32c || c->sum->problems != before) return 0;
    return err_set(
        e, ERR_DATA,
        "%s: the members are whole, but a tar header or padding between them is damaged: CRC32C of the"
        " shard is %08" PRIx32 ", the manifest says %08" PRIx32,
        shard->key, whole, shard->crc32c);
}

static int check_shard(struct checking *c, size_t number, struct err *e) {
    const struct dataset_manifest *m = dataset_manifest_of(c->d);
    const struct manifest_shard *shard = &m->shards[number];
    struct store *s = dataset_store(c->d, number);
    struct store_result head;
    struct dataset_index x;
    struct remote r = {.data = NULL};
    dataset_index_init(&x);
    int rc = store_head(s, shard->key, &head, e);
    if (!rc && head.object_bytes != shard->bytes)
        rc = err_set(e, ERR_DATA, "%s: has %" PRId64 " bytes, the manifest says %" PRId64, shard->key,
                     head.object_bytes, shard->bytes);
    if (!rc) rc = dataset_load_index(s, m, number, &x, e);
    if (!rc) rc = remote_open(&r, s, shard->key, shard->bytes, e);
    if (!rc) rc = check_bytes(c, shard, &x, &r, e);
    if (!rc) c->sum->bytes += shard->bytes;
    free(r.data);
    dataset_index_fini(&x);
    return rc;
}

int dataset_check(struct dataset *d, dataset_report_fn *report, void *arg, struct dataset_check *out,
                  struct err *e) {
    struct err first = {ERR_OK};
    struct checking c = {d, {report, arg, NULL}, out, &first};
    memset(out, 0, sizeof *out);
    for (int64_t i = 0; i < dataset_shards(d); i++) {
        struct err one = {ERR_OK};
        if (check_shard(&c, (size_t)i, &one)) problem(&c, &one);
        out->shards++;
        if (one.code == ERR_UNAVAILABLE || one.code == ERR_TIMEOUT || one.code == ERR_DENIED) break;
    }
    if (!first.code) return 0;
    *e = first;
    return -(int)first.code;
}
