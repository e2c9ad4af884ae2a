// SPDX-License-Identifier: Apache-2.0
#include "launcher/runstore.h"

#include <stdio.h>
#include <unistd.h>

#include "base/config.h"
#include "storage/store_config.h"

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
    char url[4096];
    struct store_options o = store_config_options(c);
    if (given->endpoint) o.endpoint = given->endpoint;
    if (given->region) o.region = given->region;
    int rc = store_config_checkpoints(c, run, url, sizeof url, e);
    return rc ? rc : store_open(out, url, &o, e);
}

int runstore_open(struct store **out, const char *run, const struct store_options *given, struct err *e) {
    char path[4096];
    if (store_has_scheme(run)) return store_open(out, run, given, e);
    snprintf(path, sizeof path, "%s/config.yaml", run);
    if (!access(path, F_OK)) return open_by_config(out, run, path, given, e);
    snprintf(path, sizeof path, "%s/" STORE_CONFIG_CKPT, run);
    if (!access(path, F_OK)) return store_open(out, path, given, e);
    if (access(run, F_OK))
        return err_set(e, ERR_MISSING, "%s: no such run folder (and no store URL: file:, s3:)", run);
    return store_open(out, run, given, e);
}
