// SPDX-License-Identifier: Apache-2.0
// Tar, as POSIX.1-2017 "pax" describes it: writing of ustar headers (with a pax header where a name or size
// does not fit) and a forward-only scanner for ustar, pax and GNU archives. The scanner finds members; it
// never extracts anything. Links, devices, sparse files, absolute and '..' names are refused: DATA with the
// byte offset. Knows nothing of samples. Thread rule: a scanner belongs to one thread.
#ifndef ORRERY_STORAGE_TAR_H
#define ORRERY_STORAGE_TAR_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bytes.h"
#include "base/err.h"

#define TAR_BLOCK    512
#define TAR_NAME_MAX 1024

// Why this is no name for a member ("is absolute"), NULL when it is one: 1 to TAR_NAME_MAX bytes of UTF-8
// without control characters, relative, without a '..' component. Keys of shards follow the same rule.
const char *tar_name_flaw(const char *name, size_t n);

// Appends the header block(s) of a regular file with fixed owner, mode and time.
int tar_put_header(struct buf *out, const char *name, uint64_t bytes, struct err *e) ERR_CHECK;
// Zero bytes up to the next block, after a member's data.
int tar_put_padding(struct buf *out, struct err *e) ERR_CHECK;
// Two zero blocks.
int tar_put_end(struct buf *out, struct err *e) ERR_CHECK;

// Where the scanner's bytes come from. Ranges asked for never move backwards, and lie inside `bytes`.
struct tar_source {
    int (*read)(void *arg, int64_t offset, size_t n, void *into, struct err *e);
    void *arg;
    int64_t bytes;    // size of the archive
    const char *what; // its name, for messages
};

struct tar_member {
    char name[TAR_NAME_MAX + 1]; // without a leading "./"; UTF-8, no control characters
    int64_t offset, bytes;       // of the data
};

struct tar_scan {
    struct tar_source source;
    int64_t at; // of the next header
    bool ended;
};

void tar_scan_init(struct tar_scan *s, const struct tar_source *source);
// The next regular file: 1, 0 at the end of the archive, or a negative code. Directories are passed over. An
// archive without an end mark is truncated: DATA.
int tar_scan_next(struct tar_scan *s, struct tar_member *out, struct err *e) ERR_CHECK;

// A source over an archive in memory.
struct tar_memory {
    const char *data;
    size_t bytes;
};
struct tar_source tar_memory_source(struct tar_memory *m, const char *what);

#endif
