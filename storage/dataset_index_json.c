// SPDX-License-Identifier: Apache-2.0
// The index of a shard as JSON: written, and read back from a store that may hand out anything.
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "storage/dataset.h"
#include "storage/dataset_index.h"

#define FORMAT "orrery-shard-index"

static void put_films(struct json_writer *w, const struct dataset_index *x, const struct index_sample *s) {
    bool any = false;
    for (uint32_t m = s->first; m < s->first + s->n; m++) {
        const struct film_table *t = dataset_index_film(x, m);
        if (!t) continue;
        if (!any) json_put_object(w, "films");
        any = true;
        film_put(w, dataset_index_text(x, x->members[m].name), t);
    }
    if (any) json_close(w, '}');
}

static void put_sample(struct json_writer *w, const struct dataset_index *x, const struct index_sample *s) {
    json_put_object(w, NULL);
    json_put_string(w, "stem", dataset_index_text(x, s->stem));
    json_put_int(w, "frames", s->frames);
    json_put_array(w, "members");
    for (uint32_t i = 0; i < s->n; i++) {
        const struct index_member *m = &x->members[s->first + i];
        json_put_array(w, NULL);
        json_put_string(w, NULL, dataset_index_text(x, m->name));
        json_put_int(w, NULL, m->offset);
        json_put_int(w, NULL, m->bytes);
        dataset_index_put_crc(w, NULL, m->crc32c);
        json_close(w, ']');
    }
    json_close(w, ']');
    put_films(w, x, s);
    json_close(w, '}');
}

int dataset_index_write(const struct dataset_index *x, const char *shard, struct buf *out, struct err *e) {
    struct json_writer w;
    const char *slash = strrchr(shard, '/');
    json_begin(&w, out);
    json_put_object(&w, NULL);
    json_put_string(&w, "format", FORMAT);
    json_put_int(&w, "version", 1);
    json_put_string(&w, "shard", slash ? slash + 1 : shard);
    json_put_int(&w, "bytes", x->bytes);
    dataset_index_put_crc(&w, "crc32c", x->crc32c);
    dataset_index_put_streams(&w, x->rate_hz, x->streams, x->n_streams);
    json_put_array(&w, "samples");
    for (size_t i = 0; i < x->n_samples; i++) put_sample(&w, x, &x->samples[i]);
    json_close(&w, ']');
    json_close(&w, '}');
    int rc = json_end(&w, e);
    return rc ? rc : buf_appends(out, "\n", e);
}

void dataset_index_put_crc(struct json_writer *w, const char *key, uint32_t crc) {
    char hex[16];
    snprintf(hex, sizeof hex, "%08" PRIx32, crc);
    json_put_string(w, key, hex);
}

bool dataset_index_crc(const struct json_value *v, uint32_t *out) {
    const char *hex;
    if (!json_as_string(v, &hex) || strlen(hex) != 8 || strspn(hex, "0123456789abcdef") != 8) return false;
    *out = (uint32_t)strtoul(hex, NULL, 16);
    return true;
}

struct parse_state {
    struct dataset_index *x;
    const struct json *doc;
    const char *what;
    int64_t at; // members before it are behind us
};

static int parse_member(struct parse_state *p, const struct json_value *v, struct err *e) {
    const char *name;
    int64_t offset, bytes;
    uint32_t crc;
    bool ok = json_size(v) == 4 && json_as_string(json_at(v, 0), &name) &&
              json_as_int(json_at(v, 1), &offset) && json_as_int(json_at(v, 2), &bytes) &&
              dataset_index_crc(json_at(v, 3), &crc);
    size_t number = p->x->n_members;
    if (!ok || !*name)
        return err_set(e, ERR_DATA, "%s: member %zu is not [name, offset, bytes, crc32c]", p->what, number);
    if (offset < p->at || bytes < 0 || offset > p->x->bytes || bytes > p->x->bytes - offset)
        return err_set(e, ERR_DATA,
                       "%s: member %zu ('%.100s'): bytes %" PRId64 " + %" PRId64
                       " overlap the one before or lie outside of the shard's %" PRId64,
                       p->what, number, name, offset, bytes, p->x->bytes);
    p->at = offset + bytes;
    return dataset_index_add_member(p->x, p->what, name, strlen(name), offset, bytes, crc, e);
}

static bool film_fits(struct film_table *t, int64_t bytes) {
    if (!t->n_crcs) return true;
    t->bytes = bytes;
    bool within = t->moov_at >= t->lead || t->moov_bytes <= t->lead - t->moov_at;
    return t->n_crcs == film_blocks(bytes) && t->lead <= bytes && t->moov_at <= bytes &&
           t->moov_bytes <= bytes - t->moov_at && within;
}

// Members name their films in their own order; every film has its member.
static int parse_films(struct parse_state *p, const struct json_value *films, struct err *e) {
    const struct index_sample *s = &p->x->samples[p->x->n_samples - 1];
    size_t found = 0;
    for (uint32_t m = s->first; m < s->first + s->n; m++) {
        struct film_table t;
        const struct json_value *v = json_get(films, dataset_index_text(p->x, p->x->members[m].name));
        if (!v) continue;
        int rc = film_get(p->doc, v, p->what, &t, e);
        if (!rc && !film_fits(&t, p->x->members[m].bytes))
            rc = err_set(e, ERR_DATA, "%s: a film of sample '%.100s' has blocks or a header beyond its bytes",
                         p->what, dataset_index_text(p->x, s->stem));
        if (rc) {
            film_fini(&t);
            return rc;
        }
        if ((rc = dataset_index_add_film(p->x, m, &t, e))) return rc;
        found++;
    }
    if (found != json_size(films))
        return err_set(e, ERR_DATA, "%s: sample '%.100s' tells of a film that it has no member of", p->what,
                       dataset_index_text(p->x, s->stem));
    return 0;
}

static int parse_sample(struct parse_state *p, const struct json_value *v, struct err *e) {
    const char *stem;
    int64_t frames;
    int rc = json_need_string(p->doc, v, "stem", &stem, e);
    if (!rc) rc = json_need_int(p->doc, v, "frames", 0, (int64_t)1 << 31, &frames, e);
    if (!rc) rc = dataset_index_add_sample(p->x, stem, strlen(stem), e);
    if (rc) return rc;
    p->x->samples[p->x->n_samples - 1].frames = frames;
    const struct json_value *members = json_get(v, "members");
    size_t n = json_size(members);
    if (!json_is_array(members) || !n)
        return err_set(e, ERR_DATA, "%s: sample '%.100s' has no members", p->what, stem);
    for (size_t i = 0; i < n && !rc; i++) rc = parse_member(p, json_at(members, i), e);
    const struct json_value *films = json_get(v, "films");
    if (!rc && films && !json_is_object(films))
        rc = err_set(e, ERR_DATA, "%s: 'films' of sample '%.100s' is no object", p->what, stem);
    return rc ? rc : parse_films(p, films, e);
}

static int parse_samples(struct parse_state *p, const struct json_value *root, struct err *e) {
    const struct json_value *samples = json_get(root, "samples");
    if (!json_is_array(samples)) return err_set(e, ERR_DATA, "%s: 'samples' is no array", p->what);
    size_t n = json_size(samples);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) rc = parse_sample(p, json_at(samples, i), e);
    return rc ? rc : dataset_index_check_stems(p->x, p->what, e);
}

int dataset_index_head(const struct json *doc, const char *format, const char *what, struct err *e) {
    const char *text;
    int64_t version;
    const struct json_value *root = json_root(doc);
    int rc = json_need_string(doc, root, "format", &text, e);
    if (rc) return rc;
    if (strcmp(text, format))
        return err_set(e, ERR_DATA, "%s: its format is '%.60s', not %s", what, text, format);
    rc = json_need_int(doc, root, "version", 1, INT64_MAX, &version, e);
    if (rc) return rc;
    if (version != 1)
        return err_set(e, ERR_DATA, "%s: version %" PRId64 " is newer than this program reads (1)", what,
                       version);
    return 0;
}

void dataset_index_put_streams(struct json_writer *w, double rate_hz, const struct stream_schema *streams,
                               int n) {
    if (rate_hz > 0) json_put_double(w, "rate_hz", rate_hz);
    sample_meta_put_streams(w, "streams", streams, n);
}

int dataset_index_streams(const struct json *doc, const char *what, double *rate_hz,
                          struct stream_schema *streams, int *n, struct err *e) {
    const struct json_value *root = json_root(doc);
    if (json_as_double(json_get(root, "rate_hz"), rate_hz) && !(*rate_hz > 0 && *rate_hz <= 1e9))
        return err_set(e, ERR_DATA, "%s: 'rate_hz' is no rate", what);
    return sample_meta_get_streams(doc, json_get(root, "streams"), what, streams, n, e);
}

int dataset_index_parse(struct dataset_index *x, const char *text, size_t n, const char *shard,
                        struct err *e) {
    struct json *doc = NULL;
    char what[TAR_NAME_MAX + 32];
    snprintf(what, sizeof what, "%s%s", shard, DATASET_INDEX_SUFFIX);
    struct parse_state p = {.x = x, .what = what};
    int rc = json_parse(&doc, text, n, what, e);
    if (rc) goto out;
    p.doc = doc;
    const struct json_value *root = json_root(doc);
    if ((rc = dataset_index_head(doc, FORMAT, what, e))) goto out;
    if ((rc = json_need_int(doc, root, "bytes", 0, INT64_MAX, &x->bytes, e))) goto out;
    if (!dataset_index_crc(json_get(root, "crc32c"), &x->crc32c)) {
        rc = err_set(e, ERR_DATA, "%s: 'crc32c' is missing or no CRC", what);
        goto out;
    }
    if ((rc = dataset_index_streams(doc, what, &x->rate_hz, x->streams, &x->n_streams, e))) goto out;
    rc = parse_samples(&p, root, e);
out:
    json_destroy(doc);
    return rc;
}
