// SPDX-License-Identifier: Apache-2.0
#include "storage/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/folder.h"

#define SUM_NAME    ".sum"
#define TEMP_PREFIX ".temp-"
#define NAME_BYTES  128
#define BLOCK_BYTES 4096 // what a file takes at least

struct cache {
    int folder;
    int64_t max_bytes;
    atomic_uint_least64_t temps;
};

int cache_open(struct cache **out, const char *folder, int64_t max_bytes, struct err *e) {
    struct stat st;
    *out = NULL;
    if (mkdir(folder, 0700) && errno != EEXIST) {
        int rc = bytes_make_dirs(folder, e);
        if (rc) return rc;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return err_errno(e, errno, "data cache %s", folder);
    struct cache *c = calloc(1, sizeof *c);
    int rc = c ? 0 : err_set(e, ERR_MEMORY, "no memory for a data cache");
    if (!rc && fstat(fd, &st)) rc = err_errno(e, errno, "data cache %s", folder);
    if (!rc && st.st_uid != geteuid())
        rc = err_set(e, ERR_DENIED,
                     "the data cache %s belongs to another user; choose another data.cache_dir", folder);
    if (rc) {
        close(fd);
        free(c);
        return rc;
    }
    c->folder = fd;
    c->max_bytes = max_bytes;
    *out = c;
    return 0;
}

void cache_close(struct cache *c) {
    if (!c) return;
    close(c->folder);
    free(c);
}

static int64_t size_on_disk(int64_t bytes) {
    return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES * BLOCK_BYTES;
}

bool cache_get(struct cache *c, const char *name, void *into, size_t bytes) {
    struct stat st;
    int fd = openat(c->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0) return false;
    bool fits = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size == (off_t)bytes;
    bool whole = fits && bytes_pread_whole(fd, into, bytes, 0) == (ssize_t)bytes;
    if (whole) (void)futimens(fd, NULL); // used just now
    close(fd);
    return whole;
}

// ---- the sum of sizes; its file is locked while it is changed

static int lock_sum(struct cache *c, int64_t *sum) {
    char text[24] = "";
    int fd = openat(c->folder, SUM_NAME, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return -1;
    while (flock(fd, LOCK_EX))
        if (errno != EINTR) {
            close(fd);
            return -1;
        }
    if (pread(fd, text, sizeof text - 1, 0) < 0 || !bytes_parse_i64(text, sum) || *sum < 0)
        *sum = INT64_MAX / 2; // new, or cut short: count
    return fd;
}

// The text has a fixed width, so that no write makes it shorter.
static void unlock_sum(int fd, int64_t sum) {
    char text[24];
    int n = snprintf(text, sizeof text, "%020" PRId64, sum);
    bool kept = bytes_pwrite_whole(fd, text, (size_t)n, 0) == (size_t)n || !ftruncate(fd, 0);
    (void)kept; // an old sum is a disk error, and costs room at most
    close(fd);
}

struct held {
    char name[NAME_BYTES];
    int64_t bytes;
    struct timespec used;
};

static int oldest_first(const void *a, const void *b) {
    const struct timespec *x = &((const struct held *)a)->used, *y = &((const struct held *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

// A temporary file whose writer is dead: nobody holds its lock.
static bool drop_dead(struct cache *c, const char *name) {
    int fd = openat(c->folder, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    bool dead = fd >= 0 && !flock(fd, LOCK_EX | LOCK_NB) && !unlinkat(c->folder, name, 0);
    if (fd >= 0) close(fd);
    return dead;
}

struct holding {
    struct held *files;
    size_t n, cap;
    int64_t bytes;
};

// Counts a file of ours. False: no memory.
static bool count_file(struct cache *c, const char *name, struct holding *h) {
    struct stat st;
    size_t length = strlen(name);
    bool temp = !strncmp(name, TEMP_PREFIX, strlen(TEMP_PREFIX));
    if (length >= NAME_BYTES || (name[0] == '.' && !temp)) return true;
    if (fstatat(c->folder, name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode)) return true;
    if (temp && drop_dead(c, name)) return true;
    h->bytes += size_on_disk(st.st_size);
    if (temp) return true;
    if (h->n == h->cap) {
        size_t want = h->cap ? 2 * h->cap : 256;
        struct held *grown = realloc(h->files, want * sizeof *grown);
        if (!grown) return false;
        h->files = grown;
        h->cap = want;
    }
    struct held *held = &h->files[h->n++];
    memcpy(held->name, name, length + 1);
    held->bytes = size_on_disk(st.st_size);
    held->used = st.st_mtim;
    return true;
}

// False: not all of them could be counted.
static bool count_all(struct cache *c, struct holding *h) {
    int again = openat(c->folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = again < 0 ? NULL : fdopendir(again);
    struct dirent *entry = NULL;
    if (!d && again >= 0) close(again);
    if (!d) return false;
    bool ok;
    do {
        ok = !folder_next(d, "the data cache", &entry, NULL);
    } while (ok && entry && (ok = count_file(c, entry->d_name, h)));
    closedir(d);
    return ok;
}

// Counts anew, and deletes until an eighth of the limit is free for what comes.
static bool make_room(struct cache *c, int64_t need, int64_t *sum) {
    struct holding h = {0};
    int64_t goal = c->max_bytes - c->max_bytes / 8 - need;
    bool ok = count_all(c, &h);
    if (ok && h.n) qsort(h.files, h.n, sizeof *h.files, oldest_first);
    for (size_t i = 0; ok && i < h.n && h.bytes > goal; i++)
        if (!unlinkat(c->folder, h.files[i].name, 0) || errno == ENOENT) h.bytes -= h.files[i].bytes;
    free(h.files);
    if (ok) *sum = h.bytes;
    return ok && h.bytes + need <= c->max_bytes;
}

// A temporary file of the full size, locked, and counted before the lock of the sum is let go, so that
// nobody's count misses it. -1: no room.
static int reserve(struct cache *c, const char *temp, int64_t bytes) {
    int64_t sum, need = size_on_disk(bytes);
    int out = -1, fd = lock_sum(c, &sum);
    if (fd < 0) return -1;
    if (sum + need <= c->max_bytes || make_room(c, need, &sum))
        out = openat(c->folder, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out >= 0 && (flock(out, LOCK_EX | LOCK_NB) || ftruncate(out, (off_t)bytes))) {
        (void)unlinkat(c->folder, temp, 0);
        close(out);
        out = -1;
    }
    unlock_sum(fd, out >= 0 ? sum + need : sum);
    return out;
}

static void give_back(struct cache *c, int64_t bytes) {
    int64_t sum;
    int fd = lock_sum(c, &sum);
    if (fd >= 0) unlock_sum(fd, sum > bytes ? sum - bytes : 0);
}

// ---- writing

void cache_put(struct cache *c, const char *name, const void *data, size_t bytes) {
    char temp[NAME_BYTES];
    struct stat st;
    int64_t need = size_on_disk((int64_t)bytes);
    if (need > c->max_bytes / 8 || !fstatat(c->folder, name, &st, AT_SYMLINK_NOFOLLOW)) return;
    snprintf(temp, sizeof temp, TEMP_PREFIX "%d-%" PRIu64, (int)getpid(),
             (uint64_t)atomic_fetch_add(&c->temps, 1));
    int fd = reserve(c, temp, (int64_t)bytes);
    if (fd < 0) return;
    // Not over another's: its size is in the sum already.
    bool whole = bytes_write_whole(fd, data, bytes) == bytes && !linkat(c->folder, temp, c->folder, name, 0);
    (void)unlinkat(c->folder, temp, 0);
    close(fd);
    if (!whole) give_back(c, need);
}

void cache_drop(struct cache *c, const char *name) {
    struct stat st;
    if (fstatat(c->folder, name, &st, AT_SYMLINK_NOFOLLOW) || unlinkat(c->folder, name, 0)) return;
    give_back(c, size_on_disk(st.st_size));
}
