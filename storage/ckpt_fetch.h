// SPDX-License-Identifier: Apache-2.0
// Reads boxes of tensors from the files of a checkpoint. Inside storage only: ckpt.h is the door.
#ifndef ORRERY_STORAGE_CKPT_FETCH_H
#define ORRERY_STORAGE_CKPT_FETCH_H

#include "storage/ckpt_manifest.h"

// wants[i] lies inside its tensor. `into` NULL: every byte is read and checked, none kept. Blocks; bounded
// memory (16 pieces of 8 MiB, or of one chunk where that is larger). *fetched grows by the bytes that were
// asked for.
// Files that lie in a nearby store as well are read there; what is missing or damaged there, in the store
// itself.
struct ckpt_sources {
    struct store *store;
    struct store *nearby;     // NULL: none
    const bool *has;          // of each file: does `nearby` have it?
    void (*heard)(void *arg); // after every piece, on the caller's thread; NULL: nobody
    void *arg;
};
int ckpt_fetch(const struct ckpt_sources *from, const struct ckpt_manifest *m,
               const struct ckpt_tensor *wants, void *const *into, size_t n, int64_t *fetched,
               struct err *e) ERR_CHECK;

// What was found wrong with a checkpoint's files, bad or missing: as DATA, with what to do. Other errors stay
// as they are.
int ckpt_fetch_flaw(const struct ckpt_manifest *m, int rc, struct err *e) ERR_CHECK;

#endif
