// SPDX-License-Identifier: Apache-2.0
// One attempt of a supervised job, from its start until nobody of it is left.
#ifndef ORRERY_LAUNCHER_ATTEMPT_H
#define ORRERY_LAUNCHER_ATTEMPT_H

#include "launcher/judge.h"

// Starts attempt s->number with s->world ranks, watches, judges, tears down. *v: why, when it FAILED. A
// negative code when it could not be started or watched.
int attempt_run(struct supervisor *s, struct verdict *v, enum outcome *outcome, struct err *e) ERR_CHECK;

#endif
