// SPDX-License-Identifier: Apache-2.0
// What comes to the supervisor by signal: wishes to stop, and the ends of its children.
#ifndef ORRERY_LAUNCHER_SIGNALS_H
#define ORRERY_LAUNCHER_SIGNALS_H

#include "launcher/supervisor.h"

// From here on signals are read from s->signal_fd, and orphans of the job become our children.
int signals_open(struct supervisor *s, struct err *e) ERR_CHECK;

// All that has come, into s->wish; then the children that have ended.
void signals_take(struct supervisor *s);
void signals_reap(struct supervisor *s);

#endif
