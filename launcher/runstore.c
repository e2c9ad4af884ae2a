// SPDX-License-Identifier: Apache-2.0
#include "launcher/runstore.h"

#include <stdio.h>
#include <unistd.h>

#include "base/config.h"

static int open_by_config(struct store **out, const char *run, const char *path,
                          const struct store_options *given, struct err *e) {
    struct config_file *f;
    int rc = config_load(&f, path, NULL, 0, e);
    if (rc) return rc;
    rc = runstore_open_for(out, config_values(f), run, given, e);
    config_close(f);
    return rc;
}

int runstore_open_for(struct store **out, const struct config *c, const char *run,
                      const struct store_options *given, struct err *e) {
    char url[CONFIG_TEXT_BYTES + 8];
    struct store_options o = {.endpoint = given->endpoint ? given->endpoint : c->store_endpoint,
                              .region = given->region ? given->region : c->store_region,
                              .path_style = c->store_path_style,
                              .deadline_ms = c->store_deadline_s * 1000,
                              .connections = (int)c->store_connections};
    if (*c->checkpoint_url)
        snprintf(url, sizeof url, "%s", c->checkpoint_url);
    else
        snprintf(url, sizeof url, "%.500s/ckpt", run);
    return store_open(out, url, &o, e);
}

int runstore_open(struct store **out, const char *run, const struct store_options *given, struct err *e) {
    char path[4096];
    if (store_has_scheme(run)) return store_open(out, run, given, e);
    snprintf(path, sizeof path, "%s/config.yaml", run);
    if (!access(path, F_OK)) return open_by_config(out, run, path, given, e);
    snprintf(path, sizeof path, "%s/ckpt", run);
    if (!access(path, F_OK)) return store_open(out, path, given, e);
    if (access(run, F_OK))
        return err_set(e, ERR_MISSING, "%s: no such run folder (and no store URL: file:, s3:)", run);
    return store_open(out, run, given, e);
}
