// SPDX-License-Identifier: Apache-2.0
// The guard: the small parent of one rank. Starts it, keeps its log, knows its true pid, signal and exit
// code, tells the supervisor at once, and kills it when the supervisor is gone. Links neither MPI nor CUDA.
#ifndef ORRERY_LAUNCHER_GUARD_H
#define ORRERY_LAUNCHER_GUARD_H

#include "base/err.h"

// Its orders come in the environment, so that a token never stands in an argument vector.
#define GUARD_CONTROL "ORRERY_CONTROL" // address of the supervisor
#define GUARD_TOKEN   "ORRERY_TOKEN"
#define GUARD_WORLD   "ORRERY_WORLD"  // ranks the supervisor expects; the rank gets it too
#define GUARD_BOXES   "ORRERY_BOXES"  // folder of the black boxes
#define GUARD_LOGS    "ORRERY_LOGS"   // folder of this attempt's logs
#define GUARD_LOG_MB  "ORRERY_LOG_MB" // bound of one log file
// On another machine than the supervisor's, instead of GUARD_BOXES: how many ms without a word from the
// supervisor mean that it is gone. The guard then makes a private folder of its own and sends what is in it.
#define GUARD_FAR_MS "ORRERY_FAR_MS"
// What it adds for the rank: ORRERY_RANK, ORRERY_BLACKBOX. It takes the token away.

// Runs argv as the rank until both are over. 0, or the error that kept it from doing its job.
int guard_run(char *const *argv, struct err *e) ERR_CHECK;

#endif
