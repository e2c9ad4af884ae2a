// SPDX-License-Identifier: Apache-2.0
#include "storage/shard.h"

#include <stdio.h>
#include <string.h>

#include "storage/tar.h"

int shard_append(struct buf *out, const char *stem, const char *name, const void *data, size_t bytes,
                 struct err *e) {
    char full[TAR_NAME_MAX + 1];
    const char *slash = strrchr(stem, '/'), *base = slash ? slash + 1 : stem;
    if (!*base || strchr(base, '.') || !*name || strchr(name, '/'))
        return err_set(e, ERR_BUG, "'%.200s' and '%.200s' make no member: a stem has no dot, a name no slash",
                       stem, name);
    int n = snprintf(full, sizeof full, "%s.%s", stem, name);
    if (n >= (int)sizeof full) return err_set(e, ERR_BUG, "the name of member '%.100s...' is too long", full);
    size_t before = out->len;
    int rc = tar_put_header(out, full, bytes, e);
    if (!rc) rc = buf_append(out, data, bytes, e);
    if (!rc) rc = tar_put_padding(out, e);
    if (rc && out->data) {
        out->len = before;
        out->data[before] = 0;
    }
    return rc;
}

int shard_finish(struct buf *out, struct err *e) {
    return tar_put_end(out, e);
}
