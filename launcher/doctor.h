// SPDX-License-Identifier: Apache-2.0
// The findings of `orrery doctor`: each check is one function and one row. A finding that is not good has a
// cure.
#ifndef ORRERY_LAUNCHER_DOCTOR_H
#define ORRERY_LAUNCHER_DOCTOR_H

#include "base/config.h"
#include "launcher/hosts.h"

enum doctor_grade { DOCTOR_GOOD, DOCTOR_WARN, DOCTOR_BAD };

struct doctor_finding {
    const char *name;
    char host[HOSTS_NAME_BYTES]; // empty: this machine
    enum doctor_grade grade;
    enum err_code code; // BAD: what a run would fail with
    char text[512];
    char cure[512];
};

// Runs all checks of this machine; `c` NULL: only those that need no config; `part`: as one of several hosts,
// without ranks of its own. Calls `each` per finding.
typedef void doctor_each_fn(void *arg, const struct doctor_finding *f);
void doctor_run(const struct config *c, bool part, doctor_each_fn *each, void *arg);

// Several hosts at once: each one's own findings, whether they are alike, their clocks, every pair's way to
// each other, and a rank on each of them summing together. `agent` starts a command on another host. USAGE or
// UNAVAILABLE when it could not begin.
struct doctor_hosts_options {
    const struct hosts *hosts;
    const char *agent, *interface;
    const struct config_file *config; // NULL: none
};
int doctor_hosts(const struct doctor_hosts_options *o, doctor_each_fn *each, void *arg,
                 struct err *e) ERR_CHECK;

// The other end of it, on each host: talks through stdin and stdout, ends with its stdin.
int doctor_probe(struct err *e) ERR_CHECK;

#endif
