// SPDX-License-Identifier: Apache-2.0
// The findings of `orrery doctor`: each check is one function and one row. A finding that is not good has a
// cure.
#ifndef ORRERY_LAUNCHER_DOCTOR_H
#define ORRERY_LAUNCHER_DOCTOR_H

#include "base/config.h"

enum doctor_grade { DOCTOR_GOOD, DOCTOR_WARN, DOCTOR_BAD };

struct doctor_finding {
    const char *name;
    enum doctor_grade grade;
    enum err_code code; // BAD: what a run would fail with
    char text[512];
    char cure[512];
};

// Runs all checks; `c` NULL: only those that need no config. Calls `each` per finding.
typedef void doctor_each_fn(void *arg, const struct doctor_finding *f);
void doctor_run(const struct config *c, doctor_each_fn *each, void *arg);

#endif
