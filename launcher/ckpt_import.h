// SPDX-License-Identifier: Apache-2.0
// A plain safetensors file as a checkpoint that a run starts from: `orrery ckpt import`.
#ifndef ORRERY_LAUNCHER_CKPT_IMPORT_H
#define ORRERY_LAUNCHER_CKPT_IMPORT_H

#include "base/config.h"
#include "base/err.h"
#include "storage/store.h"

struct ckpt_import {
    const char *file;  // path or URL
    const char *names; // NULL, or a JSON file {"their name": "our name", "another": null}: null leaves it out
    int64_t step;
    const struct config_file *config; // of the run that is to go on from it
    const struct store_options *options;
};

// F32, F16, BF16 and F64 become F32; names that the map does not mention stay as they are. DATA: the file's
// fault, or two tensors of one name; CONFLICT: the step is there already. *tensors counts them.
int ckpt_import(struct store *to, const struct ckpt_import *from, size_t *tensors, struct err *e) ERR_CHECK;

#endif
