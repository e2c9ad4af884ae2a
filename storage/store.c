// SPDX-License-Identifier: Apache-2.0
#include "storage/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/rng.h"
#include "storage/store_backend.h"

#define DEADLINE_MS_DEFAULT 60000
#define CONNECTIONS_DEFAULT 16
#define CONNECTIONS_MAX     256

struct scheme {
    const char *prefix;
    int (*open)(struct store **out, const char *rest, const struct store_options *options, struct err *e);
    bool remote;
    const char *(*path)(const char *rest); // NULL: its objects are no files
};

static const struct scheme schemes[] = {
    {.prefix = "file:", .open = store_posix_open, .path = store_posix_path},
    {.prefix = "mem:", .open = store_mem_open},
    {.prefix = "fault:", .open = store_fault_open, .remote = true},
    {.prefix = "s3:", .open = store_s3_open, .remote = true},
};

// NULL: none of ours. Else *rest is what stands behind the scheme.
static const struct scheme *scheme_of(const char *url, const char **rest) {
    for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
        size_t n = strlen(schemes[i].prefix);
        *rest = url + n;
        if (!strncmp(url, schemes[i].prefix, n)) return &schemes[i];
    }
    return NULL;
}

bool store_has_scheme(const char *text) {
    const char *rest;
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-");
    return scheme_of(text, &rest) || (n > 0 && !strncmp(text + n, "://", 3));
}

bool store_is_remote(const char *url) {
    const char *rest;
    const struct scheme *scheme = scheme_of(url, &rest);
    return scheme && scheme->remote;
}

const char *store_local_path(const char *url) {
    const char *path = url;
    const struct scheme *scheme = scheme_of(url, &path);
    if (scheme)
        path = scheme->path ? scheme->path(path) : NULL;
    else
        path = store_has_scheme(url) ? NULL : url;
    return path && *path ? path : NULL;
}

int store_open(struct store **out, const char *url, const struct store_options *options, struct err *e) {
    static const struct store_options defaults = {0};
    if (!options) options = &defaults;
    if (!url || !*url) return err_set(e, ERR_CONFIG, "the URL of a store is empty");
    const char *rest;
    const struct scheme *scheme = scheme_of(url, &rest);
    if (scheme) return scheme->open(out, rest, options, e);
    if (store_has_scheme(url))
        return err_set(e, ERR_CONFIG,
                       "'%s': unknown kind of store; use s3://bucket/prefix, file:///dir or a path", url);
    return store_posix_open(out, url, options, e);
}

int store_init(struct store *s, const struct store_ops *ops, const char *url,
               const struct store_options *options, struct err *e) {
    s->ops = ops;
    s->deadline_ms = options->deadline_ms > 0 ? options->deadline_ms : DEADLINE_MS_DEFAULT;
    s->connections = options->connections > 0 ? options->connections : CONNECTIONS_DEFAULT;
    if (s->connections > CONNECTIONS_MAX) s->connections = CONNECTIONS_MAX;
    s->jitter = rng_mix64(options->seed ^ ((uint64_t)getpid() << 40) ^ (uint64_t)clock_utc_ns());
    pthread_mutex_init(&s->lock, NULL);
    s->url = strdup(url);
    return s->url ? 0 : err_set(e, ERR_MEMORY, "no memory to open store '%s'", url);
}

void store_fini(struct store *s) {
    store_pool_destroy(s->pool);
    pthread_mutex_destroy(&s->lock);
    free(s->url);
}

void store_close(struct store *s) {
    if (s) s->ops->close(s);
}

const char *store_url(const struct store *s) {
    return s->url;
}

// ---- requests.

static int check_key(const struct store *s, const char *key, struct err *e) {
    size_t n = key ? strlen(key) : 0;
    if (!n) return err_set(e, ERR_USAGE, "%s: an empty key", s->url);
    if (n > STORE_KEY_MAX)
        return err_set(e, ERR_USAGE, "%s: a key of %zu bytes, more than %d: '%.40s...'", s->url, n,
                       STORE_KEY_MAX, key);
    return 0;
}

static int check_call(const struct store *s, const struct store_call *c, struct err *e) {
    if (c->op == STORE_GET && (c->offset < 0 || c->length < -1))
        return err_set(e, ERR_USAGE, "%s: GET '%s': range of %lld bytes at %lld", s->url, c->key,
                       (long long)c->length, (long long)c->offset);
    return check_key(s, c->key, e);
}

// A back end of blocking calls fills memory, a step at a time.
static int perform_taken(struct store *s, const struct store_call *c, struct store_result *out,
                         struct err *e) {
    struct store_call filled = *c;
    bool steps = c->step && c->length > 0 && (uint64_t)c->length > c->step;
    size_t taken = 0;
    int rc = 0;
    filled.take = NULL;
    if (steps) filled.capacity = c->step;
    filled.into = malloc(filled.capacity + !filled.capacity);
    if (!filled.into) return err_set(e, ERR_MEMORY, "%s: no memory for a request", s->url);
    do {
        int64_t left = c->length - (int64_t)taken;
        filled.offset = c->offset + (int64_t)taken;
        if (steps) filled.length = left < (int64_t)c->step ? left : (int64_t)c->step;
        rc = s->ops->perform(s, &filled, out, e);
        if (!rc && out->bytes) rc = c->take(c->take_arg, taken, filled.into, out->bytes, e);
        taken += out->bytes;
    } while (!rc && steps && out->bytes == (size_t)filled.length && (int64_t)taken < c->length);
    out->bytes = taken;
    free(filled.into);
    return rc;
}

int store_perform(struct store *s, const struct store_call *c, struct store_result *out, struct err *e) {
    memset(out, 0, sizeof *out);
    return c->op == STORE_GET && c->take ? perform_taken(s, c, out, e) : s->ops->perform(s, c, out, e);
}

static int ensure_pool(struct store *s, struct err *e) {
    pthread_mutex_lock(&s->lock);
    int rc = s->pool ? 0 : store_pool_create(&s->pool, s->connections, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

static int dispatch(struct store *s, struct store_request *r, struct err *e) {
    if (s->ops->start) return s->ops->start(s, r, e);
    int rc = ensure_pool(s, e);
    if (!rc) store_pool_submit(s->pool, r);
    return rc;
}

int store_start(struct store *s, struct store_request **out, const struct store_call *call, struct err *e) {
    int rc = check_call(s, call, e);
    if (rc) return rc;
    struct store_request *r = calloc(1, sizeof *r);
    if (!r) return err_set(e, ERR_MEMORY, "%s: no memory for a request", s->url);
    r->store = s;
    r->call = *call;
    pthread_cond_init(&r->finished, NULL);
    rc = dispatch(s, r, e);
    if (!rc) {
        *out = r;
        return 0;
    }
    pthread_cond_destroy(&r->finished);
    free(r);
    return rc;
}

void store_finish(struct store_request *r, int status) {
    struct store *s = r->store;
    if (r->call.known) r->call.known(r->call.take_arg, status ? NULL : &r->result);
    pthread_mutex_lock(&s->lock);
    r->status = status;
    r->done = true;
    pthread_cond_signal(&r->finished);
    pthread_mutex_unlock(&s->lock);
}

// The deadline is the back end's: it finishes every request by then.
int store_wait(struct store *s, struct store_request *r, struct store_result *result, struct err *e) {
    pthread_mutex_lock(&s->lock);
    while (!r->done) pthread_cond_wait(&r->finished, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&r->finished);
    int rc = r->status;
    const struct store_call *c = &r->call;
    if (rc == -ERR_CONFLICT && c->create_only && r->doubtful && store_holds(s, c->key, c->data, c->bytes))
        rc = 0;
    if (result) *result = r->result;
    if (rc && e && !e->code) *e = r->err;
    free(r);
    return rc;
}

int store_call_blocking(struct store *s, const struct store_call *c, struct store_result *out,
                        struct err *e) {
    int rc = check_call(s, c, e);
    if (rc) return rc;
    if (s->ops->perform) return store_perform(s, c, out, e);
    struct store_request *r;
    rc = store_start(s, &r, c, e);
    return rc ? rc : store_wait(s, r, out, e);
}

int store_clip_range(const struct store_call *c, int64_t object_bytes, size_t *out, struct err *e) {
    if (c->offset > object_bytes)
        return err_set(e, ERR_DATA, "'%s': a range at %lld lies behind the end (%lld bytes)", c->key,
                       (long long)c->offset, (long long)object_bytes);
    int64_t n = object_bytes - c->offset;
    if (c->length >= 0 && n > c->length) n = c->length;
    if ((uint64_t)n > c->capacity)
        return err_set(e, ERR_DATA, "'%s': %lld bytes do not fit in the %zu given", c->key, (long long)n,
                       c->capacity);
    *out = (size_t)n;
    return 0;
}

// ---- blocking reads. On a store that answers in parallel, a long range is cut into parts.

struct range_read {
    struct store *s;
    const char *key;
    int64_t offset;
    size_t length;
    char *into;
    char etag[72]; // all parts must be of this version; "": of the first part's
};

static int start_part(const struct range_read *g, size_t at, struct store_request **out, struct err *e) {
    size_t n = g->length - at < STORE_PART_BYTES ? g->length - at : STORE_PART_BYTES;
    struct store_call c = {.op = STORE_GET,
                           .key = g->key,
                           .offset = g->offset + (int64_t)at,
                           .length = (int64_t)n,
                           .into = g->into + at,
                           .capacity = n};
    return store_start(g->s, out, &c, e);
}

static int check_part(struct range_read *g, size_t at, size_t n, const struct store_result *got,
                      struct err *e) {
    if (!g->etag[0]) memcpy(g->etag, got->etag, sizeof g->etag);
    if (strcmp(g->etag, got->etag))
        return err_set(e, ERR_DATA, "%s: GET '%s': the object changed while it was read", g->s->url, g->key);
    if (got->bytes != n)
        return err_set(e, ERR_DATA, "%s: GET '%s': %zu of %zu bytes at %lld; the object ends at %lld",
                       g->s->url, g->key, got->bytes, n, (long long)(g->offset + (int64_t)at),
                       (long long)got->object_bytes);
    return 0;
}

static int wait_part(struct range_read *g, size_t at, struct store_request *r, struct err *e) {
    struct store_result got;
    size_t n = g->length - at < STORE_PART_BYTES ? g->length - at : STORE_PART_BYTES;
    int rc = store_wait(g->s, r, &got, e);
    return rc ? rc : check_part(g, at, n, &got, e);
}

static int read_parts(struct range_read *g, struct err *e) {
    struct store_request *ring[CONNECTIONS_MAX];
    size_t parts = (g->length + STORE_PART_BYTES - 1) / STORE_PART_BYTES;
    size_t width = (size_t)g->s->connections, started = 0;
    int rc = 0;
    for (size_t i = 0; i < parts; i++) {
        for (; !rc && started < parts && started < i + width; started += !rc)
            rc = start_part(g, started * STORE_PART_BYTES, &ring[started % width], e);
        if (i >= started) break;
        int got = wait_part(g, i * STORE_PART_BYTES, ring[i % width], e);
        if (!rc) rc = got;
    }
    return rc;
}

static int read_at_once(struct range_read *g, struct err *e) {
    struct store_result got;
    struct store_call c = {.op = STORE_GET,
                           .key = g->key,
                           .offset = g->offset,
                           .length = (int64_t)g->length,
                           .into = g->into,
                           .capacity = g->length};
    int rc = store_call_blocking(g->s, &c, &got, e);
    return rc ? rc : check_part(g, 0, g->length, &got, e);
}

static int read_range(struct range_read *g, struct err *e) {
    if (!g->length) return check_key(g->s, g->key, e);
    return g->s->ops->start && g->length > STORE_PART_BYTES ? read_parts(g, e) : read_at_once(g, e);
}

int store_get_range(struct store *s, const char *key, int64_t offset, size_t length, void *into,
                    struct err *e) {
    struct range_read g = {.s = s, .key = key, .offset = offset, .length = length, .into = into};
    return read_range(&g, e);
}

int store_get_range_of(struct store *s, const char *key, const struct store_result *object, int64_t offset,
                       size_t length, void *into, struct err *e) {
    struct range_read g = {.s = s, .key = key, .offset = offset, .length = length, .into = into};
    memcpy(g.etag, object->etag, sizeof g.etag);
    return read_range(&g, e);
}

static int get_first(struct store *s, const char *key, size_t max_bytes, struct buf *out,
                     struct store_result *got, struct err *e) {
    size_t want = max_bytes < STORE_PART_BYTES ? max_bytes : STORE_PART_BYTES;
    int rc = buf_reserve(out, out->len + want, e);
    if (rc) return rc;
    struct store_call c = {.op = want ? STORE_GET : STORE_HEAD,
                           .key = key,
                           .length = (int64_t)want,
                           .into = want ? out->data + out->len : NULL,
                           .capacity = want};
    rc = store_call_blocking(s, &c, got, e);
    if (!rc && (uint64_t)got->object_bytes > max_bytes)
        rc = err_set(e, ERR_DATA, "%s: GET '%s': the object has %lld bytes, more than %zu", s->url, key,
                     (long long)got->object_bytes, max_bytes);
    return rc;
}

int store_get(struct store *s, const char *key, size_t max_bytes, struct buf *out, struct err *e) {
    struct store_result got;
    size_t before = out->len;
    int rc = get_first(s, key, max_bytes, out, &got, e);
    if (rc) return rc;
    size_t total = (size_t)got.object_bytes;
    rc = buf_reserve(out, before + total, e);
    if (rc) return rc;
    struct range_read g = {.s = s, .key = key, .offset = (int64_t)got.bytes, .length = total - got.bytes};
    g.into = out->data + before + got.bytes;
    memcpy(g.etag, got.etag, sizeof g.etag);
    if (g.length) rc = s->ops->start ? read_parts(&g, e) : read_at_once(&g, e);
    if (rc) return rc;
    out->len = before + total;
    if (out->data) out->data[out->len] = 0;
    return 0;
}

// ---- other blocking calls.

int store_put(struct store *s, const char *key, const void *data, size_t bytes, bool create_only,
              struct err *e) {
    struct store_result got;
    if (s->ops->put_large && !create_only && bytes > 2 * STORE_PART_BYTES) {
        int rc = check_key(s, key, e);
        return rc ? rc : s->ops->put_large(s, key, data, bytes, e);
    }
    struct store_call c = {
        .op = STORE_PUT, .key = key, .data = data, .bytes = bytes, .create_only = create_only};
    return store_call_blocking(s, &c, &got, e);
}

int store_head(struct store *s, const char *key, struct store_result *out, struct err *e) {
    struct store_call c = {.op = STORE_HEAD, .key = key};
    return store_call_blocking(s, &c, out, e);
}

int store_delete(struct store *s, const char *key, struct err *e) {
    struct store_result got;
    struct store_call c = {.op = STORE_DELETE, .key = key};
    return store_call_blocking(s, &c, &got, e);
}

int store_probe(struct store *s, struct store_caps *out, struct err *e) {
    if (s->ops->probe) return s->ops->probe(s, out, e);
    *out = (struct store_caps){.vendor = "local", .create_only = true, .create_only_complete = true};
    return 0;
}

bool store_holds(struct store *s, const char *key, const void *data, size_t bytes) {
    struct buf there;
    struct err ignored = {0};
    buf_init(&there, bytes);
    int rc = store_get(s, key, bytes, &there, &ignored);
    bool same = !rc && there.len == bytes && (!bytes || !memcmp(there.data, data, bytes));
    buf_fini(&there);
    return same;
}

// ---- the writer.

int store_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) {
    int rc = check_key(s, key, e);
    return rc ? rc : s->ops->writer_open(s, out, key, e);
}

int store_writer_write(struct store_writer *w, const void *data, size_t bytes, struct err *e) {
    if (w->failed) return err_set(e, ERR_BUG, "a write to a store writer that has failed before");
    int rc = bytes ? w->ops->write(w, data, bytes, e) : 0;
    if (rc) w->failed = true;
    return rc;
}

int store_writer_commit(struct store_writer *w, struct err *e) {
    int rc = w->failed ? err_set(e, ERR_BUG, "commit of a store writer that has failed before")
                       : w->ops->commit(w, e);
    if (rc) w->ops->abort(w);
    w->ops->destroy(w);
    return rc;
}

void store_writer_abort(struct store_writer *w) {
    if (!w) return;
    w->ops->abort(w);
    w->ops->destroy(w);
}
