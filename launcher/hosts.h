// SPDX-License-Identifier: Apache-2.0
// Hosts given by hand: names and how many ranks each takes. What it reads is hostile until checked: a name
// that could be an option, a path or a shell's word is refused. Resolves nothing.
#ifndef ORRERY_LAUNCHER_HOSTS_H
#define ORRERY_LAUNCHER_HOSTS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/err.h"

#define HOSTS_NAME_BYTES 254
#define HOSTS_MAX        4096

struct host {
    char name[HOSTS_NAME_BYTES];
    int slots;
    bool out; // left out of the next attempt
};

struct hosts {
    struct host *list;
    int n;
};

// Letters, digits, '-' and '.', each label beginning and ending with a letter or digit; or an IPv4 address.
bool hosts_name_is_fine(const char *name);
// "h1:2,h2" (one slot where none is given), or "@FILE": a host file, a line each, "h1 slots=2", "h1:2" or
// "h1", '#' begins a comment. Appends to a zeroed or filled list; a host named twice is an error.
int hosts_parse(struct hosts *h, const char *text, struct err *e) ERR_CHECK;
void hosts_fini(struct hosts *h);

int hosts_slots(const struct hosts *h); // of those that are not out
// Ranks fill the hosts that are in, in their order. -1: more ranks than slots.
int hosts_of_rank(const struct hosts *h, int rank);
int hosts_first_rank(const struct hosts *h, int host);

#endif
