// SPDX-License-Identifier: Apache-2.0
// Bytes: checked size arithmetic, a bounded growing buffer, little-endian loads and stores, hex,
// whole-file reading and atomic writing. Knows nothing of stores or formats.
#ifndef ORRERY_BASE_BYTES_H
#define ORRERY_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/err.h"

// *out = a (op) b; false on overflow, *out untouched.
bool bytes_add(size_t a, size_t b, size_t *out) ERR_CHECK;
bool bytes_mul(size_t a, size_t b, size_t *out) ERR_CHECK;

// A growing buffer that never exceeds the `max` given at init (DATA when it would). After a failed append it
// stays as it was before. `data` is always followed by a NUL that `len` does not count (data is NULL until
// first use).
struct buf {
    char *data;
    size_t len, cap, max;
};

void buf_init(struct buf *b, size_t max_bytes);
void buf_fini(struct buf *b);
void buf_clear(struct buf *b); // keeps the storage
int buf_reserve(struct buf *b, size_t total, struct err *e) ERR_CHECK;
int buf_append(struct buf *b, const void *data, size_t n, struct err *e) ERR_CHECK;
int buf_appends(struct buf *b, const char *text, struct err *e) ERR_CHECK;
int buf_appendf(struct buf *b, struct err *e, const char *fmt, ...)
    __attribute__((format(printf, 3, 4))) ERR_CHECK;
char *buf_take(struct buf *b); // the caller frees; b is empty afterwards

uint16_t bytes_le16(const void *p);
uint32_t bytes_le32(const void *p);
uint64_t bytes_le64(const void *p);
void bytes_put_le16(void *p, uint16_t v);
void bytes_put_le32(void *p, uint32_t v);
void bytes_put_le64(void *p, uint64_t v);

// Lower-case hex of n bytes into out (2n + 1 bytes).
void bytes_hex(const void *data, size_t n, char *out);

// Whole strings only: no leading blanks, no trailing rubbish, no overflow. False leaves *out untouched.
bool bytes_parse_i64(const char *text, int64_t *out) ERR_CHECK;
bool bytes_parse_f64(const char *text, double *out) ERR_CHECK; // finite decimals only
// The fewest digits that read back equal, into `out` of BYTES_F64_BYTES; returns out.
#define BYTES_F64_BYTES 32
const char *bytes_format_f64(double v, char *out);
// Well-formed UTF-8: no overlong forms, no surrogates.
bool bytes_is_utf8(const void *data, size_t n);

// Control characters become '?': text of others, before a terminal shows it.
void bytes_defuse(char *text);
// NUL bytes among n become blanks: what follows them is read too, where text ends at a NUL.
void bytes_blank_nul(char *text, size_t n);

// The whole buffer, whatever signals and short counts come between: where the descriptor stands, or from `at`
// on. How many of n bytes were written; fewer: errno says why.
size_t bytes_write_whole(int fd, const void *data, size_t n);
size_t bytes_pwrite_whole(int fd, const void *data, size_t n, int64_t at);
// How many of n bytes there are from `at` on; -1: errno says why.
ssize_t bytes_pread_whole(int fd, void *into, size_t n, int64_t at);
// Exactly n bytes from `at` on. DATA where it ends before; `what` names it: "cannot read WHAT".
int bytes_read_at(int fd, void *into, size_t n, int64_t at, const char *what, struct err *e) ERR_CHECK;
// Reads a whole file of at most max_bytes into *out (appended; as before on failure). DATA when it is larger.
// Of a pipe what comes with no pause longer than five seconds; TIMEOUT.
int bytes_read_file(const char *path, size_t max_bytes, struct buf *out, struct err *e) ERR_CHECK;
// Temporary name beside it, fsync file, rename, fsync folder. Old content survives any failure.
int bytes_write_file(const char *path, const void *data, size_t n, struct err *e) ERR_CHECK;
// A rename to `path` is only safe from a power cut once its folder is on disk.
int bytes_sync_folder_of(const char *path, struct err *e) ERR_CHECK;
// mkdir -p with mode 0777 & ~umask. USAGE when the path is a URL.
int bytes_make_dirs(const char *path, struct err *e) ERR_CHECK;

#endif
