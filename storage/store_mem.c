// SPDX-License-Identifier: Apache-2.0
// A store in this process's memory, for tests: "mem:NAME". Everyone who opens the same name sees the same
// objects.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "storage/store_backend.h"

struct object {
    char *key;
    char *data;
    size_t bytes;
    uint64_t version;
};

// The objects of one name, sorted by key.
struct bucket {
    struct bucket *next;
    char *name;
    struct object *objects;
    size_t n;
    uint64_t version;
};

// The one mutable global of this room: a memory store must outlive each handle on it (a test writes with one
// and reads with the next), and no value that all openers share exists. The mutex guards all buckets; none is
// ever freed.
static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct bucket *registry;

struct mem_store {
    struct store store;
    struct bucket *bucket;
};

static struct bucket *bucket_named(const char *name) {
    for (struct bucket *b = registry; b; b = b->next)
        if (!strcmp(b->name, name)) return b;
    struct bucket *b = calloc(1, sizeof *b);
    char *copy = strdup(name);
    if (!b || !copy) {
        free(b);
        free(copy);
        return NULL;
    }
    b->name = copy;
    b->next = registry;
    return registry = b;
}

// Where the key is, or where it would go.
static size_t find(const struct bucket *b, const char *key, bool *found) {
    size_t lo = 0, hi = b->n;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (strcmp(b->objects[mid].key, key) < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    *found = lo < b->n && !strcmp(b->objects[lo].key, key);
    return lo;
}

static int mem_put(struct bucket *b, size_t at, bool found, const struct store_call *c, struct err *e) {
    if (found && c->create_only) return err_set(e, ERR_CONFLICT, "the key exists already");
    struct object *o = reallocarray(b->objects, b->n + 1, sizeof *o);
    if (o) b->objects = o;
    struct object fresh = {.key = strdup(c->key), .data = malloc(c->bytes + 1), .bytes = c->bytes};
    if (!o || !fresh.key || !fresh.data) {
        free(fresh.key);
        free(fresh.data);
        return err_set(e, ERR_MEMORY, "no memory for an object of %zu bytes", c->bytes);
    }
    if (c->bytes) memcpy(fresh.data, c->data, c->bytes);
    fresh.version = ++b->version;
    o += at;
    if (found) {
        free(o->key);
        free(o->data);
    } else {
        memmove(o + 1, o, (b->n++ - at) * sizeof *o);
    }
    *o = fresh;
    return 0;
}

static void mem_delete(struct bucket *b, size_t at) {
    free(b->objects[at].key);
    free(b->objects[at].data);
    memmove(&b->objects[at], &b->objects[at + 1], (--b->n - at) * sizeof b->objects[0]);
}

static int mem_read(const struct object *o, const struct store_call *c, struct store_result *out,
                    struct err *e) {
    out->object_bytes = (int64_t)o->bytes;
    snprintf(out->etag, sizeof out->etag, "%llu", (unsigned long long)o->version);
    if (c->op == STORE_HEAD) return 0;
    int rc = store_clip_range(c, out->object_bytes, &out->bytes, e);
    if (!rc && out->bytes) memcpy(c->into, o->data + c->offset, out->bytes);
    return rc;
}

static int mem_locked(struct bucket *b, const struct store_call *c, struct store_result *out, struct err *e) {
    bool found;
    size_t at = find(b, c->key, &found);
    if (c->op == STORE_PUT) return mem_put(b, at, found, c, e);
    if (c->op == STORE_DELETE && found) mem_delete(b, at);
    if (c->op == STORE_DELETE) return 0;
    if (!found) return err_set(e, ERR_MISSING, "there is no such key");
    return mem_read(&b->objects[at], c, out, e);
}

static int mem_perform(struct store *s, const struct store_call *c, struct store_result *out, struct err *e) {
    pthread_mutex_lock(&registry_lock);
    int rc = mem_locked(((struct mem_store *)s)->bucket, c, out, e);
    pthread_mutex_unlock(&registry_lock);
    if (rc) err_prefix(e, "%s: '%s'", s->url, c->key);
    return rc;
}

// The keys behind `after`, at most a page of them.
static int mem_page(struct bucket *b, const char *prefix, const char *after, struct store_listing *out,
                    struct err *e) {
    bool found;
    int rc = 0;
    pthread_mutex_lock(&registry_lock);
    size_t i = find(b, after, &found);
    for (i += found && *after; i < b->n && out->n < STORE_PAGE && !rc; i++)
        if (!strncmp(b->objects[i].key, prefix, strlen(prefix)))
            rc = store_listing_add(out, b->objects[i].key, (int64_t)b->objects[i].bytes, "", e);
    pthread_mutex_unlock(&registry_lock);
    return rc;
}

static int mem_list(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page,
                    void *arg, struct err *e) {
    struct store_listing l = {0};
    char *after = strdup("");
    int rc = after ? 0 : err_set(e, ERR_MEMORY, "no memory for a listing");
    for (bool more = true; !rc && more;) {
        rc = mem_page(((struct mem_store *)s)->bucket, prefix, after, &l, e);
        more = l.n == STORE_PAGE;
        free(after);
        after = l.n ? strdup(l.objects[l.n - 1].key) : NULL;
        if (!rc && more && !after) rc = err_set(e, ERR_MEMORY, "no memory for a listing");
        if (!rc) rc = page(arg, &l, e);
    }
    free(after);
    store_listing_fini(&l);
    return rc;
}

// ---- the writer collects in memory.

struct mem_writer {
    struct store_writer writer;
    struct store *store;
    char *key;
    struct buf data;
};

static int mem_writer_write(struct store_writer *w, const void *data, size_t bytes, struct err *e) {
    return buf_append(&((struct mem_writer *)w)->data, data, bytes, e);
}

static int mem_writer_commit(struct store_writer *w, struct err *e) {
    struct mem_writer *m = (struct mem_writer *)w;
    return store_put(m->store, m->key, m->data.data, m->data.len, false, e);
}

static void mem_writer_abort(struct store_writer *w) {
    buf_clear(&((struct mem_writer *)w)->data);
}

static void mem_writer_destroy(struct store_writer *w) {
    struct mem_writer *m = (struct mem_writer *)w;
    buf_fini(&m->data);
    free(m->key);
    free(m);
}

static const struct store_writer_ops mem_writer_ops = {
    .write = mem_writer_write,
    .commit = mem_writer_commit,
    .abort = mem_writer_abort,
    .destroy = mem_writer_destroy,
};

static int mem_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) {
    struct mem_writer *w = calloc(1, sizeof *w);
    if (w) w->key = strdup(key);
    if (!w || !w->key) {
        free(w);
        return err_set(e, ERR_MEMORY, "no memory for a writer of '%s'", key);
    }
    w->writer.ops = &mem_writer_ops;
    w->store = s;
    buf_init(&w->data, PTRDIFF_MAX);
    *out = &w->writer;
    return 0;
}

static void mem_close(struct store *s) {
    store_fini(s);
    free(s);
}

static const struct store_ops mem_ops = {
    .close = mem_close,
    .perform = mem_perform,
    .list = mem_list,
    .writer_open = mem_writer_open,
};

int store_mem_open(struct store **out, const char *rest, const struct store_options *options, struct err *e) {
    char url[256];
    if (!*rest) return err_set(e, ERR_CONFIG, "'mem:' without a name");
    snprintf(url, sizeof url, "mem:%s", rest);
    struct mem_store *m = calloc(1, sizeof *m);
    if (!m) return err_set(e, ERR_MEMORY, "no memory to open store '%s'", url);
    int rc = store_init(&m->store, &mem_ops, url, options, e);
    pthread_mutex_lock(&registry_lock);
    m->bucket = bucket_named(rest);
    pthread_mutex_unlock(&registry_lock);
    if (!rc && !m->bucket) rc = err_set(e, ERR_MEMORY, "no memory to open store '%s'", url);
    if (rc)
        mem_close(&m->store);
    else
        *out = &m->store;
    return rc;
}
