// SPDX-License-Identifier: Apache-2.0
// A folder on a fast local disk (or /dev/shm) that keeps what was read from a store, shared by all processes
// of a node. Nothing but files: each is written under a temporary name and renamed, so it is whole or not
// there; a lock on one file guards the sum of sizes, which is counted up before a file is written and down
// after one is deleted, so that a kill at any moment leaves it too high, never too low, and the next count
// puts it right. Whoever reads checks the bytes against their CRC32C: a damaged file is as good as none.
// Thread rule: any thread.
#ifndef ORRERY_STORAGE_CACHE_H
#define ORRERY_STORAGE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct cache;

// Makes the folder (mode 0700) where it is missing. DENIED when it belongs to another user.
int cache_open(struct cache **out, const char *folder, int64_t max_bytes, struct err *e) ERR_CHECK;
void cache_close(struct cache *c); // NULL-safe; the files stay
// Exactly `bytes` of the file into `into`; false: not here.
bool cache_get(struct cache *c, const char *name, void *into, size_t bytes);
// Keeps a copy, unless it is larger than an eighth of the limit or the disk has no room; those not used for
// longest go first. Never fails: a cache that cannot write is a slow one.
void cache_put(struct cache *c, const char *name, const void *data, size_t bytes);
void cache_drop(struct cache *c, const char *name); // it was damaged

#endif
