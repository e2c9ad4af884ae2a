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
#define QUEUE       1024 // keys that are listed and not yet begun
#define BLOCK       ((size_t)8 << 20)

// All copies of one command. The caller's thread lists, page by page, and shows how far the workers are; it
// waits while the queue is full, so memory does not grow with the listing.
struct crowd {
    struct store_copy *c;
    const struct store_place *from, *to;
    const char *below;      // prefix of the source's keys that is cut off
    const char *under;      // put before the destination's keys, with a slash
    pthread_mutex_t lock;   // guards what follows
    pthread_cond_t changed; // for the caller
    pthread_cond_t work;    // for the workers
    char *queue[QUEUE];
    size_t given, taken, done;
    bool met, listed; // the listing had a key; it has ended
    int64_t moved, total;
    pthread_t threads[AT_ONCE_MAX];
    int workers, idle, busy, rc;
    bool size_unknown; // of the one object: nobody asked for it beforehand
    struct err err;
    struct progress progress;
    double begin;
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
        rc = store_get_range_of(from->store, key, &object, at, n, block, e);
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

static int copy_listed(struct crowd *w, const char *key, struct store_transfer *t, struct err *e) {
    char *target;
    if (asprintf(&target, "%s%s", w->under, key + strlen(w->below)) < 0)
        return err_set(e, ERR_MEMORY, "no memory for a key");
    int rc = copy_one(w, key, target, t, e);
    free(target);
    return rc;
}

// The lock is held. NULL: there is no more to do.
static char *take_key(struct crowd *w) {
    w->idle++;
    while (!w->rc && !w->listed && w->taken == w->given) pthread_cond_wait(&w->work, &w->lock);
    w->idle--;
    if (w->rc || w->taken == w->given) return NULL;
    w->busy++;
    return w->queue[w->taken++ % QUEUE];
}

// The lock is held.
static void note_copy(struct crowd *w, const struct store_transfer *t, int rc, const struct err *e) {
    w->busy--;
    if (rc && !w->rc) {
        w->rc = rc;
        w->err = *e;
        pthread_cond_broadcast(&w->work);
    }
    if (rc) return;
    w->done++;
    w->c->objects++;
    w->c->bytes += t->bytes;
    w->c->resumed_bytes += t->resumed_bytes;
    w->c->verified += t->verified;
}

static void *work(void *arg) {
    struct crowd *w = arg;
    char *key;
    pthread_mutex_lock(&w->lock);
    while ((key = take_key(w))) {
        struct store_transfer t = {
            .resume = w->c->resume, .verify = w->c->verify, .sized = on_sized, .moved = on_moved, .arg = w};
        struct err e = {0};
        pthread_cond_signal(&w->changed); // there is room in the queue
        pthread_mutex_unlock(&w->lock);
        int rc = copy_listed(w, key, &t, &e);
        free(key);
        pthread_mutex_lock(&w->lock);
        note_copy(w, &t, rc, &e);
        pthread_cond_signal(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

// How many there are, and how much, is known when the listing has ended.
static void show(struct crowd *w) {
    char line[160], done[UNITS_BYTES], all[UNITS_BYTES], rate[UNITS_BYTES];
    double seconds = clock_seconds() - w->begin;
    units_bytes(w->moved, done);
    units_bytes((int64_t)((double)w->moved / (seconds > 0.001 ? seconds : 0.001)), rate);
    if (w->listed)
        snprintf(line, sizeof line, "%zu of %zu objects, %s of %s, %s/s", w->done, w->given, done,
                 units_bytes(w->total, all), rate);
    else
        snprintf(line, sizeof line, "%zu objects, %s, %s/s; the listing goes on", w->done, done, rate);
    progress_show(&w->progress, line);
}

// The lock is held.
static void wait_for_change(struct crowd *w) {
    if (!w->c->quiet) show(w);
    pthread_cond_wait(&w->changed, &w->lock);
}

// The lock is held. A worker more, where all have work and there may be more of them.
static int hire(struct crowd *w, struct err *e) {
    int most = w->c->at_once < AT_ONCE_MAX ? w->c->at_once : AT_ONCE_MAX;
    if (w->workers == most || (size_t)w->idle > w->given - w->taken) return 0;
    int failed = pthread_create(&w->threads[w->workers], NULL, work, w);
    if (failed && !w->workers) return err_errno(e, failed, "no thread can be started");
    w->workers += !failed;
    return 0;
}

// Positive: a copy has failed, no more are wanted.
static int give(struct crowd *w, const char *key, int64_t bytes, struct err *e) {
    char *own = strdup(key);
    if (!own) return err_set(e, ERR_MEMORY, "no memory for a key");
    pthread_mutex_lock(&w->lock);
    while (!w->rc && w->given - w->taken == QUEUE) wait_for_change(w);
    int rc = w->rc ? 1 : hire(w, e);
    if (!rc) {
        w->queue[w->given++ % QUEUE] = own;
        w->total += bytes;
        own = NULL;
        pthread_cond_signal(&w->work);
    }
    pthread_mutex_unlock(&w->lock);
    free(own);
    return rc;
}

static void begin_crowd(struct crowd *w) {
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    pthread_cond_init(&w->work, NULL);
    w->begin = clock_seconds();
    progress_init(&w->progress, w->c->log);
    w->progress.last_ns = clock_monotonic_ns(); // a short copy is not worth a line
}

// Waits for what was given. `rc`, `e`: how giving it ended; an error there ends all.
static int end_crowd(struct crowd *w, int rc, struct err *e) {
    pthread_mutex_lock(&w->lock);
    w->listed = true;
    if (rc < 0 && !w->rc) {
        w->rc = rc;
        w->err = *e;
    }
    pthread_cond_broadcast(&w->work);
    while (w->busy || (!w->rc && w->taken < w->given)) wait_for_change(w);
    pthread_mutex_unlock(&w->lock);
    for (int i = 0; i < w->workers; i++) pthread_join(w->threads[i], NULL);
    while (w->taken < w->given) free(w->queue[w->taken++ % QUEUE]);
    progress_clear(&w->progress);
    pthread_cond_destroy(&w->work);
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    if (w->rc) *e = w->err;
    return w->rc;
}

// The folder that a place names, as a prefix of keys: "" or with a slash at its end.
static char *prefix_of(const struct store_place *p) {
    char *out;
    size_t n = strlen(p->key);
    return asprintf(&out, "%s%s", p->key, n && p->key[n - 1] != '/' ? "/" : "") < 0 ? NULL : out;
}

// Keys that this copy makes must not turn up in its own listing.
static int refuse_itself(const struct store_place *from, const char *below, const struct store_place *to,
                         const char *under, struct err *e) {
    char *source = NULL, *target = NULL;
    bool inside = !from->path && !to->path && !strcmp(store_url(from->store), store_url(to->store)) &&
                  !strncmp(under, below, strlen(below));
    if (from->path && to->path && (source = realpath(from->path, NULL)) &&
        (target = store_place_realpath(to))) {
        size_t n = strlen(source);
        inside = !strncmp(target, source, n) && (!target[n] || target[n] == '/' || !strcmp(source, "/"));
    }
    free(source);
    free(target);
    return inside ? err_set(e, ERR_USAGE,
                            "%s lies in %s: a copy of a folder into itself has no end; copy to "
                            "another place",
                            to->url, from->url)
                  : 0;
}

static int copy_entry(void *arg, const struct store_entry *o, struct err *e) {
    struct crowd *w = arg;
    size_t n = strlen(o->key);
    w->met = true;
    if (n && o->key[n - 1] == '/') return 0; // a mark that some programs leave for an empty folder
    return give(w, o->key, o->bytes, e);
}

static int copy_tree(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                     struct err *e) {
    char *below = prefix_of(from), *under = to->path ? strdup("") : prefix_of(to);
    struct crowd *w = calloc(1, sizeof *w);
    int rc = below && under && w ? refuse_itself(from, below, to, under, e)
                                 : err_set(e, ERR_MEMORY, "no memory for a copy");
    if (rc) goto out;
    *w = (struct crowd){.c = c, .from = from, .to = to, .below = below, .under = under};
    begin_crowd(w);
    rc = store_each(from->store, below, NULL, copy_entry, w, e);
    if (!rc && !w->met) rc = err_set(e, ERR_MISSING, "%s: nothing there", from->url);
    rc = end_crowd(w, rc, e);
out:
    free(w);
    free(below);
    free(under);
    return rc;
}

static int copy_single(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                       struct err *e) {
    struct store_result head = {0};
    const char *name = store_place_name(from->key);
    if (from->folder)
        return err_set(e, ERR_USAGE, "%s is a folder: write 'orrery store cp -r' to copy all of it",
                       from->url);
    bool fetch = to->path && !from->path;
    int rc = fetch ? 0 : store_head(from->store, from->key, &head, e);
    if (rc) return rc;
    bool into = to->folder && !to->path;
    // A key that is given in full takes the place of the source's name.
    char *under = strdup(into || !to->path ? to->key : "");
    char *below = strndup(from->key, to->folder || to->path ? (size_t)(name - from->key) : strlen(from->key));
    struct crowd *w = calloc(1, sizeof *w);
    if (!below || !under || !w) {
        rc = err_set(e, ERR_MEMORY, "no memory for a copy");
        goto out;
    }
    *w =
        (struct crowd){.c = c, .from = from, .to = to, .below = below, .under = under, .size_unknown = fetch};
    begin_crowd(w);
    rc = end_crowd(w, give(w, from->key, head.object_bytes, e), e);
out:
    free(w);
    free(below);
    free(under);
    return rc;
}

int store_copy_run(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                   struct err *e) {
    c->objects = c->bytes = c->resumed_bytes = c->verified = 0;
    return c->recursive ? copy_tree(c, from, to, e) : copy_single(c, from, to, e);
}
