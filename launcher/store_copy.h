// SPDX-License-Identifier: Apache-2.0
// Copies between stores and this machine's files: one object, or all below a folder, several at once.
#ifndef ORRERY_LAUNCHER_STORE_COPY_H
#define ORRERY_LAUNCHER_STORE_COPY_H

#include <stdint.h>

#include "base/log.h"
#include "launcher/store_place.h"

struct store_copy {
    bool recursive, resume, verify, quiet;
    int at_once; // objects under way
    const struct log *log;
    // Results.
    int64_t objects, bytes, resumed_bytes, verified;
};

int store_copy_run(struct store_copy *c, const struct store_place *from, const struct store_place *to,
                   struct err *e) ERR_CHECK;

#endif
