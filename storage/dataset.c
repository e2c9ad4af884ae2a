// SPDX-License-Identifier: Apache-2.0
#include "storage/dataset.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/cache.h"
#include "storage/dataset_manifest.h"
#include "storage/hash.h"

#define CACHE_BYTES ((size_t)64 << 20) // of parsed indices

struct slot {
    struct dataset_index *index; // NULL: not here
    int users;
    bool loading;
    uint64_t used;
};

// One data set of a list, or the only one.
struct source {
    struct store *store;
    int64_t first, samples;
    double weight;
};

struct dataset {
    char *url;
    int n_sources;
    struct source sources[DATASET_SOURCES_MAX];
    struct cache *cache; // NULL: none
    struct dataset_manifest manifest;
    pthread_mutex_t lock; // guards what follows
    pthread_cond_t loaded;
    struct slot *slots; // one per shard
    uint64_t clock;
    size_t cached_bytes;
};

// ---- opening

int dataset_get_agreed(struct store *s, const char *key, size_t max_bytes, struct buf *out, struct err *e) {
    struct buf before;
    buf_init(&before, max_bytes);
    int rc = store_get(s, key, max_bytes, &before, e);
    for (int reads = 1; !rc; reads++) {
        buf_clear(out);
        rc = store_get(s, key, max_bytes, out, e);
        if (rc || (out->len == before.len && !memcmp(out->data, before.data, out->len))) break;
        if (reads == STORE_READS_MAX)
            rc = err_set(e, ERR_DATA, "%s: %s is read differently every time", store_url(s), key);
        buf_clear(&before);
        if (!rc) rc = buf_append(&before, out->data, out->len, e);
    }
    buf_fini(&before);
    return rc;
}

static int read_manifest_once(struct store *s, struct dataset_manifest *m, const char *what, struct err *e) {
    struct buf text;
    buf_init(&text, DATASET_MANIFEST_MAX);
    int rc = dataset_get_agreed(s, DATASET_MANIFEST, DATASET_MANIFEST_MAX, &text, e);
    if (rc == -ERR_MISSING) {
        err_clear(e);
        rc = err_set(e, ERR_MISSING, "%s does not exist: make it with 'orrery data index %s'", what,
                     store_url(s));
    }
    if (!rc) rc = dataset_manifest_parse(m, text.data, text.len, what, e);
    buf_fini(&text);
    return rc;
}

static int read_manifest(struct store *s, struct dataset_manifest *m, struct err *e) {
    char what[600];
    snprintf(what, sizeof what, "%.500s/%s", store_url(s), DATASET_MANIFEST);
    int rc = read_manifest_once(s, m, what, e);
    for (int reads = 1; rc == -ERR_DATA && reads < STORE_READS_MAX; reads++) {
        err_clear(e);
        dataset_manifest_fini(m);
        dataset_manifest_init(m);
        rc = read_manifest_once(s, m, what, e);
    }
    return rc;
}

static int add_source(struct dataset *d, const struct dataset_item *item, const struct store_options *options,
                      struct err *e) {
    struct dataset_manifest m;
    struct source *s = &d->sources[d->n_sources];
    if (!*item->url)
        return err_set(e, ERR_CONFIG, "a list of data sets has an empty place: '%.300s'", d->url);
    if (item->weighted && !(item->weight > 0 && item->weight <= 1e9))
        return err_set(e, ERR_CONFIG, "data set %s: its weight is %g; it must be above 0", item->url,
                       item->weight);
    *s = (struct source){.first = d->manifest.samples, .weight = item->weight};
    dataset_manifest_init(&m);
    int rc = store_open(&s->store, item->url, options, e);
    if (rc) return rc;
    rc = read_manifest(s->store, &m, e);
    if (!rc) rc = dataset_manifest_append(&d->manifest, &m, d->n_sources, item->url, e);
    s->samples = m.samples;
    d->n_sources++;
    dataset_manifest_fini(&m);
    return rc;
}

static int add_sources(struct dataset *d, const struct store_options *options, struct err *e) {
    struct dataset_item item = {.weighted = false};
    const char *at = d->url;
    int weighted = 0, rc = 0;
    if (!dataset_is_list(d->url)) {
        if (strlen(d->url) >= sizeof item.url)
            return err_set(e, ERR_CONFIG, "the URL of a data set is longer than %zu bytes",
                           sizeof item.url - 1);
        memcpy(item.url, d->url, strlen(d->url) + 1);
        return add_source(d, &item, options, e);
    }
    while (!rc && dataset_list_next(&at, &item)) {
        if (d->n_sources == DATASET_SOURCES_MAX)
            return err_set(e, ERR_CONFIG, "more than %d data sets in one list", DATASET_SOURCES_MAX);
        weighted += item.weighted;
        rc = add_source(d, &item, options, e);
    }
    if (!rc && weighted && weighted != d->n_sources)
        rc = err_set(e, ERR_CONFIG, "%d of %d data sets have a weight: give all of them one, or none",
                     weighted, d->n_sources);
    return rc;
}

int dataset_open(struct dataset **out, const char *url, const struct store_options *options, struct err *e) {
    struct dataset *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d) return err_set(e, ERR_MEMORY, "no memory for a data set");
    pthread_mutex_init(&d->lock, NULL);
    pthread_cond_init(&d->loaded, NULL);
    dataset_manifest_init(&d->manifest);
    d->url = strdup(url);
    int rc = d->url ? add_sources(d, options, e) : err_set(e, ERR_MEMORY, "no memory for a data set");
    if (!rc && !(d->slots = calloc(d->manifest.n_shards, sizeof *d->slots)))
        rc = err_set(e, ERR_MEMORY, "no memory for %zu shards", d->manifest.n_shards);
    if (rc) {
        dataset_close(d);
        return rc;
    }
    *out = d;
    return 0;
}

static void drop(struct slot *s) {
    if (!s->index) return;
    dataset_index_fini(s->index);
    free(s->index);
    s->index = NULL;
}

void dataset_close(struct dataset *d) {
    if (!d) return;
    for (size_t i = 0; d->slots && i < d->manifest.n_shards; i++) drop(&d->slots[i]);
    free(d->slots);
    dataset_manifest_fini(&d->manifest);
    cache_close(d->cache);
    for (int i = 0; i < DATASET_SOURCES_MAX; i++) store_close(d->sources[i].store);
    free(d->url);
    pthread_cond_destroy(&d->loaded);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

// ---- queries

const char *dataset_url(const struct dataset *d) {
    return d->n_sources == 1 ? store_url(d->sources[0].store) : d->url;
}
int64_t dataset_samples(const struct dataset *d) {
    return d->manifest.samples;
}
int64_t dataset_shards(const struct dataset *d) {
    return (int64_t)d->manifest.n_shards;
}
int64_t dataset_bytes(const struct dataset *d) {
    return d->manifest.bytes;
}
int64_t dataset_frames(const struct dataset *d) {
    return d->manifest.frames;
}

void dataset_sample(const struct dataset *d, int64_t i, struct dataset_sample *out) {
    size_t shard = dataset_manifest_shard(&d->manifest, i);
    out->shard = (int64_t)shard;
    out->row = i - d->manifest.shards[shard].first;
    out->frames = dataset_manifest_frames(&d->manifest, i);
}

int dataset_streams(const struct dataset *d, const struct stream_schema **out) {
    *out = d->manifest.streams;
    return d->manifest.n_streams;
}

void dataset_shard(const struct dataset *d, int64_t shard, struct dataset_shard *out) {
    const struct manifest_shard *s = &d->manifest.shards[shard];
    *out = (struct dataset_shard){s->key, s->bytes, s->first, s->samples, s->frames, s->crc32c};
}

double dataset_rate_hz(const struct dataset *d) {
    return d->manifest.rate_hz;
}

const char *dataset_shard_key(const struct dataset *d, int64_t shard) {
    return d->manifest.shards[shard].key;
}

struct store *dataset_store(struct dataset *d, size_t shard) {
    return d->sources[d->manifest.shards[shard].source].store;
}

int dataset_sources(const struct dataset *d) {
    return d->n_sources;
}

void dataset_source(const struct dataset *d, int i, int64_t *first, int64_t *samples, double *weight) {
    *first = d->sources[i].first;
    *samples = d->sources[i].samples;
    *weight = d->sources[i].weight;
}

void dataset_films(const struct dataset *d, struct film_sums *out) {
    *out = d->manifest.films;
}

const struct dataset_manifest *dataset_manifest_of(const struct dataset *d) {
    return &d->manifest;
}

// ---- indices

static int load_index_once(struct store *store, const struct dataset_manifest *m, size_t shard,
                           struct dataset_index *x, struct err *e) {
    const struct manifest_shard *s = &m->shards[shard];
    char key[TAR_NAME_MAX + 32];
    struct buf text;
    buf_init(&text, DATASET_INDEX_MAX);
    snprintf(key, sizeof key, "%s%s", s->key, DATASET_INDEX_SUFFIX);
    int rc = store_get(store, key, DATASET_INDEX_MAX, &text, e);
    if (rc) goto out;
    uint32_t crc = hash_crc32c(0, text.data, text.len);
    if ((int64_t)text.len != s->index_bytes || crc != s->index_crc32c) {
        rc = err_set(e, ERR_DATA,
                     "%s: %zu bytes with CRC32C %08" PRIx32 ", the manifest says %" PRId64 " with %08" PRIx32,
                     key, text.len, crc, s->index_bytes, s->index_crc32c);
        goto out;
    }
    if ((rc = dataset_index_parse(x, text.data, text.len, s->key, e))) goto out;
    rc = dataset_manifest_fits(m, shard, x, e);
out:
    buf_fini(&text);
    return rc;
}

int dataset_load_index(struct store *store, const struct dataset_manifest *m, size_t shard,
                       struct dataset_index *x, struct err *e) {
    int rc = load_index_once(store, m, shard, x, e);
    for (int reads = 1; rc == -ERR_DATA && reads < STORE_READS_MAX; reads++) {
        err_clear(e);
        dataset_index_fini(x);
        dataset_index_init(x);
        rc = load_index_once(store, m, shard, x, e);
    }
    return rc;
}

// The lock is held.
static void evict(struct dataset *d) {
    while (d->cached_bytes > CACHE_BYTES) {
        struct slot *oldest = NULL;
        for (size_t i = 0; i < d->manifest.n_shards; i++) {
            struct slot *s = &d->slots[i];
            if (s->index && !s->users && (!oldest || s->used < oldest->used)) oldest = s;
        }
        if (!oldest) return;
        d->cached_bytes -= dataset_index_memory(oldest->index);
        drop(oldest);
    }
}

static int load(struct dataset *d, size_t shard, struct dataset_index **out, struct err *e) {
    struct dataset_index *x = malloc(sizeof *x);
    if (!x) return err_set(e, ERR_MEMORY, "no memory for an index");
    dataset_index_init(x);
    int rc = dataset_load_index(dataset_store(d, shard), &d->manifest, shard, x, e);
    if (rc) {
        dataset_index_fini(x);
        free(x);
        return rc;
    }
    *out = x;
    return 0;
}

// Borrows the shard's index until give_back; one thread loads it, others wait for that.
static int borrow(struct dataset *d, size_t shard, const struct dataset_index **out, struct err *e) {
    struct slot *s = &d->slots[shard];
    struct dataset_index *fresh = NULL;
    int rc = 0;
    pthread_mutex_lock(&d->lock);
    while (s->loading) pthread_cond_wait(&d->loaded, &d->lock); // as long as the store's deadline at most
    if (!s->index) {
        s->loading = true;
        pthread_mutex_unlock(&d->lock);
        rc = load(d, shard, &fresh, e);
        pthread_mutex_lock(&d->lock);
        s->loading = false;
        pthread_cond_broadcast(&d->loaded);
        s->index = fresh;
        if (fresh) d->cached_bytes += dataset_index_memory(fresh);
    }
    if (!rc) {
        s->users++;
        s->used = ++d->clock;
        evict(d);
    }
    *out = s->index;
    pthread_mutex_unlock(&d->lock);
    return rc;
}

static void give_back(struct dataset *d, size_t shard) {
    pthread_mutex_lock(&d->lock);
    d->slots[shard].users--;
    pthread_mutex_unlock(&d->lock);
}

// ---- reading

// Copies a text to *at and moves *at behind it.
static const char *put_text(char **at, const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = memcpy(*at, text, n);
    *at += n;
    return copy;
}

static void lay_out(struct sample *out, const struct dataset_index *x, const struct index_sample *s,
                    int64_t lo, char *text) {
    out->stem = put_text(&text, dataset_index_text(x, s->stem));
    out->n = (int)s->n;
    for (uint32_t i = 0; i < s->n; i++) {
        const struct index_member *m = &x->members[s->first + i];
        out->members[i] = (struct sample_member){.name = put_text(&text, dataset_index_text(x, m->name)),
                                                 .data = out->block + (m->offset - lo),
                                                 .bytes = (size_t)m->bytes,
                                                 .offset = m->offset,
                                                 .crc32c = m->crc32c};
    }
}

static size_t text_bytes(const struct dataset_index *x, const struct index_sample *s) {
    size_t n = strlen(dataset_index_text(x, s->stem)) + 1;
    for (uint32_t i = 0; i < s->n; i++) n += strlen(dataset_index_text(x, x->members[s->first + i].name)) + 1;
    return n;
}

static int verify(const struct dataset *d, const struct manifest_shard *shard, const struct sample *s,
                  struct err *e) {
    for (int i = 0; i < s->n; i++) {
        const struct sample_member *m = &s->members[i];
        uint32_t crc = hash_crc32c(0, m->data, m->bytes);
        if (crc != m->crc32c)
            return err_set(e, ERR_DATA,
                           "%s/%s: sample %" PRId64 ", member '%s.%s' at offset %" PRId64
                           ", %zu bytes: CRC32C is %08" PRIx32 ", the index says %08" PRIx32
                           ": the shard is damaged",
                           store_url(d->sources[shard->source].store), shard->key, s->number, s->stem,
                           m->name, m->offset, m->bytes, crc, m->crc32c);
    }
    return 0;
}

int dataset_use_cache(struct dataset *d, const char *folder, int64_t max_bytes, struct err *e) {
    return cache_open(&d->cache, folder, max_bytes, e);
}

// By content, as far as that is known before reading: data sets of one name, or one set under two URLs, do
// not meet.
static void cache_name(const struct manifest_shard *shard, int64_t lo, int64_t extent, char out[96]) {
    snprintf(out, 96, "%08" PRIx32 "-%08" PRIx32 "-%" PRIx64 "-%" PRIx64 "-%" PRIx64, shard->crc32c,
             shard->index_crc32c, (uint64_t)shard->bytes, (uint64_t)lo, (uint64_t)extent);
}

// True when the sample came whole out of the cache.
static bool read_cached(struct dataset *d, const struct manifest_shard *shard, int64_t lo, int64_t extent,
                        struct sample *out) {
    char name[96];
    struct err damaged = {ERR_OK};
    if (!d->cache || !extent) return false;
    cache_name(shard, lo, extent, name);
    if (!cache_get(d->cache, name, out->block, (size_t)extent)) return false;
    if (!verify(d, shard, out, &damaged)) return true;
    cache_drop(d->cache, name);
    return false;
}

static void keep_cached(struct dataset *d, const struct manifest_shard *shard, int64_t lo, int64_t extent,
                        const struct sample *s) {
    char name[96];
    if (!d->cache || !extent) return;
    cache_name(shard, lo, extent, name);
    cache_put(d->cache, name, s->block, (size_t)extent);
}

static int read_row(struct dataset *d, const struct manifest_shard *shard, const struct dataset_index *x,
                    const struct index_sample *s, struct sample *out, struct err *e) {
    const struct index_member *last = &x->members[s->first + s->n - 1];
    int64_t lo = x->members[s->first].offset, extent = last->offset + last->bytes - lo;
    if (extent > DATASET_SAMPLE_MAX)
        return err_set(e, ERR_DATA,
                       "%s: sample '%s' spans %" PRId64 " bytes, at most %" PRId64 " are allowed", shard->key,
                       dataset_index_text(x, s->stem), extent, DATASET_SAMPLE_MAX);
    out->block = malloc((size_t)extent + text_bytes(x, s));
    if (!out->block) return err_set(e, ERR_MEMORY, "no memory for a sample of %" PRId64 " bytes", extent);
    lay_out(out, x, s, lo, out->block + extent);
    if (read_cached(d, shard, lo, extent, out)) return 0;
    for (int reads = 1;; reads++) {
        int rc = extent ? store_get_range(d->sources[shard->source].store, shard->key, lo, (size_t)extent,
                                          out->block, e)
                        : 0;
        if (rc) return err_prefix(e, "sample %" PRId64 " ('%s')", out->number, out->stem);
        rc = verify(d, shard, out, e);
        if (!rc) keep_cached(d, shard, lo, extent, out);
        if (rc != -ERR_DATA || reads == STORE_READS_MAX) return rc;
        err_clear(e);
    }
}

int dataset_read(struct dataset *d, int64_t i, struct sample *out, struct err *e) {
    const struct dataset_index *x;
    memset(out, 0, sizeof *out);
    out->number = i;
    if (i < 0 || i >= d->manifest.samples)
        return err_set(e, ERR_BUG, "sample %" PRId64 " of %" PRId64 " is asked for", i, d->manifest.samples);
    size_t shard = dataset_manifest_shard(&d->manifest, i);
    const struct manifest_shard *s = &d->manifest.shards[shard];
    int rc = borrow(d, shard, &x, e);
    if (rc) return rc;
    rc = read_row(d, s, x, &x->samples[i - s->first], out, e);
    give_back(d, shard);
    if (rc) sample_fini(out);
    return rc;
}

int dataset_film(struct dataset *d, int64_t sample, const char *member, struct film_table *out,
                 struct err *e) {
    const struct dataset_index *x;
    memset(out, 0, sizeof *out);
    if (sample < 0 || sample >= d->manifest.samples)
        return err_set(e, ERR_BUG, "sample %" PRId64 " of %" PRId64 " is asked for", sample,
                       d->manifest.samples);
    size_t shard = dataset_manifest_shard(&d->manifest, sample);
    int rc = borrow(d, shard, &x, e);
    if (rc) return rc;
    const struct index_sample *s = &x->samples[sample - d->manifest.shards[shard].first];
    for (uint32_t m = s->first; m < s->first + s->n && !rc; m++) {
        const struct film_table *t = dataset_index_film(x, m);
        if (t && !strcmp(dataset_index_text(x, x->members[m].name), member)) rc = film_copy(out, t, e);
    }
    give_back(d, shard);
    return rc;
}

void sample_fini(struct sample *s) {
    free(s->block);
    memset(s, 0, sizeof *s);
}

const struct sample_member *sample_find(const struct sample *s, const char *name) {
    for (int i = 0; i < s->n; i++)
        if (!strcmp(s->members[i].name, name)) return &s->members[i];
    return NULL;
}
