// SPDX-License-Identifier: Apache-2.0
// Which of this machine's IPv4 addresses other hosts reach it by.
#ifndef ORRERY_LAUNCHER_NETIF_H
#define ORRERY_LAUNCHER_NETIF_H

#include "base/err.h"

struct netif {
    char name[32];    // "eth0"
    char address[32]; // "10.0.0.1"
    char network[40]; // "10.0.0.0/24"
};

// `interface`: its name, one of its addresses, or a network ("10.0.0.0/24"); NULL or "": the one that the way
// to `peer` leads through. UNAVAILABLE when `peer` has no address, or a loopback one.
int netif_choose(struct netif *out, const char *interface, const char *peer, struct err *e) ERR_CHECK;

#endif
