// SPDX-License-Identifier: Apache-2.0
// The checksums of a file that is sent: the CRC32C of the whole, which stands in the request's headers and so
// has to be known before anything is sent, and the MD5 of each part, which is what S3 servers answer as a
// part's ETag and is made by threads of its own while the parts are under way.
#ifndef ORRERY_STORAGE_FILE_SUMS_H
#define ORRERY_STORAGE_FILE_SUMS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

// Of the first `bytes` of a file; `name` is how errors call it.
int file_crc32c(int fd, const char *name, int64_t bytes, uint32_t *out, struct err *e) ERR_CHECK;

struct file_sums;
// Of the first `bytes` of the file, in parts of `part`, a multiple of 64 where there are several; no bytes
// are one part. The file stays open, and its name there, until file_sums_stop.
int file_sums_start(struct file_sums **out, int fd, const char *name, int64_t bytes, size_t part,
                    struct err *e) ERR_CHECK;
bool file_sums_md5s(const struct file_sums *s); // false: this machine forbids MD5
// Once they are there. A part's MD5 only where file_sums_md5s.
int file_sums_md5(struct file_sums *s, int64_t part, unsigned char out[16], struct err *e) ERR_CHECK;
int file_sums_crc32c(struct file_sums *s, uint32_t *out, struct err *e) ERR_CHECK; // of the whole
void file_sums_stop(struct file_sums *s); // NULL-safe; what is not yet made is given up

#endif
