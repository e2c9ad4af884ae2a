// SPDX-License-Identifier: Apache-2.0
#include "storage/shard_read.h"

#include <stdlib.h>
#include <string.h>

#include "storage/store.h"

#define PIECE_BYTES ((size_t)2 << 20) // of one GET

int shard_reader_read(void *reader, int64_t offset, size_t n, void *into, struct err *e) {
    struct shard_reader *r = reader;
    char *to = into;
    while (n) {
        if (offset >= r->first && offset < r->first + (int64_t)r->n) {
            size_t have = (size_t)(r->first + (int64_t)r->n - offset), piece = n < have ? n : have;
            memcpy(to, r->data + (offset - r->first), piece);
            to += piece;
            offset += (int64_t)piece;
            n -= piece;
            continue;
        }
        int64_t left = r->bytes - offset;
        size_t want = left < (int64_t)PIECE_BYTES ? (size_t)left : PIECE_BYTES;
        int rc = store_get_range(r->store, r->key, offset, want, r->data, e);
        if (rc) return rc;
        r->first = offset;
        r->n = want;
    }
    return 0;
}

int shard_reader_open(struct shard_reader *r, struct store *s, const char *key, int64_t bytes,
                      struct err *e) {
    *r = (struct shard_reader){.store = s, .key = key, .bytes = bytes, .data = malloc(PIECE_BYTES)};
    return r->data ? 0 : err_set(e, ERR_MEMORY, "no memory to read %s", key);
}

void shard_reader_close(struct shard_reader *r) {
    free(r->data);
    r->data = NULL;
}
