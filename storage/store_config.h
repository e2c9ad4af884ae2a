// SPDX-License-Identifier: Apache-2.0
// What a config says of stores: how they are opened, and where a run's checkpoints lie. Opens nothing.
#ifndef ORRERY_STORAGE_STORE_CONFIG_H
#define ORRERY_STORAGE_STORE_CONFIG_H

#include <stddef.h>

#include "base/config.h"
#include "base/err.h"
#include "storage/store.h"

#define STORE_CONFIG_CKPT      "ckpt"                  // the run folder's own store of checkpoints
#define STORE_CONFIG_URL_BYTES (CONFIG_TEXT_BYTES + 8) // room for the URL of any run.dir's

// From the store section and run.seed. Borrows from c.
struct store_options store_config_options(const struct config *c);

// checkpoint.url or, where it is empty, run_dir/ckpt. CONFIG when it does not fit into out.
int store_config_checkpoints(const struct config *c, const char *run_dir, char *out, size_t out_bytes,
                             struct err *e) ERR_CHECK;

#endif
