// SPDX-License-Identifier: Apache-2.0
// The checksums of a file that is to be sent in parts, from one pass over it: the CRC32C of the whole and the
// MD5 of each part, which is what S3 servers answer as a part's ETag.
#ifndef ORRERY_STORAGE_FILE_SUMS_H
#define ORRERY_STORAGE_FILE_SUMS_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

struct file_sums {
    uint32_t crc;
    unsigned char (*md5s)[16]; // by part; NULL: the machine forbids MD5
    int64_t parts;
};
// Of the first `bytes` of the file, more than 0, in parts of `part`, a multiple of 64.
int file_sums_make(struct file_sums *out, int fd, int64_t bytes, size_t part, struct err *e) ERR_CHECK;
void file_sums_fini(struct file_sums *s);

#endif
