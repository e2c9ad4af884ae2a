// SPDX-License-Identifier: Apache-2.0
// The verbs of `orrery`: one cmd_*.c and one row in verbs.def each. This layer talks to the person: it may
// print. stdout is data, stderr is talk.
#ifndef ORRERY_LAUNCHER_CMD_H
#define ORRERY_LAUNCHER_CMD_H

#include "base/err.h"

struct cmd {
    const char *name;
    const char
        *usage; // what follows the name, "CONFIG [-n RANKS] [key=value ...]"; NULL: not listed in the help
    const char *help; // one line
    // argv[0] is the verb. Returns the exit status, or a negative code with *e set, which main prints.
    int (*run)(const struct cmd *self, int argc, char **argv, struct err *e);
};

#define GROUP(title)
#define CMD(name, usage, help)                                                                               \
    int cmd_##name(const struct cmd *self, int argc, char **argv, struct err *e) ERR_CHECK;
#include "launcher/verbs.def"
#undef CMD
#undef GROUP

#endif
