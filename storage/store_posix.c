// SPDX-License-Identifier: Apache-2.0
// A folder as an object store. A PUT is written to a file without a name (O_TMPFILE: a killed process leaves
// nothing behind) or, where the file system has none, to a temporary name in the same folder; then fsync,
// link or rename into place, fsync of the folder. Temporary names start with TEMP_PREFIX, are never listed
// and can be no key. Whoever writes one holds a lock on it, so that a sweep knows those whose writer is dead.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/folder.h"
#include "storage/store_posix.h"

#define TEMP_PREFIX ".orrery-tmp."
#define TEMP_TRIES  16

struct posix_store {
    struct store store;
    char *root; // without a slash at the end, but for "/"
};

// ---- names.

bool store_posix_component_ok(const char *c, size_t n) {
    if (!n || n > 255) return false;
    if (c[0] == '.' && (n == 1 || (n == 2 && c[1] == '.'))) return false;
    return strncmp(c, TEMP_PREFIX, strlen(TEMP_PREFIX)) != 0;
}

static bool key_ok(const char *key) {
    for (;;) {
        size_t n = strcspn(key, "/");
        if (!store_posix_component_ok(key, n)) return false;
        if (!key[n]) return true;
        key += n + 1;
    }
}

static int key_path(const struct posix_store *p, const char *key, char **out, struct err *e) {
    if (!key_ok(key))
        return err_set(
            e, ERR_USAGE,
            "%s: '%s' is no key of a file: store: no empty, '.' or '..' parts, no '/' at either end, "
            "no part longer than 255 bytes",
            p->store.url, key);
    const char *slash = !strcmp(p->root, "/") ? "" : "/";
    if (asprintf(out, "%s%s%s", p->root, slash, key) >= 0) return 0;
    *out = NULL;
    return err_set(e, ERR_MEMORY, "%s: no memory for a path", p->store.url);
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    if (!slash) return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

// ---- a file that is not yet visible.

struct temp {
    int fd;
    bool named;
    char *path;   // where it will be
    char *folder; // of path
    char *name;   // the temporary name, set when it is first needed
};

static int temp_name(struct temp *t, struct err *e) {
    uint64_t r;
    if (getrandom(&r, sizeof r, 0) != sizeof r) return err_errno(e, errno, "getrandom");
    free(t->name);
    if (asprintf(&t->name, "%s/" TEMP_PREFIX "%016" PRIx64, t->folder, r) >= 0) return 0;
    t->name = NULL;
    return err_set(e, ERR_MEMORY, "no memory for a path");
}

// False when a sweep came between creation and lock, and took the file for a dead writer's. A file system
// without locks has no sweeps either.
static bool temp_lock(struct temp *t) {
    struct stat st;
    (void)flock(t->fd, LOCK_EX);
    return !fstat(t->fd, &st) && st.st_nlink > 0;
}

static int temp_open_named(struct temp *t, struct err *e) {
    for (int i = 0; i < TEMP_TRIES; i++) {
        int rc = temp_name(t, e);
        if (rc) return rc;
        t->fd = open(t->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (t->fd >= 0 && temp_lock(t)) {
            t->named = true;
            return 0;
        }
        if (t->fd >= 0)
            close(t->fd);
        else if (errno != EEXIST)
            return err_errno(e, errno, "%s", t->name);
    }
    return err_set(e, ERR_IO, "%s: no free temporary name", t->folder);
}

static void temp_drop(struct temp *t) {
    if (t->fd >= 0) close(t->fd);
    if (t->named && t->name) (void)unlink(t->name);
    free(t->path);
    free(t->folder);
    free(t->name);
    *t = (struct temp){.fd = -1};
}

// Takes path. Makes the folder; another process may remove it as empty in between, hence the tries.
static int temp_open(struct temp *t, char *path, struct err *e) {
    *t = (struct temp){.fd = -1, .path = path, .folder = folder_of(path)};
    if (!t->folder) return err_set(e, ERR_MEMORY, "no memory for a path");
    for (int i = 0; i < TEMP_TRIES; i++) {
        int rc = bytes_make_dirs(t->folder, e);
        if (rc) return rc;
        t->fd = open(t->folder, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0666);
        if (t->fd >= 0) {
            (void)flock(t->fd, LOCK_EX | LOCK_NB);
            return 0;
        }
        if (errno != ENOENT) break;
    }
    return temp_open_named(t, e);
}

static int temp_write(struct temp *t, const char *data, size_t n, struct err *e) {
    return bytes_write_whole(t->fd, data, n) < n ? err_errno(e, errno, "writing %s", t->path) : 0;
}

static int sync_folder(const char *folder, struct err *e) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return err_errno(e, errno, "%s", folder);
    int rc = fsync(fd) ? err_errno(e, errno, "fsync of %s", folder) : 0;
    close(fd);
    return rc;
}

static int temp_link(const struct temp *t, const char *to) {
    if (t->named) return link(t->name, to);
    char self[64];
    snprintf(self, sizeof self, "/proc/self/fd/%d", t->fd);
    return linkat(AT_FDCWD, self, AT_FDCWD, to, AT_SYMLINK_FOLLOW);
}

static int publish_new(struct temp *t, struct err *e) {
    if (!temp_link(t, t->path)) return 0;
    if (errno == EEXIST) return err_set(e, ERR_CONFLICT, "%s exists already", t->path);
    return err_errno(e, errno, "linking %s", t->path);
}

static int publish_over(struct temp *t, struct err *e) {
    for (int i = 0; !t->named; i++) {
        int rc = temp_name(t, e);
        if (rc) return rc;
        bool linked = !temp_link(t, t->name);
        if (!linked && (errno != EEXIST || i == TEMP_TRIES))
            return err_errno(e, errno, "linking %s", t->name);
        t->named = linked;
    }
    if (rename(t->name, t->path)) return err_errno(e, errno, "renaming to %s", t->path);
    t->named = false;
    return 0;
}

static int temp_publish(struct temp *t, bool create_only, struct err *e) {
    if (fsync(t->fd)) return err_errno(e, errno, "fsync of %s", t->path);
    int rc = create_only ? publish_new(t, e) : publish_over(t, e);
    return rc ? rc : sync_folder(t->folder, e);
}

// ---- operations on one file.

static void describe(const struct stat *st, struct store_result *out) {
    int64_t ns = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
    out->object_bytes = st->st_size;
    snprintf(out->etag, sizeof out->etag, "%" PRIx64 "-%" PRIx64 "-%" PRIx64, (uint64_t)st->st_ino,
             (uint64_t)ns, (uint64_t)st->st_size);
}

static int read_all(int fd, const char *path, char *into, size_t n, int64_t offset, size_t *got,
                    struct err *e) {
    ssize_t done = bytes_pread_whole(fd, into, n, offset);
    *got = done < 0 ? 0 : (size_t)done;
    if (done < 0) return err_errno(e, errno, "reading %s", path);
    if (*got < n) return err_set(e, ERR_DATA, "%s became shorter while it was read", path);
    return 0;
}

static int stat_file(int fd, const char *path, struct stat *st, struct err *e) {
    if (fstat(fd, st)) return err_errno(e, errno, "%s", path);
    if (!S_ISREG(st->st_mode)) return err_set(e, ERR_MISSING, "%s is no regular file", path);
    return 0;
}

// O_NONBLOCK: a FIFO in the folder must not hang us; it means nothing for a regular file.
static int posix_get(const char *path, const struct store_call *c, struct store_result *out, struct err *e) {
    struct stat st;
    size_t n;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return err_errno(e, errno, "%s", path);
    int rc = stat_file(fd, path, &st, e);
    if (!rc) describe(&st, out);
    if (!rc && c->op == STORE_GET) {
        rc = store_clip_range(c, st.st_size, &n, e);
        if (!rc) rc = read_all(fd, path, c->into, n, c->offset, &out->bytes, e);
    }
    close(fd);
    return rc;
}

static int posix_put(char **path, const struct store_call *c, struct err *e) {
    struct temp t;
    int rc = temp_open(&t, *path, e);
    *path = NULL;
    if (!rc) rc = temp_write(&t, c->data, c->bytes, e);
    if (!rc) rc = temp_publish(&t, c->create_only, e);
    temp_drop(&t);
    return rc;
}

// A store has no folders: those that a DELETE leaves empty go too, up to the root.
static int posix_delete(const struct posix_store *p, char *path, struct err *e) {
    if (unlink(path) && errno != ENOENT && errno != ENOTDIR) return err_errno(e, errno, "deleting %s", path);
    size_t root = strlen(p->root);
    for (;;) {
        char *slash = strrchr(path, '/');
        if (!slash || (size_t)(slash - path) <= root) return 0;
        *slash = 0;
        if (rmdir(path)) return 0;
    }
}

static int posix_perform(struct store *s, const struct store_call *c, struct store_result *out,
                         struct err *e) {
    static const char *const verbs[] = {
        [STORE_GET] = "GET", [STORE_PUT] = "PUT", [STORE_HEAD] = "HEAD", [STORE_DELETE] = "DELETE"};
    struct posix_store *p = (struct posix_store *)s;
    char *path = NULL;
    int rc = key_path(p, c->key, &path, e);
    if (rc) return rc;
    switch (c->op) {
    case STORE_PUT: rc = posix_put(&path, c, e); break;
    case STORE_DELETE: rc = posix_delete(p, path, e); break;
    default: rc = posix_get(path, c, out, e);
    }
    if (rc) err_prefix(e, "%s '%s'", verbs[c->op], c->key);
    free(path);
    return rc;
}

// ---- listing.

static int posix_list(struct store *s, const char *prefix, const char *delimiter, store_page_fn *page,
                      void *arg, struct err *e) {
    return store_posix_walk(((struct posix_store *)s)->root, prefix, page, arg, e);
}

// ---- sweeping: temporary names whose writers are dead, and folders that hold nothing.

struct sweep {
    bool (*mine)(void *arg, const char *key);
    void *arg;
    char path[4096];
    size_t key, removed;
};

static bool sweep_file(const char *path) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) return false;
    bool gone = !fstat(fd, &st) && S_ISREG(st.st_mode) && !flock(fd, LOCK_EX | LOCK_NB) && !unlink(path);
    close(fd);
    return gone;
}

// path[0..length) ends in '/'.
static int sweep_folder(struct sweep *w, size_t length, struct err *e) {
    int rc = 0;
    struct stat st;
    w->path[length] = 0;
    DIR *d = opendir(w->path);
    if (!d) return errno == ENOENT ? 0 : err_errno(e, errno, "%s", w->path);
    bool mine = w->mine(w->arg, w->path + w->key);
    for (struct dirent *entry; !rc && !(rc = folder_next(d, w->path, &entry, e)) && entry;) {
        size_t n = strlen(entry->d_name);
        bool temp = !strncmp(entry->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX));
        if ((!temp && !store_posix_component_ok(entry->d_name, n)) || length + n + 2 > sizeof w->path)
            continue;
        memcpy(w->path + length, entry->d_name, n + 1);
        if (temp && mine) {
            w->removed += sweep_file(w->path);
        } else if (!temp && !lstat(w->path, &st) && S_ISDIR(st.st_mode)) {
            memcpy(w->path + length + n, "/", 2);
            rc = sweep_folder(w, length + n + 1, e);
        }
        w->path[length] = 0;
    }
    closedir(d);
    if (mine && length > w->key) (void)rmdir(w->path); // only when it holds nothing
    return rc;
}

static int posix_sweep(struct store *s, bool (*mine)(void *arg, const char *key), void *arg, size_t *removed,
                       struct err *e) {
    struct posix_store *p = (struct posix_store *)s;
    struct sweep w = {.mine = mine, .arg = arg};
    int n = snprintf(w.path, sizeof w.path, "%s%s", p->root, !strcmp(p->root, "/") ? "" : "/");
    if (n < 0 || (size_t)n >= sizeof w.path) return err_set(e, ERR_USAGE, "the folder's name is too long");
    w.key = (size_t)n;
    int rc = sweep_folder(&w, w.key, e);
    *removed = w.removed;
    return rc;
}

// ---- the writer.

struct posix_writer {
    struct store_writer writer;
    struct temp temp;
};

static int posix_writer_write(struct store_writer *w, const void *data, size_t bytes, struct err *e) {
    return temp_write(&((struct posix_writer *)w)->temp, data, bytes, e);
}

static int posix_writer_commit(struct store_writer *w, struct err *e) {
    return temp_publish(&((struct posix_writer *)w)->temp, false, e);
}

static void posix_writer_abort(struct store_writer *w) {
    temp_drop(&((struct posix_writer *)w)->temp);
}

static void posix_writer_destroy(struct store_writer *w) {
    temp_drop(&((struct posix_writer *)w)->temp);
    free(w);
}

static const struct store_writer_ops posix_writer_ops = {
    .write = posix_writer_write,
    .commit = posix_writer_commit,
    .abort = posix_writer_abort,
    .destroy = posix_writer_destroy,
};

static int posix_writer_open(struct store *s, struct store_writer **out, const char *key, struct err *e) {
    char *path;
    int rc = key_path((struct posix_store *)s, key, &path, e);
    if (rc) return rc;
    struct posix_writer *w = calloc(1, sizeof *w);
    if (!w) {
        free(path);
        return err_set(e, ERR_MEMORY, "no memory for a writer of '%s'", key);
    }
    w->writer.ops = &posix_writer_ops;
    rc = temp_open(&w->temp, path, e);
    if (rc) {
        err_prefix(e, "PUT '%s'", key);
        posix_writer_destroy(&w->writer);
        return rc;
    }
    *out = &w->writer;
    return 0;
}

// ---- open and close.

static void posix_close(struct store *s) {
    store_fini(s);
    free(((struct posix_store *)s)->root);
    free(s);
}

static const struct store_ops posix_ops = {
    .close = posix_close,
    .perform = posix_perform,
    .list = posix_list,
    .sweep = posix_sweep,
    .writer_open = posix_writer_open,
};

const char *store_posix_path(const char *rest) {
    if (!strncmp(rest, "//localhost/", 12)) return rest + 11;
    if (strncmp(rest, "//", 2) != 0) return rest;
    return rest[2] == '/' ? rest + 2 : NULL;
}

static int root_of(const char *rest, char **out, struct err *e) {
    const char *path = store_posix_path(rest);
    if (!path)
        return err_set(e, ERR_CONFIG, "'file:%s' names a host; write file:///dir with three slashes", rest);
    if (!*path) return err_set(e, ERR_CONFIG, "'file:' without a folder");
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/') n--;
    *out = strndup(path, n);
    return *out ? 0 : err_set(e, ERR_MEMORY, "no memory to open a store");
}

int store_posix_open(struct store **out, const char *rest, const struct store_options *options,
                     struct err *e) {
    char *root;
    int rc = root_of(rest, &root, e);
    if (rc) return rc;
    struct posix_store *p = calloc(1, sizeof *p);
    if (!p) {
        free(root);
        return err_set(e, ERR_MEMORY, "no memory to open store '%s'", rest);
    }
    p->root = root;
    rc = store_init(&p->store, &posix_ops, root, options, e);
    if (rc)
        posix_close(&p->store);
    else
        *out = &p->store;
    return rc;
}
