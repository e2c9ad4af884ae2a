// SPDX-License-Identifier: Apache-2.0
#include "launcher/boxdir.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/blackbox.h"
#include "base/bytes.h"
#include "base/folder.h"

#define WALK_FDS 16

static const char *base_folder(void) {
    const char *tmp = getenv("TMPDIR");
    if (access("/dev/shm", W_OK | X_OK) == 0) return "/dev/shm";
    return tmp && *tmp == '/' && strlen(tmp) < 64 ? tmp : "/tmp";
}

static void name_prefix(char *out, size_t n) {
    snprintf(out, n, "orrery-%u-", (unsigned)geteuid());
}

bool boxdir_is_ours(const char *path) {
    char prefix[32];
    struct stat st;
    const char *slash = strrchr(path, '/');
    name_prefix(prefix, sizeof prefix);
    return slash && !strncmp(slash + 1, prefix, strlen(prefix)) && !lstat(path, &st) && S_ISDIR(st.st_mode) &&
           st.st_uid == geteuid();
}

static bool is_alive(const char *path) {
    char name[BOXDIR_PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s/alive", path);
    int fd = open(name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return false;
    bool held = flock(fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    close(fd);
    return held;
}

int boxdir_each(boxdir_each_fn *each, void *arg, struct err *e) {
    const char *base = base_folder();
    DIR *dir = opendir(base);
    struct dirent *entry;
    if (!dir) return err_errno(e, errno, "cannot read %s", base);
    int rc;
    while (!(rc = folder_next(dir, base, &entry, e)) && entry) {
        char path[BOXDIR_PATH_BYTES];
        if ((size_t)snprintf(path, sizeof path, "%s/%s", base, entry->d_name) >= sizeof path) continue;
        if (boxdir_is_ours(path)) each(arg, path, is_alive(path));
    }
    closedir(dir);
    return rc;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *at) {
    if (remove(path)) return 0; // what cannot go must not keep the rest
    return 0;
}

void boxdir_remove_tree(const char *path) {
    nftw(path, remove_one, WALK_FDS, FTW_DEPTH | FTW_PHYS);
}

static void remove_dead(void *arg, const char *path, bool alive) {
    struct stat st;
    char name[BOXDIR_PATH_BYTES + 16];
    snprintf(name, sizeof name, "%s/alive", path);
    // Without the file the folder may be one that is being made at this moment.
    if (!alive && !lstat(name, &st)) boxdir_remove_tree(path);
}

// The file gets its name when the lock is on it: nobody ever sees it without.
static int lock_alive(struct boxdir *d, struct err *e) {
    char draft[BOXDIR_PATH_BYTES + 16], name[BOXDIR_PATH_BYTES + 16];
    snprintf(draft, sizeof draft, "%s/alive.draft", d->path);
    snprintf(name, sizeof name, "%s/alive", d->path);
    d->alive_fd = open(draft, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->alive_fd < 0 || flock(d->alive_fd, LOCK_EX | LOCK_NB) || rename(draft, name))
        return err_errno(e, errno, "cannot lock %s", name);
    return 0;
}

int boxdir_make(struct boxdir *d, struct err *e) {
    unsigned char random_bytes[6];
    char prefix[32], hex[2 * sizeof random_bytes + 1];
    struct err ignored = {0};
    d->alive_fd = -1;
    d->path[0] = 0;
    // What dead jobs left is no reason not to run.
    if (boxdir_each(remove_dead, NULL, &ignored)) err_clear(&ignored);
    if (getrandom(random_bytes, sizeof random_bytes, 0) != (ssize_t)sizeof random_bytes)
        return err_errno(e, errno, "no random bytes for the job's name");
    bytes_hex(random_bytes, sizeof random_bytes, hex);
    name_prefix(prefix, sizeof prefix);
    snprintf(d->path, sizeof d->path, "%s/%s%s", base_folder(), prefix, hex);
    if (mkdir(d->path, 0700)) {
        int saved_errno = errno;
        int rc = err_errno(e, saved_errno,
                           "cannot make the job's private folder %s; /dev/shm or TMPDIR must be writable",
                           d->path);
        d->path[0] = 0;
        return rc;
    }
    int rc = lock_alive(d, e);
    if (rc) boxdir_remove(d);
    return rc;
}

void boxdir_remove(struct boxdir *d) {
    if (d->path[0]) boxdir_remove_tree(d->path);
    if (d->alive_fd >= 0) close(d->alive_fd);
    d->alive_fd = -1;
    d->path[0] = 0;
}

static bool is_box(const char *name) {
    size_t n = strlen(name);
    return n > 9 && !strncmp(name, "rank-", 5) && !strcmp(name + n - 4, ".box");
}

static int save_box(const char *from, const char *to, struct err *e) {
    struct buf content;
    struct stat st;
    buf_init(&content, sizeof(struct blackbox_page));
    int rc =
        lstat(from, &st) || !S_ISREG(st.st_mode) ? err_set(e, ERR_DATA, "%s is no regular file", from) : 0;
    if (!rc) rc = bytes_read_file(from, sizeof(struct blackbox_page), &content, e);
    if (!rc) rc = bytes_write_file(to, content.data, content.len, e);
    buf_fini(&content);
    return rc;
}

int boxdir_save_boxes(const char *path, const char *to, struct err *e) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    struct err bad = {0};
    if (!dir) return err_errno(e, errno, "cannot read %s", path);
    int rc = bytes_make_dirs(to, e);
    while (!folder_next(dir, path, &entry, &bad) && entry) {
        char from_path[4096], to_path[4096];
        if (!is_box(entry->d_name)) continue;
        snprintf(from_path, sizeof from_path, "%s/%s", path, entry->d_name);
        if ((size_t)snprintf(to_path, sizeof to_path, "%s/%s", to, entry->d_name) >= sizeof to_path) continue;
        if (save_box(from_path, to_path, &bad) && !rc) rc = err_set(e, bad.code, "%s", bad.text);
        err_clear(&bad);
    }
    if (bad.code && !rc) rc = err_set(e, bad.code, "%s", bad.text);
    closedir(dir);
    return rc;
}

int boxdir_clear_boxes(const char *path, struct err *e) {
    DIR *dir = opendir(path);
    struct dirent *entry;
    if (!dir) return err_errno(e, errno, "cannot read %s", path);
    int rc;
    while (!(rc = folder_next(dir, path, &entry, e)) && entry)
        if (is_box(entry->d_name)) unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
    return rc;
}
