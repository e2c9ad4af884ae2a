// SPDX-License-Identifier: Apache-2.0
#include "storage/dataset_manifest.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "storage/hash.h"
#include "storage/tar.h"

#define FORMAT "orrery-dataset"

void dataset_manifest_init(struct dataset_manifest *m) {
    memset(m, 0, sizeof *m);
}

void dataset_manifest_fini(struct dataset_manifest *m) {
    for (size_t i = 0; i < m->n_shards; i++) free(m->shards[i].key);
    free(m->shards);
    free(m->runs);
    dataset_manifest_init(m);
}

void dataset_manifest_forget_shards(struct dataset_manifest *m) {
    for (size_t i = 0; i < m->n_shards; i++) free(m->shards[i].key);
    m->n_shards = m->n_runs = 0;
}

// ---- building

static int room_for_shard(struct dataset_manifest *m, struct err *e) {
    if (m->n_shards < m->cap_shards) return 0;
    size_t want = m->cap_shards ? 2 * m->cap_shards : 16;
    struct manifest_shard *grown = realloc(m->shards, want * sizeof *grown);
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for a manifest of %zu shards", want);
    m->shards = grown;
    m->cap_shards = want;
    return 0;
}

static int add_run(struct dataset_manifest *m, int64_t first, int64_t frames, struct err *e) {
    if (m->n_runs == m->cap_runs) {
        size_t want = m->cap_runs ? 2 * m->cap_runs : 16;
        struct manifest_run *grown = realloc(m->runs, want * sizeof *grown);
        if (!grown) return err_set(e, ERR_MEMORY, "no memory for a manifest of %zu runs", want);
        m->runs = grown;
        m->cap_runs = want;
    }
    m->runs[m->n_runs++] = (struct manifest_run){first, frames};
    return 0;
}

// `count` more samples of the shard that was added last.
static int add_samples(struct dataset_manifest *m, int64_t count, int64_t frames, struct err *e) {
    struct manifest_shard *s = &m->shards[m->n_shards - 1];
    if (count > DATASET_SAMPLES_MAX - m->samples)
        return err_set(e, ERR_DATA, "more than %" PRId64 " samples in one data set", DATASET_SAMPLES_MAX);
    bool same = m->n_runs > s->first_run && m->runs[m->n_runs - 1].frames == frames;
    int rc = same ? 0 : add_run(m, m->samples, frames, e);
    if (rc) return rc;
    s->samples += count;
    s->frames += count * frames;
    m->samples += count;
    m->frames += count * frames;
    return 0;
}

static int add_shard(struct dataset_manifest *m, const char *key, int64_t bytes, uint32_t crc,
                     struct err *e) {
    const char *flaw = tar_name_flaw(key, strlen(key));
    if (flaw) return err_set(e, ERR_DATA, "the key of shard %zu ('%.100s') %s", m->n_shards, key, flaw);
    if (bytes > INT64_MAX - m->bytes) return err_set(e, ERR_DATA, "the sizes of the shards overflow");
    int rc = room_for_shard(m, e);
    if (rc) return rc;
    char *copy = strdup(key);
    if (!copy) return err_set(e, ERR_MEMORY, "no memory for a key");
    m->shards[m->n_shards++] = (struct manifest_shard){
        .key = copy, .bytes = bytes, .crc32c = crc, .first = m->samples, .first_run = m->n_runs};
    m->bytes += bytes;
    return 0;
}

static int take_streams(struct dataset_manifest *m, const char *key, const struct dataset_index *x,
                        struct err *e) {
    char why[160];
    if (!x->n_streams) return 0;
    if (!m->n_streams) {
        memcpy(m->streams, x->streams, sizeof m->streams);
        m->n_streams = x->n_streams;
        m->rate_hz = x->rate_hz;
        return 0;
    }
    if (!sample_meta_same_streams(m->streams, m->n_streams, x->streams, x->n_streams, why))
        return err_set(e, ERR_DATA, "%s: its streams are not those of the shards before it: %s", key, why);
    if (!(m->rate_hz == x->rate_hz))
        return err_set(e, ERR_DATA, "%s: its frames come at %g Hz, those of the shards before it at %g", key,
                       x->rate_hz, m->rate_hz);
    return 0;
}

int dataset_manifest_add(struct dataset_manifest *m, const char *key, const struct dataset_index *x,
                         const void *index_json, size_t n, struct err *e) {
    int rc = take_streams(m, key, x, e);
    if (!rc) rc = add_shard(m, key, x->bytes, x->crc32c, e);
    for (size_t i = 0; i < x->n_samples && !rc; i++) rc = add_samples(m, 1, x->samples[i].frames, e);
    if (rc) return rc;
    for (size_t i = 0; i < x->n_films; i++)
        film_sums_add(&m->films, dataset_index_text(x, x->members[x->films[i].member].name),
                      &x->films[i].table);
    m->shards[m->n_shards - 1].index_bytes = (int64_t)n;
    m->shards[m->n_shards - 1].index_crc32c = hash_crc32c(0, index_json, n);
    return 0;
}

int dataset_manifest_append(struct dataset_manifest *m, const struct dataset_manifest *from, int source,
                            const char *what, struct err *e) {
    char why[160];
    if (!m->n_shards) {
        memcpy(m->streams, from->streams, sizeof m->streams);
        m->n_streams = from->n_streams;
        m->rate_hz = from->rate_hz;
    }
    if (!sample_meta_same_streams(m->streams, m->n_streams, from->streams, from->n_streams, why))
        return err_set(e, ERR_DATA, "%s: its streams are not those of the data sets before it: %s", what,
                       why);
    if (m->rate_hz > 0 && from->rate_hz > 0 && !(m->rate_hz == from->rate_hz))
        return err_set(e, ERR_DATA, "%s: its frames come at %g Hz, those of the data sets before it at %g",
                       what, from->rate_hz, m->rate_hz);
    film_sums_merge(&m->films, &from->films);
    for (size_t i = 0; i < from->n_shards; i++) {
        const struct manifest_shard *s = &from->shards[i];
        size_t end = i + 1 < from->n_shards ? from->shards[i + 1].first_run : from->n_runs;
        int rc = add_shard(m, s->key, s->bytes, s->crc32c, e);
        if (rc) return rc;
        struct manifest_shard *own = &m->shards[m->n_shards - 1];
        own->index_bytes = s->index_bytes;
        own->index_crc32c = s->index_crc32c;
        own->source = source;
        for (size_t r = s->first_run; r < end && !rc; r++) {
            int64_t next = r + 1 < end ? from->runs[r + 1].first : s->first + s->samples;
            rc = add_samples(m, next - from->runs[r].first, from->runs[r].frames, e);
        }
        if (rc) return rc;
    }
    return 0;
}

// ---- writing

static size_t end_run(const struct dataset_manifest *m, size_t shard) {
    return shard + 1 < m->n_shards ? m->shards[shard + 1].first_run : m->n_runs;
}

// The sums stand behind the shards: they are known when the last one is.
void dataset_manifest_put_head(struct json_writer *w) {
    json_put_object(w, NULL);
    json_put_string(w, "format", FORMAT);
    json_put_int(w, "version", 1);
    json_put_array(w, "shards");
}

void dataset_manifest_put_shard(struct json_writer *w, const struct dataset_manifest *m, size_t i) {
    const struct manifest_shard *s = &m->shards[i];
    json_put_object(w, NULL);
    json_put_string(w, "key", s->key);
    json_put_int(w, "bytes", s->bytes);
    dataset_index_put_crc(w, "crc32c", s->crc32c);
    json_put_int(w, "index_bytes", s->index_bytes);
    dataset_index_put_crc(w, "index_crc32c", s->index_crc32c);
    json_put_int(w, "samples", s->samples);
    json_put_array(w, "frames");
    for (size_t r = s->first_run, end = end_run(m, i); r < end; r++) {
        int64_t next = r + 1 < end ? m->runs[r + 1].first : s->first + s->samples;
        json_put_array(w, NULL);
        json_put_int(w, NULL, m->runs[r].frames);
        json_put_int(w, NULL, next - m->runs[r].first);
        json_close(w, ']');
    }
    json_close(w, ']');
    json_close(w, '}');
}

int dataset_manifest_put_tail(struct json_writer *w, const struct dataset_manifest *m, struct err *e) {
    json_close(w, ']');
    json_put_int(w, "samples", m->samples);
    json_put_int(w, "frames", m->frames);
    json_put_int(w, "bytes", m->bytes);
    dataset_index_put_streams(w, m->rate_hz, m->streams, m->n_streams);
    film_sums_put(w, &m->films);
    json_close(w, '}');
    int rc = json_end(w, e);
    return rc ? rc : buf_appends(w->out, "\n", e);
}

// ---- reading

static int parse_runs(struct dataset_manifest *m, const struct json_value *runs, int64_t want,
                      const char *what, struct err *e) {
    const char *key = m->shards[m->n_shards - 1].key;
    size_t n = json_size(runs);
    if (!json_is_array(runs))
        return err_set(e, ERR_DATA, "%s: 'frames' of shard '%s' is no array", what, key);
    for (size_t i = 0; i < n; i++) {
        int64_t frames, count;
        const struct json_value *run = json_at(runs, i);
        if (json_size(run) != 2 || !json_as_int(json_at(run, 0), &frames) ||
            !json_as_int(json_at(run, 1), &count) || frames < 0 || frames > (int64_t)1 << 31 || count < 1)
            return err_set(e, ERR_DATA, "%s: 'frames' of shard '%s': entry %zu is not [frames, samples]",
                           what, key, i);
        int rc = add_samples(m, count, frames, e);
        if (rc) return err_prefix(e, "%s", what);
    }
    if (m->shards[m->n_shards - 1].samples != want)
        return err_set(e, ERR_DATA, "%s: shard '%s' has %" PRId64 " samples, its 'frames' tell of %" PRId64,
                       what, key, want, m->shards[m->n_shards - 1].samples);
    return 0;
}

static int parse_shard(struct dataset_manifest *m, const struct json *doc, const struct json_value *v,
                       const char *what, struct err *e) {
    const char *key;
    int64_t bytes, index_bytes, samples;
    uint32_t crc, index_crc;
    int rc = json_need_string(doc, v, "key", &key, e);
    if (!rc) rc = json_need_int(doc, v, "bytes", 1, INT64_MAX, &bytes, e);
    if (!rc) rc = json_need_int(doc, v, "index_bytes", 1, (int64_t)DATASET_INDEX_MAX, &index_bytes, e);
    if (!rc) rc = json_need_int(doc, v, "samples", 1, DATASET_SAMPLES_MAX, &samples, e);
    if (rc) return rc;
    if (!dataset_index_crc(json_get(v, "crc32c"), &crc) ||
        !dataset_index_crc(json_get(v, "index_crc32c"), &index_crc))
        return err_set(e, ERR_DATA, "%s: shard '%.200s': 'crc32c' or 'index_crc32c' is missing or no CRC",
                       what, key);
    if (m->n_shards && strcmp(m->shards[m->n_shards - 1].key, key) == 0)
        return err_set(e, ERR_DATA, "%s: shard '%.200s' stands twice in it", what, key);
    rc = add_shard(m, key, bytes, crc, e);
    if (rc) return err_prefix(e, "%s", what);
    m->shards[m->n_shards - 1].index_bytes = index_bytes;
    m->shards[m->n_shards - 1].index_crc32c = index_crc;
    return parse_runs(m, json_get(v, "frames"), samples, what, e);
}

int dataset_manifest_parse(struct dataset_manifest *m, const char *text, size_t n, const char *what,
                           struct err *e) {
    struct json *doc = NULL;
    int64_t samples = 0;
    int rc = json_parse(&doc, text, n, what, e);
    if (rc) return rc;
    const struct json_value *root = json_root(doc), *shards = json_get(root, "shards");
    if ((rc = dataset_index_head(doc, FORMAT, what, e))) goto out;
    if ((rc = json_need_int(doc, root, "samples", 1, DATASET_SAMPLES_MAX, &samples, e))) goto out;
    if ((rc = dataset_index_streams(doc, what, &m->rate_hz, m->streams, &m->n_streams, e))) goto out;
    if ((rc = film_sums_get(doc, root, what, &m->films, e))) goto out;
    if (!json_is_array(shards)) {
        rc = err_set(e, ERR_DATA, "%s: 'shards' is no array", what);
        goto out;
    }
    for (size_t i = 0, count = json_size(shards); i < count && !rc; i++)
        rc = parse_shard(m, doc, json_at(shards, i), what, e);
    if (!rc && m->samples != samples)
        rc = err_set(e, ERR_DATA, "%s: 'samples' is %" PRId64 ", the shards have %" PRId64, what, samples,
                     m->samples);
out:
    json_destroy(doc);
    return rc;
}

// ---- finding

size_t dataset_manifest_shard(const struct dataset_manifest *m, int64_t i) {
    size_t lo = 0, hi = m->n_shards; // shards[lo].first <= i < shards[hi].first
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->shards[mid].first <= i)
            lo = mid;
        else
            hi = mid;
    }
    return lo;
}

int64_t dataset_manifest_frames(const struct dataset_manifest *m, int64_t i) {
    size_t lo = 0, hi = m->n_runs;
    while (hi - lo > 1) {
        size_t mid = lo + (hi - lo) / 2;
        if (m->runs[mid].first <= i)
            lo = mid;
        else
            hi = mid;
    }
    return m->runs[lo].frames;
}

int dataset_manifest_fits(const struct dataset_manifest *m, size_t shard, const struct dataset_index *x,
                          struct err *e) {
    const struct manifest_shard *s = &m->shards[shard];
    if (x->bytes != s->bytes || x->crc32c != s->crc32c || (int64_t)x->n_samples != s->samples)
        return err_set(e, ERR_DATA,
                       "%s: its index tells of %" PRId64 " bytes, CRC32C %08" PRIx32
                       ", %zu samples; the manifest of %" PRId64 ", %08" PRIx32 ", %" PRId64,
                       s->key, x->bytes, x->crc32c, x->n_samples, s->bytes, s->crc32c, s->samples);
    for (size_t i = 0; i < x->n_samples; i++) {
        int64_t frames = dataset_manifest_frames(m, s->first + (int64_t)i);
        if (x->samples[i].frames != frames)
            return err_set(e, ERR_DATA,
                           "%s: sample %zu has %" PRId64 " frames in its index, %" PRId64 " in the manifest",
                           s->key, i, x->samples[i].frames, frames);
    }
    return 0;
}
