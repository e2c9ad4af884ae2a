// SPDX-License-Identifier: Apache-2.0
// A listing that is held whole: every key of a store below a prefix, at once. store_listing_fini frees it.
#ifndef ORRERY_TESTS_STORE_COLLECT_H
#define ORRERY_TESTS_STORE_COLLECT_H

#include <string.h>

#include "storage/store_backend.h"

static inline int store_collect_one(void *arg, const struct store_entry *entry, struct err *e) {
    if (entry->bytes < 0) return store_listing_add_prefix(arg, entry->key, e);
    return store_listing_add(arg, entry->key, entry->bytes, entry->etag, e);
}

static inline int store_collect(struct store *s, const char *prefix, const char *delimiter,
                                struct store_listing *out, struct err *e) {
    memset(out, 0, sizeof *out);
    int rc = store_each(s, prefix, delimiter, store_collect_one, out, e);
    if (rc) store_listing_fini(out);
    return rc;
}

#endif
