// SPDX-License-Identifier: Apache-2.0
#include "trainer/data_cache.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

enum state { LOADING, READY, BROKEN };

// The film of an episode that is kept by windows, and what they need besides its pictures.
struct film {
    struct modality_film film;
    int modality;
    struct data_cache *cache;
    int64_t number;
    char *name; // for messages
};

struct entry {
    struct data_episode episode; // first: an episode is its entry
    int64_t first, count;        // of a window; 0, 0: an episode
    struct entry *base;          // of a window: its episode, which is in use as long as the window is here
    struct film *film;           // of an episode that is kept by windows
    enum state state;
    int users;
    size_t bytes;
    void *block;
    struct err *why; // of a broken one
    struct entry *next_in_bucket;
    struct entry *newer, *older;
};

struct data_cache {
    struct dataset *dataset;
    const struct modality_set *set;
    size_t budget;
    int64_t together;
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    // The lock guards the rest.
    size_t bytes;
    struct entry *bucket[BUCKETS];
    struct entry *newest, *oldest;
};

int data_cache_create(struct data_cache **out, struct dataset *d, const struct modality_set *set,
                      size_t budget_bytes, int64_t together, struct err *e) {
    struct data_cache *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the cache of episodes");
    c->dataset = d;
    c->set = set;
    c->budget = budget_bytes;
    c->together = together;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    return 0;
}

static void film_destroy(struct film *f) {
    if (!f) return;
    film_fini(&f->film.table);
    dataset_part_fini(&f->film.lead);
    dataset_part_fini(&f->film.moov);
    free(f->name);
    free(f);
}

static void cache_free_entry(struct entry *x) {
    film_destroy(x->film);
    free(x->block);
    free(x->why);
    free(x);
}

void data_cache_destroy(struct data_cache *c) {
    if (!c) return;
    while (c->newest) {
        struct entry *x = c->newest;
        c->newest = x->older;
        cache_free_entry(x);
    }
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->loaded);
    free(c);
}

// ---- the list and the table; the lock is held

static void cache_unlink(struct data_cache *c, struct entry *x) {
    *(x->newer ? &x->newer->older : &c->newest) = x->older;
    *(x->older ? &x->older->newer : &c->oldest) = x->newer;
    x->newer = x->older = NULL;
}

static void cache_to_front(struct data_cache *c, struct entry *x) {
    x->older = c->newest;
    *(c->newest ? &c->newest->newer : &c->oldest) = x;
    c->newest = x;
}

static struct entry **cache_place(struct data_cache *c, int64_t number, int64_t first, int64_t count) {
    struct entry **at = &c->bucket[((uint64_t)number + (uint64_t)first * 31) % BUCKETS];
    while (*at && ((*at)->episode.number != number || (*at)->first != first || (*at)->count != count))
        at = &(*at)->next_in_bucket;
    return at;
}

static void cache_leave_base(struct entry *x) {
    if (x->base) x->base->users--;
    x->base = NULL;
}

static void cache_drop(struct data_cache *c, struct entry *x) {
    *cache_place(c, x->episode.number, x->first, x->count) = x->next_in_bucket;
    cache_leave_base(x);
    cache_unlink(c, x);
    c->bytes -= x->bytes;
    cache_free_entry(x);
}

static void cache_shrink(struct data_cache *c) {
    struct entry *x = c->oldest;
    while (x && c->bytes > c->budget) {
        struct entry *newer = x->newer;
        bool done = x->state == READY || (x->state == BROKEN && x->count); // windows are too many to remember
        if (x->users == 0 && done) cache_drop(c, x);
        x = newer;
    }
}

// ---- loading; the lock is not held

// Of one sense: its cells and marks, so many frames of them.
static bool cache_bytes(const struct modality_spec *spec, int64_t frames, size_t *out) {
    return bytes_mul((size_t)frames, (size_t)spec->frame_elems * spec->modality->cell + 1, out) &&
           bytes_add(*out, 64, out);
}

static void cache_lay_out(struct entry *x, const struct modality_spec *spec, int m, int64_t frames,
                          char **at) {
    size_t cells = (size_t)(frames * spec->frame_elems) * spec->modality->cell;
    x->episode.cells[m] = *at;
    x->episode.valid[m] = (unsigned char *)*at + cells;
    *at += (cells + (size_t)frames + 63) / 64 * 64;
}

// But for the film that is kept by windows.
static int cache_room(struct data_cache *c, struct entry *x, struct err *e) {
    size_t total = 0, part;
    bool fits = true;
    for (int m = 0; m < c->set->n; m++) {
        if (x->film && x->film->modality == m) continue;
        fits =
            fits && cache_bytes(&c->set->spec[m], x->episode.frames, &part) && bytes_add(total, part, &total);
    }
    x->block = fits ? calloc(1, total + 64) : NULL;
    if (!x->block)
        return err_set(e, ERR_MEMORY, "no memory for an episode of %lld frames",
                       (long long)x->episode.frames);
    char *at = x->block;
    for (int m = 0; m < c->set->n; m++)
        if (!x->film || x->film->modality != m) cache_lay_out(x, &c->set->spec[m], m, x->episode.frames, &at);
    x->bytes = total + sizeof *x;
    return 0;
}

// A sample may lack a sense: no frame of it is valid then.
static int cache_decode(struct data_cache *c, struct entry *x, const struct sample *s, struct err *e) {
    struct dataset_sample where;
    for (int m = 0; m < c->set->n; m++) {
        const struct modality_spec *spec = &c->set->spec[m];
        const struct sample_member *member = sample_find(s, spec->stream.member);
        if (!member) continue;
        int rc = spec->modality->decode(spec, member->data, member->bytes, x->episode.frames,
                                        x->episode.cells[m], x->episode.valid[m], e);
        if (!rc) continue;
        dataset_sample(c->dataset, x->episode.number, &where);
        return err_prefix(e, "%s: %s.%s at byte %lld", dataset_shard_key(c->dataset, where.shard), s->stem,
                          member->name, (long long)member->offset);
    }
    return 0;
}

static int film_bytes(void *arg, int64_t lo, int64_t hi, struct dataset_part *out, struct err *e) {
    struct film *f = arg;
    return dataset_read_part(f->cache->dataset, f->number, f->cache->set->spec[f->modality].stream.member, lo,
                             hi, out, e);
}

// Its header.
static int film_open(struct film *f, const char *shard, const char *stem, struct err *e) {
    const struct film_table *t = &f->film.table;
    int rc = film_bytes(f, 0, t->lead, &f->film.lead, e);
    if (!rc && t->moov_at >= t->lead)
        rc = film_bytes(f, t->moov_at, t->moov_at + t->moov_bytes, &f->film.moov, e);
    if (!rc && asprintf(&f->name, "%s: %s.%s at byte %lld", shard, stem,
                        f->cache->set->spec[f->modality].stream.member, (long long)f->film.lead.offset) < 0) {
        f->name = NULL;
        rc = err_set(e, ERR_MEMORY, "no memory for a film's name");
    }
    return rc && !f->name
               ? err_prefix(e, "%s: %s.%s", shard, stem, f->cache->set->spec[f->modality].stream.member)
               : rc;
}

// Would as many episodes as are in use together, all as long as this one, not fit? Then its film is kept by
// windows, if its index tells how to read parts of it. The bits are the same either way.
static int cache_find_film(struct data_cache *c, struct entry *x, struct err *e) {
    for (int m = 0; m < c->set->n && !x->film; m++) {
        const struct modality_spec *spec = &c->set->spec[m];
        struct film_table table;
        size_t bytes;
        if (!spec->modality->decode_part || !cache_bytes(spec, x->episode.frames, &bytes) ||
            bytes <= c->budget / (size_t)c->together)
            continue;
        int rc = dataset_film(c->dataset, x->episode.number, spec->stream.member, &table, e);
        if (rc) return rc;
        if (table.n_crcs && film_has_times(&table)) x->film = calloc(1, sizeof *x->film);
        if (x->film)
            *x->film = (struct film){{.table = table, .read = film_bytes, .arg = x->film},
                                     .modality = m,
                                     .cache = c,
                                     .number = x->episode.number};
        else
            film_fini(&table);
    }
    return 0;
}

static int cache_load(struct data_cache *c, struct entry *x, struct err *e) {
    struct sample s = {0};
    struct dataset_sample where;
    dataset_sample(c->dataset, x->episode.number, &where);
    x->episode.frames = where.frames;
    int rc = cache_find_film(c, x, e);
    const char *film = x->film ? c->set->spec[x->film->modality].stream.member : NULL;
    if (!rc) rc = dataset_read_without(c->dataset, x->episode.number, film, &s, e);
    if (!rc) rc = cache_room(c, x, e);
    if (!rc) rc = cache_decode(c, x, &s, e);
    if (!rc && x->film) rc = film_open(x->film, dataset_shard_key(c->dataset, where.shard), s.stem, e);
    if (!rc && x->film) x->bytes += x->film->film.lead.n + x->film->film.moov.n;
    sample_fini(&s);
    return rc;
}

// A window: its film, and the rest as its episode has it.
static int cache_load_window(struct data_cache *c, struct entry *x, struct err *e) {
    const struct film *f = x->base->film;
    const struct modality_spec *spec = &c->set->spec[f->modality];
    size_t total;
    x->episode.first[f->modality] = x->first;
    x->block = cache_bytes(spec, x->count, &total) ? calloc(1, total + 64) : NULL;
    if (!x->block)
        return err_set(e, ERR_MEMORY, "no memory for a window of %lld frames", (long long)x->count);
    char *at = x->block;
    cache_lay_out(x, spec, f->modality, x->count, &at);
    x->bytes = total + sizeof *x;
    int rc = spec->modality->decode_part(spec, &f->film, x->episode.frames, x->first, x->count,
                                         x->episode.cells[f->modality], x->episode.valid[f->modality], e);
    return rc ? err_prefix(e, "%s", f->name) : 0;
}

// ---- taking

static struct entry *cache_new_entry(struct data_cache *c, int64_t number, int64_t first, int64_t count,
                                     struct entry *base) {
    struct entry *x = calloc(1, sizeof *x), **at = cache_place(c, number, first, count);
    if (!x) return NULL;
    if (base) x->episode = base->episode;
    x->episode.number = number;
    x->first = first;
    x->count = count;
    x->users = 1;
    x->base = base;
    if (base) base->users++;
    *at = x;
    cache_to_front(c, x);
    return x;
}

// Marks what was loaded; a failure that may pass (a store that does not answer) is forgotten, so that it is
// tried again.
static int cache_finish(struct data_cache *c, struct entry *x, int rc, struct err *e) {
    if (rc && (e->code == ERR_DATA || e->code == ERR_MISSING) && (x->why = malloc(sizeof *x->why))) {
        *x->why = *e;
        free(x->block);
        x->block = NULL;
        x->bytes = sizeof *x + sizeof *x->why;
        x->state = BROKEN;
        x->users--;
        cache_leave_base(x);
    } else if (!rc) {
        x->state = READY;
    }
    c->bytes += x->bytes;
    if (rc && x->state == LOADING) cache_drop(c, x);
    cache_shrink(c);
    pthread_cond_broadcast(&c->loaded);
    return rc;
}

// The lock is held, but for while it loads. `base`: of a window.
static int cache_take(struct data_cache *c, int64_t number, int64_t first, int64_t count, struct entry *base,
                      struct entry **out, struct err *e) {
    struct entry *x;
    while ((x = *cache_place(c, number, first, count)) && x->state == LOADING)
        pthread_cond_wait(&c->loaded, &c->lock);
    *out = x;
    if (x && x->state == BROKEN) {
        if (e) *e = *x->why;
        return -(int)x->why->code;
    }
    if (x) {
        x->users++;
        cache_unlink(c, x);
        cache_to_front(c, x);
        return 0;
    }
    *out = x = cache_new_entry(c, number, first, count, base);
    if (!x) return err_set(e, ERR_MEMORY, "no memory for an episode");
    pthread_mutex_unlock(&c->lock);
    int rc = base ? cache_load_window(c, x, e) : cache_load(c, x, e);
    pthread_mutex_lock(&c->lock);
    return cache_finish(c, x, rc, e);
}

int data_cache_take(struct data_cache *c, int64_t number, int64_t first, int64_t count,
                    const struct data_episode **out, struct err *e) {
    struct entry *x;
    *out = NULL;
    pthread_mutex_lock(&c->lock);
    int rc = cache_take(c, number, 0, 0, NULL, &x, e);
    if (!rc && x->film && first >= 0 && count > 0 && first <= x->episode.frames - count) {
        struct entry *base = x;
        rc = cache_take(c, number, first, count, base, &x, e);
        base->users--;
    }
    if (!rc) *out = &x->episode;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void data_cache_give_back(struct data_cache *c, const struct data_episode *episode) {
    if (!episode) return;
    struct entry *x = (struct entry *)episode;
    pthread_mutex_lock(&c->lock);
    x->users--;
    cache_shrink(c);
    pthread_mutex_unlock(&c->lock);
}

size_t data_cache_bytes(struct data_cache *c) {
    pthread_mutex_lock(&c->lock);
    size_t bytes = c->bytes;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}
