// SPDX-License-Identifier: Apache-2.0
// Slurm's short forms: "n[0-3,07-09],login" for nodes, "2(x3),1" for numbers per node. What it reads is
// hostile until checked: every name is held against the host pattern, and the number of nodes is bounded
// before anything is expanded. Asks Slurm nothing.
#ifndef ORRERY_LAUNCHER_NODELIST_H
#define ORRERY_LAUNCHER_NODELIST_H

#include "base/err.h"
#include "launcher/hosts.h"

// Appends the nodes to a zeroed or filled list, one slot each.
int nodelist_parse(struct hosts *h, const char *nodes, struct err *e) ERR_CHECK;
// "2(x3),1" becomes the slots of the four hosts of `h`; CONFIG when it speaks of another number of nodes.
// `what` names the text in messages.
int nodelist_slots(struct hosts *h, const char *what, const char *numbers, struct err *e) ERR_CHECK;

#endif
