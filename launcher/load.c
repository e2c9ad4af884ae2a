// SPDX-License-Identifier: Apache-2.0
#include "launcher/load.h"

#include <stdio.h>
#include <string.h>

#define MESSAGES_BYTES (1 << 20)

int load_config(struct config_file **out, const char *path, const char *const *overrides, size_t n,
                struct err *e) {
    struct buf messages;
    buf_init(&messages, MESSAGES_BYTES);
    int rc = config_load_all(out, &messages, path, overrides, n, e);
    int count = 0;
    for (const char *at = messages.data; rc && at && (at = strchr(at, '\n')); at++) count++;
    if (rc && count > 1) {
        fputs(messages.data, stderr);
        err_clear(e);
        rc = err_set(e, ERR_CONFIG, "%d errors in the config; nothing was started", count);
    }
    buf_fini(&messages);
    return rc;
}
