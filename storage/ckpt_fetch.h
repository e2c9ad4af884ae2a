// SPDX-License-Identifier: Apache-2.0
// Reads boxes of tensors from the files of a checkpoint. Inside storage only: ckpt.h is the door.
#ifndef ORRERY_STORAGE_CKPT_FETCH_H
#define ORRERY_STORAGE_CKPT_FETCH_H

#include "storage/ckpt_manifest.h"

// wants[i] lies inside its tensor. `into` NULL: every byte is read and checked, none kept. Blocks; bounded
// memory (16 pieces of 8 MiB, or of one chunk where that is larger). *fetched grows by the bytes that were
// asked for.
int ckpt_fetch(struct store *s, const struct ckpt_manifest *m, const struct ckpt_tensor *wants,
               void *const *into, size_t n, int64_t *fetched, struct err *e) ERR_CHECK;

#endif
