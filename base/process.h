// SPDX-License-Identifier: Apache-2.0
// This process: what it sees to before it opens or writes anything, where its program lies, what its host is
// called; who is in a debugger. Not for starting other programs. Thread rule: process_begin comes first in
// main; the others from any thread.
#ifndef ORRERY_BASE_PROCESS_H
#define ORRERY_BASE_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "base/err.h"

// Occupies those of descriptors 0 to 2 that are closed, so that no file opened later is taken for somebody's
// stderr and gets its talk: reading and writing them fails with EBADF as before. A write beyond `ulimit -f`
// fails with EFBIG and is told like any other, instead of ending the process by SIGXFSZ; programs started
// from here inherit that. Ends of children are kept for us, whatever the parent has thought of its own.
void process_begin(void);

// The path of this program's file.
int process_path(char *out, size_t out_bytes, struct err *e) ERR_CHECK;

// The name of this host; `otherwise` where it has none or one that does not fit. Returns out.
const char *process_host(char *out, size_t out_bytes, const char *otherwise);

// Does a debugger hold process pid of this host? `otherwise` where the kernel does not say, or it is gone.
bool process_is_traced(pid_t pid, bool otherwise);

#endif
