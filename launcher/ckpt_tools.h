// SPDX-License-Identifier: Apache-2.0
// What `orrery ckpt` does with open checkpoints, beyond printing a line.
#ifndef ORRERY_LAUNCHER_CKPT_TOOLS_H
#define ORRERY_LAUNCHER_CKPT_TOOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/err.h"
#include "storage/ckpt.h"

struct tensor_diff {
    const char *name;
    const char *why;   // "only in the first"; NULL: both have it, of one shape
    const char *where; // the file of the first that holds it (its beginning): who wrote it
    int64_t elems, differing;
    double largest;
};
// Compares tensor by tensor, bit by bit, and tells of those that differ; what the manifests' CRCs show to be
// the same is not read.
typedef void ckpt_tools_each_fn(void *arg, const struct tensor_diff *d);
int ckpt_tools_compare(struct ckpt *a, struct ckpt *b, ckpt_tools_each_fn *each, void *arg,
                       struct err *e) ERR_CHECK;
// The same, printed on stdout; *differing counts tensors.
int ckpt_tools_diff(struct ckpt *a, struct ckpt *b, bool json, int64_t *differing, struct err *e) ERR_CHECK;
// Writes FOLDER/model.safetensors, FOLDER/config.yaml and FOLDER/config.json (state and resolved config).
// `weights`: without the optimiser's state.
int ckpt_tools_export(struct ckpt *c, const char *prefix, bool weights, const char *folder,
                      struct err *e) ERR_CHECK;

#endif
