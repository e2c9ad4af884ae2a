// SPDX-License-Identifier: Apache-2.0
// A full disk while a checkpoint is saved: a small file system of our own in a mount namespace. The save
// fails with one line that names the checkpoint; what was saved before still loads, and saving goes on once
// there is room. Skipped (77) where a process may not mount.
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "ckpt_toy.h"
#include "store_collect.h"

static int fail(const char *what, const struct err *e) {
    fprintf(stderr, "%s: %s\n", what, e ? e->text : strerror(errno));
    return 1;
}

static bool write_text(const char *path, const char *text) {
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    bool ok = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return ok;
}

static bool own_mounts(void) {
    char map[64];
    uid_t uid = geteuid();
    if (!unshare(CLONE_NEWNS)) return !mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL);
    if (unshare(CLONE_NEWUSER | CLONE_NEWNS)) return false;
    snprintf(map, sizeof map, "0 %u 1", (unsigned)uid);
    return write_text("/proc/self/uid_map", map);
}

static int check(struct store *s, int64_t want) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    struct ckpt *c;
    size_t n;
    if (ckpt_list(s, &entries, &n, &e)) return fail("list", &e);
    int rc = !n || entries[0].broken || entries[0].step != want;
    if (rc) fprintf(stderr, "%zu checkpoints, the newest is not step %lld\n", n, (long long)want);
    if (!rc && ckpt_open(&c, s, entries[0].id, &e)) rc = fail("open", &e);
    if (!rc) {
        rc = ckpt_toy_check(c, &e);
        ckpt_close(c);
    }
    free(entries);
    return rc;
}

// Saves until the disk is full; the last good step, or -1 when the error is not as it should be.
static int64_t fill(struct store *s) {
    for (int64_t step = 1; step < 1000; step++) {
        struct err e = {ERR_OK};
        if (!ckpt_toy_save(s, step, 2, &e)) continue;
        char place[32];
        snprintf(place, sizeof place, "%012lld-", (long long)step);
        if (e.code == ERR_IO && strstr(e.text, "No space left") && strstr(e.text, place)) return step - 1;
        fprintf(stderr, "step %lld failed otherwise: %s\n", (long long)step, e.text);
        return -1;
    }
    return -1;
}

int main(void) {
    char folder[] = "/tmp/orrery-ckpt-full-XXXXXX";
    struct err e = {ERR_OK};
    struct store *s;
    if (!own_mounts() || !mkdtemp(folder)) {
        printf("skipped: may not mount (%s)\n", strerror(errno));
        return 77;
    }
    if (mount("tmpfs", folder, "tmpfs", 0, "size=4m")) {
        printf("skipped: may not mount (%s)\n", strerror(errno));
        rmdir(folder);
        return 77;
    }
    if (store_open(&s, folder, NULL, &e)) return fail("open", &e);
    int64_t last = fill(s);
    int rc = last < 2;
    if (!rc) rc = check(s, last);
    if (!rc && ckpt_retain(s, 1, CKPT_TOY_OWNER, &e)) rc = fail("retention on a full disk", &e);
    if (!rc && ckpt_toy_save(s, last + 1, 2, &e)) rc = fail("save with room again", &e);
    if (!rc) rc = check(s, last + 1);
    if (!rc && ckpt_retain(s, 1, CKPT_TOY_OWNER, &e)) rc = fail("retention", &e);
    struct store_listing all;
    if (!rc && store_collect(s, "", NULL, &all, &e)) rc = fail("list", &e);
    if (!rc) {
        if (all.n != 3) {
            fprintf(stderr, "%zu files where two parts and a manifest should be\n", all.n);
            rc = 1;
        }
        store_listing_fini(&all);
    }
    store_close(s);
    umount(folder);
    rmdir(folder);
    return rc;
}
