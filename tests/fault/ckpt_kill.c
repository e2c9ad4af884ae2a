// SPDX-License-Identifier: Apache-2.0
// Two processes save checkpoints together, as two ranks do; one of them, or both, gets SIGKILL at a random
// moment. After every kill: what loads is whole, and no older than the last save that was reported as done;
// one retention pass leaves no file that no checkpoint names. Then the next pair goes on from there, with
// another number of writers. 40 kills; ORRERY_FAULT_FULL=1: 600.
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "ckpt_toy.h"

#define KEEP 2

static void die(const char *what, const struct err *e) {
    fprintf(stderr, "%s: %s\n", what, e ? e->text : strerror(errno));
    _exit(9);
}

static bool send_all(int fd, const void *data, size_t n) {
    for (const char *p = data; n;) {
        ssize_t k = send(fd, p, n, MSG_NOSIGNAL);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static bool receive_all(int fd, void *data, size_t n) {
    for (char *p = data; n;) {
        ssize_t k = recv(fd, p, n, 0);
        if (k <= 0) return false;
        p += k;
        n -= (size_t)k;
    }
    return true;
}

static struct store *open_store(const char *url) {
    struct err e = {ERR_OK};
    struct store *s;
    if (store_open(&s, url, NULL, &e)) die("cannot open the store", &e);
    return s;
}

// Rank 1: waits for a save id, writes its part, sends the part's JSON.
static void follower(const char *url, int peer) {
    struct store *s = open_store(url);
    struct {
        char id[CKPT_ID_BYTES];
        int64_t step;
    } order;
    while (receive_all(peer, &order, sizeof order)) {
        struct err e = {ERR_OK};
        struct buf part;
        buf_init(&part, 1 << 24);
        if (ckpt_toy_write(s, order.id, 1, 2, order.step, &part, &e)) die("follower", &e);
        uint64_t n = part.len + 1;
        if (!send_all(peer, &n, sizeof n) || !send_all(peer, part.data, n)) break;
        buf_fini(&part);
    }
    store_close(s);
    _exit(0);
}

static void save_together(struct store *s, int peer, int64_t step) {
    struct err e = {ERR_OK};
    struct {
        char id[CKPT_ID_BYTES];
        int64_t step;
    } order = {.step = step};
    struct buf mine;
    uint64_t n;
    buf_init(&mine, 1 << 24);
    ckpt_new_id(order.id, step);
    if (!send_all(peer, &order, sizeof order)) _exit(1);
    if (ckpt_toy_write(s, order.id, 0, 2, step, &mine, &e)) die("leader", &e);
    if (!receive_all(peer, &n, sizeof n) || n > 1 << 24) _exit(1);
    char *theirs = malloc(n);
    if (!theirs || !receive_all(peer, theirs, n)) _exit(1);
    const char *const parts[] = {mine.data, theirs};
    if (ckpt_toy_commit(s, order.id, step, parts, 2, &e)) die("commit", &e);
    free(theirs);
    buf_fini(&mine);
}

// Rank 0: saves step after step, reports each one that is committed, and drops old ones.
static void leader(const char *url, int peer, int report, int64_t step) {
    struct store *s = open_store(url);
    struct err e = {ERR_OK};
    for (;; step++) {
        if (step % 3)
            save_together(s, peer, step);
        else if (ckpt_toy_save(s, step, 3, &e)) // in one process, in another layout
            die("save", &e);
        if (write(report, &step, sizeof step) != (ssize_t)sizeof step) _exit(1);
        if (ckpt_retain(s, KEEP, &e)) die("retain", &e);
    }
}

// ---- the parent

struct pair {
    pid_t leader, follower;
    int report;
};

static struct pair start_pair(const char *url, int64_t step) {
    int link[2], report[2];
    struct pair p;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) || pipe(report)) die("pipe", NULL);
    p.leader = fork();
    if (!p.leader) {
        close(link[1]);
        close(report[0]);
        leader(url, link[0], report[1], step);
    }
    p.follower = fork();
    if (!p.follower) {
        close(link[0]);
        close(report[0]);
        close(report[1]);
        follower(url, link[1]);
    }
    if (p.leader < 0 || p.follower < 0) die("fork", NULL);
    close(link[0]);
    close(link[1]);
    close(report[1]);
    p.report = report[0];
    return p;
}

// 0: both, 1: the leader first, 2: the follower first. The other then ends by itself or goes too.
static void end_pair(struct pair *p, uint32_t which) {
    if (which != 2) kill(p->leader, SIGKILL);
    if (which != 1) kill(p->follower, SIGKILL);
    if (which) clock_sleep_ms(which == 2 ? 15 : 5);
    kill(p->leader, SIGKILL);
    kill(p->follower, SIGKILL);
    int status;
    if (waitpid(p->leader, &status, 0) < 0) die("waitpid", NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 9) die("the leader failed", NULL);
    if (waitpid(p->follower, &status, 0) < 0) die("waitpid", NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 9) die("the follower failed", NULL);
}

static int64_t last_report(int fd, int64_t before) {
    int64_t step, last = before;
    while (read(fd, &step, sizeof step) == (ssize_t)sizeof step) last = step;
    close(fd);
    return last;
}

static int fail(const char *what, int64_t a, int64_t b) {
    fprintf(stderr, "%s (%lld, %lld)\n", what, (long long)a, (long long)b);
    return 1;
}

// Every key is a manifest that is listed, or lies in the folder of a listed save.
static int check_orphans(struct store *s) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    struct store_listing all;
    size_t n;
    int rc = 0;
    if (ckpt_retain(s, KEEP, &e) || ckpt_list(s, &entries, &n, &e)) die("list", &e);
    if (store_list(s, "", NULL, &all, &e)) die("list", &e);
    for (size_t i = 0; i < all.n && !rc; i++) {
        bool named = !strncmp(all.objects[i].key, "manifest-", 9);
        for (size_t k = 0; k < n && !named; k++) named = strstr(all.objects[i].key, entries[k].id) != NULL;
        // What a newer save left unfinished may stay until that step is saved.
        if (!named && strtoll(all.objects[i].key, NULL, 10) <= entries[0].step) {
            fprintf(stderr, "%s\n", all.objects[i].key);
            rc = fail("an orphan", (int64_t)i, (int64_t)n);
        }
    }
    if (n > KEEP) rc = fail("too many checkpoints", (int64_t)n, KEEP);
    store_listing_fini(&all);
    free(entries);
    return rc;
}

// The newest checkpoint, checked in full; its step into *step.
static int check_newest(struct store *s, int64_t reported, int64_t *step) {
    struct err e = {ERR_OK};
    struct ckpt_entry *entries;
    struct ckpt *c = NULL;
    size_t n;
    int64_t bytes;
    int rc = 0;
    if (ckpt_list(s, &entries, &n, &e)) die("list", &e);
    if (!n) {
        free(entries);
        return reported ? fail("nothing is left, reported was", reported, 0) : 0;
    }
    for (size_t i = 0; i < n && !rc; i++) {
        if (entries[i].broken) rc = fail("a broken manifest", entries[i].step, 0);
        if (!rc && ckpt_open(&c, s, entries[i].id, &e)) die("open", &e);
        if (!rc && (ckpt_verify(c, &bytes, &e) || ckpt_toy_check(c, &e)))
            rc = fail(e.text, entries[i].step, 0);
        ckpt_close(c);
        c = NULL;
    }
    if (!rc && (entries[0].step < reported || entries[0].step > reported + 1))
        rc = fail("the newest step is not the reported one or the next", entries[0].step, reported);
    *step = entries[0].step;
    free(entries);
    return rc;
}

int main(void) {
    char folder[] = "/tmp/orrery-ckpt-kill-XXXXXX", url[64];
    int64_t step = 0, kills = getenv("ORRERY_FAULT_FULL") ? 600 : 40, moved = 0;
    int rc = 0;
    if (!mkdtemp(folder)) die("mkdtemp", NULL);
    snprintf(url, sizeof url, "file://%s", folder);
    struct store *s = open_store(url);
    double before = clock_seconds();
    struct err e = {ERR_OK};
    if (ckpt_toy_save(s, ++step, 2, &e)) die("first save", &e);
    double one_save = clock_seconds() - before;
    struct rng_stream r;
    rng_stream_init(&r, rng_key((uint64_t)clock_utc_ns(), RNG_FAULT, 0), 0, 0);
    for (int64_t i = 0; i < kills && !rc; i++) {
        int64_t started_at = step;
        struct pair p = start_pair(url, step + 1);
        clock_sleep_ms((int64_t)(rng_next_range(&r, 0, 3 * one_save) * 1000));
        end_pair(&p, rng_next_below(&r, 3));
        int64_t reported = last_report(p.report, started_at);
        rc = check_newest(s, reported, &step);
        if (!rc) rc = check_orphans(s);
        moved += step - started_at;
    }
    store_close(s);
    printf("%lld kills, %lld saves survived, one save takes %.1f ms\n", (long long)kills, (long long)moved,
           one_save * 1e3);
    if (!rc && !moved) rc = fail("no save ever finished: the test proves nothing", 0, 0);
    if (!rc) {
        pid_t pid = fork();
        if (!pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
        if (pid > 0) waitpid(pid, NULL, 0);
    }
    return rc;
}
