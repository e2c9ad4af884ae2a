// SPDX-License-Identifier: Apache-2.0
#include "launcher/store_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "launcher/progress.h"
#include "launcher/units.h"

#define AT_ONCE_MAX 64
#define BLOCK       ((size_t)8 << 20)

// All copies of one command. Workers take the next object; the caller's thread shows how far they are.
struct crowd {
    struct store_copy *c;
    const struct store_place *from, *to;
    const struct store_listing *list;
    const char *below;    // prefix of the source's keys that is cut off
    const char *under;    // put before the destination's keys, with a slash
    pthread_mutex_t lock; // guards what follows
    pthread_cond_t changed;
    size_t next, done;
    int64_t moved, total;
    int workers, rc;
    bool size_unknown; // of the one object: nobody asked for it beforehand
    struct err err;
};

static void on_moved(void *arg, int64_t bytes) {
    struct crowd *w = arg;
    pthread_mutex_lock(&w->lock);
    w->moved += bytes;
    pthread_cond_signal(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

// Of a single object that comes from a store, the first reply tells.
static void on_sized(void *arg, int64_t bytes) {
    struct crowd *w = arg;
    pthread_mutex_lock(&w->lock);
    if (w->size_unknown) w->total = bytes;
    pthread_mutex_unlock(&w->lock);
}

// ---- one object.

static int make_folder_of(const char *path, struct err *e) {
    const char *name = store_place_name(path);
    if (name == path || name == path + 1) return 0;
    char *folder = strndup(path, (size_t)(name - path));
    if (!folder) return err_set(e, ERR_MEMORY, "no memory for a path");
    int rc = bytes_make_dirs(folder, e);
    free(folder);
    return rc;
}

// A key of a store becomes a path on this machine: nothing may lead out of the folder.
static int check_name(const char *key, struct err *e) {
    for (const char *p = key;; p++) {
        size_t n = strcspn(p, "/");
        if (!n || (n == 1 && *p == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return err_set(e, ERR_DATA,
                           "'%.200s': a key with an empty, '.' or '..' part is no name of a file", key);
        p += n;
        if (!*p) return 0;
    }
}

// From store to store, through this machine.
static int copy_through(const struct store_place *from, const char *key, const struct store_place *to,
                        const char *target, struct store_transfer *t, struct err *e) {
    struct store_result object;
    struct store_writer *w = NULL;
    char *block = malloc(BLOCK);
    int rc =
        block ? store_head(from->store, key, &object, e) : err_set(e, ERR_MEMORY, "no memory for a copy");
    if (!rc) rc = store_writer_open(to->store, &w, target, e);
    for (int64_t at = 0; !rc && at < object.object_bytes;) {
        size_t n = object.object_bytes - at < (int64_t)BLOCK ? (size_t)(object.object_bytes - at) : BLOCK;
        rc = store_get_range(from->store, key, at, n, block, e);
        if (!rc) rc = store_writer_write(w, block, n, e);
        if (!rc) t->moved(t->arg, (int64_t)n);
        at += (int64_t)n;
    }
    if (rc)
        store_writer_abort(w);
    else
        rc = store_writer_commit(w, e);
    t->bytes = rc ? 0 : object.object_bytes;
    free(block);
    return rc;
}

static char *path_at(const struct store_place *p, const char *name) {
    char *out;
    size_t n = strlen(p->path);
    if (!p->folder || !*name) return strdup(p->path);
    return asprintf(&out, "%s%s%s", p->path, n && p->path[n - 1] == '/' ? "" : "/", name) < 0 ? NULL : out;
}

static int copy_one(struct crowd *w, const char *key, const char *target, struct store_transfer *t,
                    struct err *e) {
    char *from = w->from->path ? path_at(w->from, key) : NULL;
    char *to = w->to->path ? path_at(w->to, target) : NULL;
    int rc =
        (w->from->path && !from) || (w->to->path && !to) ? err_set(e, ERR_MEMORY, "no memory for a path") : 0;
    if (!rc && to) rc = check_name(target, e);
    if (!rc && to) rc = make_folder_of(to, e);
    if (rc)
        ;
    else if (to)
        rc = store_get_file(w->from->store, key, to, t, e);
    else if (from)
        rc = store_put_file(w->to->store, target, from, t, e);
    else
        rc = copy_through(w->from, key, w->to, target, t, e);
    free(from);
    free(to);
    return rc;
}

// ---- many.

static int copy_listed(struct crowd *w, size_t i, struct store_transfer *t, struct err *e) {
    const char *key = w->list->objects[i].key;
    char *target;
    size_t n = strlen(key);
    if (n && key[n - 1] == '/') return 0; // a mark that some programs leave for an empty folder
    if (asprintf(&target, "%s%s", w->under, key + strlen(w->below)) < 0)
        return err_set(e, ERR_MEMORY, "no memory for a key");
    int rc = copy_one(w, key, target, t, e);
    free(target);
    return rc;
}

static void *work(void *arg) {
    struct crowd *w = arg;
    for (;;) {
        struct store_transfer t = {
            .resume = w->c->resume, .verify = w->c->verify, .sized = on_sized, .moved = on_moved, .arg = w};
        struct err e = {0};
        pthread_mutex_lock(&w->lock);
        size_t i = w->next;
        bool more = !w->rc && i < w->list->n;
        w->next += more;
        pthread_mutex_unlock(&w->lock);
        int rc = more ? copy_listed(w, i, &t, &e) : 0;
        pthread_mutex_lock(&w->lock);
        if (rc && !w->rc) {
            w->rc = rc;
            w->err = e;
        }
        if (more && !rc) {
            w->done++;
            w->c->objects++;
            w->c->bytes += t.bytes;
            w->c->resumed_bytes += t.resumed_bytes;
            w->c->verified += t.verified;
        }
        if (!more) w->workers--;
        pthread_cond_signal(&w->changed);
        pthread_mutex_unlock(&w->lock);
        if (!more) return NULL;
    }
}

static void show(const struct crowd *w, struct progress *p, double begin) {
    char line[160], done[UNITS_BYTES], all[UNITS_BYTES], rate[UNITS_BYTES];
    double seconds = clock_seconds() - begin;
    snprintf(line, sizeof line, "%zu of %zu objects, %s of %s, %s/s", w->done, w->list->n,
             units_bytes(w->moved, done), units_bytes(w->total, all),
             units_bytes((int64_t)((double)w->moved / (seconds > 0.001 ? seconds : 0.001)), rate));
    progress_show(p, line);
}

static void wait_all(struct crowd *w) {
    struct progress p;
    double begin = clock_seconds();
    progress_init(&p, w->c->log);
    p.last_ns = clock_monotonic_ns(); // a short copy is not worth a line
    pthread_mutex_lock(&w->lock);
    while (w->workers) {
        if (!w->c->quiet) show(w, &p, begin);
        pthread_cond_wait(&w->changed, &w->lock);
    }
    pthread_mutex_unlock(&w->lock);
    progress_clear(&p);
}

static int run_crowd(struct crowd *w, struct err *e) {
    pthread_t threads[AT_ONCE_MAX];
    int n = w->c->at_once < AT_ONCE_MAX ? w->c->at_once : AT_ONCE_MAX, started = 0;
    if ((size_t)n > w->list->n) n = (int)w->list->n;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    w->workers = n;
    while (started < n && !pthread_create(&threads[started], NULL, work, w)) started++;
    pthread_mutex_lock(&w->lock);
    w->workers -= n - started;
    if (!started && n) w->rc = err_set(&w->err, ERR_MEMORY, "no thread can be started");
    pthread_mutex_unlock(&w->lock);
    wait_all(w);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    if (w->rc && e) *e = w->err;
    return w->rc;
}

// The folder that a place names, as a prefix of keys: "" or with a slash at its end.
static char *prefix_of(const struct store_place *p) {
    char *out;
    size_t n = strlen(p->key);
    return asprintf(&out, "%s%s", p->key, n && p->key[n - 1] != '/' ? "/" : "") < 0 ? NULL : out;
}

static int copy_tree(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                     struct err *e) {
    struct store_listing list = {0};
    char *below = prefix_of(from), *under = to->path ? strdup("") : prefix_of(to);
    struct crowd w = {.c = c, .from = from, .to = to, .list = &list, .below = below, .under = under};
    int rc =
        below && under ? store_list(from->store, below, NULL, &list, e) : err_set(e, ERR_MEMORY, "no memory");
    if (!rc && !list.n) rc = err_set(e, ERR_MISSING, "%s: nothing there", from->url);
    for (size_t i = 0; i < list.n; i++) w.total += list.objects[i].bytes;
    if (!rc) rc = run_crowd(&w, e);
    store_listing_fini(&list);
    free(below);
    free(under);
    return rc;
}

static int copy_single(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                       struct err *e) {
    struct store_result head = {0};
    struct store_object object = {.key = from->key};
    struct store_listing list = {.objects = &object, .n = 1};
    const char *name = store_place_name(from->key);
    if (from->folder)
        return err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store cp -r' to copy all of it",
                       from->url);
    bool fetch = to->path && !from->path;
    int rc = fetch ? 0 : store_head(from->store, from->key, &head, e);
    if (rc) return rc;
    char *under = NULL;
    bool into = to->folder && !to->path;
    if (asprintf(&under, "%s", into ? to->key : to->path ? "" : to->key) < 0)
        return err_set(e, ERR_MEMORY, "no memory for a key");
    // A key that is given in full takes the place of the source's name.
    struct crowd w = {
        .c = c, .from = from, .to = to, .list = &list, .total = head.object_bytes, .under = under};
    w.size_unknown = fetch;
    char *below = strndup(from->key, to->folder || to->path ? (size_t)(name - from->key) : strlen(from->key));
    w.below = below;
    rc = below ? run_crowd(&w, e) : err_set(e, ERR_MEMORY, "no memory for a key");
    free(below);
    free(under);
    return rc;
}

int store_copy_run(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                   struct err *e) {
    c->objects = c->bytes = c->resumed_bytes = c->verified = 0;
    return c->recursive ? copy_tree(c, from, to, e) : copy_single(c, from, to, e);
}
