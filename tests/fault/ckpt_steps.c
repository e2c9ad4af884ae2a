// SPDX-License-Identifier: Apache-2.0
// Two processes save a checkpoint together and drop old ones; one of them gets SIGKILL at its k-th system
// call, on entry or on return, for every k from the first to the last. After each kill: what loads is whole,
// the new one or the one before, and after one retention pass no file is left that no checkpoint names,
// hidden ones included. 24 points; ORRERY_FAULT_FULL=1: every one.
#include <stdio.h>
#include <stdlib.h>
#include <sys/ptrace.h>

#include "ckpt_pair.h"

static void wait_for_tracer(bool traced) {
    if (!traced) return;
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL)) _exit(77);
    raise(SIGSTOP);
}

static pid_t start_leader(const char *url, int link[2], int64_t step, bool traced) {
    pid_t pid = fork();
    if (pid) return pid;
    struct err e = {ERR_OK};
    close(link[1]);
    wait_for_tracer(traced);
    struct store *s = pair_open_store(url);
    pair_save_together(s, link[0], step);
    if (ckpt_retain(s, PAIR_KEEP, CKPT_TOY_OWNER, &e)) pair_die("retain", &e);
    store_close(s);
    _exit(0);
}

static pid_t start_follower(const char *url, int link[2], bool traced) {
    pid_t pid = fork();
    if (pid) return pid;
    close(link[0]);
    wait_for_tracer(traced);
    pair_follower(url, link[1]);
    _exit(0);
}

// The process that is not traced; the tracer, who waits for any child, may meet its end.
struct other {
    pid_t pid;
    bool ended;
    int status;
};

static pid_t wait_any(struct other *o, int *status) {
    for (;;) {
        pid_t now = waitpid(-1, status, __WALL);
        if (now != o->pid) return now;
        o->ended = true;
        o->status = *status;
    }
}

// Lets `pid` and its threads run through `stops` stops at system calls, then kills it. The stops that it
// made; -1 where tracing is not allowed.
static int64_t run_and_kill(pid_t pid, int64_t stops, struct other *o) {
    int status, signal_now = 0;
    int64_t made = 0;
    pid_t now = pid;
    if (waitpid(pid, &status, 0) < 0) pair_die("waitpid", NULL);
    if (!WIFSTOPPED(status)) return -1;
    if (ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)(PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)))
        return -1;
    while (made < stops) {
        (void)ptrace(PTRACE_SYSCALL, now, NULL, (void *)(intptr_t)signal_now);
        now = wait_any(o, &status);
        if (now < 0) pair_die("waitpid", NULL);
        signal_now = 0;
        if (!WIFSTOPPED(status)) {
            if (now == pid) return made;
            continue;
        }
        bool call = WSTOPSIG(status) == (SIGTRAP | 0x80);
        made += call;
        if (!call && WSTOPSIG(status) != SIGTRAP && WSTOPSIG(status) != SIGSTOP)
            signal_now = WSTOPSIG(status);
    }
    kill(pid, SIGKILL);
    do now = wait_any(o, &status);
    while (now >= 0 && (now != pid || WIFSTOPPED(status)));
    return made;
}

static void end_other(struct other *o) {
    if (!o->ended && waitpid(o->pid, &o->status, 0) < 0) pair_die("waitpid", NULL);
    if (WIFEXITED(o->status) && WEXITSTATUS(o->status) == 9) pair_die("the other process failed", NULL);
}

// One save of `step` with a kill; the stops made.
static int64_t save_and_kill(const char *url, int64_t step, bool kill_leader, int64_t stops) {
    int link[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, link)) pair_die("socketpair", NULL);
    struct other other = {.pid = kill_leader ? start_follower(url, link, false)
                                             : start_leader(url, link, step, false)};
    pid_t target = kill_leader ? start_leader(url, link, step, true) : start_follower(url, link, true);
    close(link[0]);
    close(link[1]);
    int64_t made = run_and_kill(target, stops, &other);
    end_other(&other);
    return made;
}

struct campaign {
    struct store *s;
    const char *folder, *url;
    int64_t step, points, older, newer;
};

// Every `stride`-th point of one process, until it ends before it is killed.
static int kill_everywhere(struct campaign *c, bool leader, int64_t stride, int64_t first) {
    int rc = 0;
    for (int64_t k = first; !rc; k += stride) {
        int64_t before = c->step, made = save_and_kill(c->url, before + 1, leader, k);
        if (made < 0) return 77;
        rc = pair_check_newest(c->s, before, &c->step);
        if (!rc) rc = pair_check_orphans(c->s, c->folder);
        if (rc)
            fprintf(stderr, "after a kill of the %s at stop %lld\n", leader ? "leader" : "follower",
                    (long long)k);
        if (made < k) return rc;
        c->points++;
        c->older += c->step == before;
        c->newer += c->step != before;
    }
    return rc;
}

int main(void) {
    char folder[] = "/tmp/orrery-ckpt-steps-XXXXXX", url[64];
    struct err e = {ERR_OK};
    bool full = getenv("ORRERY_FAULT_FULL") != NULL;
    if (!mkdtemp(folder)) pair_die("mkdtemp", NULL);
    snprintf(url, sizeof url, "file://%s", folder);
    struct campaign c = {.s = pair_open_store(url), .folder = folder, .url = url, .step = 1};
    if (ckpt_toy_save(c.s, 1, 2, &e)) pair_die("first save", &e);
    int64_t stops[2] = {save_and_kill(url, 2, true, INT64_MAX), save_and_kill(url, 3, false, INT64_MAX)};
    c.step = 3;
    int rc = stops[0] < 0 || stops[1] < 0 ? 77 : 0;
    for (int i = 0; i < 2 && !rc; i++)
        rc = kill_everywhere(&c, !i, full ? 1 : stops[i] / 12 + 1, full ? 1 : 7);
    store_close(c.s);
    if (rc == 77) {
        printf("skipped: may not trace processes here\n");
        return 77;
    }
    printf("%lld points, of the leader's %lld stops and the follower's %lld: %lld times the one before, %lld "
           "times "
           "the new one\n",
           (long long)c.points, (long long)stops[0], (long long)stops[1], (long long)c.older,
           (long long)c.newer);
    if (!rc && (c.points < 16 || !c.older || !c.newer))
        rc = pair_fail("too little was tried", c.points, c.newer);
    pid_t pid = rc ? 0 : fork();
    if (!rc && !pid) execlp("rm", "rm", "-rf", folder, (char *)NULL);
    if (pid > 0) waitpid(pid, NULL, 0);
    return rc;
}
