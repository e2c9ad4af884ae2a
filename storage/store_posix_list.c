// SPDX-License-Identifier: Apache-2.0
// The keys of a folder in bytewise order, with memory for BATCH names a level however many there are: a
// folder with more is read again for each batch, which keeps the least names behind the last one.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/folder.h"
#include "storage/store_posix.h"

#define BATCH 8192

struct walk {
    store_page_fn *page;
    void *arg;
    struct store_listing out;
    const char *prefix;
    char path[4096]; // root/key; the key starts at path + key
    size_t key;
};

// Some names of a folder, those of folders with a '/' at their ends: so they sort as the keys below them do.
struct batch {
    char *names[2 * BATCH];
    size_t n;
    char after[260]; // only names behind it
    bool cut;        // there are more
};

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void keep_least(struct batch *b) {
    qsort(b->names, b->n, sizeof *b->names, by_name);
    while (b->n > BATCH) {
        free(b->names[--b->n]);
        b->cut = true;
    }
}

// Could the key, or one below it when it ends in '/', start with the prefix?
static bool may_match(const char *key, const char *prefix) {
    size_t k = strlen(key), n = strlen(prefix);
    return !strncmp(key, prefix, k < n && k && key[k - 1] == '/' ? k : n);
}

// That a name is gone, or that a link leads nowhere we may look at, is no error; any other would hide a file.
static int look_failed(const char *path, bool link, struct err *e) {
    bool gone = errno == ENOENT || errno == ENOTDIR, astray = errno == ELOOP || errno == EACCES;
    return gone || (link && astray) ? 0 : err_errno(e, errno, "%s", path);
}

// 'f' a file or a link to one, 'd' a folder, 0 anything else: links to folders may loop.
static int find_kind(const char *path, int type, struct stat *st, int *kind, struct err *e) {
    *kind = type == DT_DIR ? 'd' : 0;
    if (*kind) return 0;
    if (lstat(path, st)) return look_failed(path, false, e);
    if (S_ISDIR(st->st_mode)) *kind = 'd';
    if (S_ISLNK(st->st_mode) && stat(path, st)) return look_failed(path, true, e);
    if (S_ISREG(st->st_mode)) *kind = 'f';
    return 0;
}

static int take_name(struct walk *w, size_t length, const struct dirent *entry, struct batch *b,
                     struct err *e) {
    struct stat st;
    char *name = w->path + length;
    size_t n = strlen(entry->d_name);
    if (!store_posix_component_ok(entry->d_name, n)) return 0;
    if (length + n + 2 > sizeof w->path)
        return err_set(e, ERR_DATA, "%.200s...: a path longer than %zu bytes", w->path, sizeof w->path);
    memcpy(name, entry->d_name, n + 1);
    int kind = 'f', rc = entry->d_type == DT_REG ? 0 : find_kind(w->path, entry->d_type, &st, &kind, e);
    if (rc) return rc;
    if (kind == 'd') memcpy(name + n, "/", 2);
    if (!kind || strcmp(name, b->after) <= 0 || !may_match(w->path + w->key, w->prefix)) return 0;
    if (!(b->names[b->n] = strdup(name))) return err_set(e, ERR_MEMORY, "no memory to list %s", w->path);
    if (++b->n == 2 * BATCH) keep_least(b);
    return 0;
}

static int read_batch(struct walk *w, size_t length, struct batch *b, struct err *e) {
    int rc = 0;
    b->n = 0;
    b->cut = false;
    w->path[length] = 0;
    DIR *d = opendir(w->path);
    if (!d) return errno == ENOENT ? 0 : err_errno(e, errno, "%s", w->path);
    for (struct dirent *entry; !rc && !(rc = folder_next(d, w->path, &entry, e)) && entry;) {
        rc = take_name(w, length, entry, b, e);
        w->path[length] = 0;
    }
    closedir(d);
    keep_least(b);
    if (b->n) memcpy(b->after, b->names[b->n - 1], strlen(b->names[b->n - 1]) + 1);
    return rc;
}

static int walk_folder(struct walk *w, size_t length, struct err *e);

static int walk_name(struct walk *w, size_t length, const char *name, struct err *e) {
    struct stat st;
    size_t n = strlen(name);
    int kind;
    memcpy(w->path + length, name, n + 1);
    if (name[n - 1] == '/') return walk_folder(w, length + n, e);
    int rc = find_kind(w->path, DT_UNKNOWN, &st, &kind, e);
    if (rc || kind != 'f') return rc; // gone, or become another thing
    rc = store_listing_add(&w->out, w->path + w->key, st.st_size, "", e);
    return rc || w->out.n < STORE_PAGE ? rc : w->page(w->arg, &w->out, e);
}

// path[0..length) ends in '/'.
static int walk_folder(struct walk *w, size_t length, struct err *e) {
    struct batch *b = calloc(1, sizeof *b);
    int rc = b ? 0 : err_set(e, ERR_MEMORY, "no memory to list %s", w->path);
    do {
        if (!rc) rc = read_batch(w, length, b, e);
        for (size_t i = 0; b && i < b->n; i++) {
            if (!rc) rc = walk_name(w, length, b->names[i], e);
            free(b->names[i]);
        }
    } while (!rc && b->cut);
    free(b);
    return rc;
}

int store_posix_walk(const char *root, const char *prefix, store_page_fn *page, void *arg, struct err *e) {
    struct walk w = {.page = page, .arg = arg, .prefix = prefix};
    int n = snprintf(w.path, sizeof w.path, "%s%s", root, !strcmp(root, "/") ? "" : "/");
    if (n < 0 || (size_t)n >= sizeof w.path) return err_set(e, ERR_USAGE, "the folder's name is too long");
    w.key = (size_t)n;
    int rc = walk_folder(&w, w.key, e);
    if (!rc && w.out.n) rc = page(arg, &w.out, e);
    store_listing_fini(&w.out);
    return rc;
}
