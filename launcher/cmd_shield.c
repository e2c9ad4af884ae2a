// SPDX-License-Identifier: Apache-2.0
// `orrery shield COMMAND...` becomes the command, with the signals blocked by which schedulers ask a job to
// stop. A blocked signal, unlike an ignored one, stays away from handlers that the command sets itself.
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "launcher/cmd.h"

int cmd_shield(const struct cmd *self, int argc, char **argv, struct err *e) {
    static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCONT};
    sigset_t set;
    (void)self;
    if (argc < 2) return err_set(e, ERR_USAGE, "usage: orrery shield COMMAND [ARGUMENT...]");
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) sigaddset(&set, signals[i]);
    if (sigprocmask(SIG_BLOCK, &set, NULL)) return err_errno(e, errno, "cannot block signals");
    execvp(argv[1], argv + 1);
    return err_errno(e, errno, "cannot execute '%s'", argv[1]);
}
