// SPDX-License-Identifier: Apache-2.0
// Making a data set: indices and manifest of given tars. Shards go by in a stream, several at a time: neither
// the listing nor more than SHARDS_AT_ONCE indices are ever held, and the manifest is written as it grows.
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "storage/dataset_manifest.h"
#include "storage/inorder.h"
#include "storage/shard_read.h"
#include "storage/tar.h"

#define KEY_BYTES   (TAR_NAME_MAX + 32)
#define FLUSH_BYTES ((size_t)1 << 20)

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

// ---- the manifest, as it grows

struct making {
    struct store *store;
    bool scan, again; // scan: tars without an index, too; again: all of them
    const struct dataset_schema *schema;
    dataset_report_fn *report;
    void *arg;
    struct inorder jobs;
    char last[KEY_BYTES]; // shard that was met last
    // What the manifest will say; of the shards the sums alone.
    struct dataset_manifest sums;
    struct store_writer *out;
    struct buf text; // not yet handed to `out`
    struct json_writer json;
    size_t written;
    size_t shards;
};

static void say(const struct making *m, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void say(const struct making *m, const char *fmt, ...) {
    char line[ERR_TEXT_BYTES + 64];
    va_list ap;
    if (!m->report) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    m->report(m->arg, line);
}

// Opened late: where there is nothing to write, a mistyped folder is not made.
static int flush(struct making *m, struct err *e) {
    m->written += m->text.len;
    if (m->written > DATASET_MANIFEST_MAX)
        return err_set(
            e, ERR_DATA,
            "%s: %zu shards are more than one data set can hold (a manifest of %zu MiB): make several, and "
            "name them in a list",
            store_url(m->store), m->shards, DATASET_MANIFEST_MAX >> 20);
    int rc = m->out ? 0 : store_writer_open(m->store, &m->out, DATASET_MANIFEST, e);
    if (!rc) rc = store_writer_write(m->out, m->text.data, m->text.len, e);
    buf_clear(&m->text);
    return rc;
}

static void begin_manifest(struct making *m) {
    dataset_manifest_init(&m->sums);
    buf_init(&m->text, DATASET_MANIFEST_MAX);
    json_begin(&m->json, &m->text);
    dataset_manifest_put_head(&m->json);
}

static int add_to_manifest(struct making *m, const char *key, const struct dataset_index *x,
                           const struct buf *text, struct err *e) {
    int rc = dataset_manifest_add(&m->sums, key, x, text->data, text->len, e);
    if (rc) return rc;
    dataset_manifest_put_shard(&m->json, &m->sums, 0);
    dataset_manifest_forget_shards(&m->sums);
    m->shards++;
    return m->text.len < FLUSH_BYTES ? 0 : flush(m, e);
}

static int end_manifest(struct making *m, int rc, struct err *e) {
    if (!rc && !m->sums.samples)
        rc = err_set(e, ERR_MISSING, "%s: no %s", store_url(m->store),
                     m->scan && !m->shards ? "object whose key ends in .tar"
                                           : "indexed shard to write a manifest of");
    if (!rc) rc = dataset_manifest_put_tail(&m->json, &m->sums, e);
    if (!rc) rc = flush(m, e);
    if (!rc)
        rc = store_writer_commit(m->out, e);
    else
        store_writer_abort(m->out);
    buf_fini(&m->text);
    dataset_manifest_fini(&m->sums);
    return rc;
}

// ---- one shard: its index is read, or made. Several at a time, finished in the order of their keys.

struct job {
    const struct making *m;
    char *key;
    int64_t bytes;
    bool made;
    struct dataset_index x;
    struct buf text; // of the index
    int rc;
    struct err err;
};

static void index_key(const struct job *j, char out[KEY_BYTES]) {
    snprintf(out, KEY_BYTES, "%s%s", j->key, DATASET_INDEX_SUFFIX);
}

static int read_index(struct job *j, struct err *e) {
    char key[KEY_BYTES];
    index_key(j, key);
    int rc = dataset_get_agreed(j->m->store, key, DATASET_INDEX_MAX, &j->text, e);
    return rc ? rc : dataset_index_parse(&j->x, j->text.data, j->text.len, j->key, e);
}

static int make_index(struct job *j, struct err *e) {
    char key[KEY_BYTES];
    struct shard_reader r;
    index_key(j, key);
    dataset_index_fini(&j->x); // of what was no index
    buf_clear(&j->text);
    int rc = shard_reader_open(&r, j->m->store, j->key, j->bytes, e);
    struct tar_source source = {shard_reader_read, &r, j->bytes, j->key};
    if (!rc) rc = dataset_index_scan(&j->x, &source, j->m->schema, e);
    if (!rc) rc = dataset_index_write(&j->x, j->key, &j->text, e);
    if (!rc) rc = store_put(j->m->store, key, j->text.data, j->text.len, false, e);
    shard_reader_close(&r);
    return rc;
}

static void work(void *arg) {
    struct job *j = arg;
    struct err ignored = {ERR_OK};
    const char *flaw = tar_name_flaw(j->key, strlen(j->key));
    if (flaw)
        j->rc = err_set(&j->err, ERR_DATA, "%s: the key '%.200s' %s", store_url(j->m->store), j->key, flaw);
    else if (!j->m->scan)
        j->rc = read_index(j, &j->err);
    else if (j->m->again || read_index(j, &ignored) || j->x.bytes != j->bytes) {
        j->made = true;
        j->rc = make_index(j, &j->err);
    }
}

static void say_made(const struct making *m, const struct job *j) {
    const struct dataset_index *x = &j->x;
    size_t without = 0;
    for (size_t i = 0; i < x->n_films; i++) without += !x->films[i].table.frames;
    if (without)
        say(m, "indexed %s: %zu samples, %zu members, %zu films (%zu without a table of frames)", j->key,
            x->n_samples, x->n_members, x->n_films, without);
    else if (x->n_films)
        say(m, "indexed %s: %zu samples, %zu members, %zu films", j->key, x->n_samples, x->n_members,
            x->n_films);
    else
        say(m, "indexed %s: %zu samples, %zu members", j->key, x->n_samples, x->n_members);
}

static int finish(void *arg, void *job, struct err *e) {
    struct making *m = arg;
    struct job *j = job;
    if (j->rc) {
        *e = j->err;
        return j->rc;
    }
    if (j->made)
        say_made(m, j);
    else if (m->scan)
        say(m, "kept    %s: has its index", j->key);
    return add_to_manifest(m, j->key, &j->x, &j->text, e);
}

static void drop(void *job) {
    struct job *j = job;
    dataset_index_fini(&j->x);
    buf_fini(&j->text);
    free(j->key);
    free(j);
}

static int give(struct making *m, const char *key, size_t n, int64_t bytes, struct err *e) {
    struct job *j = calloc(1, sizeof *j);
    char *copy = strndup(key, n);
    if (!j || !copy) {
        free(j);
        free(copy);
        return err_set(e, ERR_MEMORY, "no memory for a shard");
    }
    *j = (struct job){.m = m, .key = copy, .bytes = bytes};
    dataset_index_init(&j->x);
    buf_init(&j->text, DATASET_INDEX_MAX);
    return inorder_give(&m->jobs, j, e);
}

// ---- all of them

// Shards of a listing: tars when they are to be scanned, indices when not.
static int on_object(void *arg, const struct store_entry *o, struct err *e) {
    struct making *m = arg;
    size_t n = strlen(o->key);
    if (!ends_in(o->key, m->scan ? ".tar" : ".tar" DATASET_INDEX_SUFFIX) || (!m->scan && n >= KEY_BYTES))
        return 0;
    if (m->last[0] && strncmp(o->key, m->last, sizeof m->last - 1) <= 0)
        return err_set(e, ERR_DATA,
                       "%s lists '%.200s' behind '%.200s': a data set needs a store that lists in order",
                       store_url(m->store), o->key, m->last);
    snprintf(m->last, sizeof m->last, "%s", o->key);
    return give(m, o->key, m->scan ? n : n - strlen(DATASET_INDEX_SUFFIX), o->bytes, e);
}

static int make(struct making *m, const char *const *keys, size_t n, struct err *e) {
    m->jobs =
        (struct inorder){.width = SHARDS_AT_ONCE, .work = work, .finish = finish, .drop = drop, .arg = m};
    begin_manifest(m);
    int rc = keys ? 0 : store_each(m->store, "", NULL, on_object, m, e);
    for (size_t i = 0; keys && i < n && !rc; i++) rc = give(m, keys[i], strlen(keys[i]), 0, e);
    rc = inorder_end(&m->jobs, rc, e);
    return end_manifest(m, rc, e);
}

int dataset_write_manifest(struct store *s, const char *const *keys, size_t n, struct err *e) {
    struct making m = {.store = s};
    return make(&m, keys, n, e);
}

int dataset_index_all(struct store *s, bool again, const struct dataset_schema *schema,
                      dataset_report_fn *report, void *arg, struct err *e) {
    struct making m = {
        .store = s, .scan = true, .again = again, .schema = schema, .report = report, .arg = arg};
    int rc = make(&m, NULL, 0, e);
    if (!rc) say(&m, "wrote   %s: %zu shard%s", DATASET_MANIFEST, m.shards, m.shards == 1 ? "" : "s");
    return rc;
}
