// SPDX-License-Identifier: Apache-2.0
// Two processes that save checkpoints together, as two ranks do, for tests that kill them; and what must hold
// afterwards.
#ifndef ORRERY_TESTS_CKPT_PAIR_H
#define ORRERY_TESTS_CKPT_PAIR_H

#include <errno.h>
#include <fts.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "ckpt_toy.h"

#define PAIR_KEEP 2

static inline void pair_die(const char *what, const struct err *e) {
    fprintf(stderr, "%s: %s\n", what, e ? e->text : strerror(errno));
    _exit(9);
}

static inline bool pair_send_all(int fd, const void *data, size_t n) {
    for (const char *p = data; n;) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static inline bool pair_receive_all(int fd, void *data, size_t n) {
    for (char *p = data; n;) {
        ssize_t k = recv(fd, p, n, 0);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static inline struct store *pair_open_store(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    const struct store_options options = {.path_style = true};
    if (store_open(&s, url, &options, &e)) pair_die("cannot open the store", &e);
    return s;
}

// Rank 1: waits for a save id, writes its part, sends the part's JSON.
static inline void pair_follower(const char *url, int peer) {
    struct store *s = pair_open_store(url);
    struct {
        char id[CKPT_ID_BYTES];
        int64_t step;
    } order;
    while (pair_receive_all(peer, &order, sizeof order)) {
        struct err e = {ERR_OK};
        struct buf part;
        buf_init(&part, 1 << 24);
        if (ckpt_toy_write(s, order.id, 1, 2, order.step, &part, &e)) pair_die("follower", &e);
        uint64_t n = part.len + 1;
        if (!pair_send_all(peer, &n, sizeof n) || !pair_send_all(peer, part.data, n)) break;
        buf_fini(&part);
    }
    store_close(s);
    _exit(0);
}

static inline void pair_save_together(struct store *s, int peer, int64_t step) {
    struct err e = {ERR_OK};
    struct {
        char id[CKPT_ID_BYTES];
        int64_t step;
    } order = {.step = step};
    struct buf mine;
    uint64_t n;
    buf_init(&mine, 1 << 24);
    ckpt_new_id(order.id, step, CKPT_TOY_OWNER);
    if (!pair_send_all(peer, &order, sizeof order)) _exit(1);
    if (ckpt_toy_write(s, order.id, 0, 2, step, &mine, &e)) pair_die("leader", &e);
    if (!pair_receive_all(peer, &n, sizeof n) || n > 1 << 24) _exit(1);
    char *theirs = malloc(n);
    if (!theirs || !pair_receive_all(peer, theirs, n)) _exit(1);
    const char *const parts[] = {mine.data, theirs};
    if (ckpt_toy_commit(s, order.id, step, parts, 2, &e)) pair_die("commit", &e);
    free(theirs);
    buf_fini(&mine);
}

static inline int pair_fail(const char *what, int64_t a, int64_t b) {
    fprintf(stderr, "%s (%lld, %lld)\n", what, (long long)a, (long long)b);
    return 1;
}

// Every file in the folder, hidden ones too, is a listed manifest or lies in the folder of a listed save.
static inline int pair_check_orphans(struct store *s, const char *folder) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    char *const roots[] = {(char *)(uintptr_t)folder, NULL};
    size_t n;
    int rc = 0;
    if (ckpt_retain(s, PAIR_KEEP, CKPT_TOY_OWNER, &e) || ckpt_list(s, &entries, &n, &e)) pair_die("list", &e);
    FTS *walk = fts_open(roots, FTS_PHYSICAL, NULL);
    for (FTSENT *f; walk && !rc && (f = fts_read(walk));) {
        if (f->fts_info != FTS_F) continue;
        bool named = !strncmp(f->fts_name, "manifest-", 9);
        for (size_t k = 0; k < n && !named; k++)
            named = strstr(f->fts_path, entries[k].id) && *f->fts_name == 'r';
        if (!named) rc = pair_fail(f->fts_path, 0, (int64_t)n);
    }
    if (!walk) pair_die("fts_open", NULL);
    fts_close(walk);
    if (n > PAIR_KEEP) rc = pair_fail("too many checkpoints", (int64_t)n, PAIR_KEEP);
    free(entries);
    return rc;
}

// The newest checkpoint, checked in full; its step into *step.
static inline int pair_check_newest(struct store *s, int64_t reported, int64_t *step) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    struct ckpt *c = NULL;
    size_t n;
    int64_t bytes;
    int rc = 0;
    if (ckpt_list(s, &entries, &n, &e)) pair_die("list", &e);
    if (!n) {
        free(entries);
        return reported ? pair_fail("nothing is left, reported was", reported, 0) : 0;
    }
    for (size_t i = 0; i < n && !rc; i++) {
        if (entries[i].broken) rc = pair_fail("a broken manifest", entries[i].step, 0);
        if (!rc && ckpt_open(&c, s, entries[i].id, &e)) pair_die("open", &e);
        if (!rc && (ckpt_verify(c, &bytes, &e) || ckpt_toy_check(c, &e)))
            rc = pair_fail(e.text, entries[i].step, 0);
        ckpt_close(c);
        c = NULL;
    }
    if (!rc && (entries[0].step < reported || entries[0].step > reported + 1))
        rc = pair_fail("the newest step is not the reported one or the next", entries[0].step, reported);
    *step = entries[0].step;
    free(entries);
    return rc;
}

#endif
