// SPDX-License-Identifier: Apache-2.0
// What a program sees to before it opens or writes anything. Not for starting other programs. Thread rule:
// first thing in main.
#ifndef ORRERY_BASE_PROCESS_H
#define ORRERY_BASE_PROCESS_H

// Occupies those of descriptors 0 to 2 that are closed, so that no file opened later is taken for somebody's
// stderr and gets its talk: reading and writing them fails with EBADF as before. A write beyond `ulimit -f`
// fails with EFBIG and is told like any other, instead of ending the process by SIGXFSZ; programs started
// from here inherit that. Ends of children are kept for us, whatever the parent has thought of its own.
void process_begin(void);

#endif
