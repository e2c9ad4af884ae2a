// SPDX-License-Identifier: Apache-2.0
#include "storage/dataset_index.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/dataset.h"
#include "storage/hash.h"
#include "storage/npy_scan.h"

#define TEXT_MAX     ((size_t)32 << 20)
#define WINDOW_BYTES ((size_t)256 << 10)

void dataset_index_init(struct dataset_index *x) {
    memset(x, 0, sizeof *x);
    buf_init(&x->text, TEXT_MAX);
}

void dataset_index_fini(struct dataset_index *x) {
    for (size_t i = 0; i < x->n_films; i++) film_fini(&x->films[i].table);
    free(x->films);
    free(x->samples);
    free(x->members);
    buf_fini(&x->text);
    dataset_index_init(x);
}

const char *dataset_index_text(const struct dataset_index *x, uint32_t place) {
    return x->text.data + place;
}

size_t dataset_index_memory(const struct dataset_index *x) {
    return sizeof *x + x->cap_samples * sizeof *x->samples + x->cap_members * sizeof *x->members +
           x->cap_films * sizeof *x->films + (size_t)(x->film_numbers + x->film_crcs) * sizeof(uint32_t) +
           x->text.cap;
}

const struct film_table *dataset_index_film(const struct dataset_index *x, uint32_t member) {
    size_t lo = 0, hi = x->n_films;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (x->films[mid].member < member)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo < x->n_films && x->films[lo].member == member ? &x->films[lo].table : NULL;
}

// ---- building

static int grow(void **items, size_t *cap, size_t n, size_t item_bytes, struct err *e) {
    if (n < *cap) return 0;
    size_t want = *cap ? *cap * 2 : 16, bytes;
    if (!bytes_mul(want, item_bytes, &bytes)) return err_set(e, ERR_DATA, "an index overflows");
    void *grown = realloc(*items, bytes);
    if (!grown) return err_set(e, ERR_MEMORY, "no memory for an index of %zu entries", want);
    *items = grown;
    *cap = want;
    return 0;
}

static int add_text(struct dataset_index *x, const char *text, size_t n, uint32_t *place, struct err *e) {
    *place = (uint32_t)x->text.len;
    int rc = buf_append(&x->text, text, n, e);
    return rc ? rc : buf_append(&x->text, "", 1, e);
}

int dataset_index_add_sample(struct dataset_index *x, const char *stem, size_t n, struct err *e) {
    int rc = grow((void **)&x->samples, &x->cap_samples, x->n_samples, sizeof *x->samples, e);
    if (rc) return rc;
    struct index_sample *s = &x->samples[x->n_samples];
    *s = (struct index_sample){.first = (uint32_t)x->n_members};
    if ((rc = add_text(x, stem, n, &s->stem, e))) return rc;
    x->n_samples++;
    return 0;
}

int dataset_index_add_member(struct dataset_index *x, const char *shard, const char *name, size_t n,
                             int64_t offset, int64_t bytes, uint32_t crc, struct err *e) {
    struct index_sample *s = &x->samples[x->n_samples - 1];
    const char *stem = dataset_index_text(x, s->stem);
    if (s->n == DATASET_MEMBERS_MAX)
        return err_set(e, ERR_DATA, "%s: offset %" PRId64 ": sample '%s' has more than %d members", shard,
                       offset, stem, DATASET_MEMBERS_MAX);
    for (uint32_t i = 0; i < s->n; i++) {
        const char *other = dataset_index_text(x, x->members[s->first + i].name);
        if (strlen(other) == n && !memcmp(other, name, n))
            return err_set(e, ERR_DATA, "%s: offset %" PRId64 ": sample '%s' has two members '%s'", shard,
                           offset, stem, other);
    }
    int rc = grow((void **)&x->members, &x->cap_members, x->n_members, sizeof *x->members, e);
    if (rc) return rc;
    struct index_member *m = &x->members[x->n_members];
    *m = (struct index_member){.crc32c = crc, .offset = offset, .bytes = bytes};
    if ((rc = add_text(x, name, n, &m->name, e))) return rc;
    x->n_members++;
    s->n++;
    return 0;
}

int dataset_index_add_film(struct dataset_index *x, uint32_t member, struct film_table *t, struct err *e) {
    int rc = grow((void **)&x->films, &x->cap_films, x->n_films, sizeof *x->films, e);
    if (rc) {
        film_fini(t);
        return rc;
    }
    int64_t numbers = (t->steps ? t->frames - 1 : 0) + t->n_keys;
    if (numbers > DATASET_FILM_NUMBERS_MAX - x->film_numbers) {
        film_forget(t);
        film_forget_crcs(t);
        numbers = 0;
    }
    if (t->n_crcs > DATASET_FILM_CRCS_MAX - x->film_crcs) film_forget_crcs(t);
    x->film_numbers += numbers;
    x->film_crcs += t->n_crcs;
    x->films[x->n_films++] = (struct index_film){member, *t};
    return 0;
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int dataset_index_check_stems(const struct dataset_index *x, const char *shard, struct err *e) {
    if (!x->n_samples)
        return err_set(e, ERR_DATA, "%s: no sample in it (a member is named STEM.NAME)", shard);
    const char **stems = malloc(x->n_samples * sizeof *stems);
    if (!stems) return err_set(e, ERR_MEMORY, "no memory for %zu names", x->n_samples);
    int rc = 0;
    for (size_t i = 0; i < x->n_samples; i++) stems[i] = dataset_index_text(x, x->samples[i].stem);
    qsort(stems, x->n_samples, sizeof *stems, by_text);
    for (size_t i = 1; i < x->n_samples && !rc; i++)
        if (!strcmp(stems[i - 1], stems[i]))
            rc = err_set(e, ERR_DATA, "%s: sample '%s' stands at two places of the tar", shard, stems[i]);
    free(stems);
    return rc;
}

// ---- scanning a tar: one pass, front to back, in pieces of WINDOW_BYTES; every byte goes through the
// shard's CRC.

struct window {
    const struct tar_source *under;
    char *data;
    int64_t first;
    size_t n;
    uint32_t crc32c;
};

static int slide(struct window *w, struct err *e) {
    int64_t first = w->first + (int64_t)w->n, left = w->under->bytes - first;
    size_t n = left < (int64_t)WINDOW_BYTES ? (size_t)left : WINDOW_BYTES;
    int rc = w->under->read(w->under->arg, first, n, w->data, e);
    if (rc) return rc;
    w->first = first;
    w->n = n;
    w->crc32c = hash_crc32c(w->crc32c, w->data, n);
    return 0;
}

static int window_read(void *arg, int64_t offset, size_t n, void *into, struct err *e) {
    struct window *w = arg;
    char *to = into;
    if (offset < w->first || offset > w->under->bytes || (int64_t)n > w->under->bytes - offset)
        return err_set(e, ERR_BUG, "%s: a shard is read backwards or beyond its end", w->under->what);
    while (n) {
        int64_t have = w->first + (int64_t)w->n - offset;
        if (have <= 0) {
            int rc = slide(w, e);
            if (rc) return rc;
            continue;
        }
        size_t piece = (int64_t)n < have ? n : (size_t)have;
        memcpy(to, w->data + (offset - w->first), piece);
        to += piece;
        offset += (int64_t)piece;
        n -= piece;
    }
    return 0;
}

static int drain(struct window *w, struct err *e) {
    int rc = 0;
    while (!rc && w->first + (int64_t)w->n < w->under->bytes) rc = slide(w, e);
    return rc;
}

// CRC32C of a member; its bytes too, as many as `keep` has room for, when it is given; what scans see in it.
static int hash_member(struct window *w, const struct tar_member *m, struct buf *keep, struct film_scan *film,
                       struct npy_scan *npy, uint32_t *crc, struct err *e) {
    char piece[16384];
    *crc = 0;
    for (int64_t done = 0; done < m->bytes;) {
        size_t n = m->bytes - done < (int64_t)sizeof piece ? (size_t)(m->bytes - done) : sizeof piece;
        int rc = window_read(w, m->offset + done, n, piece, e);
        if (!rc && keep && keep->len < keep->max)
            rc = buf_append(keep, piece, n < keep->max - keep->len ? n : keep->max - keep->len, e);
        if (!rc) rc = film_scan_feed(film, piece, n, e);
        if (rc) return rc;
        npy_scan_feed(npy, piece, n);
        *crc = hash_crc32c(*crc, piece, n);
        done += (int64_t)n;
    }
    return 0;
}

// The stem ends at the first dot of the last path component. No dot, or one in front: not part of a sample.
static bool split_name(const char *full, size_t *stem, const char **name) {
    const char *slash = strrchr(full, '/'), *base = slash ? slash + 1 : full;
    const char *dot = strchr(base, '.');
    if (!dot || dot == base || !dot[1]) return false;
    *stem = (size_t)(dot - full);
    *name = dot + 1;
    return true;
}

// Its number, or that of no member.
static uint32_t member_of(const struct dataset_index *x, const struct index_sample *s, const char *name) {
    for (uint32_t m = s->first; m < s->first + s->n; m++)
        if (!strcmp(dataset_index_text(x, x->members[m].name), name)) return m;
    return UINT32_MAX;
}

static int check_members(const struct dataset_index *x, const struct index_sample *s,
                         const struct stream_schema *streams, int n, const char *what, struct err *e) {
    for (int i = 0; i < n; i++) {
        if (member_of(x, s, streams[i].member) == UINT32_MAX)
            return err_set(e, ERR_DATA, "%s: stream '%s' names a member '%s' that the sample lacks", what,
                           streams[i].name, streams[i].member);
    }
    return 0;
}

// All samples of a shard have the same streams; the first one with metadata decides.
static int take_meta(struct dataset_index *x, const char *shard, const struct buf *text, struct err *e) {
    struct index_sample *s = &x->samples[x->n_samples - 1];
    struct sample_meta meta;
    bool known;
    char what[512], why[160];
    if (!text->len || text->len > SAMPLE_META_BYTES_MAX) return 0;
    snprintf(what, sizeof what, "%s: sample '%.200s': json", shard, dataset_index_text(x, s->stem));
    int rc = sample_meta_parse(&meta, &known, text->data, text->len, what, e);
    if (rc || !known) return rc;
    if ((rc = check_members(x, s, meta.streams, meta.n_streams, what, e))) return rc;
    s->frames = meta.frames;
    if (!x->n_streams) {
        memcpy(x->streams, meta.streams, sizeof x->streams);
        x->n_streams = meta.n_streams;
        return 0;
    }
    if (!sample_meta_same_streams(x->streams, x->n_streams, meta.streams, meta.n_streams, why))
        return err_set(e, ERR_DATA, "%s: its streams are not those of the samples before it: %s", what, why);
    return 0;
}

struct scan_state {
    struct dataset_index *x;
    struct window *window;
    const struct dataset_schema *schema; // NULL: none
    struct buf meta, head; // the current sample's json; the first bytes of the member that tells its frames
    struct npy_shape shapes[DATASET_MEMBERS_MAX]; // of the current sample's members
    const char *shard;
};

// Of the first sample of a shard, which stands for the others: a schema that is wrong is wrong for all of
// them.
static int check_shapes(const struct scan_state *t, struct err *e) {
    const struct dataset_index *x = t->x;
    const struct index_sample *s = &x->samples[x->n_samples - 1];
    char why[200];
    if (x->n_samples > 1) return 0;
    for (int i = 0; i < x->n_streams; i++) {
        uint32_t m = member_of(x, s, x->streams[i].member);
        if (m == UINT32_MAX || !npy_shape_differs(&t->shapes[m - s->first], &x->streams[i], why)) continue;
        return err_set(e, ERR_DATA, "%s: sample '%.200s': member '%s' %s", t->shard,
                       dataset_index_text(x, s->stem), x->streams[i].member, why);
    }
    return 0;
}

// A sample that does not describe itself, by the schema.
static int take_schema(struct scan_state *t, struct err *e) {
    struct dataset_index *x = t->x;
    struct index_sample *s = &x->samples[x->n_samples - 1];
    const struct dataset_schema *y = t->schema;
    char what[512];
    snprintf(what, sizeof what, "%s: sample '%.200s': by the schema", t->shard,
             dataset_index_text(x, s->stem));
    int rc = check_members(x, s, y->streams, y->n_streams, what, e);
    if (rc) return rc;
    const struct film_table *film = dataset_index_film(x, member_of(x, s, y->frames_from));
    s->frames =
        film ? dataset_schema_film_frames(y, film) : dataset_schema_frames(y, t->head.data, t->head.len);
    if (!s->frames)
        return err_set(e, ERR_DATA, "%s: member '%s' is no .npy or .mp4 with a frame%s%s", what,
                       y->frames_from, film ? ": " : "", film ? film->why : "");
    char why[160];
    if (x->n_streams && !sample_meta_same_streams(x->streams, x->n_streams, y->streams, y->n_streams, why))
        return err_set(e, ERR_DATA, "%s: its streams are not those of the samples before it: %s", what, why);
    x->rate_hz = y->rate_hz;
    x->n_streams = y->n_streams;
    memcpy(x->streams, y->streams, sizeof x->streams);
    return 0;
}

static int end_sample(struct scan_state *t, struct err *e) {
    struct index_sample *s = &t->x->samples[t->x->n_samples - 1];
    int rc = take_meta(t->x, t->shard, &t->meta, e);
    if (!rc && t->schema && !s->frames) rc = take_schema(t, e);
    if (!rc) rc = check_shapes(t, e);
    buf_clear(&t->meta);
    buf_clear(&t->head);
    return rc;
}

// Reads the member's bytes, and adds it with its table of frames, if it is a film.
static int take_member(struct scan_state *t, const struct tar_member *m, const char *name, struct buf *keep,
                       struct err *e) {
    struct dataset_index *x = t->x;
    struct film_scan scan;
    struct npy_scan npy;
    struct film_table film;
    struct err ignored = {ERR_OK};
    uint32_t crc;
    film_scan_init(&scan, true);
    npy_scan_init(&npy);
    int rc = hash_member(t->window, m, keep, &scan, &npy, &crc, e);
    int ended = film_scan_end(&scan, &film, rc ? &ignored : e);
    if (!rc) rc = ended;
    if (!rc) rc = dataset_index_add_member(x, t->shard, name, strlen(name), m->offset, m->bytes, crc, e);
    if (!rc) t->shapes[x->samples[x->n_samples - 1].n - 1] = npy.shape;
    if (!rc && (film.frames || *film.why))
        return dataset_index_add_film(x, (uint32_t)x->n_members - 1, &film, e);
    film_fini(&film);
    return rc;
}

static int scan_member(struct scan_state *t, const struct tar_member *m, struct err *e) {
    struct dataset_index *x = t->x;
    size_t stem;
    const char *name;
    int rc = 0;
    if (!split_name(m->name, &stem, &name)) return 0;
    const char *last = x->n_samples ? dataset_index_text(x, x->samples[x->n_samples - 1].stem) : NULL;
    if (!last || strlen(last) != stem || memcmp(last, m->name, stem)) {
        if (last && (rc = end_sample(t, e))) return rc;
        if ((rc = dataset_index_add_sample(x, m->name, stem, e))) return rc;
    }
    bool keep = !strcmp(name, "json") && m->bytes <= (int64_t)SAMPLE_META_BYTES_MAX;
    bool tells = t->schema && !strcmp(name, t->schema->frames_from);
    return take_member(t, m, name, keep ? &t->meta : tells ? &t->head : NULL, e);
}

int dataset_index_scan(struct dataset_index *x, const struct tar_source *source,
                       const struct dataset_schema *schema, struct err *e) {
    struct window w = {.under = source, .data = malloc(WINDOW_BYTES)};
    struct tar_source through = {window_read, &w, source->bytes, source->what};
    struct scan_state t = {.x = x, .window = &w, .schema = schema, .shard = source->what};
    struct tar_scan scan;
    struct tar_member member;
    int rc = 0;
    buf_init(&t.meta, SAMPLE_META_BYTES_MAX);
    buf_init(&t.head, DATASET_NPY_HEAD);
    if (!w.data) {
        rc = err_set(e, ERR_MEMORY, "no memory to scan %s", source->what);
        goto out;
    }
    tar_scan_init(&scan, &through);
    while ((rc = tar_scan_next(&scan, &member, e)) > 0)
        if ((rc = scan_member(&t, &member, e))) goto out;
    if (rc) goto out;
    if (x->n_samples && (rc = end_sample(&t, e))) goto out;
    if ((rc = dataset_index_check_stems(x, source->what, e))) goto out;
    if ((rc = drain(&w, e))) goto out;
    x->bytes = source->bytes;
    x->crc32c = w.crc32c;
out:
    buf_fini(&t.meta);
    buf_fini(&t.head);
    free(w.data);
    return rc;
}
