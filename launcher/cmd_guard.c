// SPDX-License-Identifier: Apache-2.0
// orrery guard PROGRAM [ARGUMENT ...]: started by mpirun, once per rank; not for people.
#include "launcher/cmd.h"
#include "launcher/guard.h"

int cmd_guard(const struct cmd *self, int argc, char **argv, struct err *e) {
    if (argc < 2) return err_set(e, ERR_USAGE, "no program; 'orrery guard' is started by 'orrery run'");
    return guard_run(argv + 1, e);
}
