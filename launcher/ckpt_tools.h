// SPDX-License-Identifier: Apache-2.0
// What `orrery ckpt` does with open checkpoints, beyond printing a line.
#ifndef ORRERY_LAUNCHER_CKPT_TOOLS_H
#define ORRERY_LAUNCHER_CKPT_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/ckpt.h"

// Compares tensor by tensor, bit by bit, and prints what differs on stdout; *differing counts tensors.
int ckpt_tools_diff(struct ckpt *a, struct ckpt *b, bool json, int64_t *differing, struct err *e) ERR_CHECK;
// Writes FOLDER/model.safetensors, FOLDER/config.yaml and FOLDER/config.json (state and resolved config).
int ckpt_tools_export(struct ckpt *c, const char *prefix, const char *folder, struct err *e) ERR_CHECK;

#endif
