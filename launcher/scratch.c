// SPDX-License-Identifier: Apache-2.0
#include "launcher/scratch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/folder.h"
#include "launcher/boxdir.h"

#define PREFIX       "orrery-logs-"
#define RANDOM_CHARS 6 // mkdtemp's
#define NAME_BYTES   (sizeof PREFIX + RANDOM_CHARS)
#define TMP_BYTES    128

struct old {
    char name[NAME_BYTES];
    struct timespec changed;
};

struct olds {
    struct old *list;
    size_t n, room;
};

static const char *tmp_folder(void) {
    const char *tmp = getenv("TMPDIR");
    return tmp && *tmp == '/' && strlen(tmp) < TMP_BYTES ? tmp : "/tmp";
}

// A folder of this user, named like one of ours, whose job has ended.
static bool is_left_over(const char *tmp, const char *name, struct stat *st) {
    struct rundir r = {.lock_fd = -1};
    if (strlen(name) != NAME_BYTES - 1 || strncmp(name, PREFIX, strlen(PREFIX)) != 0) return false;
    snprintf(r.path, sizeof r.path, "%s/%s", tmp, name);
    return !lstat(r.path, st) && S_ISDIR(st->st_mode) && st->st_uid == geteuid() && !rundir_is_held(&r);
}

static bool add(struct olds *o, const char *name, const struct stat *st) {
    if (o->n == o->room) {
        size_t room = o->room ? 2 * o->room : 16;
        struct old *list = realloc(o->list, room * sizeof *list);
        if (!list) return false;
        o->list = list;
        o->room = room;
    }
    struct old *entry = &o->list[o->n++];
    memcpy(entry->name, name, sizeof entry->name);
    entry->changed = st->st_mtim;
    return true;
}

static int newest_first(const void *a, const void *b) {
    const struct timespec *s = &((const struct old *)a)->changed, *t = &((const struct old *)b)->changed;
    if (s->tv_sec != t->tv_sec) return s->tv_sec < t->tv_sec ? 1 : -1;
    return s->tv_nsec == t->tv_nsec ? 0 : s->tv_nsec < t->tv_nsec ? 1 : -1;
}

// All but the newest. What cannot be read or removed stays.
static void remove_old(const char *tmp) {
    struct olds olds = {0};
    struct dirent *entry;
    struct stat st;
    struct err ignored = {0};
    DIR *dir = opendir(tmp);
    if (!dir) return;
    while (!folder_next(dir, tmp, &entry, &ignored) && entry)
        if (is_left_over(tmp, entry->d_name, &st) && !add(&olds, entry->d_name, &st)) break;
    closedir(dir);
    if (olds.n) qsort(olds.list, olds.n, sizeof *olds.list, newest_first);
    for (size_t i = SCRATCH_KEPT; i < olds.n; i++) {
        char path[TMP_BYTES + NAME_BYTES + 1];
        snprintf(path, sizeof path, "%s/%s", tmp, olds.list[i].name);
        boxdir_remove_tree(path);
    }
    free(olds.list);
}

int scratch_make(struct rundir *out, struct err *e) {
    char path[TMP_BYTES + NAME_BYTES + 1];
    const char *tmp = tmp_folder();
    snprintf(path, sizeof path, "%s/" PREFIX "XXXXXX", tmp);
    if (!mkdtemp(path))
        return err_errno(e, errno,
                         "cannot make a folder for the ranks' logs in %s; set TMPDIR to one that is there "
                         "and may be written",
                         tmp);
    struct err ignored = {0};
    int rc = rundir_open(out, path, false, e);
    if (rc) rmdir(path);
    // The lock only keeps a later job from taking this one's logs for old: there are file systems without
    // locks.
    if (!rc && rundir_lock(out, &ignored)) out->lock_fd = -1;
    return rc;
}

void scratch_close(struct rundir *scratch, bool keep) {
    bool was_open = scratch->path[0] != 0;
    if (was_open && !keep) boxdir_remove_tree(scratch->path);
    rundir_close(scratch);
    scratch->path[0] = 0;
    if (was_open && keep) remove_old(tmp_folder());
}
