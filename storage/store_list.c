// SPDX-License-Identifier: Apache-2.0
// Listings page by page, sorted, and grouped by a delimiter as ListObjectsV2 does.
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store_backend.h"

// Room for one more of n elements; grows by powers of two, so no capacity is kept beside n.
static void *grow(void *array, size_t n, size_t element) {
    if (n & (n - 1)) return array;
    return reallocarray(array, n ? 2 * n : 1, element);
}

static int too_many(struct err *e) {
    return err_set(e, ERR_DATA, "more than %d keys in one listing; use a longer prefix", STORE_LIST_MAX);
}

static int no_memory(size_t n, struct err *e) {
    return err_set(e, ERR_MEMORY, "no memory for a listing of %zu keys", n);
}

int store_listing_add(struct store_listing *l, const char *key, int64_t bytes, const char *etag,
                      struct err *e) {
    if (l->n >= STORE_LIST_MAX) return too_many(e);
    struct store_object *objects = grow(l->objects, l->n, sizeof *objects);
    if (!objects) return no_memory(l->n, e);
    l->objects = objects;
    struct store_object *o = &objects[l->n];
    memset(o, 0, sizeof *o);
    o->key = strdup(key);
    if (!o->key) return no_memory(l->n, e);
    o->bytes = bytes;
    strncpy(o->etag, etag ? etag : "", sizeof o->etag - 1);
    l->n++;
    return 0;
}

int store_listing_add_prefix(struct store_listing *l, const char *prefix, struct err *e) {
    if (l->n_prefixes >= STORE_LIST_MAX) return too_many(e);
    char **prefixes = grow(l->prefixes, l->n_prefixes, sizeof *prefixes);
    if (!prefixes) return no_memory(l->n_prefixes, e);
    l->prefixes = prefixes;
    prefixes[l->n_prefixes] = strdup(prefix);
    if (!prefixes[l->n_prefixes]) return no_memory(l->n_prefixes, e);
    l->n_prefixes++;
    return 0;
}

static int by_key(const void *a, const void *b) {
    return strcmp(((const struct store_object *)a)->key, ((const struct store_object *)b)->key);
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

// Turns the keys that hold the delimiter behind the prefix into prefixes; keys are sorted, so equal ones
// follow.
static int group(struct store_listing *l, size_t prefix_bytes, const char *delimiter, struct err *e) {
    size_t kept = 0;
    int rc = 0;
    for (size_t i = 0; i < l->n; i++) {
        struct store_object *o = &l->objects[i];
        char *cut = strlen(o->key) < prefix_bytes ? NULL : strstr(o->key + prefix_bytes, delimiter);
        if (!cut || rc) {
            l->objects[kept++] = *o;
            continue;
        }
        cut[strlen(delimiter)] = 0;
        const char *last = l->n_prefixes ? l->prefixes[l->n_prefixes - 1] : NULL;
        if (!last || strcmp(last, o->key)) rc = store_listing_add_prefix(l, o->key, e);
        free(o->key);
    }
    l->n = kept;
    return rc;
}

// ---- page by page

struct paging {
    store_each_fn *each;
    void *arg;
    const char *delimiter;
    size_t prefix_bytes;
    char *last;  // the prefix that was handed out last: it may go on in the next page
    bool passed; // the error is one of `each`
};

static int hand_out_entry(struct paging *p, const struct store_entry *entry, struct err *e) {
    int rc = p->each(p->arg, entry, e);
    p->passed = rc < 0;
    return rc;
}

static int hand_out_prefix(struct paging *p, char **prefix, struct err *e) {
    if (p->last && !strcmp(p->last, *prefix)) return 0;
    free(p->last);
    p->last = *prefix;
    *prefix = NULL;
    struct store_entry entry = {.key = p->last, .etag = "", .bytes = -1};
    return hand_out_entry(p, &entry, e);
}

static int hand_out_object(struct paging *p, const struct store_object *o, struct err *e) {
    struct store_entry entry = {.key = o->key, .etag = o->etag, .bytes = o->bytes};
    return hand_out_entry(p, &entry, e);
}

static int hand_out(void *arg, struct store_listing *l, struct err *e) {
    struct paging *p = arg;
    size_t i = 0, k = 0;
    if (l->n) qsort(l->objects, l->n, sizeof *l->objects, by_key);
    int rc = p->delimiter ? group(l, p->prefix_bytes, p->delimiter, e) : 0;
    if (l->n_prefixes) qsort(l->prefixes, l->n_prefixes, sizeof *l->prefixes, by_text);
    while (!rc && (i < l->n || k < l->n_prefixes)) {
        bool object = k == l->n_prefixes || (i < l->n && strcmp(l->objects[i].key, l->prefixes[k]) < 0);
        rc = object ? hand_out_object(p, &l->objects[i++], e) : hand_out_prefix(p, &l->prefixes[k++], e);
    }
    store_listing_fini(l);
    return rc;
}

int store_each(struct store *s, const char *prefix, const char *delimiter, store_each_fn *each, void *arg,
               struct err *e) {
    if (!prefix) prefix = "";
    if (delimiter && !*delimiter) delimiter = NULL;
    struct paging p = {.each = each, .arg = arg, .delimiter = delimiter, .prefix_bytes = strlen(prefix)};
    int rc = s->ops->list(s, prefix, delimiter, hand_out, &p, e);
    free(p.last);
    if (rc >= 0) return 0;
    return p.passed ? rc : err_prefix(e, "%s: LIST '%s'", s->url, prefix);
}

// ---- what killed writers have left

static bool sweeps(struct store *s) {
    pthread_mutex_lock(&s->lock);
    bool yes = s->ops->sweep && !s->sweep_flaw.code;
    pthread_mutex_unlock(&s->lock);
    return yes;
}

int store_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                struct err *e) {
    struct err why = {ERR_OK};
    size_t n = 0;
    int rc = sweeps(s) ? s->ops->sweep(s, mine, arg, &n, &why) : 0;
    if (removed) *removed = n;
    if (!rc) return 0;
    if (rc != -ERR_ABSENT) {
        if (e && !e->code) *e = why;
        return rc;
    }
    pthread_mutex_lock(&s->lock);
    s->sweep_flaw = why;
    pthread_mutex_unlock(&s->lock);
    return 0;
}

bool store_sweep_flaw(struct store *s, struct err *why) {
    pthread_mutex_lock(&s->lock);
    bool fresh = s->sweep_flaw.code && !s->sweep_flaw_told;
    if (fresh) *why = s->sweep_flaw;
    s->sweep_flaw_told |= fresh;
    pthread_mutex_unlock(&s->lock);
    return fresh;
}

void store_listing_fini(struct store_listing *l) {
    for (size_t i = 0; i < l->n; i++) free(l->objects[i].key);
    for (size_t i = 0; i < l->n_prefixes; i++) free(l->prefixes[i]);
    free(l->objects);
    free(l->prefixes);
    memset(l, 0, sizeof *l);
}
