// SPDX-License-Identifier: Apache-2.0
// A shard in a store, read front to back in pieces. Inside storage only.
#ifndef ORRERY_STORAGE_SHARD_READ_H
#define ORRERY_STORAGE_SHARD_READ_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct store;

#define SHARDS_AT_ONCE 8 // shards that are read at a time: each has one request under way, and one piece

struct shard_reader {
    struct store *store;
    const char *key;
    char *data;
    int64_t first, bytes; // bytes: of the shard
    size_t n;
};

// The key is borrowed.
int shard_reader_open(struct shard_reader *r, struct store *s, const char *key, int64_t bytes,
                      struct err *e) ERR_CHECK;
void shard_reader_close(struct shard_reader *r); // also of a zeroed one
// n bytes from offset on; a tar_source's read.
int shard_reader_read(void *reader, int64_t offset, size_t n, void *into, struct err *e) ERR_CHECK;

#endif
