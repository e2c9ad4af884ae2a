// SPDX-License-Identifier: Apache-2.0
// A place that a person names: a URL or a path, as an open store and a key in it. "s3://bucket/a/b" is the
// bucket with the key "a/b"; a path is its folder with the name in it; a folder has the key "".
#ifndef ORRERY_LAUNCHER_STORE_PLACE_H
#define ORRERY_LAUNCHER_STORE_PLACE_H

#include <stdbool.h>

#include "launcher/opts.h"
#include "storage/store.h"

// Rows of an option table: where S3 is, into a struct store_options.
#define STORE_PLACE_ENDPOINT(options)                                                                        \
    { "endpoint", 0, OPT_TEXT, "URL", "S3 endpoint (AWS_ENDPOINT_URL)", &(options)->endpoint, 0, 0 }
#define STORE_PLACE_REGION(options)                                                                          \
    { "region", 0, OPT_TEXT, "NAME", "S3 region (AWS_REGION)", &(options)->region, 0, 0 }

struct store_place {
    const char *url; // as it was written
    struct store *store;
    char *key;
    char *path;  // of a file on this machine; NULL: anywhere else
    bool folder; // written with a slash at the end, a bucket, or a folder that is there
};

// A folder that does not exist is made where `to_write`.
int store_place_open(struct store_place *out, const char *url, bool to_write,
                     const struct store_options *options, struct err *e) ERR_CHECK;
void store_place_close(struct store_place *p); // of a zeroed one, too
// The path of a place on this machine without links in it, though it may not exist yet; the caller frees it.
// NULL: there is none.
char *store_place_realpath(const struct store_place *p);
// All that a store has, or a folder with this user's home or a whole machine in it: nothing to remove by a
// slip.
bool store_place_is_whole(const struct store_place *p);
// What follows the last slash of a key, not counting one at its end.
const char *store_place_name(const char *key);

#endif
