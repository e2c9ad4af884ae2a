// SPDX-License-Identifier: Apache-2.0
// Is the attempt under way over, and how? Looks at what guards, black boxes and mpirun have told, changes
// nothing but how long it has been in doubt.
#ifndef ORRERY_LAUNCHER_JUDGE_H
#define ORRERY_LAUNCHER_JUDGE_H

#include "launcher/supervisor.h"
#include "launcher/verdict.h"

// Patience when all seems clear: mpirun's own death shows a moment after its ranks'.
#define JUDGE_GLANCE_MS 15

enum outcome { OUTCOME_NONE, OUTCOME_DONE, OUTCOME_SAVED, OUTCOME_STOPPED, OUTCOME_FAILED };

// NONE: it goes on, or a little patience may show a truer cause. *v: why, when it FAILED.
enum outcome judge_attempt(struct supervisor *s, struct verdict *v);

#endif
