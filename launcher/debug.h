// SPDX-License-Identifier: Apache-2.0
// `orrery run --debug RANK[=TOOL]`: one rank under a tool. gdb and cuda-gdb attach to a rank that waits for
// them, in tmux where there is one, else on a port; valgrind and compute-sanitizer stand before the rank's
// program.
#ifndef ORRERY_LAUNCHER_DEBUG_H
#define ORRERY_LAUNCHER_DEBUG_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/err.h"
#include "base/log.h"
#include "launcher/strv.h"

#define DEBUG_ENV "ORRERY_DEBUG" // "1=gdb", for guards and ranks; empty: nothing

struct debug_tool {
    const char *name;
    bool attaches;        // else it stands before the program:
    const char *words[4]; // of it, NULL-terminated
    const char *package;  // what brings it
};

struct debug {
    int rank;
    const struct debug_tool *tool;
    pid_t begun;   // pid of the rank that was attached to; 0: none yet
    char tmux[32]; // id of the session or window that was made for it; empty: none
};

// "3", "3=valgrind"; USAGE names the tools, MISSING when the tool is not installed here.
int debug_parse(struct debug *d, const char *text, struct err *e) ERR_CHECK;
// For a guard: puts the tool's words before the argv of rank `rank`, if DEBUG_ENV asks for that.
int debug_wrap(int rank, char *const *argv, struct strv *out, struct err *e) ERR_CHECK;
// The rank runs as `pid` on `host`: starts the debugger there and says where it is, once for each pid. `far`:
// another machine.
void debug_attach(struct debug *d, pid_t pid, const char *host, bool far, const struct log *log);
// Does a debugger hold the rank's process? It gets the signals that ask to save, so the rank does not save.
// Of another machine nothing is known: yes.
bool debug_holds(const struct debug *d, bool far);
// Ends what debug_attach has started in tmux.
void debug_end(struct debug *d);

#endif
