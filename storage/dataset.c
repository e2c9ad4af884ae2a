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
#define DAMAGED     ": the shard is damaged; 'orrery data check %s' finds all that is; put a whole copy there"

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

// Where a sample's members lie, without the one that is left out: one run of bytes, or two.
struct spans {
    int n;
    int64_t lo[2], bytes[2], total;
};

static void add_span(struct spans *p, const struct dataset_index *x, uint32_t first, uint32_t end) {
    if (first == end) return;
    const struct index_member *last = &x->members[end - 1];
    p->lo[p->n] = x->members[first].offset;
    p->bytes[p->n] = last->offset + last->bytes - p->lo[p->n];
    p->total += p->bytes[p->n++];
}

static struct spans spans_of(const struct dataset_index *x, const struct index_sample *s, uint32_t without) {
    struct spans p = {.n = 0};
    bool split = without < s->first + s->n;
    add_span(&p, x, s->first, split ? without : s->first + s->n);
    if (split) add_span(&p, x, without + 1, s->first + s->n);
    return p;
}

static const char *place_of(const struct sample *out, const struct spans *p, int64_t offset) {
    bool second = p->n > 1 && offset >= p->lo[1];
    return out->block + (second ? p->bytes[0] + offset - p->lo[1] : offset - p->lo[0]);
}

static void lay_out(struct sample *out, const struct dataset_index *x, const struct index_sample *s,
                    uint32_t without, const struct spans *p) {
    char *text = out->block + p->total;
    out->stem = put_text(&text, dataset_index_text(x, s->stem));
    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        const struct index_member *m = &x->members[i];
        if (i == without) continue;
        out->members[out->n++] =
            (struct sample_member){.name = put_text(&text, dataset_index_text(x, m->name)),
                                   .data = place_of(out, p, m->offset),
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
                           ", %zu bytes: CRC32C is %08" PRIx32 ", the index says %08" PRIx32 DAMAGED,
                           store_url(d->sources[shard->source].store), shard->key, s->number, s->stem,
                           m->name, m->offset, m->bytes, crc, m->crc32c,
                           store_url(d->sources[shard->source].store));
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

static char *span_at(const struct sample *out, const struct spans *p, int i) {
    return out->block + (i ? p->bytes[0] : 0);
}

// True when the sample came whole out of the cache.
static bool read_cached(struct dataset *d, const struct manifest_shard *shard, const struct spans *p,
                        struct sample *out) {
    char name[96];
    struct err damaged = {ERR_OK};
    if (!d->cache || !p->total) return false;
    for (int i = 0; i < p->n; i++) {
        cache_name(shard, p->lo[i], p->bytes[i], name);
        if (!cache_get(d->cache, name, span_at(out, p, i), (size_t)p->bytes[i])) return false;
    }
    if (!verify(d, shard, out, &damaged)) return true;
    for (int i = 0; i < p->n; i++) {
        cache_name(shard, p->lo[i], p->bytes[i], name);
        cache_drop(d->cache, name);
    }
    return false;
}

static void keep_cached(struct dataset *d, const struct manifest_shard *shard, int64_t lo, int64_t bytes,
                        const char *data) {
    char name[96];
    if (!d->cache || !bytes) return;
    cache_name(shard, lo, bytes, name);
    cache_put(d->cache, name, data, (size_t)bytes);
}

// Of a read that failed.
static int explain_absence(const struct dataset *d, const struct manifest_shard *shard, int rc,
                           struct err *e) {
    if (rc != -ERR_MISSING) return rc;
    return err_prefix(e,
                      "a shard has gone since the data set was indexed: put it back, or run 'orrery data "
                      "index %s' to do without it",
                      store_url(d->sources[shard->source].store));
}

static int read_spans(struct dataset *d, const struct manifest_shard *shard, const struct spans *p,
                      struct sample *out, struct err *e) {
    int rc = 0;
    for (int i = 0; i < p->n && !rc; i++)
        if (p->bytes[i])
            rc = store_get_range(d->sources[shard->source].store, shard->key, p->lo[i], (size_t)p->bytes[i],
                                 span_at(out, p, i), e);
    if (rc) rc = explain_absence(d, shard, rc, e);
    return rc ? err_prefix(e, "sample %" PRId64 " ('%s')", out->number, out->stem) : 0;
}

static int read_row(struct dataset *d, const struct manifest_shard *shard, const struct dataset_index *x,
                    const struct index_sample *s, uint32_t without, struct sample *out, struct err *e) {
    struct spans p = spans_of(x, s, without);
    if (p.total > DATASET_SAMPLE_MAX)
        return err_set(e, ERR_DATA,
                       "%s: sample '%s' spans %" PRId64 " bytes, at most %" PRId64 " are allowed", shard->key,
                       dataset_index_text(x, s->stem), p.total, DATASET_SAMPLE_MAX);
    out->block = malloc((size_t)p.total + text_bytes(x, s));
    if (!out->block) return err_set(e, ERR_MEMORY, "no memory for a sample of %" PRId64 " bytes", p.total);
    lay_out(out, x, s, without, &p);
    if (read_cached(d, shard, &p, out)) return 0;
    for (int reads = 1;; reads++) {
        int rc = read_spans(d, shard, &p, out, e);
        if (rc) return rc;
        rc = verify(d, shard, out, e);
        for (int i = 0; i < p.n && !rc; i++) keep_cached(d, shard, p.lo[i], p.bytes[i], span_at(out, &p, i));
        if (rc != -ERR_DATA || reads == STORE_READS_MAX) return rc;
        err_clear(e);
    }
}

// The shard of a sample, its index (to be given back) and its row in it.
static int find_row(struct dataset *d, int64_t i, size_t *shard, const struct dataset_index **x,
                    const struct index_sample **row, struct err *e) {
    if (i < 0 || i >= d->manifest.samples)
        return err_set(e, ERR_BUG, "sample %" PRId64 " of %" PRId64 " is asked for", i, d->manifest.samples);
    *shard = dataset_manifest_shard(&d->manifest, i);
    int rc = borrow(d, *shard, x, e);
    if (!rc) *row = &(*x)->samples[i - d->manifest.shards[*shard].first];
    return rc;
}

static uint32_t member_named(const struct dataset_index *x, const struct index_sample *s, const char *name) {
    for (uint32_t m = s->first; name && m < s->first + s->n; m++)
        if (!strcmp(dataset_index_text(x, x->members[m].name), name)) return m;
    return UINT32_MAX;
}

int dataset_read_without(struct dataset *d, int64_t i, const char *member, struct sample *out,
                         struct err *e) {
    const struct dataset_index *x;
    const struct index_sample *s;
    size_t shard;
    memset(out, 0, sizeof *out);
    out->number = i;
    int rc = find_row(d, i, &shard, &x, &s, e);
    if (rc) return rc;
    rc = read_row(d, &d->manifest.shards[shard], x, s, member_named(x, s, member), out, e);
    give_back(d, shard);
    if (rc) sample_fini(out);
    return rc;
}

int dataset_read(struct dataset *d, int64_t i, struct sample *out, struct err *e) {
    return dataset_read_without(d, i, NULL, out, e);
}

int dataset_film(struct dataset *d, int64_t sample, const char *member, struct film_table *out,
                 struct err *e) {
    const struct dataset_index *x;
    const struct index_sample *s;
    size_t shard;
    memset(out, 0, sizeof *out);
    int rc = find_row(d, sample, &shard, &x, &s, e);
    if (rc) return rc;
    const struct film_table *t = dataset_index_film(x, member_named(x, s, member));
    if (t) rc = film_copy(out, t, e);
    give_back(d, shard);
    return rc;
}

// ---- parts of films

struct film_place {
    const struct manifest_shard *shard;
    const struct film_table *table;
    int64_t offset, bytes; // of the member in the shard
};

static int verify_blocks(const struct dataset *d, const struct film_place *f, const struct dataset_part *p,
                         struct err *e) {
    for (int64_t at = 0; at < (int64_t)p->n; at += FILM_BLOCK) {
        int64_t block = (p->at + at) / FILM_BLOCK, left = (int64_t)p->n - at;
        int64_t n = left < FILM_BLOCK ? left : FILM_BLOCK;
        uint32_t crc = hash_crc32c(0, p->data + at, (size_t)n);
        if (crc != f->table->crcs[block])
            return err_set(e, ERR_DATA,
                           "%s/%s: bytes %" PRId64 " .. %" PRId64 " of the film at offset %" PRId64
                           ": CRC32C is %08" PRIx32 ", the index says %08" PRIx32 DAMAGED,
                           store_url(d->sources[f->shard->source].store), f->shard->key, p->at + at,
                           p->at + at + n, f->offset, crc, f->table->crcs[block],
                           store_url(d->sources[f->shard->source].store));
    }
    return 0;
}

static int read_blocks(struct dataset *d, const struct film_place *f, struct dataset_part *p, struct err *e) {
    struct err damaged = {ERR_OK};
    char name[96];
    cache_name(f->shard, f->offset + p->at, (int64_t)p->n, name);
    if (d->cache && cache_get(d->cache, name, p->data, p->n)) {
        if (!verify_blocks(d, f, p, &damaged)) return 0;
        cache_drop(d->cache, name);
    }
    for (int reads = 1;; reads++) {
        int rc = store_get_range(d->sources[f->shard->source].store, f->shard->key, f->offset + p->at, p->n,
                                 p->data, e);
        if (rc) return explain_absence(d, f->shard, rc, e);
        rc = verify_blocks(d, f, p, e);
        if (!rc) keep_cached(d, f->shard, f->offset + p->at, (int64_t)p->n, p->data);
        if (rc != -ERR_DATA || reads == STORE_READS_MAX) return rc;
        err_clear(e);
    }
}

static int read_part(struct dataset *d, const struct film_place *f, int64_t lo, int64_t hi,
                     struct dataset_part *out, struct err *e) {
    if (lo < 0 || lo >= hi || hi > f->bytes || hi - lo > DATASET_SAMPLE_MAX)
        return err_set(e, ERR_DATA, "%s: bytes %" PRId64 " .. %" PRId64 " of a film of %" PRId64 " bytes",
                       f->shard->key, lo, hi, f->bytes);
    int64_t end = film_blocks(hi) * FILM_BLOCK;
    out->offset = f->offset;
    out->at = lo - lo % FILM_BLOCK;
    out->n = (size_t)((end < f->bytes ? end : f->bytes) - out->at);
    out->data = malloc(out->n);
    if (!out->data) return err_set(e, ERR_MEMORY, "no memory for %zu bytes of a film", out->n);
    return read_blocks(d, f, out, e);
}

int dataset_read_part(struct dataset *d, int64_t sample, const char *member, int64_t lo, int64_t hi,
                      struct dataset_part *out, struct err *e) {
    const struct dataset_index *x;
    const struct index_sample *s;
    size_t shard;
    memset(out, 0, sizeof *out);
    int rc = find_row(d, sample, &shard, &x, &s, e);
    if (rc) return rc;
    uint32_t m = member_named(x, s, member);
    struct film_place f = {.shard = &d->manifest.shards[shard], .table = dataset_index_film(x, m)};
    if (!f.table || !f.table->n_crcs) {
        rc = err_set(e, ERR_BUG, "a part of '%s' is asked for, which is no film with blocks", member);
    } else {
        f.offset = x->members[m].offset;
        f.bytes = x->members[m].bytes;
        rc = read_part(d, &f, lo, hi < 0 ? f.bytes : hi, out, e);
    }
    give_back(d, shard);
    if (rc) dataset_part_fini(out);
    return rc;
}

void dataset_part_fini(struct dataset_part *p) {
    free(p->data);
    memset(p, 0, sizeof *p);
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
