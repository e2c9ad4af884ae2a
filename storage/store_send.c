// SPDX-License-Identifier: Apache-2.0
// Whole files to a store: one PUT, the back end's own way, or its writer.
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bytes.h"
#include "storage/hash.h"
#include "storage/store_backend.h"

static void tell(const struct store_transfer *t, size_t bytes) {
    if (t->moved) t->moved(t->arg, (int64_t)bytes);
}

static int put_at_once(struct store *s, const char *key, int fd, size_t bytes, struct store_transfer *t,
                       const char *path, struct err *e) {
    char *data = malloc(bytes + !bytes);
    if (!data) return err_set(e, ERR_MEMORY, "no memory to send %s", path);
    int rc = bytes_read_at(fd, data, bytes, 0, path, e);
    if (!rc) rc = store_put(s, key, data, bytes, false, e);
    if (!rc && t->verify) snprintf(t->sum, sizeof t->sum, "%08" PRIx32, hash_crc32c(0, data, bytes));
    if (!rc) tell(t, bytes);
    free(data);
    return rc;
}

static int put_through_writer(struct store *s, const char *key, int fd, int64_t bytes,
                              struct store_transfer *t, const char *path, struct err *e) {
    struct store_writer *w = NULL;
    size_t block = (size_t)1 << 20;
    char *data = malloc(block);
    if (!data) return err_set(e, ERR_MEMORY, "no memory to send %s", path);
    int rc = store_writer_open(s, &w, key, e);
    for (int64_t at = 0; at < bytes && !rc;) {
        size_t n = bytes - at < (int64_t)block ? (size_t)(bytes - at) : block;
        rc = bytes_read_at(fd, data, n, at, path, e);
        if (!rc) rc = store_writer_write(w, data, n, e);
        if (!rc) tell(t, n);
        at += (int64_t)n;
    }
    if (rc)
        store_writer_abort(w);
    else
        rc = store_writer_commit(w, e);
    free(data);
    return rc;
}

int store_put_file(struct store *s, const char *key, const char *path, struct store_transfer *t,
                   struct err *e) {
    struct stat st;
    int rc = 0, fd = open(path, O_RDONLY | O_CLOEXEC);
    t->bytes = t->resumed_bytes = 0;
    t->verified = false;
    t->sum[0] = 0;
    if (fd < 0) return err_errno(e, errno, "cannot read %s", path);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        rc = err_set(e, ERR_USAGE, "%s is no plain file", path);
    else if (s->ops->put_file)
        rc = s->ops->put_file(s, key, fd, st.st_size, t, e);
    else if (st.st_size > 2 * (int64_t)STORE_PART_BYTES)
        rc = put_through_writer(s, key, fd, st.st_size, t, path, e);
    else
        rc = put_at_once(s, key, fd, (size_t)st.st_size, t, path, e);
    if (!rc) {
        t->bytes = st.st_size;
        t->verified = t->verify && s->ops->put_file;
    }
    close(fd);
    return rc;
}
