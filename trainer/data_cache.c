// SPDX-License-Identifier: Apache-2.0
#include "trainer/data_cache.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 4096 };

enum state { LOADING, READY, BROKEN };

struct entry {
    struct data_episode episode; // first: an episode is its entry
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
    pthread_mutex_t lock;
    pthread_cond_t loaded;
    // The lock guards the rest.
    size_t bytes;
    struct entry *bucket[BUCKETS];
    struct entry *newest, *oldest;
};

int data_cache_create(struct data_cache **out, struct dataset *d, const struct modality_set *set,
                      size_t budget_bytes, struct err *e) {
    struct data_cache *c = calloc(1, sizeof *c);
    *out = c;
    if (!c) return err_set(e, ERR_MEMORY, "no memory for the cache of episodes");
    c->dataset = d;
    c->set = set;
    c->budget = budget_bytes;
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->loaded, NULL);
    return 0;
}

static void cache_free_entry(struct entry *x) {
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

static struct entry **cache_place(struct data_cache *c, int64_t number) {
    struct entry **at = &c->bucket[(uint64_t)number % BUCKETS];
    while (*at && (*at)->episode.number != number) at = &(*at)->next_in_bucket;
    return at;
}

static void cache_drop(struct data_cache *c, struct entry *x) {
    *cache_place(c, x->episode.number) = x->next_in_bucket;
    cache_unlink(c, x);
    c->bytes -= x->bytes;
    cache_free_entry(x);
}

static void cache_shrink(struct data_cache *c) {
    struct entry *x = c->oldest;
    while (x && c->bytes > c->budget) {
        struct entry *newer = x->newer;
        if (x->users == 0 && x->state == READY) cache_drop(c, x);
        x = newer;
    }
}

// ---- loading; the lock is not held

static int cache_room(struct data_cache *c, struct entry *x, struct err *e) {
    size_t frames = (size_t)x->episode.frames, total = 0, part;
    bool fits = true;
    for (int m = 0; m < c->set->n; m++) {
        const struct modality_spec *spec = &c->set->spec[m];
        fits = fits && bytes_mul(frames, (size_t)spec->frame_elems * spec->modality->cell + 1, &part) &&
               bytes_add(total, part + 64, &total);
    }
    x->block = fits ? calloc(1, total + 64) : NULL;
    if (!x->block)
        return err_set(e, ERR_MEMORY, "no memory for an episode of %lld frames",
                       (long long)x->episode.frames);
    char *at = x->block;
    for (int m = 0; m < c->set->n; m++) {
        const struct modality_spec *spec = &c->set->spec[m];
        size_t cells = frames * (size_t)spec->frame_elems * spec->modality->cell;
        x->episode.cells[m] = at;
        x->episode.valid[m] = (unsigned char *)at + cells;
        at += (cells + frames + 63) / 64 * 64;
    }
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

static int cache_load(struct data_cache *c, struct entry *x, struct err *e) {
    struct sample s = {0};
    struct dataset_sample where;
    dataset_sample(c->dataset, x->episode.number, &where);
    x->episode.frames = where.frames;
    int rc = dataset_read(c->dataset, x->episode.number, &s, e);
    if (!rc) rc = cache_room(c, x, e);
    if (!rc) rc = cache_decode(c, x, &s, e);
    sample_fini(&s);
    return rc;
}

// ---- taking

static struct entry *cache_new_entry(struct data_cache *c, int64_t number) {
    struct entry *x = calloc(1, sizeof *x), **at = cache_place(c, number);
    if (!x) return NULL;
    x->episode.number = number;
    x->users = 1;
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
    } else if (!rc) {
        x->state = READY;
    }
    c->bytes += x->bytes;
    if (rc && x->state == LOADING) cache_drop(c, x);
    cache_shrink(c);
    pthread_cond_broadcast(&c->loaded);
    return rc;
}

int data_cache_take(struct data_cache *c, int64_t number, const struct data_episode **out, struct err *e) {
    struct entry *x;
    int rc = 0;
    *out = NULL;
    pthread_mutex_lock(&c->lock);
    while ((x = *cache_place(c, number)) && x->state == LOADING) pthread_cond_wait(&c->loaded, &c->lock);
    if (x && x->state == BROKEN) {
        if (e) *e = *x->why;
        rc = -(int)x->why->code;
    } else if (x) {
        x->users++;
        cache_unlink(c, x);
        cache_to_front(c, x);
    } else if (!(x = cache_new_entry(c, number))) {
        rc = err_set(e, ERR_MEMORY, "no memory for an episode");
    } else {
        pthread_mutex_unlock(&c->lock);
        rc = cache_load(c, x, e);
        pthread_mutex_lock(&c->lock);
        rc = cache_finish(c, x, rc, e);
    }
    if (!rc) *out = &x->episode;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void data_cache_give_back(struct data_cache *c, const struct data_episode *episode) {
    if (!episode) return;
    pthread_mutex_lock(&c->lock);
    struct entry *x = *cache_place(c, episode->number);
    if (x) x->users--;
    cache_shrink(c);
    pthread_mutex_unlock(&c->lock);
}

size_t data_cache_bytes(struct data_cache *c) {
    pthread_mutex_lock(&c->lock);
    size_t bytes = c->bytes;
    pthread_mutex_unlock(&c->lock);
    return bytes;
}
