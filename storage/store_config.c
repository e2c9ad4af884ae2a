// SPDX-License-Identifier: Apache-2.0
#include "storage/store_config.h"

#include <stdio.h>

struct store_options store_config_options(const struct config *c) {
    return (struct store_options){.endpoint = c->store_endpoint,
                                  .region = c->store_region,
                                  .path_style = c->store_path_style,
                                  .deadline_ms = c->store_deadline_s * 1000,
                                  .connections = (int)c->store_connections,
                                  .seed = (uint64_t)c->run_seed};
}

int store_config_checkpoints(const struct config *c, const char *run_dir, char *out, size_t out_bytes,
                             struct err *e) {
    int n = *c->checkpoint_url ? snprintf(out, out_bytes, "%s", c->checkpoint_url)
                               : snprintf(out, out_bytes, "%s/" STORE_CONFIG_CKPT, run_dir);
    if (n >= 0 && (size_t)n < out_bytes) return 0;
    return err_set(e, ERR_CONFIG, "%s is too long, %d bytes of at most %zu: %.60s...; name a shorter one",
                   *c->checkpoint_url ? "checkpoint.url" : "run.dir with /" STORE_CONFIG_CKPT, n,
                   out_bytes - 1, *c->checkpoint_url ? c->checkpoint_url : run_dir);
}
