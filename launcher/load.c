// SPDX-License-Identifier: Apache-2.0
#include "launcher/load.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MESSAGES_BYTES (1 << 20)

// A run folder holds the config that it was started with.
static int check_file(const char *path, struct err *e) {
    char inside[4096];
    struct stat st;
    if (!path || stat(path, &st) || !S_ISDIR(st.st_mode)) return 0;
    snprintf(inside, sizeof inside, "%s/config.yaml", path);
    if (access(inside, R_OK)) return err_set(e, ERR_USAGE, "%s is a folder; the config is wanted", path);
    return err_set(e, ERR_USAGE, "%s is a run folder; the config is wanted: %s", path, inside);
}

int load_config(struct config_file **out, const char *path, const char *const *overrides, size_t n,
                struct err *e) {
    struct buf messages;
    if (check_file(path, e)) return -ERR_USAGE;
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
