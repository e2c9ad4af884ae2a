// SPDX-License-Identifier: Apache-2.0
#include "launcher/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "launcher/boxdir.h"
#include "launcher/proc.h"

#define PIDS_MAX     8192
#define FDS_MAX      1024
#define WAIT_STEPS   50
#define WAIT_STEP_MS 20

// All but its own descriptors, so that it holds neither a terminal nor somebody's pipe open.
static void close_others(int own, const int locks[2]) {
    for (int fd = 0; fd < FDS_MAX; fd++)
        if (fd != own && fd != locks[0] && fd != locks[1]) close(fd);
    int null_fd = open("/dev/null", O_RDWR);
    while (null_fd >= 0 && null_fd < 2) null_fd = dup(null_fd);
}

static int count_alive(const pid_t *pids, int n) {
    int alive = 0;
    for (int i = 0; i < n; i++) alive += proc_alive(pids[i]);
    return alive;
}

// Ranks and guards die by their death signals; this is for what does not, and for what ranks have started
// (their process groups).
static void bury(const pid_t *pids, int n) {
    for (int k = 0; k < n; k++) kill(-pids[k], SIGKILL);
    for (int i = 0; i < WAIT_STEPS && count_alive(pids, n); i++) {
        if (i == WAIT_STEPS / 4)
            for (int k = 0; k < n; k++)
                if (proc_alive(pids[k])) kill(pids[k], SIGKILL);
        clock_sleep_ms(WAIT_STEP_MS);
    }
}

#define WORD_DONE   0
#define WORD_FORGET (-1)

// Returns true when the supervisor said that all is done, false when it vanished.
static bool listen_until_end(int fd, pid_t *pids, int *n) {
    for (;;) {
        int32_t word;
        ssize_t got = read(fd, &word, sizeof word);
        if (got < 0 && errno == EINTR) continue;
        if (got != (ssize_t)sizeof word) return false;
        if (word == WORD_DONE) return true;
        if (word == WORD_FORGET) *n = 0;
        if (*n < PIDS_MAX && word > 1) pids[(*n)++] = word;
    }
}

static _Noreturn void keep(int fd, const struct keeper_duty *duty) {
    struct err ignored = {0};
    pid_t *pids = calloc(PIDS_MAX, sizeof *pids);
    int n = 0;
    setsid();
    prctl(PR_SET_NAME, "orrery-keeper");
    close_others(fd, duty->locks);
    if (!pids || listen_until_end(fd, pids, &n)) _exit(0);
    bury(pids, n);
    if (duty->save_path && boxdir_save_boxes(duty->box_path, duty->save_path, &ignored)) err_clear(&ignored);
    boxdir_remove_tree(duty->box_path);
    _exit(0);
}

int keeper_start(struct keeper *k, const struct keeper_duty *duty, struct err *e) {
    int ends[2];
    k->fd = -1;
    if (pipe2(ends, O_CLOEXEC)) return err_errno(e, errno, "cannot make a pipe");
    k->pid = fork();
    if (k->pid == 0) {
        close(ends[1]);
        keep(ends[0], duty);
    }
    int saved_errno = errno;
    close(ends[0]);
    if (k->pid < 0) {
        close(ends[1]);
        return err_errno(e, saved_errno, "cannot start the keeper");
    }
    k->fd = ends[1];
    return 0;
}

static void send_word(struct keeper *k, int32_t word) {
    if (k->fd >= 0 && write(k->fd, &word, sizeof word) != (ssize_t)sizeof word) {
        close(k->fd);
        k->fd = -1;
    }
}

void keeper_tell(struct keeper *k, pid_t pid) {
    send_word(k, pid);
}

void keeper_forget(struct keeper *k) {
    send_word(k, WORD_FORGET);
}

void keeper_stop(struct keeper *k) {
    if (k->pid <= 0) return;
    send_word(k, WORD_DONE);
    if (k->fd >= 0) close(k->fd);
    k->fd = -1;
    while (waitpid(k->pid, NULL, 0) < 0 && errno == EINTR) {
    }
    k->pid = 0;
}
