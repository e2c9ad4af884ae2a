// SPDX-License-Identifier: Apache-2.0
// Two processes save checkpoints together, as two ranks do; one of them, or both, gets SIGKILL at a random
// moment. After every kill: what loads is whole, and no older than the last save that was reported as done;
// one retention pass leaves no file that no checkpoint names. Then the next pair goes on from there, with
// another number of writers. 40 kills; ORRERY_FAULT_FULL=1: 600.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ckpt_pair.h"

// Rank 0: saves step after step, reports each one that is committed, and drops old ones.
static void leader(const char *url, int peer, int report, int64_t step) {
    struct store *s = pair_open_store(url);
    struct err e = {ERR_OK};
    for (;; step++) {
        if (step % 3)
            pair_save_together(s, peer, step);
        else if (ckpt_toy_save(s, step, 3, &e)) // in one process, in another layout
            pair_die("save", &e);
        if (write(report, &step, sizeof step) != (ssize_t)sizeof step) _exit(1);
        if (ckpt_retain(s, PAIR_KEEP, CKPT_TOY_OWNER, &e)) pair_die("retain", &e);
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
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link) || pipe(report)) pair_die("pipe", NULL);
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
        pair_follower(url, link[1]);
    }
    if (p.leader < 0 || p.follower < 0) pair_die("fork", NULL);
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
    if (waitpid(p->leader, &status, 0) < 0) pair_die("waitpid", NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 9) pair_die("the leader failed", NULL);
    if (waitpid(p->follower, &status, 0) < 0) pair_die("waitpid", NULL);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 9) pair_die("the follower failed", NULL);
}

static int64_t last_report(int fd, int64_t before) {
    int64_t step, last = before;
    while (read(fd, &step, sizeof step) == (ssize_t)sizeof step) last = step;
    close(fd);
    return last;
}

int main(void) {
    char folder[] = "/tmp/orrery-ckpt-kill-XXXXXX", url[64];
    int64_t step = 0, kills = getenv("ORRERY_FAULT_FULL") ? 600 : 40, moved = 0;
    int rc = 0;
    if (!mkdtemp(folder)) pair_die("mkdtemp", NULL);
    snprintf(url, sizeof url, "file://%s", folder);
    struct store *s = pair_open_store(url);
    double before = clock_seconds();
    struct err e = {ERR_OK};
    if (ckpt_toy_save(s, ++step, 2, &e)) pair_die("first save", &e);
    double one_save = clock_seconds() - before;
    struct rng_stream r;
    rng_stream_init(&r, rng_key((uint64_t)clock_utc_ns(), RNG_FAULT, 0), 0, 0);
    for (int64_t i = 0; i < kills && !rc; i++) {
        int64_t started_at = step;
        struct pair p = start_pair(url, step + 1);
        clock_sleep_ms((int64_t)(rng_next_range(&r, 0, 3 * one_save) * 1000));
        end_pair(&p, rng_next_below(&r, 3));
        int64_t reported = last_report(p.report, started_at);
        rc = pair_check_newest(s, reported, &step);
        if (!rc) rc = pair_check_orphans(s, folder);
        moved += step - started_at;
    }
    store_close(s);
    printf("%lld kills, %lld saves survived, one save takes %.1f ms\n", (long long)kills, (long long)moved,
           one_save * 1e3);
    if (!rc && !moved) rc = pair_fail("no save ever finished: the test proves nothing", 0, 0);
    if (!rc) {
        pid_t pid = fork();
        if (!pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
        if (pid > 0) waitpid(pid, NULL, 0);
    }
    return rc;
}
