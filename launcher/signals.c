// SPDX-License-Identifier: Apache-2.0
#include "launcher/signals.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

int signals_open(struct supervisor *s, struct err *e) {
    static const int wanted[] = {SIGCHLD, SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) sigaddset(&set, wanted[i]);
    sigprocmask(SIG_BLOCK, &set, NULL);
    // What a guard leaves behind becomes our child, and no zombie.
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? err_errno(e, errno, "cannot watch signals") : 0;
}

void signals_reap(struct supervisor *s) {
    for (;;) {
        int status;
        pid_t pid = waitpid(-1, &status, WNOHANG);
        if (pid <= 0) return;
        if (roster_reap(&s->roster, pid, status)) continue;
        if (pid == s->o->keeper->pid) s->o->keeper->pid = 0;
        if (pid != s->launcher) continue;
        s->launcher = 0;
        s->launcher_ended = true;
        s->launcher_status = status;
    }
}

void signals_take(struct supervisor *s) {
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof info) == (ssize_t)sizeof info) {
        int number = (int)info.ssi_signo;
        if (number == SIGCHLD) continue;
        bool again = s->wish != STOP_NONE && number == SIGINT;
        if (s->wish == STOP_NONE) s->wish = STOP_SAVE;
        if (again) s->wish = STOP_NOW;
        s->wish_signal = number;
    }
    signals_reap(s);
}
