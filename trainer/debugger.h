// SPDX-License-Identifier: Apache-2.0
// A rank that is to be debugged waits for the debugger before it does anything.
#ifndef ORRERY_TRAINER_DEBUGGER_H
#define ORRERY_TRAINER_DEBUGGER_H

#include "base/log.h"

// When ORRERY_DEBUG is "RANK=gdb" or "RANK=cuda-gdb" with this rank's number: returns once a debugger is
// attached.
void debugger_wait(const struct log *log);

#endif
